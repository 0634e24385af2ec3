"""The API under requests made from its own OpenAPI document: no fault, and nothing that the document does not say."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable

from monitor.broker.settings import TopicSettings
from monitor.http.access import hash_token, new_token
from monitor.http.api import OPERATIONS, document
from monitor.http.board import Board
from monitor.http.desk import Desk
from monitor.http.health import Health
from monitor.http.server import Site, serve
from monitor.http.settings import HttpSettings, TokenSettings
from monitor.metrics import Metrics
from monitor.watch import WatchlistKeeper
from tests.unit.http.conftest import WATCHLIST, Recorder
from tests.unit.sinks.test_sinks import alert

schemathesis = pytest.importorskip("schemathesis")
TOKEN = new_token()
EXAMPLES = 12
"""Per operation: a few seconds in all."""


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A site on a thread of its own, since schemathesis is not asynchronous."""
    path: Path = tmp_path_factory.mktemp("fuzz") / "watchlist.toml"
    path.write_text(WATCHLIST, encoding="utf-8")
    keeper, board = WatchlistKeeper(path, Metrics()), Board()
    keeper.listen(lambda w: board.watch({e.id: (e.name, e.labels) for e in w.entities.values()}))
    board.on_alert(alert())
    desk = Desk(TopicSettings(), board)
    desk.producer = Recorder()  # type: ignore[assignment]
    loop, stop, found = asyncio.new_event_loop(), asyncio.Event(), threading.Event()
    urls: list[str] = []

    async def run() -> None:
        token = TokenSettings(name="fuzz", role="operator", sha256=hash_token(TOKEN))
        async with serve(HttpSettings(port=0, tokens=(token,)), Site(Metrics(), Health(), board, desk, keeper)) as (
            made,
            _,
        ):
            urls.append(made)
            found.set()
            await stop.wait()

    thread = threading.Thread(target=lambda: loop.run_until_complete(run()), daemon=True)
    thread.start()
    assert found.wait(30)
    yield urls[0]
    loop.call_soon_threadsafe(stop.set)
    thread.join(10)


def operations() -> list[Any]:
    """As schemathesis reads them from the document; a stream has no end to wait for, so it has a test of its own."""
    made = document()
    del made["paths"]["/api/v1/events"]
    return [found.ok() for found in schemathesis.openapi.from_dict(made).get_all_operations()]


@pytest.mark.parametrize("operation", operations(), ids=lambda operation: operation.label)
@pytest.mark.parametrize("mode", ["positive", "negative"])
def test_whatever_is_asked_the_answer_is_as_documented(url: str, operation: Any, mode: str) -> None:
    from schemathesis.specs.openapi.checks import ignored_auth, negative_data_rejection, positive_data_acceptance

    # What a schema cannot say (an id that must equal the path's, a token that must be known) is refused as well.
    beyond_the_schema = operation.method.upper() in ("PUT", "POST")
    excluded = [ignored_auth, *([positive_data_acceptance] if beyond_the_schema else [])]
    if operation.path.endswith("{incident}"):
        excluded.append(negative_data_rejection)

    @settings(
        max_examples=EXAMPLES, deadline=None, derandomize=True, database=None, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(case=operation.as_strategy(generation_mode=schemathesis.GenerationMode(mode)))
    def holds(case: Any) -> None:
        headers = {"Authorization": f"Bearer {TOKEN}"}
        answer = case.call(base_url=url, headers=headers, timeout=20)
        case.validate_response(answer, excluded_checks=excluded, headers=headers)

    try:
        holds()
    except Unsatisfiable:
        assert mode == "negative", "nothing can be asked by the document"


def test_every_operation_is_in_the_document_that_is_fuzzed() -> None:
    assert {o.path for o in OPERATIONS} == set(document()["paths"])
