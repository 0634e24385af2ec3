"""The notify role's decisions: in order, until taken, once, and dead-lettered when refused."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass, field

import pytest
from aiokafka.structs import ConsumerRecord

from monitor.broker.settings import TopicSettings
from monitor.metrics import Metrics
from monitor.records import Alert, cloud_event, decode_deadletter, encode
from monitor.roles.notify import NotifyProcessor, SinkStopping
from monitor.sinks.base import Delivered, Outcome, Rejected, Retry, StdoutSettings
from tests.unit.sinks.test_sinks import alert

TOPICS = TopicSettings()
QUICK = StdoutSettings(name="s", retry_first_s=0.001, retry_last_s=0.002, give_up_s=60)


@dataclass
class Scripted:
    """A sink that answers as told, then delivers."""

    answers: list[Outcome]
    name: str = "s"
    took: list[str] = field(default_factory=list)
    attempts: int = 0

    async def deliver(self, alert: Alert, *, key: str) -> Outcome:
        self.attempts += 1
        outcome = self.answers.pop(0) if self.answers else Delivered()
        if isinstance(outcome, Delivered):
            self.took.append(key)
        return outcome

    async def close(self) -> None: ...


def record(value: bytes | None, offset: int = 0) -> ConsumerRecord[bytes, bytes]:
    return ConsumerRecord("alerts", 0, offset, 0, 0, b"acme-1", value, None, 0, 0, ())


def event(identity: str) -> bytes:
    return encode(cloud_event(alert(id=identity)))


def processor(
    sink: Scripted, settings: StdoutSettings = QUICK, stopping: asyncio.Event | None = None
) -> NotifyProcessor:
    return NotifyProcessor(
        sink, settings, topics=TOPICS, metrics=Metrics(), stopping=stopping or asyncio.Event(), rng=random.Random(1)
    )


async def run(made: NotifyProcessor, *values: bytes) -> list[str]:
    """Deliver; returns the reasons of dead letters."""
    outputs = await (await made.start([record(value, n) for n, value in enumerate(values)]))
    return [decode_deadletter(output.value).reason for output in outputs]


async def test_a_failing_sink_gets_everything_in_order_once_it_is_back() -> None:
    sink = Scripted([Retry("down")] * 25)
    assert await run(processor(sink), event("1"), event("2"), event("3")) == []
    assert sink.took == ["1", "2", "3"]
    assert sink.attempts == 28


async def test_what_is_refused_is_dead_lettered_and_the_rest_goes_on() -> None:
    sink = Scripted([Rejected("HTTP 422")])
    assert await run(processor(sink), event("1"), event("2")) == ["sink_rejected"]
    assert sink.took == ["2"]


async def test_a_repeat_is_dropped_and_rubbish_dead_lettered() -> None:
    sink = Scripted([])
    assert await run(processor(sink), event("1"), event("1"), b"rubbish", event("2")) == ["not_an_alert"]
    assert sink.took == ["1", "2"]


async def test_patience_ends() -> None:
    sink = Scripted([Retry("down")] * 1000)
    impatient = StdoutSettings(name="s", retry_first_s=0.001, retry_last_s=0.001, give_up_s=0.01)
    assert await run(processor(sink, impatient), event("1")) == ["sink_rejected"]


async def test_alerts_for_others_are_skipped() -> None:
    sink = Scripted([])
    assert await run(processor(sink, StdoutSettings(name="s", severities=("critical",))), event("1")) == []
    assert sink.took == []


async def test_a_stop_ends_a_long_wait_and_leaves_the_alert_for_the_next_start() -> None:
    stopping = asyncio.Event()
    stopping.set()
    slow = StdoutSettings(name="s", retry_first_s=3000, retry_last_s=3000)
    with pytest.raises(SinkStopping):
        await run(processor(Scripted([Retry("down")]), slow, stopping), event("1"))
