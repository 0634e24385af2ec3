"""detect: opinions of one partition -> buckets, evidence, steps of incidents -> steps and state, in one commit."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence

import msgspec
import structlog
from aiokafka.structs import ConsumerRecord, TopicPartition

from monitor.broker.deadletter import deadletter
from monitor.broker.reading import read_range
from monitor.broker.settings import KafkaSettings, TopicSettings
from monitor.broker.writer import Output
from monitor.detection.detector import Detector, EntityInfo
from monitor.errors import BrokerError
from monitor.metrics import Metrics
from monitor.records import EntityStep, OpinionMessage, Origin, decode_opinion_message, encode
from monitor.roles.lane import IDLE_S, Start

log = structlog.get_logger("monitor.detect")

CHUNK = 1000
"""Opinions per unit of work: some milliseconds of numpy, and one set of state rows."""

POSITION_KEY = b"position"
"""The state record that says which offset of the opinions the rest of the state stands at."""


class Position(msgspec.Struct, frozen=True):
    """Where the state of a partition stands: everything before `offset` is in it."""

    offset: int


class DetectProcessor:
    """The detect role's work on one opinions partition.

    Args:
        partition: Of the opinions topic; its state lies in the same partition of the state topic.
        partitions: Number of partitions of the opinions topic: the correlator waits for each.
        new_detector: Makes a detector, given the state rows to bring back.
    """

    chunk = CHUNK
    idle_s = IDLE_S
    memo = ""

    def __init__(
        self,
        partition: TopicPartition,
        *,
        partitions: int,
        kafka: KafkaSettings,
        topics: TopicSettings,
        transactions: bool,
        metrics: Metrics,
        new_detector: Callable[[dict[bytes, bytes]], Detector],
    ) -> None:
        self.partition = partition
        self.detector: Detector | None = None
        """None until it is restored."""
        self._partitions = partitions
        self._kafka = kafka
        self._topics = topics
        self._transactions = transactions
        self._metrics = metrics
        self._new_detector = new_detector
        self.entities: dict[str, EntityInfo] | None = None
        """Set to a new watchlist; taken over before the next unit of work, in its thread."""

    async def restore(self, start: Start) -> int | None:
        """Read the partition's state rows and rebuild the detector; its position comes with them."""
        started = time.monotonic()
        rows = await self._read_state()
        position = rows.pop(POSITION_KEY, None)
        self.detector = await asyncio.to_thread(self._new_detector, rows)
        seconds = time.monotonic() - started
        self._metrics.restore_seconds.observe(seconds)
        log.info("state.restored", partition=self.partition.partition, rows=len(rows), seconds=round(seconds, 3))
        return msgspec.json.decode(position, type=Position).offset if position is not None else start.offset

    async def _read_state(self) -> dict[bytes, bytes]:
        """The newest committed value of each key of our state partition."""
        state = TopicPartition(self._topics.state, self.partition.partition)
        rows: dict[bytes, bytes] = {}
        async for records in read_range(self._kafka, state, start=None, end=None, read_committed=self._transactions):
            for record in records:
                if record.value is None:
                    rows.pop(record.key, None)
                else:
                    rows[record.key] = record.value
            self._metrics.restored_records.inc(len(records))
        return rows

    async def start(self, records: Sequence[ConsumerRecord[bytes, bytes]]) -> Awaitable[list[Output]]:
        """Judge the opinions; the state moves with them, so nothing is left to wait for."""
        outputs = await asyncio.to_thread(self._judge, records)
        done: asyncio.Future[list[Output]] = asyncio.get_running_loop().create_future()
        done.set_result(outputs)
        return done

    async def idle(self) -> list[Output]:
        """Silence says nothing: the sources' watermarks do."""
        return []

    def _judge(self, records: Sequence[ConsumerRecord[bytes, bytes]]) -> list[Output]:
        detector = self.detector
        assert detector is not None
        if self.entities is not None:
            detector.set_entities(self.entities)
            self.entities = None
        messages: list[OpinionMessage] = []
        outputs: list[Output] = []
        for record in records:
            try:
                messages.append(decode_opinion_message(record.value or b""))
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                origin = Origin(topic=record.topic, partition=record.partition, offset=record.offset)
                outputs.append(
                    deadletter(
                        self._topics.deadletter,
                        "detect",
                        "not_an_opinion",
                        str(error),
                        origin,
                        record.key,
                        record.value,
                    )
                )
                self._metrics.dead_letters.labels("detect", "not_an_opinion").inc()
        before, spent = detector.stats, detector.budget_use()
        detector.observe(messages)
        alerts = detector.advance()
        after, used = detector.stats, detector.budget_use()
        self._metrics.alarms.inc(used.raised - spent.raised)
        self._metrics.allowed.inc(used.allowed - spent.allowed)
        self._metrics.late.inc(after.late - before.late)
        self._metrics.repeated.inc(after.duplicates - before.duplicates)
        number = self.partition.partition
        for message in detector.report(alerts, partition=number, partitions=self._partitions):
            key = message.alert.entity if isinstance(message, EntityStep) else f"closed|{number}"
            outputs.append(Output(self._topics.incidents, key.encode(), encode(message), partition=0))
        outputs += [
            Output(self._topics.state, key, value, partition=number, latest=True)
            for key, value in detector.take_changes()
        ]
        position = msgspec.json.encode(Position(records[-1].offset + 1))
        outputs.append(Output(self._topics.state, POSITION_KEY, position, partition=number, latest=True))
        return outputs


def check_partitions(counts: dict[str, int], topics: TopicSettings) -> None:
    """State lies beside what it is the state of: both topics must have the same number of partitions.

    Raises:
        BrokerError: they have not.
    """
    for state, source in ((topics.state, topics.opinions), (topics.notify, topics.alerts)):
        if counts[state] != counts[source]:
            raise BrokerError(
                f"has {counts[state]} partitions, and {source} has {counts[source]}",
                where=state,
                hint="both need the same number; delete the state topic to have it made anew",
            )
