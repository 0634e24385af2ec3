"""The whole site over a board that the test fills; only the broker is not there."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from aiohttp.test_utils import TestClient, TestServer

from monitor.broker.settings import TopicSettings
from monitor.http.board import Board
from monitor.http.desk import Desk
from monitor.http.health import Check, Health
from monitor.http.server import Site, make_app
from monitor.http.settings import HttpSettings
from monitor.metrics import Metrics
from monitor.records import decode_action, decode_watchlist_change
from monitor.watch import WatchlistKeeper

WATCHLIST = """# a comment that must survive
[[entity]]
id = "acme"
name = "Acme & <b>Söhne</b>"
aliases = { "*" = ["Acme"] }
labels = { owner = "desk" }

# another
[[entity]]
id = "globex"
name = "Globex"
aliases = { "*" = ["Globex"] }
"""


@dataclass
class Recorder:
    """Keeps what the desk sends, as a producer that is always there."""

    sent: list[tuple[str, bytes, Any]] = field(default_factory=list)

    async def send_and_wait(self, topic: str, value: bytes | None, key: bytes) -> None:
        decode = decode_watchlist_change if topic.endswith("watchlist") else decode_action
        self.sent.append((topic, key, decode(value) if value is not None else None))


@pytest.fixture
def keeper(tmp_path: Path) -> WatchlistKeeper:
    path = tmp_path / "watchlist.toml"
    path.write_text(WATCHLIST, encoding="utf-8")
    return WatchlistKeeper(path, Metrics())


@pytest.fixture
def board(keeper: WatchlistKeeper) -> Board:
    made = Board()
    keeper.listen(lambda w: made.watch({e.id: (e.name, e.labels) for e in w.entities.values()}))
    return made


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture
def site(board: Board, keeper: WatchlistKeeper, recorder: Recorder) -> Site:
    desk = Desk(TopicSettings(), board)
    desk.producer = recorder  # type: ignore[assignment]
    alive = {"loops": lambda: Check(True)}
    return Site(Metrics(), Health(alive=alive, ready={"start": lambda: Check(False, "loading")}), board, desk, keeper)


@pytest.fixture
def settings() -> HttpSettings:
    return HttpSettings()


@pytest.fixture
async def client(settings: HttpSettings, site: Site) -> AsyncIterator[Any]:
    async with TestClient(TestServer(make_app(settings, site))) as made:
        yield made
