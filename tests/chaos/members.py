"""The processes under test: started as an operator does, restarted when they end, and what can be done to them."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

from monitor.broker.settings import KafkaSettings, TopicSettings
from tests.chaos.schedule import SESSION_S
from tests.support.daemon import Daemon

FAKETIME = Path("/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1")
"""Debian's package `faketime`: shifts the wall clock of a running process."""


class Member:
    """One process of one role, kept alive as an orchestrator would.

    Args:
        name: `<role>-<number>`.
        folder: For its configuration, log and clock.
    """

    def __init__(
        self, name: str, folder: Path, kafka: KafkaSettings, topics: TopicSettings, bundle: Path, extra: str
    ) -> None:
        self.name = name
        self.role = name.split("-")[0]
        self.ended_by_itself: list[int] = []
        """Exit codes that nobody asked for."""
        self.starts = 0
        self.daemon = Daemon(folder, kafka, topics, bundle, extra)
        text = self.daemon.config.read_text()
        text = text.replace("session_timeout_s = 10", f"session_timeout_s = {SESSION_S:.0f}")
        self.daemon.config.write_text(text.replace(f"port = {self.daemon.port}", "enabled = false"))
        self._clock = folder / "clock"
        self._clock.write_text("+0")
        self._wanted = False
        self._to_full_disk = False

    def start(self) -> None:
        self._wanted = True
        self.starts += 1
        environment = {"OMP_NUM_THREADS": "1"}
        if FAKETIME.exists():
            environment |= {
                "LD_PRELOAD": str(FAKETIME), "FAKETIME_TIMESTAMP_FILE": str(self._clock),
                "FAKETIME_DONT_FAKE_MONOTONIC": "1", "FAKETIME_CACHE_DURATION": "1",
            }  # fmt: skip
        self.daemon.start(self.role, environment, output=Path("/dev/full") if self._to_full_disk else None)

    def check(self) -> None:
        """Start it again if it ended by itself."""
        process = self.daemon.process
        if self._wanted and process is not None and process.poll() is not None:
            self.ended_by_itself.append(process.returncode)
            self.start()

    async def kill(self, down_s: float) -> None:
        self._wanted = False
        self.daemon.kill()
        await asyncio.sleep(down_s)
        self.start()

    async def sleep(self, seconds: float) -> None:
        """SIGSTOP and SIGCONT: beyond the session's timeout it comes back as a zombie."""
        self._signal(signal.SIGSTOP)
        try:
            await asyncio.sleep(seconds)
        finally:
            self._signal(signal.SIGCONT)

    async def shift_clock(self, shift_s: int, seconds: float) -> None:
        self._clock.write_text(f"{shift_s:+d}")
        try:
            await asyncio.sleep(seconds)
        finally:
            self._clock.write_text("+0")

    async def on_a_full_disk(self, seconds: float) -> None:
        """Restarted with a log that cannot be written."""
        self._to_full_disk = True
        await self.kill(0)
        await asyncio.sleep(seconds)
        self._to_full_disk = False
        await self.kill(0)

    async def without_watchlist(self, seconds: float) -> None:
        file = self.daemon.folder / "watchlist.toml"
        aside = file.with_suffix(".aside")
        file.rename(aside)
        try:
            await asyncio.sleep(seconds)
        finally:
            aside.rename(file)

    async def end(self) -> None:
        self._wanted = False
        if self.daemon.process is not None:
            await self.daemon.end(timeout_s=60)

    def destroy(self) -> None:
        self._wanted = False
        self._signal(signal.SIGCONT)
        self.daemon.kill()

    def _signal(self, number: signal.Signals) -> None:
        process = self.daemon.process
        if process is not None and process.poll() is None:
            os.kill(process.pid, number)


async def keep_alive(members: list[Member]) -> None:
    """Look after the processes until cancelled."""
    while True:
        for member in members:
            member.check()
        await asyncio.sleep(0.5)
