"""The HTTP server: metrics by the conventions, honest health, a page that trusts nothing."""

from __future__ import annotations

import json

import pytest
from aiohttp.test_utils import TestClient, TestServer
from prometheus_client.parser import text_string_to_metric_families

from monitor.errors import ConfigError
from monitor.http.board import Board, Point
from monitor.http.health import Check, Health
from monitor.http.server import make_app, serve
from monitor.http.settings import HttpSettings
from monitor.metrics import Metrics
from tests.unit.sinks.test_sinks import alert


@pytest.fixture
def board() -> Board:
    made = Board()
    made.entities = {"acme": "<script>alert(1)</script>"}
    made.on_point("acme", "*", Point(0, 10, 3.0))
    return made


@pytest.fixture
async def client(board: Board):  # type: ignore[no-untyped-def]
    state = {"ok": True}
    health = Health(
        alive={"loops": lambda: Check(state["ok"], "stuck")}, ready={"start": lambda: Check(False, "loading")}
    )
    async with TestClient(TestServer(make_app(Metrics().registry, health, board))) as made:
        made.state = state
        yield made


async def test_metrics_are_prometheus_text_with_the_project_s_prefix(client: TestClient) -> None:
    answer = await client.get("/metrics")
    families = list(text_string_to_metric_families(await answer.text()))
    own = [f for f in families if not f.name.startswith(("process_", "python_"))]
    assert own
    assert all(f.name.startswith("babelwatch_") and f.documentation for f in own)
    assert any(f.name.startswith("process_") for f in families)


async def test_health_tells_which_check_failed(client: TestClient) -> None:
    assert (await client.get("/healthz")).status == 200
    client.state["ok"] = False
    answer = await client.get("/healthz")
    assert answer.status == 503
    assert (await answer.json())["checks"]["loops"]["detail"] == "stuck"
    ready = await client.get("/readyz")
    assert ready.status == 503
    assert (await ready.json())["checks"]["start"]["detail"] == "loading"


async def test_the_page_comes_with_a_strict_policy_and_no_data_in_it(client: TestClient) -> None:
    answer = await client.get("/")
    text = await answer.text()
    assert "script-src 'self'" in answer.headers["Content-Security-Policy"]
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert "http://" not in text.replace("http://www.w3.org", "")
    assert "alert(1)" not in text
    assert (await client.get("/page.js")).status == 200


async def test_the_script_never_writes_markup(client: TestClient) -> None:
    script = await (await client.get("/page.js")).text()
    for way in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("):
        assert way not in script


async def test_status_and_events_show_incidents(client: TestClient, board: Board) -> None:
    board.on_alert(alert())
    board.on_alert(alert())  # a repeat
    board.on_alert(alert(id="2", state="resolved", sequence=1, ended_ms=5))
    status = await (await client.get("/api/v1/status")).json()
    assert [step["state"] for step in status["incidents"][0]["steps"]] == ["firing", "resolved"]
    assert status["incidents"][0]["evidence"]["observed"] == 0.8
    assert status["entities"][0]["series"]["*"]["points"] == [[0, 10, 3.0]]
    events = await client.get("/api/v1/events")
    assert events.headers["Content-Type"].startswith("text/event-stream")
    line = await events.content.readline()
    assert json.loads(line.removeprefix(b"data: "))["incidents"]
    events.close()


def test_the_board_is_bounded() -> None:
    board = Board()
    for n in range(1000):
        board.on_alert(alert(id=str(n), incident=str(n)))
        board.on_point("e", "*", Point(n, 1, 0.0))
        board.on_point("e", "*", Point(0, 99, 0.0))  # older: not touched again
    board.entities = {"e": "E"}
    snapshot = board.snapshot()
    assert len(snapshot["incidents"]) == 200
    assert len(snapshot["entities"][0]["series"]["*"]["points"]) == 240


async def test_a_taken_port_is_told_plainly() -> None:
    metrics = Metrics()
    async with serve(HttpSettings(port=0), metrics.registry, Health(), Board()) as url:
        with pytest.raises(ConfigError, match="cannot listen"):
            async with serve(HttpSettings(port=int(url.rsplit(":", 1)[1])), metrics.registry, Health(), Board()):
                pass
