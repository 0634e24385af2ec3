"""notify: alerts of one partition, in order, to one sink; retried until taken, dead-lettered when refused.

Each sink has a consumer group of its own, so its progress is durable and a dead sink slows no other.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence

import msgspec
import structlog
from aiokafka.structs import ConsumerRecord

from monitor.broker.deadletter import deadletter
from monitor.broker.settings import TopicSettings
from monitor.broker.writer import Output
from monitor.metrics import Metrics
from monitor.records import Alert, Origin, decode_alert_event
from monitor.roles.lane import IDLE_S, Start
from monitor.sinks.base import Delivered, Outcome, Rejected, Retry, Sink, SinkSettings, retry_delay, routes

log = structlog.get_logger("monitor.notify")

REPEAT_WINDOW = 10_000
"""Alert ids remembered per partition: on a broker without transactions a restart repeats at most the alerts of one
commit interval, which is far fewer."""


class SinkStopping(Exception):  # noqa: N818 - it is no error, but the way out of a long wait
    """The process is stopping while the sink refuses: the alert stays uncommitted and is delivered after the restart."""


class NotifyProcessor:
    """The notify role's work on one alerts partition, for one sink.

    Args:
        sink: Where the alerts go.
        settings: The sink's own settings: routing and patience.
        stopping: Ends a long wait between attempts.
        on_alert: Told of each alert once it is dealt with.
    """

    # One alert at a time: a crash repeats at most the one in flight.
    chunk = 1
    idle_s = IDLE_S

    def __init__(
        self,
        sink: Sink,
        settings: SinkSettings,
        *,
        topics: TopicSettings,
        metrics: Metrics,
        stopping: asyncio.Event,
        rng: random.Random,
        on_alert: Callable[[Alert], None] = lambda _: None,
    ) -> None:
        self._sink = sink
        self._settings = settings
        self._topics = topics
        self._metrics = metrics
        self._stopping = stopping
        self._rng = rng
        self._on_alert = on_alert
        self._seen: OrderedDict[str, None] = OrderedDict()

    async def restore(self, start: Start) -> int | None:
        """There is no state but the committed offset."""
        return start.offset

    async def start(self, records: Sequence[ConsumerRecord[bytes, bytes]]) -> Awaitable[list[Output]]:
        """Deliver in order; only then take more."""
        outputs: list[Output] = []
        for record in records:
            outputs += await self._one(record)
        done: asyncio.Future[list[Output]] = asyncio.get_running_loop().create_future()
        done.set_result(outputs)
        return done

    async def idle(self) -> list[Output]:
        """No alerts are no news."""
        return []

    async def _one(self, record: ConsumerRecord[bytes, bytes]) -> list[Output]:
        try:
            alert = decode_alert_event(record.value or b"").data
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            return [self._refuse(record, "not_an_alert", str(error))]
        if alert.id in self._seen or not routes(self._settings, alert):
            self._metrics.deliveries.labels(self._sink.name, "skipped").inc()
            return []
        outcome = await self._deliver(alert)
        self._metrics.sink_failing.labels(self._sink.name).set(0)
        self._remember(alert.id)
        self._on_alert(alert)
        return [self._refuse(record, "sink_rejected", outcome.reason)] if isinstance(outcome, Rejected) else []

    def _remember(self, identity: str) -> None:
        self._seen[identity] = None
        if len(self._seen) > REPEAT_WINDOW:
            self._seen.popitem(last=False)

    async def _deliver(self, alert: Alert) -> Delivered | Rejected:
        """Attempt until the sink has taken or refused it, or its patience is over."""
        attempt, since = 0, time.monotonic()
        while True:
            outcome = await self._attempt(alert)
            if not isinstance(outcome, Retry):
                return outcome
            failing_s = time.monotonic() - since
            self._metrics.sink_failing.labels(self._sink.name).set(failing_s)
            if failing_s > self._settings.give_up_s:
                return Rejected(f"gave up after {failing_s:.0f} s: {outcome.reason}")
            pause_s = retry_delay(attempt, self._settings, self._rng, after_s=outcome.after_s)
            log.warning(
                "sink.refused",
                sink=self._sink.name,
                alert=alert.id,
                reason=outcome.reason,
                retry_in_s=round(pause_s, 1),
            )
            attempt += 1
            await self._pause(pause_s)

    async def _attempt(self, alert: Alert) -> Outcome:
        begun = time.monotonic()
        outcome = await self._sink.deliver(alert, key=alert.id)
        self._metrics.delivery_seconds.labels(self._sink.name).observe(time.monotonic() - begun)
        self._metrics.deliveries.labels(self._sink.name, type(outcome).__name__.lower()).inc()
        return outcome

    async def _pause(self, seconds: float) -> None:
        try:
            await asyncio.wait_for(self._stopping.wait(), seconds)
        except TimeoutError:
            return
        raise SinkStopping(self._sink.name)

    def _refuse(self, record: ConsumerRecord[bytes, bytes], reason: str, detail: str) -> Output:
        log.error("alert.dead_lettered", sink=self._sink.name, reason=reason, detail=detail)
        self._metrics.dead_letters.labels("notify", reason).inc()
        origin = Origin(topic=record.topic, partition=record.partition, offset=record.offset)
        return deadletter(self._topics.deadletter, "notify", reason, detail, origin, record.key, record.value)
