"""Promises of docs/guarantees.md that need a broker and no faults: scaling, replay, back-pressure, restoring."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from itertools import pairwise
from pathlib import Path

import pytest
from aiokafka.structs import ConsumerRecord, TopicPartition

from monitor.broker import client
from monitor.broker.reading import read_range
from monitor.broker.settings import KafkaSettings, TopicSettings
from monitor.broker.writer import Output
from monitor.detection.detector import Detector, EntityInfo
from monitor.detection.incidents import AlertSettings
from monitor.detection.settings import DetectionSettings
from monitor.records import Opinion, Watermark
from monitor.roles.detect import POSITION_KEY
from monitor.roles.lane import Start
from monitor.roles.stream import StreamRole
from tests.integration.test_stream import read, running
from tests.support.daemon import Daemon, records
from tests.support.stream import MINUTE_MS, START_MS, documents
from tests.support.tiny_bundle import make_tiny_bundle

pytestmark = pytest.mark.kafka

PARTITIONS = 8


class Named:
    """Copies records; notes who restored which partition."""

    chunk = 50
    idle_s = 5.0
    memo = ""

    def __init__(self, member: str, partition: TopicPartition, topic: str, owners: list[tuple[int, str]]) -> None:
        self._owner = (partition.partition, member)
        self._topic = topic
        self._owners = owners

    async def restore(self, start: Start) -> int | None:
        self._owners.append(self._owner)
        return start.offset

    async def start(self, records: Sequence[ConsumerRecord[bytes, bytes]]) -> Awaitable[list[Output]]:
        return self._copy(records)

    async def _copy(self, records: Sequence[ConsumerRecord[bytes, bytes]]) -> list[Output]:
        await asyncio.sleep(0.01)
        return [Output(self._topic, record.key, record.value) for record in records]

    async def idle(self) -> list[Output]:
        return []


@pytest.fixture
def kafka(kafka_address: str, names: TopicSettings) -> KafkaSettings:
    prefix = names.documents.split(".")[0]
    return KafkaSettings(
        bootstrap_servers=kafka_address, group_prefix=prefix, partitions=PARTITIONS, commit_interval_s=0.1,
        session_timeout_s=10,
    )  # fmt: skip


async def test_one_to_four_and_back_loses_nothing_repeats_nothing_and_moves_only_what_must(
    kafka: KafkaSettings, names: TopicSettings
) -> None:
    await client.ensure_topics(kafka, [names.documents, names.opinions])
    owners: list[tuple[int, str]] = []
    sent = 0
    enough = asyncio.Event()

    async def load() -> None:
        nonlocal sent
        producer = client.producer(kafka)
        await producer.start()
        while not enough.is_set():
            for _ in range(80):
                await producer.send(names.documents, b"%d" % sent, key=b"k", partition=sent % PARTITIONS)
                sent += 1
            await asyncio.sleep(0.1)
        await producer.flush()
        await producer.stop()

    def member(name: str) -> Callable[[TopicPartition], Named]:
        return lambda partition: Named(name, partition, names.opinions, owners)

    loading = asyncio.create_task(load())
    async with running(kafka, names, True, member("a")) as first, AsyncExitStack() as others:  # type: ignore[arg-type]
        await _until(lambda: first.ready)
        joined = [await others.enter_async_context(running(kafka, names, True, member(n))) for n in "bcd"]  # type: ignore[arg-type]
        everyone: list[StreamRole] = [first, *joined]
        await _until(lambda: all(len(role.partitions()) == 2 and role.ready for role in everyone))
        await others.aclose()
        await _until(lambda: len(first.partitions()) == PARTITIONS and first.ready)
        enough.set()
        await loading
        seen = await read(kafka, names.opinions, sent, committed=True, timeout_s=120)
    assert seen == Counter(b"%d" % number for number in range(sent))
    # Who keeps a partition keeps its state: the same member restores it again only after another one has had it.
    for partition in range(PARTITIONS):
        history = [name for number, name in owners if number == partition]
        assert all(before != after for before, after in pairwise(history)), owners
    assert sum(1 for number, name in owners if name == "a") == PARTITIONS + (PARTITIONS - 2)


async def _until(condition: Callable[[], bool], timeout_s: float = 120) -> None:
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0.05)


async def test_a_full_partition_waits_however_large_its_records_are(kafka: KafkaSettings, names: TopicSettings) -> None:
    small = kafka.model_copy(update={"partitions": 4, "backlog_mib": 8, "poll_records": 500})
    await client.ensure_topics(small, [names.documents, names.opinions])
    producer = client.producer(small)
    await producer.start()
    for number in range(600):
        await producer.send(names.documents, b"%d " % number + b"x" * 100_000, key=b"k", partition=number % 4)
    await producer.flush()
    await producer.stop()
    most = 0

    class Slow(Named):
        chunk = 5

        async def _copy(self, records: Sequence[ConsumerRecord[bytes, bytes]]) -> list[Output]:
            nonlocal most
            most = max(most, sum(lane.backlog_bytes for lane in role._lanes.values()))
            await asyncio.sleep(0.02)
            return [Output(names.opinions, record.key, (record.value or b"").split(b" ")[0]) for record in records]

    async with running(small, names, True, lambda p: Slow("a", p, names.opinions, [])) as role:  # type: ignore[arg-type]
        seen = await read(small, names.opinions, 600, committed=True, timeout_s=120)
    assert seen == Counter(b"%d" % number for number in range(600))
    # What is configured, and a fetch of each partition that was on its way when it was reached.
    assert 4 << 20 < most <= (8 + 4 * 4) << 20


@pytest.mark.timeout(600)
async def test_a_replay_gives_the_same_alerts_byte_by_byte(
    tmp_path: Path, kafka: KafkaSettings, names: TopicSettings
) -> None:
    """Live into one process, then as a backlog of more than a day into two with other batches; one partition is silent."""
    kafka = kafka.model_copy(update={"partitions": 4})
    bundle = make_tiny_bundle(tmp_path / "bundle")
    await client.ensure_topics(kafka, [names.documents])
    live = Daemon(tmp_path / "live", kafka, names, bundle)
    others = names.model_copy(
        update={f: f"{getattr(names, f)}2" for f in TopicSettings.model_fields if f != "documents"}
    )
    again = kafka.model_copy(update={"group_prefix": f"{kafka.group_prefix}2"})
    backlog = [Daemon(tmp_path / name, again, others, bundle) for name in ("one", "two")]
    for daemon in backlog:
        text = daemon.config.read_text().replace("[inference]", "[inference]\nbatch_tokens = 64")
        daemon.config.write_text(text.replace("[kafka]", "[kafka]\npoll_records = 37"))
    try:
        await live.start().ready()
        await _send_in_order(kafka, names.documents, list(documents(minutes=1500, rise=(1380, 1440), per_minute=3)))
        await live.until(lambda d: d.metric("babelwatch_alerts_total", state="resolved") >= 1, 200)
        assert await live.end() == 0
        for daemon in backlog:
            daemon.start()
        async with asyncio.timeout(200):
            while len(await records(again, others.alerts, committed=True)) < 2:
                await asyncio.sleep(0.5)
        for daemon in backlog:
            assert await daemon.end() == 0
    finally:
        for daemon in (live, *backlog):
            daemon.kill()
    first = [record.value for record in await records(kafka, names.alerts, committed=True)]
    second = [record.value for record in await records(again, others.alerts, committed=True)]
    assert first == second
    # A quiet day and one rise: catching up raises nothing else.
    assert {json.loads(value or b"")["data"]["entity"] for value in first} == {"acme"}
    assert len({json.loads(value or b"")["subject"] for value in first}) == 1


async def _send_in_order(kafka: KafkaSettings, topic: str, values: list[bytes]) -> None:
    producer = client.producer(kafka)
    await producer.start()
    for number, value in enumerate(values):
        await producer.send(topic, value, key=b"%d" % number, partition=number % 3)  # the fourth stays empty
        if number % 300 == 299:
            await producer.flush()
            await asyncio.sleep(0.2)
    await producer.stop()


async def test_state_is_read_past_a_transaction_that_somebody_else_holds_open(
    kafka: KafkaSettings, names: TopicSettings
) -> None:
    """Detectors and the correlator share a partition of state: what one has committed must not hide behind the other's."""
    kafka = kafka.model_copy(update={"partitions": 1})
    await client.ensure_topics(kafka, [names.state])
    partition = TopicPartition(names.state, 0)
    ours, other = (client.producer(kafka, transactional_id=f"{kafka.group_prefix}.{name}") for name in "ab")
    await asyncio.gather(ours.start(), other.start())
    try:
        await ours.begin_transaction()
        await ours.send_and_wait(names.state, b"new", key=b"row", partition=0)
        await other.begin_transaction()
        await other.send_and_wait(names.state, b"theirs", key=b"other", partition=0)
        await ours.send_and_wait(names.state, b"new", key=b"position", partition=0)
        await ours.commit_transaction()

        async def rows() -> dict[bytes, bytes]:
            ranges = read_range(kafka, partition, start=None, end=None, read_committed=True)
            return {record.key: record.value async for batch in ranges for record in batch}

        reading = asyncio.create_task(rows())
        await asyncio.wait([reading], timeout=2)
        await other.abort_transaction()
        # All of a transaction or nothing: with what was readable at first, the row would have come without the position.
        assert await reading == {b"row": b"new", b"position": b"new"}
    finally:
        await asyncio.gather(ours.stop(), other.stop())


async def test_not_ready_before_every_series_is_back(
    tmp_path: Path, kafka: KafkaSettings, names: TopicSettings
) -> None:
    kafka = kafka.model_copy(update={"partitions": 1})
    entities = {name: EntityInfo(name.title()) for name in ("acme", "globex")}
    langs = [f"l{number}" for number in range(1500)]
    detector = Detector(DetectionSettings(), AlertSettings(), entities, lambda lang: None)
    detector.observe(
        [
            Opinion(id=f"{entity}{lang}", document_id=lang, entity=entity, lang=lang, published_ms=START_MS,
                    sentiment=(0.1, 0.1, 0.8), text="x")
            for entity in entities for lang in langs
        ]
    )  # fmt: skip
    detector.observe([Watermark(topic=names.documents, partition=0, time_ms=START_MS + 60 * MINUTE_MS, partitions=1)])
    detector.advance()
    rows = [*detector.take_changes(), (POSITION_KEY, b'{"offset":0}')]
    await client.ensure_topics(kafka, [names.state, names.opinions, names.documents], configs={})
    producer = client.producer(kafka)
    await producer.start()
    for key, value in rows:
        await producer.send(names.state, value, key=key, partition=0)
    await producer.flush()
    await producer.stop()
    daemon = Daemon(tmp_path / "one", kafka, names, make_tiny_bundle(tmp_path / "bundle"))
    try:
        daemon.start("detect")
        early = 0
        async with asyncio.timeout(120):
            while (await asyncio.to_thread(daemon.get, "/readyz"))[0] != 200:
                assert daemon.process is not None
                assert daemon.process.poll() is None, daemon.log()
                early += 1
                await asyncio.sleep(0.02)
        assert early
        assert "state.restored" in daemon.log()
        assert len(detector) == 2 * (len(langs) + 1)
        assert daemon.metric("babelwatch_restored_records_total") == len(rows)
        assert daemon.metric("babelwatch_series") == len(detector)
        assert await daemon.end() == 0
    finally:
        daemon.kill()
