"""Reading a stretch of one partition outside any group: state at a restart, the window of repeats."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

from aiokafka.structs import ConsumerRecord, TopicPartition

from monitor.broker import client
from monitor.broker.settings import KafkaSettings

Records = Sequence[ConsumerRecord[bytes, bytes]]


async def read_range(
    settings: KafkaSettings, partition: TopicPartition, *, start: int | None, end: int | None, read_committed: bool
) -> AsyncIterator[Records]:
    """The records of a partition from `start` up to (not including) `end`, in batches.

    Args:
        settings: The connection.
        partition: What to read.
        start: First offset; the oldest one when None, or when it is no longer there.
        end: Where to stop; the partition's end as it is now when None.
        read_committed: Leave out aborted transactions.
    """
    reader = client.consumer(settings, group=None, read_committed=read_committed)
    await reader.start()
    try:
        reader.assign([partition])
        oldest = (await reader.beginning_offsets([partition]))[partition]
        newest = (await reader.end_offsets([partition]))[partition]
        stop = newest if end is None else min(end, newest)
        reader.seek(partition, max(oldest, start or 0))
        while await reader.position(partition) < stop:
            for records in (await reader.getmany(timeout_ms=200, max_records=5000)).values():
                wanted = [record for record in records if record.offset < stop]
                if wanted:
                    yield wanted
    finally:
        await reader.stop()
