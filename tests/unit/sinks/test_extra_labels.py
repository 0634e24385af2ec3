"""What a sink adds to an alert for Alertmanager, so that its routes can go by what the sink chose."""

from __future__ import annotations

from typing import Any

import pytest
from aiohttp import web
from pydantic import ValidationError

from monitor.sinks.alertmanager import AlertmanagerSink
from monitor.sinks.base import Delivered
from monitor.sinks.settings import AlertmanagerSettings
from tests.unit.sinks.test_sinks import alert, server


async def test_labels_of_the_sink_go_beside_the_entity_s_and_never_over_babelwatch_s_own() -> None:
    posted: list[Any] = []

    async def handler(request: web.Request) -> web.Response:
        posted.extend(await request.json())
        return web.Response()

    async with server(handler) as url:
        extra = {"desk": "east-asia", "severity": "info"}
        settings = AlertmanagerSettings.model_validate(
            {"name": "am", "urls": [url], "languages": ["ja"], "extra_labels": extra}
        )
        sink = AlertmanagerSink(settings)
        assert await sink.deliver(alert(), key="1") == Delivered()
        await sink.close()
    (sent,) = posted
    assert sent["labels"]["desk"] == "east-asia"
    assert sent["labels"]["owner"] == "brands"
    assert sent["labels"]["severity"] == "warning"


def test_a_label_that_alertmanager_would_refuse_is_a_mistake_of_the_configuration() -> None:
    with pytest.raises(ValidationError, match="extra_labels"):
        AlertmanagerSettings.model_validate(
            {"name": "am", "urls": ["http://am:9093"], "extra_labels": {"my-desk": "x"}}
        )
