"""Where a partition ends, and that a read up to there is whole; and that a client's end keeps nobody alive."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from aiokafka.structs import TopicPartition

from monitor.broker import client
from monitor.broker.reading import end_of, read_range
from monitor.broker.settings import KafkaSettings, TopicSettings
from tests.support.daemon import records


async def write(kafka: KafkaSettings, topic: str, batches: Sequence[int]) -> int:
    """Batches of so many records; returns the records."""
    producer = client.producer(kafka)
    await producer.start()
    try:
        for batch in batches:
            futures = [await producer.send(topic, b"%d" % number, partition=0) for number in range(batch)]
            await asyncio.gather(*futures)
    finally:
        await producer.stop()
    return sum(batches)


async def test_a_partition_is_read_to_the_end_of_its_last_batch(
    kafka_settings: KafkaSettings, names: TopicSettings
) -> None:
    await client.ensure_topics(kafka_settings, [names.state], single=[names.state])
    partition = TopicPartition(names.state, 0)
    written = 0
    for batches in [(), (1,), (7,), (1, 20)]:
        written += await write(kafka_settings, names.state, batches)
        for committed in (False, True):
            assert await end_of(kafka_settings, partition, read_committed=committed) == written
            for start, end, wanted in [(None, None, written), (2, None, written - 2), (None, written - 1, written - 1)]:
                ranges = read_range(kafka_settings, partition, start=start, end=end, read_committed=committed)
                assert len([record async for batch in ranges for record in batch]) == max(0, wanted)
            assert len(await records(kafka_settings, names.state, committed=committed)) == written


async def test_who_is_cancelled_while_a_client_stops_ends(kafka_settings: KafkaSettings, names: TopicSettings) -> None:
    """At whatever step of its stopping: aiokafka's clients keep cancellations for themselves."""
    await client.ensure_topics(kafka_settings, [names.state], single=[names.state])
    await write(kafka_settings, names.state, [3])

    async def end() -> None:
        closing.set()
        await client.stop(reader)
        await asyncio.Event().wait()

    for steps in range(12):
        reader = client.consumer(kafka_settings, group=None, read_committed=True)
        await client.begin(reader, kafka_settings)
        reader.assign([TopicPartition(names.state, 0)])
        await reader.getmany(timeout_ms=100)
        closing = asyncio.Event()
        task = asyncio.create_task(end())
        await closing.wait()
        for _ in range(steps):
            await asyncio.sleep(0)
        task.cancel()
        done, _ = await asyncio.wait([task], timeout=10)
        assert done, f"it lives on when cancelled {steps} steps later"
        assert task.cancelled()
