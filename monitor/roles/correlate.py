"""correlate: steps of single entities' incidents, of all partitions -> incidents as people know them -> alerts, in one commit.

There is one partition of steps, so one process of the group does this; a rise is rare, and each costs microseconds.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import msgspec
import structlog
from aiokafka.structs import ConsumerRecord, TopicPartition

from monitor.broker.deadletter import deadletter
from monitor.broker.reading import read_range
from monitor.broker.settings import KafkaSettings, TopicSettings
from monitor.broker.writer import Output
from monitor.detection.correlate import PREFIX, Correlator, Watched
from monitor.metrics import Metrics
from monitor.records import Alert, Origin, StepMessage, cloud_event, decode_step_message, encode
from monitor.roles.lane import IDLE_S, Start

log = structlog.get_logger("monitor.correlate")

CHUNK = 1000

POSITION_KEY = f"{PREFIX}|position".encode()
"""The state record that says which offset of the steps the rest of the state stands at."""


class CorrelateProcessor:
    """The correlate role's work; its state lies in the first partition of the state topic, beside a detector's.

    Args:
        partition: Of the incidents topic.
        new_correlator: Makes a correlator, given the state rows to bring back.
        on_alerts: Told of new alerts after each unit of work.
    """

    chunk = CHUNK
    idle_s = IDLE_S
    memo = ""

    def __init__(
        self,
        partition: TopicPartition,
        *,
        kafka: KafkaSettings,
        topics: TopicSettings,
        transactions: bool,
        metrics: Metrics,
        new_correlator: Callable[[dict[bytes, bytes]], Correlator],
        on_alerts: Callable[[Sequence[Alert]], None],
    ) -> None:
        self._partition = partition
        self._kafka = kafka
        self._topics = topics
        self._transactions = transactions
        self._metrics = metrics
        self._new_correlator = new_correlator
        self._on_alerts = on_alerts
        self._correlator: Correlator | None = None
        self.entities: dict[str, Watched] | None = None
        """Set to a new watchlist; taken over before the next unit of work."""

    async def restore(self, start: Start) -> int | None:
        """Read the state rows and rebuild the correlator; its position comes with them."""
        state = TopicPartition(self._topics.state, 0)
        rows: dict[bytes, bytes] = {}
        async for records in read_range(self._kafka, state, start=None, end=None, read_committed=self._transactions):
            for record in records:
                if not (record.key or b"").startswith(PREFIX.encode()):
                    continue
                if record.value is None:
                    rows.pop(record.key, None)
                else:
                    rows[record.key] = record.value
        position = rows.pop(POSITION_KEY, None)
        self._correlator = self._new_correlator(rows)
        log.info("incidents.restored", open=len(self._correlator.open_groups), rows=len(rows))
        return int(position) if position is not None else start.offset

    async def start(self, records: Sequence[ConsumerRecord[bytes, bytes]]) -> Awaitable[list[Output]]:
        """Join what belongs together; the state moves with it, so nothing is left to wait for."""
        outputs, alerts = self._join(records)
        self._on_alerts(alerts)
        done: asyncio.Future[list[Output]] = asyncio.get_running_loop().create_future()
        done.set_result(outputs)
        return done

    async def idle(self) -> list[Output]:
        """Silence says nothing: what the detectors have closed does."""
        return []

    def _join(self, records: Sequence[ConsumerRecord[bytes, bytes]]) -> tuple[list[Output], list[Alert]]:
        correlator = self._correlator
        assert correlator is not None
        if self.entities is not None:
            correlator.set_entities(self.entities)
            self.entities = None
        outputs: list[Output] = []
        messages: list[StepMessage] = []
        for record in records:
            try:
                messages.append(decode_step_message(record.value or b""))
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                origin = Origin(topic=record.topic, partition=record.partition, offset=record.offset)
                self._metrics.dead_letters.labels("correlate", "not_a_step").inc()
                outputs.append(
                    deadletter(
                        self._topics.deadletter, "correlate", "not_a_step", str(error), origin, record.key, record.value
                    )
                )
        alerts = correlator.take(messages)
        for alert in alerts:
            outputs.append(Output(self._topics.alerts, alert.incident.encode(), encode(cloud_event(alert))))
            self._metrics.alerts.labels(alert.entity, alert.state, alert.severity).inc()
            if alert.state == "firing":
                self._metrics.incidents.inc()
        outputs += [
            Output(self._topics.state, key, value, partition=0, latest=True) for key, value in correlator.take_changes()
        ]
        position = str(records[-1].offset + 1).encode()
        outputs.append(Output(self._topics.state, POSITION_KEY, position, partition=0, latest=True))
        return outputs, alerts
