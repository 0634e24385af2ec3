"""notify: alerts of one partition, in order, to one sink; held when it is not the time, retried until taken.

Each sink has a consumer group of its own, so its progress is durable and a dead sink slows no other. What is held (quiet
hours, digests, mutes) and what the sink knows lies in rows on the notify topic, written in the commit of the offset.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Sequence

import msgspec
import structlog
from aiokafka.structs import ConsumerRecord, TopicPartition

from monitor.broker.deadletter import FOR_SINK, deadletter
from monitor.broker.reading import read_range
from monitor.broker.settings import KafkaSettings, TopicSettings
from monitor.broker.writer import Output
from monitor.detection.erasing import erase_from_alert
from monitor.metrics import Metrics
from monitor.privacy import ERASED
from monitor.records import Origin, cloud_event, decode_alert_event, encode
from monitor.roles.feeds import ActionFeed
from monitor.roles.lane import Start
from monitor.sinks.base import Delivered, DigestSink, Outcome, Rejected, Retry, Sink, retry_delay
from monitor.sinks.outbox import Held, Notice, Outbox, Single
from monitor.sinks.settings import SinkSettings
from monitor.waiting import told_within

log = structlog.get_logger("monitor.notify")

TICK_S = 1.0
"""How often what is held is looked at: quiet hours end and mutes run out without any alert coming."""

BEGAN = "began"
"""The row of a sink that began at the newest alert; only that it was written matters."""

ROWS_PREFIX = "{sink}|"
"""The rows of all sinks share a topic; a key begins with the sink's name."""


class NotifyProcessor:
    """The notify role's work on one alerts partition, for one sink.

    Args:
        partition: Of the alerts topic; the rows lie in the same partition of the notify topic.
        sink: Where the alerts go.
        settings: The sink's own settings: routing, hours and patience.
        rows: Reads the rows that are there.
        newest: Asks for the end of the partition, where a new sink may begin.
        feed: What people did.
        stopping: Ends a long wait between attempts.
        clock: Unix seconds of the wall clock, which quiet hours, mutes and digests are about.
    """

    # One alert at a time: a crash repeats at most those of one commit interval.
    chunk = 1
    idle_s = TICK_S
    memo = ""

    def __init__(
        self,
        partition: TopicPartition,
        sink: Sink,
        settings: SinkSettings,
        *,
        topics: TopicSettings,
        rows: Callable[[], Awaitable[dict[str, bytes]]],
        newest: Callable[[], Awaitable[int]],
        feed: ActionFeed,
        metrics: Metrics,
        stopping: asyncio.Event,
        rng: random.Random,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._partition = partition
        self._sink = sink
        self._settings = settings
        self._topics = topics
        self._read_rows = rows
        self._newest = newest
        self._began: list[Output] = []
        """Once, from a sink that begins at the end: writing it commits that place."""
        self._feed = feed
        self._metrics = metrics
        self._stopping = stopping
        self._rng = rng
        self._clock = clock
        self._outbox = self._new_outbox({})
        self._failing: tuple[str, int, float] = ("", 0, 0.0)
        """Key, failed attempts, and since when (monotonic) of the notice that the sink does not take."""

    @property
    def held(self) -> int:
        """Alerts that wait."""
        return self._outbox.held

    async def restore(self, start: Start) -> int | None:
        """Bring back the rows, and wait until it is known who is muted; the position is the committed offset."""
        rows = await self._read_rows()
        await self._feed.ready.wait()
        self._outbox = self._new_outbox(rows)
        self._outbox.expire(self._now_ms())
        if start.offset is not None or self._settings.begin == "oldest":
            return start.offset
        key = ROWS_PREFIX.format(sink=self._sink.name) + BEGAN
        self._began = [
            Output(self._topics.notify, key.encode(), b"{}", partition=self._partition.partition, latest=True)
        ]
        return await self._newest()

    async def start(self, records: Sequence[ConsumerRecord[bytes, bytes]]) -> Awaitable[list[Output]]:
        """Take the alerts and deliver what is to be delivered now; only then take more."""
        outputs: list[Output] = []
        for record in records:
            outputs += self._take(record)
            outputs += await self._deliver()
        done: asyncio.Future[list[Output]] = asyncio.get_running_loop().create_future()
        done.set_result(outputs + self._rows())
        return done

    async def idle(self) -> list[Output]:
        """Deliver what has become due without any alert coming."""
        return await self._deliver() + self._rows()

    def _new_outbox(self, rows: dict[str, bytes]) -> Outbox:
        digests = isinstance(self._sink, DigestSink)
        return Outbox(self._settings, self._feed.actions, rows, digests=digests)

    def _now_ms(self) -> int:
        return int(self._clock() * 1000)

    def _rows(self) -> list[Output]:
        """Changed rows, for the commit."""
        self._outbox.erase()
        began, self._began = self._began, []
        prefix, number = ROWS_PREFIX.format(sink=self._sink.name), self._partition.partition
        return began + [
            Output(self._topics.notify, (prefix + key).encode(), value, partition=number, latest=True)
            for key, value in self._outbox.changes()
        ]

    def _take(self, record: ConsumerRecord[bytes, bytes]) -> list[Output]:
        try:
            alert = decode_alert_event(record.value or b"").data
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            origin = Origin(topic=record.topic, partition=record.partition, offset=record.offset)
            return [self._refuse("not_an_alert", str(error), origin, record.key, record.value)]
        if any(name == ERASED for name, _ in record.headers):
            return []  # a copy of an alert that went out long ago
        sent_back = next((value.decode(errors="replace") for name, value in record.headers if name == FOR_SINK), None)
        if sent_back not in (None, self._sink.name):
            return []
        alert = erase_from_alert(alert, self._feed.actions.erased)
        take = self._outbox.take if sent_back is None else self._outbox.take_again
        withheld = take(alert, record.offset, self._now_ms())
        if withheld in ("repeat", "route"):
            self._metrics.deliveries.labels(self._sink.name, "skipped").inc()
        elif withheld is not None:
            self._metrics.withheld.labels(self._sink.name, withheld).inc()
            log.info("alert.withheld", sink=self._sink.name, alert=alert.id, incident=alert.incident, reason=withheld)
        return []

    async def _deliver(self) -> list[Output]:
        """Deliver until nothing is due, or the process stops; what is left then is held in its row."""
        outputs: list[Output] = []
        while (notice := self._outbox.next(self._now_ms())) is not None:
            outcome = self._patience(notice, await self._attempt(notice))
            if isinstance(outcome, Retry):
                if not await self._pause(notice, outcome):
                    break
                continue
            self._metrics.sink_failing.labels(self._sink.name).set(0)
            told = self._outbox.done(notice, self._now_ms(), delivered=isinstance(outcome, Delivered))
            if isinstance(outcome, Rejected):
                outputs += [self._refuse_held(item, outcome.reason) for item in told]
        return outputs

    async def _attempt(self, notice: Notice) -> Outcome:
        begun = time.monotonic()
        if isinstance(notice, Single):
            outcome = await self._sink.deliver(notice.alert, key=notice.key, again=notice.again)
        else:
            assert isinstance(self._sink, DigestSink)
            outcome = await self._sink.deliver_digest(notice)
        self._metrics.delivery_seconds.labels(self._sink.name).observe(time.monotonic() - begun)
        self._metrics.deliveries.labels(self._sink.name, type(outcome).__name__.lower()).inc()
        return outcome

    def _patience(self, notice: Notice, outcome: Outcome) -> Outcome:
        """A sink that has refused for too long is given up, for this notice."""
        if not isinstance(outcome, Retry):
            self._failing = ("", 0, 0.0)
            return outcome
        now = time.monotonic()
        key, attempts, since = self._failing
        self._failing = (notice.key, attempts + 1, since) if key == notice.key else (notice.key, 1, now)
        failing_s = now - self._failing[2]
        self._metrics.sink_failing.labels(self._sink.name).set(failing_s)
        if failing_s <= self._settings.give_up_s:
            return outcome
        self._failing = ("", 0, 0.0)
        return Rejected(f"gave up after {failing_s:.0f} s: {outcome.reason}")

    async def _pause(self, notice: Notice, refused: Retry) -> bool:
        """Wait before the next attempt; False when the process is stopping."""
        pause_s = retry_delay(self._failing[1] - 1, self._settings, self._rng, after_s=refused.after_s)
        log.warning(
            "sink.refused", sink=self._sink.name, notice=notice.key, reason=refused.reason, retry_in_s=round(pause_s, 1)
        )
        return not await told_within(self._stopping, pause_s)

    def _refuse_held(self, item: Held, detail: str) -> Output:
        origin = Origin(topic=self._topics.alerts, partition=self._partition.partition, offset=item.place)
        key, value = item.alert.incident.encode(), encode(cloud_event(item.alert))
        return self._refuse("sink_rejected", detail, origin, key, value, sink=self._sink.name)

    def _refuse(
        self, reason: str, detail: str, origin: Origin, key: bytes | None, value: bytes | None, *, sink: str = ""
    ) -> Output:
        log.error("alert.dead_lettered", sink=self._sink.name, reason=reason, detail=detail)
        self._metrics.dead_letters.labels("notify", reason).inc()
        return deadletter(self._topics.deadletter, "notify", reason, detail, origin, key, value, sink=sink)


async def read_rows(
    kafka: KafkaSettings, topics: TopicSettings, partition: TopicPartition, sink: str, *, transactions: bool
) -> dict[str, bytes]:
    """The newest committed rows of one sink beside one alerts partition, by key without the sink's name."""
    place, prefix = TopicPartition(topics.notify, partition.partition), ROWS_PREFIX.format(sink=sink)
    rows: dict[str, bytes] = {}
    async for records in read_range(kafka, place, start=None, end=None, read_committed=transactions):
        for record in records:
            key = (record.key or b"").decode()
            if key.startswith(prefix) and not key.endswith(f"|{BEGAN}"):
                rows.pop(key.removeprefix(prefix), None)
                if record.value is not None:
                    rows[key.removeprefix(prefix)] = record.value
    return rows
