"""Sinks against real HTTP servers: what is sent, how it is signed, and what each answer means."""

from __future__ import annotations

import asyncio
import json
import random
import subprocess
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from io import StringIO
from pathlib import Path

import msgspec
import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from monitor.records import Alert, AlertEvent, Evidence
from monitor.sinks.alertmanager import AlertmanagerSink
from monitor.sinks.base import Delivered, Rejected, Retry, retry_delay, routes
from monitor.sinks.settings import AlertmanagerSettings, StdoutSettings, WebhookSettings
from monitor.sinks.stdout import StdoutSink
from monitor.sinks.webhook import SIGNATURE, TIMESTAMP, WebhookSink, sign
from tests.support.daemon import tool
from tests.support.servers import Server, free_port

NOW_S = 1_790_000_000.0


def alert(**changes: object) -> Alert:
    base = Alert(
        id="alert-1", incident="acme-1", entity="acme", entity_name="Acme", signal="negative_share", state="firing",
        severity="warning", onset_ms=1_772_000_000_000, at_ms=1_772_000_600_000, languages=("tr",), summary="Acme: 80 % negative",
        description="Acme: 80 % negative\nposts ...", labels={"owner": "brands"},
        evidence=Evidence(observed=0.8, expected=0.2, low=0.7, high=0.9, unit="share", documents=30, negatives=24.0),
    )  # fmt: skip
    return msgspec.structs.replace(base, **changes)


@asynccontextmanager
async def server(handler: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> AsyncIterator[str]:
    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", handler)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def test_a_webhook_gets_a_signed_cloud_event(tmp_path: Path) -> None:
    seen: list[tuple[dict[str, str], bytes]] = []

    async def handler(request: web.Request) -> web.Response:
        seen.append((dict(request.headers), await request.read()))
        return web.Response(status=202)

    (tmp_path / "key").write_text("k3y\n")
    async with server(handler) as url:
        settings = WebhookSettings(name="hook", url=f"{url}/in", secret_file=tmp_path / "key", headers={"X-Team": "a"})  # type: ignore[arg-type]
        sink = WebhookSink(settings, clock=lambda: NOW_S)
        assert await sink.deliver(alert(), key="alert-1") == Delivered()
        await sink.close()
    headers, body = seen[0]
    assert headers["Idempotency-Key"] == "alert-1"
    assert headers["X-Team"] == "a"
    assert headers["Content-Type"].startswith("application/cloudevents+json")
    assert headers[SIGNATURE] == sign("k3y", headers[TIMESTAMP], body)
    event = msgspec.json.decode(body, type=AlertEvent)
    assert (event.specversion, event.type, event.data) == ("1.0", "io.babelwatch.alert.v1", alert())


@pytest.mark.parametrize(
    ("status", "outcome"),
    [
        (200, Delivered),
        (204, Delivered),
        (302, Rejected),
        (400, Rejected),
        (404, Rejected),
        (408, Retry),
        (429, Retry),
        (500, Retry),
        (503, Retry),
    ],
)
async def test_what_an_answer_means(status: int, outcome: type) -> None:
    async def handler(_: web.Request) -> web.Response:
        return web.Response(status=status, text="because", headers={"Retry-After": "7", "Location": "/elsewhere"})

    async with server(handler) as url:
        sink = WebhookSink(WebhookSettings(name="hook", url=url))  # type: ignore[arg-type]
        found = await sink.deliver(alert(), key="k")
        await sink.close()
    assert isinstance(found, outcome)
    if isinstance(found, Retry):
        assert found.after_s == 7.0


async def test_nobody_there_and_no_answer_are_tried_again() -> None:
    async def handler(_: web.Request) -> web.Response:
        await asyncio.sleep(5)
        return web.Response()

    sink = WebhookSink(WebhookSettings(name="hook", url=f"http://127.0.0.1:{free_port()}"))  # type: ignore[arg-type]
    assert isinstance(await sink.deliver(alert(), key="k"), Retry)
    await sink.close()
    async with server(handler) as url:
        slow = WebhookSink(WebhookSettings(name="hook", url=url, timeout_s=0.05))  # type: ignore[arg-type]
        assert isinstance(await slow.deliver(alert(), key="k"), Retry)
        await slow.close()


async def test_stdout_writes_text_or_json() -> None:
    text, line = StringIO(), StringIO()
    await StdoutSink(StdoutSettings(name="s"), text).deliver(alert(), key="k")
    await StdoutSink(StdoutSettings(name="s", format="json"), line).deliver(alert(), key="k")
    assert text.getvalue().startswith("🟠 Acme: 80% negative, usually 20%\nWarning · since")
    assert json.loads(line.getvalue())["data"]["entity"] == "acme"


@pytest.mark.parametrize(
    ("settings", "wanted"),
    [
        ({}, True),
        ({"labels": {"owner": "brands"}}, True),
        ({"labels": {"owner": "brands", "sector": "food"}}, False),
        ({"labels": {"owner": ("press", "brands")}}, True),
        ({"labels": {"owner": ("press",)}}, False),
        ({"entities": ("acme", "globex")}, True),
        ({"entities": ("globex",)}, False),
        ({"signals": ("negative_share",)}, True),
        ({"signals": ("volume",)}, False),
        ({"severities": ("critical",)}, False),
        ({"languages": ("tr", "de")}, True),
        ({"languages": ("de",)}, False),
    ],
)
def test_routing_by_entity_labels_signal_severity_and_language(settings: dict[str, object], wanted: bool) -> None:
    assert routes(StdoutSettings(name="s", **settings), alert()) is wanted  # type: ignore[arg-type]


@given(st.integers(0, 2000), st.floats(0, 10_000) | st.none(), st.integers())
def test_pauses_grow_to_a_bound_and_honour_what_was_asked(attempt: int, after_s: float | None, seed: int) -> None:
    settings = StdoutSettings(name="s", retry_first_s=1, retry_last_s=60)
    pause = retry_delay(attempt, settings, random.Random(seed), after_s=after_s)
    assert min(60, 2**attempt) / 2 <= pause or after_s
    assert pause >= min(after_s or 0, 3600)
    assert pause <= max(60, min(after_s or 0, 3600))


async def test_a_real_alertmanager_holds_the_incident_and_lets_it_go(tmp_path: Path) -> None:
    binary = tool("prometheus-alertmanager", "alertmanager")
    port = free_port()
    (tmp_path / "am.yml").write_text("route: {receiver: none}\nreceivers: [{name: none}]\n")
    command = [binary, f"--config.file={tmp_path}/am.yml", f"--storage.path={tmp_path}/data"]
    command += [f"--web.listen-address=127.0.0.1:{port}", "--cluster.listen-address="]
    process = Server(command, port, folder=tmp_path).start()

    def active() -> list[dict[str, object]]:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/v2/alerts?active=true", timeout=5) as answer:
            found: list[dict[str, object]] = json.loads(answer.read())
            return found

    async def settle(count: int) -> list[dict[str, object]]:
        for _ in range(200):
            if len(found := await asyncio.to_thread(active)) == count:
                return found
            await asyncio.sleep(0.05)
        raise AssertionError(f"{count} alerts expected, {await asyncio.to_thread(active)}")

    try:
        sink = AlertmanagerSink(AlertmanagerSettings(name="am", urls=(f"http://127.0.0.1:{port}",)))  # type: ignore[arg-type]
        for _ in range(2):  # a repeat is no second alert
            assert await sink.deliver(alert(), key="1") == Delivered()
        held = await settle(1)
        assert held[0]["labels"]["incident"] == "acme-1"  # type: ignore[index]
        assert held[0]["labels"]["owner"] == "brands"  # type: ignore[index]
        worse = alert(state="escalated", severity="critical", languages=("tr", "de"), sequence=1)
        assert await sink.deliver(worse, key="2") == Delivered()
        ends = {a["labels"]["severity"]: a["endsAt"] for a in await settle(2)}  # type: ignore[index]
        # Sent again, both stay longer, and neither is a new one.
        assert await sink.deliver(worse, key="2-again", again=("warning", "critical")) == Delivered()
        for _ in range(200):
            kept = {a["labels"]["severity"]: a["endsAt"] for a in await asyncio.to_thread(active)}  # type: ignore[index]
            if all(kept[severity] > ends[severity] for severity in ends):  # type: ignore[operator]
                break
            await asyncio.sleep(0.05)
        else:
            raise AssertionError(f"{ends} {kept}")
        await settle(2)
        assert await sink.deliver(alert(state="resolved", severity="critical", sequence=2), key="3") == Delivered()
        await settle(0)
        await sink.close()
    finally:
        assert process.process is not None
        process.process.terminate()
        try:
            process.process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
