"""PagerDuty and Opsgenie against a local server that speaks their API: one alert an incident, ended when it ends."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from aiohttp import web

from monitor.sinks.base import Delivered, Rejected, Retry
from monitor.sinks.pagers import OpsgenieSink, PagerDutySink
from monitor.sinks.samples import samples
from monitor.sinks.settings import OpsgenieSettings, PagerDutySettings
from tests.unit.sinks.test_sinks import server

FIRING, ESCALATED, RESOLVED = samples()


class PagerDuty:
    """The Events API v2 as documented: open alerts by key."""

    def __init__(self) -> None:
        self.open: dict[str, dict[str, Any]] = {}
        self.answer = 202

    async def handle(self, request: web.Request) -> web.Response:
        event = await request.json()
        if self.answer != 202:
            return web.json_response({"status": "busy"}, status=self.answer, headers={"Retry-After": "3"})
        if event.get("routing_key") != "r0uting":
            return web.json_response({"status": "invalid event", "errors": ["routing_key"]}, status=400)
        if event["event_action"] == "resolve":
            self.open.pop(event["dedup_key"], None)
        else:
            assert event["payload"]["severity"] in ("info", "warning", "error", "critical")
            assert len(event["payload"]["summary"]) <= 1024
            self.open[event["dedup_key"]] = event
        return web.json_response({"status": "success", "dedup_key": event["dedup_key"]}, status=202)


async def test_pagerduty_opens_updates_and_ends_one_alert() -> None:
    there = PagerDuty()
    async with server(there.handle) as url:
        sink = PagerDutySink(
            PagerDutySettings(name="p", url=f"{url}/v2/enqueue", routing_key="r0uting", status_url="https://s.example")  # type: ignore[arg-type]
        )
        assert await sink.deliver(FIRING, key="1") == Delivered()
        long = msgspec.structs.replace(ESCALATED, summary="长" * 3000)
        assert await sink.deliver(long, key="2") == Delivered()
        assert list(there.open) == [FIRING.incident]
        event = there.open[FIRING.incident]
        assert event["payload"]["severity"] == "critical"
        assert event["links"][0]["href"] == f"https://s.example/#/incident/{FIRING.incident}"
        there.answer = 429
        assert await sink.deliver(RESOLVED, key="3") == Retry('HTTP 429: {"status": "busy"}', 3.0)
        there.answer = 202
        assert await sink.deliver(RESOLVED, key="3") == Delivered()
        assert there.open == {}
        wrong = PagerDutySink(PagerDutySettings(name="p", url=f"{url}/v2/enqueue", routing_key="other"))  # type: ignore[arg-type]
        assert isinstance(await wrong.deliver(FIRING, key="4"), Rejected)
        await sink.close()
        await wrong.close()


class Opsgenie:
    """The Alert API v2 as documented: creating an alias that is open only counts; priority and end have their own paths."""

    def __init__(self) -> None:
        self.open: dict[str, dict[str, Any]] = {}

    async def handle(self, request: web.Request) -> web.Response:
        if request.headers.get("Authorization") != "GenieKey k3y":
            return web.json_response({"message": "Key format is not valid!"}, status=401)
        body = json.loads(await request.read())
        parts = request.path.strip("/").split("/")
        if request.method == "POST" and parts == ["v2", "alerts"]:
            if len(body["message"]) > 130 or len(body.get("description", "")) > 15_000:
                return web.json_response({"message": "too long"}, status=422)
            known = self.open.get(body["alias"])
            if known is None:
                self.open[body["alias"]] = {**body, "count": 1}
            else:
                known["count"] += 1
        elif request.query.get("identifierType") == "alias" and parts[3:] == ["priority"] and request.method == "PUT":
            self.open[parts[2]]["priority"] = body["priority"]
        elif request.query.get("identifierType") == "alias" and parts[3:] == ["close"] and request.method == "POST":
            self.open.pop(parts[2], None)
        else:
            return web.json_response({"message": "no such path"}, status=404)
        return web.json_response({"result": "Request will be processed"}, status=202)


async def test_opsgenie_opens_raises_and_closes_one_alert() -> None:
    there = Opsgenie()
    async with server(there.handle) as url:
        settings = OpsgenieSettings(
            name="o", url=url, api_key="k3y", responders=("press",), status_url="https://s.example"
        )  # type: ignore[arg-type]
        sink = OpsgenieSink(settings)
        long = msgspec.structs.replace(FIRING, summary="é" * 500, description="x" * 20_000)
        assert await sink.deliver(long, key="1") == Delivered()
        assert there.open[FIRING.incident]["priority"] == "P3"
        assert there.open[FIRING.incident]["responders"] == [{"type": "team", "name": "press"}]
        assert there.open[FIRING.incident]["description"].endswith(f"https://s.example/#/incident/{FIRING.incident}")
        assert await sink.deliver(ESCALATED, key="2") == Delivered()
        assert there.open[FIRING.incident]["priority"] == "P1"
        assert there.open[FIRING.incident]["count"] == 2
        assert await sink.deliver(RESOLVED, key="3") == Delivered()
        assert there.open == {}
        wrong = OpsgenieSink(OpsgenieSettings(name="o", url=url, api_key="other"))  # type: ignore[arg-type]
        assert isinstance(await wrong.deliver(FIRING, key="4"), Rejected)
        await sink.close()
        await wrong.close()


@pytest.mark.parametrize(("kind", "field"), [(PagerDutySettings, "routing_key"), (OpsgenieSettings, "api_key")])
def test_a_pager_without_a_key_is_a_mistake(kind: Any, field: str) -> None:
    with pytest.raises(ValueError, match=field):
        kind(name="p")
