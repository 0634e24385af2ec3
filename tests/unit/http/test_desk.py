"""An action counts once it is durable, and not before."""

from __future__ import annotations

import pytest

from monitor.broker.settings import TopicSettings
from monitor.http.board import Board
from monitor.http.desk import Desk, DeskClosedError
from tests.unit.http.conftest import Recorder


async def test_an_action_is_counted_once_kafka_has_it(recorder: Recorder) -> None:
    counted: list[str] = []
    desk = Desk(TopicSettings(), Board(), on_action=lambda action: counted.append(action.kind))
    with pytest.raises(DeskClosedError):
        await desk.act("false_alarm", "ann", entity="acme", incident="acme-1")
    assert counted == []
    desk.producer = recorder  # type: ignore[assignment]
    await desk.act("false_alarm", "ann", entity="acme", incident="acme-1")
    assert counted == ["false_alarm"]
