"""The watchlist is followed however its file changes hands: written into, replaced, or behind Kubernetes' links."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from monitor.metrics import Metrics
from monitor.watch import WatchlistKeeper


def content(*names: str) -> str:
    return "".join(f'[[entity]]\nid = "{name}"\nname = "{name}"\naliases = {{ "*" = ["{name}"] }}\n' for name in names)


def mount(folder: Path, number: int, *names: str) -> None:
    """What the kubelet does with a ConfigMap: a new folder, a link turned to it in one step, the old folder deleted."""
    fresh = folder / f"..2026_03_01.{number}"
    fresh.mkdir(parents=True)
    (fresh / "watchlist.toml").write_text(content(*names))
    turning, link = folder / "..data_tmp", folder / "..data"
    old = link.resolve() if link.exists() else None
    turning.symlink_to(fresh.name)
    os.replace(turning, link)
    if old is not None:
        shutil.rmtree(old)
    name = folder / "watchlist.toml"
    if not name.is_symlink():
        name.symlink_to("..data/watchlist.toml")


@contextlib.asynccontextmanager
async def followed(path: Path) -> AsyncIterator[WatchlistKeeper]:
    keeper, stopping = WatchlistKeeper(path, Metrics(CollectorRegistry())), asyncio.Event()
    task = asyncio.create_task(keeper.follow(stopping))
    await asyncio.sleep(0.3)  # awatch gives no sign of when it listens
    try:
        yield keeper
    finally:
        stopping.set()
        await task


async def until(keeper: WatchlistKeeper, *names: str) -> None:
    async with asyncio.timeout(20):
        while set(keeper.current.entities) != set(names):
            await asyncio.sleep(0.05)
    await asyncio.sleep(0.3)


async def test_a_config_map_is_followed_through_every_change(tmp_path: Path) -> None:
    folder = tmp_path / "etc"
    mount(folder, 0, "acme")
    async with followed(folder / "watchlist.toml") as keeper:
        for number, names in enumerate([("acme", "globex"), ("globex",), ("initech",)], 1):
            mount(folder, number, *names)
            await until(keeper, *names)


@pytest.mark.parametrize("linked", [False, True])
async def test_a_file_is_followed_written_or_replaced(tmp_path: Path, linked: bool) -> None:
    (tmp_path / "data").mkdir()
    file = path = tmp_path / "data" / "watchlist.toml"
    file.write_text(content("acme"))
    if linked:
        (tmp_path / "etc").mkdir()
        path = tmp_path / "etc" / "watchlist.toml"
        path.symlink_to(file)
    async with followed(path) as keeper:
        file.write_text(content("globex"))
        await until(keeper, "globex")
        (tmp_path / "data" / "new").write_text(content("initech"))
        os.replace(tmp_path / "data" / "new", file)
        await until(keeper, "initech")
