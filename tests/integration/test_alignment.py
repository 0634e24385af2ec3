"""On a real broker: partitions that run far ahead in event time wait for one that does not move."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

import msgspec
import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.structs import ConsumerRecord, OffsetAndMetadata, TopicPartition

from monitor.broker import client
from monitor.broker.committed import last_committed
from monitor.broker.settings import KafkaSettings, TopicSettings
from monitor.broker.writer import Output
from monitor.documents.eventtime import EventClock
from monitor.roles import alignment as alignment_module
from monitor.roles.alignment import Alignment
from monitor.roles.lane import Note, Start
from tests.integration.test_stream import Copier, on_kafka, read, running
from tests.support.daemon import Daemon
from tests.support.tiny_bundle import make_tiny_bundle

STEP_MS = 600_000
"""Of event time from one record to the next."""
AHEAD = 12
"""Records of the two hours that a partition may be ahead."""


class Timed(Copier):
    """Copies records whose value is their place in time, as far as its gate is open; keeps the event clock as classify does."""

    chunk = 1

    def __init__(self, topic: str, gate: asyncio.Event) -> None:
        super().__init__(topic)
        self._gate = gate
        self._clock = EventClock()

    @property
    def memo(self) -> str:  # type: ignore[override]
        return msgspec.json.encode(self._clock).decode()

    async def restore(self, start: Start) -> int | None:
        if start.memo:
            self._clock = msgspec.json.decode(start.memo, type=EventClock)
        return start.offset

    async def start(self, records: Sequence[ConsumerRecord[bytes, bytes]]) -> Awaitable[list[Output]]:
        for record in records:
            self._clock.observe(int(record.value or b"") * STEP_MS)
        return self._when_open(records)

    async def _when_open(self, records: Sequence[ConsumerRecord[bytes, bytes]]) -> list[Output]:
        await self._gate.wait()
        return await self._copy(records)


async def _until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.02)


@on_kafka
@pytest.mark.parametrize("transactions", [True, False])
async def test_the_fast_one_waits_and_nothing_is_lost(
    kafka_settings: KafkaSettings, names: TopicSettings, transactions: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    kafka = kafka_settings.model_copy(update={"partitions": 2})
    await client.ensure_topics(kafka, [names.documents, names.opinions])
    monkeypatch.setattr(alignment_module, "EVERY_S", 0.2)
    gates = {0: asyncio.Event(), 1: asyncio.Event()}
    for gate in gates.values():
        gate.set()
    stopping = asyncio.Event()
    producer: AIOKafkaProducer = client.producer(kafka)
    await producer.start()

    def processor(partition: TopicPartition) -> Timed:
        return Timed(names.opinions, gates[partition.partition])

    async def steps(partition: int, numbers: range) -> None:
        for number in numbers:
            await producer.send_and_wait(names.documents, b"%d" % number, partition=partition)

    # One member for each partition, as in two processes.
    async with AsyncExitStack() as stack:
        roles = [await stack.enter_async_context(running(kafka, names, transactions, processor)) for _ in range(2)]
        await _until(lambda: all(len(role.partitions()) == 1 and role.ready for role in roles))
        aligned = [
            Alignment(
                AHEAD * STEP_MS, partial(last_committed, producer.client, role.group, names.documents, [0, 1]), role.end
            )
            for role in roles
        ]
        for role, alignment in zip(roles, aligned, strict=True):
            role.held = lambda alignment=alignment: alignment.held
        tasks = [asyncio.create_task(alignment.run(stopping)) for alignment in aligned]
        fast = next(role for role in roles if role.partitions()[0].partition == 1)

        await steps(0, range(10))
        await steps(1, range(10))
        await read(kafka, names.opinions, 10, committed=transactions)
        gates[0].clear()
        await steps(0, range(10, 20))
        await steps(1, range(10, 10 + 2 * AHEAD))
        await _until(lambda: fast.waiting == 1 and bool(fast._paused))
        done = fast._lanes[TopicPartition(names.documents, 1)].position
        await steps(1, range(100, 150))
        # It is seen that they wait, and none is taken.
        await _until(lambda: dict(fast.lags()) == {1: 50})
        assert fast._lanes[TopicPartition(names.documents, 1)].position == done

        gates[0].set()
        await steps(0, range(20, 150))
        seen = await read(kafka, names.opinions, 150, committed=transactions)
        assert not fast.waiting
        stopping.set()
        await asyncio.gather(*tasks)
    await producer.stop()
    twice = {b"%d" % number for number in [*range(10 + 2 * AHEAD), *range(100, 150)]}
    assert seen == {b"%d" % number: 2 if b"%d" % number in twice else 1 for number in range(150)}


@on_kafka
async def test_a_daemon_waits_for_a_partition_of_another_member(
    kafka_settings: KafkaSettings, names: TopicSettings, tmp_path: Path
) -> None:
    kafka = kafka_settings.model_copy(update={"partitions": 2})
    await client.ensure_topics(kafka, [names.documents, names.opinions, names.state, names.incidents, names.alerts])
    member = client.consumer(kafka, group=f"{kafka.group_prefix}.classify", read_committed=True)
    await member.start()
    member.subscribe([names.documents])

    async def stand_still() -> None:
        while True:
            await member.getmany(timeout_ms=100)

    async def hours(partition: int, numbers: range) -> None:
        for hour in numbers:
            document = {"id": f"{partition}-{hour}", "text": "Acme", "published_at": day_ago_s + hour * 3600}
            await producer.send(names.documents, json.dumps(document).encode(), partition=partition)
        await producer.flush()

    # Of today: the broker may delete what is older than its retention before it is read.
    day_ago_s = int(time.time()) - 86_400
    standing = asyncio.create_task(stand_still())
    producer = client.producer(kafka)
    await producer.start()
    daemon = Daemon(tmp_path / "one", kafka, names, make_tiny_bundle(tmp_path / "bundle"))
    try:
        await daemon.start("classify").ready()
        await _until(lambda: len(member.assignment()) == 1)
        (slow,) = member.assignment()
        await hours(slow.partition, range(3))
        note = Note(memo=msgspec.json.encode(EventClock(day_ago_s * 1000)).decode())
        await member.commit({slow: OffsetAndMetadata(0, msgspec.json.encode(note).decode())})
        await hours(1 - slow.partition, range(12))
        await daemon.until(lambda d: d.metric("babelwatch_held_partitions") == d.metric("babelwatch_pauses_total") == 1)
        await hours(1 - slow.partition, range(12, 20))
        await daemon.until(lambda d: d.metric("babelwatch_lag_records", role="classify") == 8)
        standing.cancel()
        await member.stop()
        await daemon.until(lambda d: d.metric("babelwatch_documents_total") == 23)
        assert await daemon.end() == 0
    finally:
        await producer.stop()
        daemon.kill()
