"""Reading a stretch of one partition outside any group, and where partitions end: state at a restart, the window of repeats."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence

import structlog
from aiokafka import AIOKafkaConsumer
from aiokafka.structs import ConsumerRecord, TopicPartition

from monitor.broker import client
from monitor.broker.settings import KafkaSettings

STALLED_S = 60.0
"""Longer than a leader takes to be replaced, and than a dead writer's transaction stays open (30 s, and 10 s until the broker
looks again); then the caller begins again with a new client."""

TELL_S = 2.0
"""Progress is logged so often: a long restore is no silent one."""

log = structlog.get_logger("monitor.reading")

Records = Sequence[ConsumerRecord[bytes, bytes]]


async def read_range(
    settings: KafkaSettings, partition: TopicPartition, *, start: int | None, end: int | None, read_committed: bool
) -> AsyncIterator[Records]:
    """The records of a partition from `start` up to (not including) `end`, in batches.

    Args:
        settings: The connection.
        partition: What to read.
        start: First offset; the oldest one when None, or when it is no longer there.
        end: Where to stop; when None, behind everything that was written when this was called, which waits for the
            transactions that are open: of the records behind the first of those some would be seen and some not.
        read_committed: Leave out aborted transactions.

    Raises:
        KafkaError, TimeoutError: the broker stopped answering.
    """
    reader = client.consumer(settings, group=None, read_committed=read_committed)
    try:
        await client.begin(reader, settings)
        reader.assign([partition])
        oldest = (await reader.beginning_offsets([partition]))[partition]
        written = await _end(reader, partition, read_committed=False)
        stop = written if end is None else min(end, written)
        reader.seek(partition, max(oldest, start or 0))
        moved_at = told_at = time.monotonic()
        begun = await reader.position(partition)
        while await reader.position(partition) < stop:
            batches = await reader.getmany(timeout_ms=200, max_records=5000)
            if batches:
                moved_at = time.monotonic()
            elif time.monotonic() - moved_at > STALLED_S:
                raise TimeoutError(f"{partition.topic}-{partition.partition}: nothing came for {STALLED_S:.0f} s")
            if time.monotonic() - told_at > TELL_S:
                told_at = time.monotonic()
                done = (await reader.position(partition) - begun) / max(1, stop - begun)
                log.info("reading", topic=partition.topic, partition=partition.partition, percent=round(100 * done))
            for records in batches.values():
                wanted = [record for record in records if record.offset < stop]
                if wanted:
                    yield wanted
    finally:
        await client.stop(reader)


async def end_of(settings: KafkaSettings, partition: TopicPartition, *, read_committed: bool) -> int:
    """The offset behind the last record of a partition; with `read_committed`, before the first open transaction.

    Raises:
        KafkaError, TimeoutError: the broker does not answer.
    """
    reader = client.consumer(settings, group=None, read_committed=read_committed)
    try:
        await client.begin(reader, settings)
        reader.assign([partition])
        return await _end(reader, partition, read_committed=read_committed)
    finally:
        await client.stop(reader)


async def _end(reader: AIOKafkaConsumer, partition: TopicPartition, *, read_committed: bool) -> int:
    """As `end_of`; moves the reader's position.

    Asked for its latest offset, the embedded broker tells where its last batch begins, and one more. What it says beside
    the records of a fetch is right, so the last one is fetched.
    """
    async with asyncio.timeout(client.CONNECT_TIMEOUT_S):
        end = int((await reader.end_offsets([partition]))[partition])
        reader.seek(partition, max(0, end - 1))
        told = None
        while told is None:
            await reader.getmany(partition, timeout_ms=100, max_records=1)
            told = reader.last_stable_offset(partition) if read_committed else reader.highwater(partition)
        return max(end, int(told))


async def is_behind(reader: AIOKafkaConsumer, ends: Mapping[TopicPartition, int]) -> bool:
    """Whether a reader of whole partitions has some left to read: up to `ends`, as its broker told them, and up to what
    the last fetch told (see `_end`)."""
    return any(
        [await reader.position(place) < max(end, reader.last_stable_offset(place) or 0) for place, end in ends.items()]
    )
