"""A member of a consumer group with one lane per assigned partition: the shell that classify and detect share."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping

import structlog
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRebalanceListener
from aiokafka.errors import KafkaError, NoOffsetForPartitionError, OffsetOutOfRangeError
from aiokafka.structs import TopicPartition

from monitor.broker import client
from monitor.broker.reading import is_behind
from monitor.broker.settings import KafkaSettings
from monitor.broker.writer import PlainWriter, TransactionalWriter, Writer
from monitor.metrics import Metrics
from monitor.roles.lane import Lane, Processor

log = structlog.get_logger("monitor.stream")

POLL_S = 0.1
"""How long one fetch waits for records; also how soon pauses and a stop are noticed."""

ASK_TIMEOUT_S = 10.0
"""For one question to a broker, within a rebalance or before a partition is called idle."""

STUCK_S = 120.0
"""After so long without a record, although there are some, the client is made anew; longer than any fail-over of a leader."""

REVOKE_DRAIN_S = 5.0
"""Within a rebalance the whole group waits for us; what is not done by then is read again by the next owner."""


class StreamRole(ConsumerRebalanceListener):  # type: ignore[misc]
    """Consume, transform, produce, commit.

    Args:
        name: The role's name: classify or detect; part of the group's name.
        topic: What to consume.
        settings: The connection.
        transactions: Whether the broker has them.
        metrics: Where to count.
    """

    def __init__(
        self,
        name: str,
        topic: str,
        *,
        settings: KafkaSettings,
        transactions: bool,
        metrics: Metrics,
    ) -> None:
        self.name = name
        self.topic = topic
        self.group = f"{settings.group_prefix}.{name}"
        self.beat_at = time.monotonic()
        self.abandoned = 0
        """Records that were taken and not finished when the role had to end; they are read again."""
        self.started = False
        self.new_processor: Callable[[TopicPartition], Processor]
        """Makes the processor of one partition; set before `run`."""
        self.held: Callable[[], Mapping[int, int | None]] = dict
        """Partitions that wait for slower ones, of which nothing more is taken, and where they end."""
        self._settings = settings
        self._transactions = transactions
        self._metrics = metrics
        self._lanes: dict[TopicPartition, Lane] = {}
        self._consumer: AIOKafkaConsumer | None = None
        self._producer: AIOKafkaProducer | None = None
        self._paused: set[TopicPartition] = set()
        self._assigned_once = False
        self._leaving = False
        self._sought: set[TopicPartition] = set()
        """Partitions whose place in the stream was set anew since the last fetch began."""

    @property
    def ready(self) -> bool:
        """Assigned (perhaps nothing, when there are more members than partitions), and every lane restored."""
        return self._assigned_once and all(lane.ready for lane in self._lanes.values())

    def lags(self) -> Iterable[tuple[int, int]]:
        """(partition, records behind) of each assigned partition, as of the last fetch."""
        assigned = self._consumer.assignment() if self._consumer else ()
        held = self.held()
        for partition, lane in self._lanes.items():
            # Within a rebalance lanes stay, and the client has nothing: it would raise.
            end = self._consumer.highwater(partition) if self._consumer and partition in assigned else None
            # Of a partition that waits nothing is fetched, and so the client does not learn that it grows.
            end = max(end or 0, held.get(partition.partition) or 0) or end
            if end is not None and lane.position is not None:
                yield partition.partition, max(0, end - lane.position + lane.backlog)

    def positions(self) -> dict[int, int]:
        """Backlog by partition: records taken and not yet committed."""
        return {partition.partition: lane.backlog for partition, lane in self._lanes.items()}

    @property
    def waiting(self) -> int:
        """How many of our partitions wait for slower ones."""
        held = self.held()
        return sum(partition.partition in held for partition in self._lanes)

    def partitions(self) -> list[TopicPartition]:
        """What is assigned."""
        return list(self._lanes)

    def processors(self) -> list[Processor]:
        """Those at work now."""
        return [lane.processor for lane in self._lanes.values() if lane.processor is not None]

    async def run(self, stopping: asyncio.Event, *, drain_s: float) -> None:
        """Work until `stopping` is set, then finish what was taken within `drain_s` seconds and leave the group."""
        while not stopping.is_set():
            await client.patiently(f"joining {self.group}", self._join, stopping=stopping)
            self.beat_at, self.started = time.monotonic(), True
            try:
                while not stopping.is_set() and not self._stuck():
                    await self._poll_once()
                await self._drain(drain_s)
            finally:
                await self._leave()

    def _stuck(self) -> bool:
        """A client that silently stopped to fetch (aiokafka#1037): the broker answers that there is more, and nothing comes."""
        limit = time.monotonic() - STUCK_S
        stuck = [
            lane
            for partition, lane in self._lanes.items()
            if partition not in self._paused and lane.behind_since is not None and lane.behind_since < limit
        ]
        if stuck:
            log.error("client.stuck", role=self.name, partitions=[lane.partition.partition for lane in stuck])
        return bool(stuck)

    async def _join(self) -> None:
        self._assigned_once = self._leaving = False
        # No reset: the client would go on behind what the broker has deleted, and tell nobody.
        consumer = client.consumer(
            self._settings, group=self.group, read_committed=self._transactions, auto_offset_reset="none"
        )
        try:
            if not self._transactions:
                self._producer = client.producer(self._settings)
                await client.begin(self._producer, self._settings)
            await client.begin(consumer, self._settings)
        except BaseException:
            await client.stop(consumer)
            if self._producer is not None:
                await client.stop(self._producer)
            raise
        self._consumer = consumer
        consumer.subscribe([self.topic], listener=self)

    async def _poll_once(self) -> None:
        assert self._consumer is not None
        self._sought.clear()
        try:
            batches = await self._consumer.getmany(
                timeout_ms=int(POLL_S * 1000), max_records=self._settings.poll_records
            )
        except OffsetOutOfRangeError as error:
            await self._go_on_behind_the_gap(error.args[0])
            return
        except NoOffsetForPartitionError:
            await asyncio.sleep(POLL_S)  # its lane will say where to begin
            return
        except KafkaError as error:
            log.warning("fetch.failed", role=self.name, reason=client.explain(error))
            await asyncio.sleep(1.0)
            return
        for partition, records in batches.items():
            if (lane := self._lanes.get(partition)) is None:
                continue
            if partition in self._sought:
                # A lane was opened while these were on their way: they may lie beyond where it begins, and it cannot tell.
                if lane.ready and lane.position is not None and partition in self._consumer.assignment():
                    self._consumer.seek(partition, lane.position)
                continue
            lane.offer(records)
        await self._reopen_lost()
        self._balance()
        self.beat_at = time.monotonic()

    async def _go_on_behind_the_gap(self, places: Mapping[TopicPartition, int]) -> None:
        """What we were to read next is not there: the broker has deleted it, or the topic was made anew."""
        assert self._consumer is not None
        try:
            async with asyncio.timeout(ASK_TIMEOUT_S):
                oldest = await self._consumer.beginning_offsets(list(places))
        except (KafkaError, TimeoutError) as error:
            log.warning("fetch.failed", role=self.name, reason=client.explain(error))
            return
        for partition, position in places.items():
            if partition not in self._consumer.assignment():
                continue
            gone = oldest[partition] - position
            where = {"role": self.name, "topic": partition.topic, "partition": partition.partition}
            if gone > 0:
                log.error("records.expired", **where, records=gone, hint="the topic's retention is shorter than what was "
                          "left to read: lengthen it, or read faster")  # fmt: skip
                self._metrics.expired.labels(self.name).inc(gone)
            else:
                log.error("partition.shorter", **where, position=position, hint="the topic was made anew, or its leader "
                          f"lost records: stop Babelwatch, and reset the offsets of the group {self.group}")  # fmt: skip
            if (lane := self._lanes.get(partition)) is not None and lane.ready:
                lane.skip_to(oldest[partition])
            self._consumer.seek(partition, oldest[partition])

    def _balance(self) -> None:
        """Pause what is full or held, resume at half: hysteresis, since a pause throws away what was fetched ahead."""
        assert self._consumer is not None
        full = self._settings.backlog_records
        full_bytes = (self._settings.backlog_mib << 20) // max(1, len(self._lanes))
        assigned = self._consumer.assignment()
        held = self.held()
        for partition, lane in self._lanes.items():
            if partition not in assigned or not lane.ready:
                continue
            waits = partition.partition in held
            if partition in self._paused:
                if lane.backlog <= full // 2 and lane.backlog_bytes <= full_bytes // 2 and not waits:
                    self._paused.discard(partition)
                    lane.behind_since = None
                    self._consumer.resume(partition)
            elif waits or lane.backlog >= full or lane.backlog_bytes >= full_bytes:
                self._paused.add(partition)
                self._consumer.pause(partition)
                self._metrics.paused.labels(self.name).inc()

    async def _reopen_lost(self) -> None:
        """A lane that another owner fenced while the group still says it is ours is opened anew."""
        assert self._consumer is not None
        assigned = self._consumer.assignment()
        for partition, lane in list(self._lanes.items()):
            if lane.lost and partition in assigned:
                await lane.close()
                self._open(partition)

    async def on_partitions_revoked(self, revoked: list[TopicPartition]) -> None:
        """Commit what is done; lanes stay as they are, since the same partitions often come back at once."""
        deadline = time.monotonic() + REVOKE_DRAIN_S
        await asyncio.gather(*(lane.drain(deadline) for p, lane in self._lanes.items() if p in set(revoked)))

    async def on_partitions_assigned(self, assigned: list[TopicPartition]) -> None:
        """Close the lanes that went, keep those that stayed and are up to date, open the new ones."""
        assert self._consumer is not None
        self._metrics.rebalances.labels(self.name).inc()
        gone = [partition for partition in self._lanes if partition not in set(assigned)]
        await asyncio.gather(*(self._lanes.pop(partition).close() for partition in gone))
        self._paused &= set(assigned)
        if self._leaving:
            # The group gives us more while we go: a lane opened now would outlive us, and fence its rightful owner.
            return
        for partition in assigned:
            lane = self._lanes.get(partition)
            if lane is not None and await self._still_ours(partition, lane):
                if not lane.ready or partition in self._paused:
                    # One that is still restoring goes on with it: under load a group may rebalance faster than that.
                    self._consumer.pause(partition)
                # Paused until then, one that is restoring gets any place: without one the client looks for it, and complains.
                self._sought.add(partition)
                self._consumer.seek(partition, lane.position or 0)
                continue
            if lane is not None:
                await lane.close()
            self._open(partition)
        self._assigned_once = True
        log.info("partitions.assigned", role=self.name, partitions=sorted(p.partition for p in assigned))

    async def _still_ours(self, partition: TopicPartition, lane: Lane) -> bool:
        """Whether the lane may go on as it is, with its state and what it holds."""
        if self._transactions:
            # Had anybody else opened the partition meanwhile, our writer would be fenced, and the lane opened anew.
            return not lane.lost
        if not lane.ready or lane.backlog:
            return False
        assert self._consumer is not None
        # Nobody committed past us: then nobody else had the partition, and the lane's state is current.
        try:
            async with asyncio.timeout(ASK_TIMEOUT_S):
                return bool(await self._consumer.committed(partition) == lane.position)
        except (KafkaError, TimeoutError):
            return False

    def _open(self, partition: TopicPartition) -> None:
        assert self._consumer is not None
        # Paused until the lane knows where to go on; getmany keeps being called meanwhile. Some place, so that the client
        # does not look for one.
        self._consumer.pause(partition)
        self._consumer.seek(partition, 0)
        self._paused.discard(partition)
        lane = Lane(
            partition,
            new_processor=lambda: self.new_processor(partition),
            new_writer=lambda: self._new_writer(partition),
            read_to_end=self._read_to_end,
            opened=self._opened,
            commit_interval_s=self._settings.commit_interval_s,
            on_commit=self._count_commit,
        )
        self._lanes[partition] = lane
        lane.open()

    async def _opened(self, partition: TopicPartition, position: int | None) -> None:
        assert self._consumer is not None
        if partition not in self._consumer.assignment():
            return
        self._sought.add(partition)
        if position is None:
            await self._consumer.seek_to_beginning(partition)
        else:
            self._consumer.seek(partition, position)
        self._consumer.resume(partition)

    async def _read_to_end(self, partition: TopicPartition) -> int | None:
        assert self._consumer is not None
        async with asyncio.timeout(ASK_TIMEOUT_S):
            # By the client's own position: it lies behind the markers of transactions, which are no records.
            position = int(await self._consumer.position(partition))
            behind = await is_behind(self._consumer, await self._consumer.end_offsets([partition]))
            return None if behind else position

    async def end(self, partition: int) -> int:
        """The offset behind the last record of a partition of the topic, whoever has it.

        Raises:
            KafkaError, TimeoutError: it is not known.
        """
        if (consumer := self._consumer) is None:
            raise KafkaError(f"{self.name} is not connected")
        place = TopicPartition(self.topic, partition)
        async with asyncio.timeout(ASK_TIMEOUT_S):
            return int((await consumer.end_offsets([place]))[place])

    def _new_writer(self, partition: TopicPartition) -> Writer:
        if self._transactions:
            return TransactionalWriter(self._settings, self.group, partition)
        assert self._producer is not None
        return PlainWriter(self._producer, lambda: self._consumer, self.group, partition)

    def _count_commit(self, outputs: int, seconds: float) -> None:
        self._metrics.commits.labels(self.name).inc()
        self._metrics.commit_seconds.labels(self.name).observe(seconds)
        self._metrics.outputs.labels(self.name).inc(outputs)

    async def _drain(self, drain_s: float) -> None:
        assert self._consumer is not None
        self._leaving = True
        if self._consumer.assignment():
            self._consumer.pause(*self._consumer.assignment())
        deadline = time.monotonic() + drain_s
        done = await asyncio.gather(*(lane.drain(deadline) for lane in self._lanes.values()))
        self.abandoned = sum(lane.backlog for lane in self._lanes.values())
        log.info("role.drained", role=self.name, complete=all(done), left=self.abandoned)

    async def _leave(self) -> None:
        self._leaving = True
        await asyncio.gather(*(lane.close() for lane in self._lanes.values()))
        self._lanes.clear()
        self._paused.clear()
        await asyncio.gather(*(client.stop(c) for c in (self._consumer, self._producer) if c is not None))
        self._consumer = self._producer = None
