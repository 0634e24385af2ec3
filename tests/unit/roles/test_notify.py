"""The notify role's work: in order, until taken, held through restarts, and dead-lettered when refused."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

import pytest
from aiokafka.structs import ConsumerRecord, TopicPartition

from monitor.broker.deadletter import FOR_SINK
from monitor.broker.settings import KafkaSettings, TopicSettings
from monitor.broker.writer import Output
from monitor.metrics import Metrics
from monitor.records import Action, Alert, Severity, cloud_event, decode_alert_event, decode_deadletter, encode
from monitor.roles.feeds import ActionFeed
from monitor.roles.lane import Start
from monitor.roles.notify import NotifyProcessor
from monitor.sinks.base import Delivered, Digest, Outcome, Rejected, Retry
from monitor.sinks.settings import StdoutSettings
from tests.unit.sinks.test_sinks import alert

TOPICS = TopicSettings()
PATIENT = {"retry_first_s": 0.001, "retry_last_s": 0.002, "give_up_s": 60.0}
NIGHT_S = datetime(2026, 3, 3, 23, tzinfo=UTC).timestamp()


@dataclass
class Scripted:
    """A sink that answers as told, then delivers."""

    answers: list[Outcome] = field(default_factory=list)
    name: str = "s"
    took: list[str] = field(default_factory=list)
    attempts: int = 0

    async def deliver(self, alert: Alert, *, key: str, again: Sequence[Severity] = ()) -> Outcome:
        return self._answer(key)

    async def deliver_digest(self, digest: Digest) -> Outcome:
        return self._answer("+".join(a.id for a in digest.alerts))

    def _answer(self, key: str) -> Outcome:
        self.attempts += 1
        outcome = self.answers.pop(0) if self.answers else Delivered()
        if isinstance(outcome, Delivered):
            self.took.append(key)
        return outcome

    async def close(self) -> None: ...


class Bench:
    """A processor over rows that survive it, and a clock that is turned by hand."""

    def __init__(self, sink: Scripted, **settings: object) -> None:
        self.sink = sink
        self.settings = StdoutSettings(name="s", **{**PATIENT, **settings})  # type: ignore[arg-type]
        self.now_s = NIGHT_S
        self.rows: dict[str, bytes] = {}
        self.letters: list[tuple[str, str]] = []
        self.stopping = asyncio.Event()
        self.metrics = Metrics()
        self.feed = ActionFeed(KafkaSettings(), "audit", 1)
        self.feed.ready.set()
        self.offset = 0

    async def begin(self, committed: int | None = 0) -> Bench:
        async def rows() -> dict[str, bytes]:
            return {key: value for key, value in self.rows.items() if key != "began"}

        async def newest() -> int:
            return 17

        self.processor = NotifyProcessor(
            TopicPartition("alerts", 0), self.sink, self.settings, topics=TOPICS, rows=rows, newest=newest, feed=self.feed,
            metrics=self.metrics, stopping=self.stopping, rng=random.Random(1), clock=lambda: self.now_s,
        )  # fmt: skip
        self.position = await self.processor.restore(Start(committed))
        return self

    async def take(self, *values: bytes, sink: str = "") -> list[str]:
        """Alerts from the topic, committed; returns the reasons of dead letters. With `sink`, sent back for that one."""
        before = len(self.letters)
        headers = ((FOR_SINK, sink.encode()),) if sink else ()
        for value in values:
            record = ConsumerRecord("alerts", 0, self.offset, 0, 0, b"acme-1", value, None, 0, 0, headers)
            self.offset += 1
            self.commit(await (await self.processor.start([record])))
        return [reason for reason, _ in self.letters[before:]]

    async def tick(self) -> None:
        self.commit(await self.processor.idle())

    def commit(self, outputs: list[Output]) -> None:
        for output in outputs:
            if output.topic == TOPICS.deadletter:
                assert output.value is not None
                letter = decode_deadletter(output.value)
                self.letters.append((letter.reason, letter.value))
                continue
            assert output.topic == TOPICS.notify
            key = (output.key or b"").decode().removeprefix("s|")
            self.rows.pop(key, None)
            if output.value is not None:
                self.rows[key] = output.value

    def count(self, name: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(f"babelwatch_{name}", labels) or 0.0


def event(identity: str, **more: object) -> bytes:
    incident, _, number = identity.partition(".")
    return encode(cloud_event(alert(id=identity, incident=incident, sequence=int(number or 0), **more)))


async def test_a_failing_sink_gets_everything_in_order_once_it_is_back() -> None:
    bench = await Bench(Scripted([Retry("down")] * 25)).begin()
    assert await bench.take(event("a"), event("b"), event("a.1", state="escalated")) == []
    assert bench.sink.took == ["a", "b", "a.1"]
    assert bench.sink.attempts == 28


async def test_what_is_refused_is_dead_lettered_and_the_rest_goes_on() -> None:
    bench = await Bench(Scripted([Rejected("HTTP 422")])).begin()
    assert await bench.take(event("a"), event("b")) == ["sink_rejected"]
    assert bench.sink.took == ["b"]
    assert decode_alert_event(bench.letters[0][1].encode()).data.id == "a"


async def test_a_repeat_is_dropped_after_a_restart_too_and_rubbish_dead_lettered() -> None:
    bench = await Bench(Scripted()).begin()
    assert await bench.take(event("a"), event("a"), b"rubbish", event("b")) == ["not_an_alert"]
    await bench.begin()
    assert await bench.take(event("a"), event("b"), event("c")) == []
    assert bench.sink.took == ["a", "b", "c"]
    assert bench.count("deliveries_total", sink="s", result="skipped") == 3


async def test_patience_ends() -> None:
    bench = await Bench(Scripted([Retry("down")] * 1000), retry_last_s=0.001, give_up_s=0.01).begin()
    assert await bench.take(event("a")) == ["sink_rejected"]
    assert bench.count("sink_failing_seconds", sink="s") == 0


async def test_alerts_for_others_are_skipped_and_leave_no_row() -> None:
    bench = await Bench(Scripted(), severities=("critical",)).begin()
    assert await bench.take(event("a")) == []
    assert bench.sink.took == []
    assert bench.rows == {}


async def test_a_stop_ends_a_long_wait_and_the_alert_is_delivered_after_the_restart() -> None:
    bench = await Bench(Scripted([Retry("down")]), retry_first_s=3000, retry_last_s=3000).begin()
    bench.stopping.set()
    assert await bench.take(event("a")) == []
    assert bench.sink.took == []
    bench.stopping.clear()
    await bench.begin()
    await bench.tick()
    assert bench.sink.took == ["a"]


async def test_what_is_held_in_the_night_survives_a_restart_and_goes_in_the_morning() -> None:
    bench = await Bench(Scripted(), quiet=("22:00-07:00",)).begin()
    await bench.take(event("a"), event("b"), event("c", severity="critical"))
    assert bench.sink.took == ["c"]
    assert bench.count("withheld_alerts_total", sink="s", reason="quiet") == 2
    await bench.begin()
    assert bench.processor.held == 2
    bench.now_s += 9 * 3600
    await bench.tick()
    assert bench.sink.took == ["c", "a", "b"]
    assert bench.processor.held == 0


async def test_what_was_refused_in_the_morning_is_dead_lettered_whole() -> None:
    bench = await Bench(Scripted([Rejected("HTTP 410")]), quiet=("22:00-07:00",), digest_s=5).begin()
    await bench.take(event("a"), event("b"))
    bench.now_s += 9 * 3600
    await bench.tick()
    assert [decode_alert_event(value.encode()).data.id for _, value in bench.letters] == ["a", "b"]


async def test_a_mute_that_begins_while_the_sink_is_down_takes_effect() -> None:
    bench = await Bench(Scripted([Retry("down")] * 3)).begin()
    muting = Action(id="1", kind="mute", who="ann", at_ms=0, entity="acme", until_ms=int(NIGHT_S + 60) * 1000)

    async def mute_later() -> None:
        while not bench.sink.attempts:
            await asyncio.sleep(0)
        bench.feed.actions.take(muting)

    await asyncio.gather(bench.take(event("a")), mute_later())
    assert bench.sink.took == []
    bench.now_s += 61
    await bench.tick()
    assert bench.sink.took == ["a"]


async def test_nobody_is_told_before_it_is_known_who_is_muted() -> None:
    bench = Bench(Scripted())
    bench.feed.ready.clear()
    beginning = asyncio.create_task(bench.begin())
    await asyncio.sleep(0)
    assert not beginning.done()
    bench.feed.ready.set()
    await beginning


async def test_a_digest_goes_as_one_message() -> None:
    bench = await Bench(Scripted(), digest_s=30).begin()
    await bench.take(event("a"), event("b"))
    await bench.tick()
    assert bench.sink.took == []
    bench.now_s += 31
    await bench.tick()
    assert bench.sink.took == ["a+b"]


@pytest.mark.parametrize("field", ["quiet", "daily_at", "time_zone", "severities"])
def test_a_wrong_setting_is_refused(field: str) -> None:
    with pytest.raises(ValueError, match=field):
        StdoutSettings(name="s", **{field: "nonsense" if field != "quiet" else ("nonsense",)})  # type: ignore[arg-type]


async def test_a_new_sink_begins_where_it_is_told_and_remembers() -> None:
    bench = await Bench(Scripted()).begin(committed=None)
    assert bench.position is None  # the oldest alert there is
    bench = await Bench(Scripted(), begin="newest").begin(committed=None)
    assert bench.position == 17
    await bench.tick()
    # Something was written, so the place is committed even before the first alert.
    assert list(bench.rows) == ["began"]
    await bench.begin(committed=3)
    assert bench.position == 3


async def test_what_was_refused_is_told_when_it_is_sent_back_unless_something_later_was() -> None:
    bench = await Bench(Scripted([Rejected("HTTP 404")] * 4)).begin()
    long = "awful " * 4000
    first = [event("a"), event("b"), event("a.1", state="escalated", description=long), event("c")]
    assert await bench.take(*first) == ["sink_rejected"] * 4
    assert decode_alert_event(bench.letters[2][1].encode()).data.description == long, "not cut"
    assert await bench.take(event("c.1", state="resolved")) == []
    assert await bench.take(*first, sink="another") == []
    assert bench.sink.took == ["c.1"]
    await bench.take(*first, sink="s")
    assert bench.sink.took == ["c.1", "b", "a.1"]
    # A crash before the commit and the command run again: as long as it waits it is not taken twice.
    bench.sink.answers = [Retry("down")]
    bench.stopping.set()
    await bench.take(event("b", severity="critical"), sink="s")
    assert bench.processor.held == 1
    await (await bench.begin()).take(event("b", severity="critical"), sink="s")
    assert bench.sink.took == ["c.1", "b", "a.1", "b"]


async def test_what_is_sent_back_waits_for_the_morning_too() -> None:
    bench = await Bench(Scripted([Rejected("HTTP 404")]), quiet=["22:00-07:00"]).begin()
    bench.now_s += 12 * 3600
    assert await bench.take(event("a", severity="warning")) == ["sink_rejected"]
    bench.now_s += 12 * 3600
    await bench.take(event("a", severity="warning"), sink="s")
    assert bench.sink.took == []
    bench.now_s += 12 * 3600
    await bench.tick()
    assert bench.sink.took == ["a"]
