"""A role on a real broker: nothing lost or repeated through stops, rebalances and failed writes."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import asynccontextmanager

import pytest
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete
from aiokafka.structs import ConsumerRecord, TopicPartition

from monitor.broker import client
from monitor.broker.settings import KafkaSettings, TopicSettings
from monitor.broker.writer import Output
from monitor.metrics import Metrics
from monitor.roles.lane import Start
from monitor.roles.stream import StreamRole

on_kafka = pytest.mark.parametrize("broker_address", [pytest.param("kafka", marks=pytest.mark.kafka)], indirect=True)
"""What the embedded broker does not do."""


class Copier:
    """Copies each record's value to another topic, slowly enough that work is in flight when things happen."""

    chunk = 100
    idle_s = 5.0
    memo = ""

    def __init__(self, topic: str, pause_s: float = 0.0, fail_on: set[bytes] | None = None) -> None:
        self.topic = topic
        self.pause_s = pause_s
        self.fail_on = fail_on or set()

    async def restore(self, start: Start) -> int | None:
        return start.offset

    async def start(self, records: Sequence[ConsumerRecord[bytes, bytes]]) -> Awaitable[list[Output]]:
        return self._copy(records)

    async def idle(self) -> list[Output]:
        return []

    async def _copy(self, records: Sequence[ConsumerRecord[bytes, bytes]]) -> list[Output]:
        await asyncio.sleep(self.pause_s)
        for record in records:
            if record.value in self.fail_on:
                self.fail_on.discard(record.value)
                raise OSError("failed once")
        return [Output(self.topic, record.key, record.value) for record in records]


@pytest.fixture
async def transactions(kafka_settings: KafkaSettings) -> bool:
    return await client.has_transactions(kafka_settings)


@pytest.fixture
async def topics(kafka_settings: KafkaSettings, names: TopicSettings) -> TopicSettings:
    await client.ensure_topics(kafka_settings, [names.documents, names.opinions])
    return names


@asynccontextmanager
async def running(
    settings: KafkaSettings, topics: TopicSettings, transactions: bool, processor: Callable[[TopicPartition], Copier]
):  # type: ignore[no-untyped-def]
    role = StreamRole("classify", topics.documents, settings=settings, transactions=transactions, metrics=Metrics())
    role.new_processor = processor
    stopping = asyncio.Event()
    task = asyncio.create_task(role.run(stopping, drain_s=20))
    try:
        yield role
    finally:
        stopping.set()
        await asyncio.wait_for(task, 60)


async def produce(settings: KafkaSettings, topic: str, values: Sequence[bytes]) -> None:
    producer = client.producer(settings)
    await producer.start()
    for place, value in enumerate(values):
        await producer.send(topic, value, key=value, partition=place % settings.partitions)
    await producer.flush()
    await producer.stop()


async def read(
    settings: KafkaSettings, topic: str, wanted: int, *, committed: bool, timeout_s: float = 60
) -> Counter[bytes]:
    """Read until `wanted` distinct values have come and nothing more does."""
    consumer = client.consumer(settings, group=None, read_committed=committed)
    await consumer.start()
    consumer.assign([TopicPartition(topic, p) for p in range(settings.partitions)])
    await consumer.seek_to_beginning()
    seen: Counter[bytes] = Counter()
    deadline = asyncio.get_running_loop().time() + timeout_s
    while asyncio.get_running_loop().time() < deadline:
        batches = await consumer.getmany(timeout_ms=500)
        seen.update(record.value for records in batches.values() for record in records)
        if len(seen) >= wanted and not batches:
            break
    await consumer.stop()
    return seen


async def test_every_record_is_written_and_a_restart_repeats_none(
    kafka_settings: KafkaSettings, topics: TopicSettings, transactions: bool
) -> None:
    values = [b"%d" % n for n in range(3000)]
    await produce(kafka_settings, topics.documents, values[:2000])
    async with running(kafka_settings, topics, transactions, lambda _: Copier(topics.opinions, 0.02)) as role:
        await read(kafka_settings, topics.opinions, 2000, committed=transactions)
        assert role.ready
    await produce(kafka_settings, topics.documents, values[2000:])
    async with running(kafka_settings, topics, transactions, lambda _: Copier(topics.opinions, 0.02)):
        seen = await read(kafka_settings, topics.opinions, 3000, committed=transactions)
    assert seen == Counter(values)


async def test_a_stop_finishes_what_is_in_flight(
    kafka_settings: KafkaSettings, topics: TopicSettings, transactions: bool
) -> None:
    values = [b"%d" % n for n in range(400)]
    await produce(kafka_settings, topics.documents, values)
    async with running(kafka_settings, topics, transactions, lambda _: Copier(topics.opinions, 0.5)) as role:
        while not any(role.positions().values()):
            await asyncio.sleep(0.01)
    # Stopped with every record in flight; all that was taken must have been written and committed.
    async with running(kafka_settings, topics, transactions, lambda _: Copier(topics.opinions)):
        seen = await read(kafka_settings, topics.opinions, 400, committed=transactions)
    assert seen == Counter(values)


async def test_a_failed_batch_is_read_again(
    kafka_settings: KafkaSettings, topics: TopicSettings, transactions: bool
) -> None:
    values = [b"%d" % n for n in range(100)]
    await produce(kafka_settings, topics.documents, values)
    failing = {b"17"}
    async with running(kafka_settings, topics, transactions, lambda _: Copier(topics.opinions, fail_on=failing)):
        seen = await read(kafka_settings, topics.opinions, 100, committed=transactions)
    assert not failing
    assert seen == Counter(values)


async def test_members_share_the_partitions_and_lose_nothing_as_they_come_and_go(
    kafka_settings: KafkaSettings, topics: TopicSettings, transactions: bool
) -> None:
    values = [b"%d" % n for n in range(4000)]
    copier = lambda _: Copier(topics.opinions, 0.01)  # noqa: E731
    async with running(kafka_settings, topics, transactions, copier) as first:
        await produce(kafka_settings, topics.documents, values[:1500])
        async with running(kafka_settings, topics, transactions, copier) as second:
            async with asyncio.timeout(60):
                while not (len(first.positions()) == len(second.positions()) == 2):
                    await asyncio.sleep(0.05)
            await produce(kafka_settings, topics.documents, values[1500:3000])
            await read(kafka_settings, topics.opinions, 3000, committed=transactions)
        await produce(kafka_settings, topics.documents, values[3000:])
        seen = await read(kafka_settings, topics.opinions, 4000, committed=transactions)
    assert set(seen) == set(values)
    if transactions:
        assert seen == Counter(values)


@on_kafka
async def test_what_the_broker_deleted_is_said_and_the_rest_is_read(
    kafka_settings: KafkaSettings, names: TopicSettings
) -> None:
    settings = kafka_settings.model_copy(update={"partitions": 1})
    await client.ensure_topics(settings, [names.documents, names.opinions])
    admin = AIOKafkaAdminClient(**client.connection(settings))
    await admin.start()
    place = TopicPartition(names.documents, 0)

    def expired(role: StreamRole) -> float:
        return role._metrics.expired.labels("classify")._value.get()

    values = [b"%d" % n for n in range(100)]
    await produce(settings, names.documents, values[:50])
    async with running(settings, names, True, lambda _: Copier(names.opinions)) as role:
        await read(settings, names.opinions, 50, committed=True)
        assert expired(role) == 0
    await produce(settings, names.documents, values[50:])
    await admin.delete_records({place: RecordsToDelete(before_offset=80)})
    async with running(settings, names, True, lambda _: Copier(names.opinions)) as role:
        seen = await read(settings, names.opinions, 70, committed=True)
        assert expired(role) == 30
    await produce(settings, names.documents, values)
    await admin.delete_records({place: RecordsToDelete(before_offset=200)})
    async with running(settings, names, True, lambda _: Copier(names.opinions)) as role:
        async with asyncio.timeout(60):
            while dict(role.lags()) != {0: 0} or expired(role) != 100:
                await asyncio.sleep(0.05)
    await admin.close()
    assert seen == Counter(values[:50] + values[80:])


@on_kafka
@pytest.mark.parametrize("transactions", [True, False])
async def test_what_a_processor_notes_beside_its_offset_comes_back(
    kafka_settings: KafkaSettings, names: TopicSettings, transactions: bool
) -> None:
    settings = kafka_settings.model_copy(update={"partitions": 1})
    await client.ensure_topics(settings, [names.documents, names.opinions])
    found: list[Start] = []

    class Noting(Copier):
        memo = "seven"

        async def restore(self, start: Start) -> int | None:
            found.append(start)
            return start.offset

    await produce(settings, names.documents, [b"1", b"2"])
    for _ in range(2):
        async with running(settings, names, transactions, lambda _: Noting(names.opinions)) as role:
            async with asyncio.timeout(60):
                while dict(role.lags()) != {0: 0}:
                    await asyncio.sleep(0.05)
    assert [(start.offset, start.memo) for start in found] == [(None, ""), (2, "seven")]
