"""The daemon as a process, on real brokers: the way from a document to an alert, and what goes wrong on it."""

from __future__ import annotations

import asyncio
import json
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import Producer

from monitor.broker import client
from monitor.broker.settings import KafkaSettings, TopicSettings
from monitor.config import load_config
from monitor.deadletters import replay_deadletters
from tests.conftest import kafka_home
from tests.support import servers
from tests.support.daemon import Daemon, alerts, deadletters, opinions, records, send
from tests.support.stream import MINUTE_MS, START_MS, documents
from tests.support.tiny_bundle import CRASH_WORD, NAN_WORD, make_tiny_bundle


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_bundle(tmp_path_factory.mktemp("bundle") / "tiny")


@pytest.fixture
def daemon(tmp_path: Path, kafka_settings: KafkaSettings, names: TopicSettings, bundle: Path) -> Iterator[Daemon]:
    made = Daemon(tmp_path / "one", kafka_settings, names, bundle)
    yield made
    made.kill()


async def is_transactional(settings: KafkaSettings) -> bool:
    return await client.has_transactions(settings)


async def test_a_rise_becomes_one_incident_that_opens_and_resolves(
    daemon: Daemon, kafka_settings: KafkaSettings, names: TopicSettings
) -> None:
    await daemon.start().ready()
    sent = await send(kafka_settings, names.documents, documents(minutes=900, rise=(600, 690)))
    await daemon.until(lambda d: d.metric("babelwatch_alerts_total", state="resolved") >= 1)
    assert await daemon.end() == 0
    committed = await is_transactional(kafka_settings)
    found = await alerts(kafka_settings, names, committed=committed)
    assert {alert.entity for alert in found} == {"acme"}
    assert len({alert.incident for alert in found}) == 1
    assert [alert.sequence for alert in found] == list(range(len(found)))
    assert (found[0].state, found[-1].state) == ("firing", "resolved")
    firing = found[0]
    assert abs(firing.onset_ms - (START_MS + 600 * MINUTE_MS)) <= 10 * MINUTE_MS
    assert firing.evidence.observed > 0.6 > 0.3 > firing.evidence.expected
    assert firing.labels == {"owner": "brands"}
    assert firing.evidence.posts
    assert all("awful" in post.text for post in firing.evidence.posts[:3])
    said = await opinions(kafka_settings, names, committed=committed)
    assert len({opinion.id for opinion in said}) == sent
    assert all("visitor" not in opinion.author for opinion in said)


def write_by_librdkafka(address: str, topic: str) -> int:
    """Documents in every compression, and in two transactions, the first of them aborted; returns how many count."""
    batches = [list(documents(minutes=10, seed=seed)) for seed in range(7)]
    told = [value.replace(b'"id": "', b'"id": "%d-' % seed) for seed, batch in enumerate(batches) for value in batch]
    size = len(batches[0])
    for number, codec in enumerate(["none", "gzip", "snappy", "lz4", "zstd"]):
        producer = Producer({"bootstrap.servers": address, "compression.type": codec, "linger.ms": 50})
        for value in told[number * size : (number + 1) * size]:
            producer.produce(topic, value)
        assert producer.flush(30) == 0
    producer = Producer({"bootstrap.servers": address, "transactional.id": topic, "compression.type": "lz4"})
    producer.init_transactions(30)
    for number, end in ((5, producer.abort_transaction), (6, producer.commit_transaction)):
        producer.begin_transaction()
        for value in told[number * size : (number + 1) * size]:
            producer.produce(topic, value)
        producer.flush(30)
        end(30)
    return len(told) - size


async def test_documents_of_another_client_are_read_however_it_packs_them(
    tmp_path: Path, kafka_address: str, names: TopicSettings, bundle: Path
) -> None:
    kafka = KafkaSettings(bootstrap_servers=kafka_address, group_prefix=names.documents.split(".")[0])
    daemon = Daemon(tmp_path / "one", kafka, names, bundle)
    try:
        await daemon.start().ready()
        sent = await asyncio.to_thread(write_by_librdkafka, kafka_address, names.documents)
        await daemon.until(lambda d: d.metric("babelwatch_documents_total", result="opinion") >= sent)
        assert await daemon.end() == 0
        said = await opinions(kafka, names, committed=True)
        of_run = Counter(opinion.document_id[0] for opinion in said)
        assert of_run == dict.fromkeys("012346", sent // 6)  # of 5, which was aborted, nothing
        assert await deadletters(kafka, names, committed=True) == []
    finally:
        daemon.kill()


POISON: list[tuple[bytes | None, str]] = [
    (b"not json at all", "not_json"),
    (b'{"id": "cut", "text": "acme', "not_json"),
    (b'{"text": "acme \xff"}', "not_utf8"),
    (b"[1, 2, 3]", "not_an_object"),
    (b'{"id": "p1", "text": 17}', "wrong_type"),
    (b'{"id": "p2", "text": "   "}', "empty_text"),
    (b'{"id": "p3"}', "empty_text"),
    (b'{"id": "p4", "text": "acme \\u0000 good"}', "nul_byte"),
    (b'{"id": "p5", "text": "acme \\ud83d"}', "lone_surrogate"),
    (json.dumps({"id": "p6", "text": "acme " * 80_000}).encode(), "too_large"),
    (b'{"id": "p7", "text": "acme is good", "published_at": "yesterday-ish"}', "bad_time"),
    (b'{"id": "p8", "text": "acme is good", "published_at": 0}', "bad_time"),
    (b'{"id": "p9", "text": "acme is good", "published_at": "2099-01-01T00:00:00Z"}', "future_time"),
    (None, "null_value"),
    (json.dumps({"id": "p10", "text": f"acme {NAN_WORD}"}).encode(), "model_not_finite"),
    (json.dumps({"id": "p11", "text": f"acme {CRASH_WORD}"}).encode(), "model_inference"),
]


async def test_poison_is_dead_lettered_with_its_reason_and_nothing_else_is_lost(
    daemon: Daemon, kafka_settings: KafkaSettings, names: TopicSettings
) -> None:
    good = list(documents(minutes=50))
    mixed: list[bytes | None] = []
    for place, document in enumerate(good):
        mixed.append(document)
        if place % 10 == 5 and place // 10 < len(POISON):
            mixed.append(POISON[place // 10][0])
    await daemon.start().ready()
    await send(kafka_settings, names.documents, mixed)
    await daemon.until(
        lambda d: (
            d.metric("babelwatch_documents_total") >= len(mixed)
            and d.metric("babelwatch_lag_records", role="classify") == 0
        )
    )
    assert await daemon.end() == 0
    committed = await is_transactional(kafka_settings)
    letters = await deadletters(kafka_settings, names, committed=committed)
    assert Counter(letter.reason for letter in letters) == Counter(reason for _, reason in POISON)
    assert all(letter.origin.topic == names.documents for letter in letters)
    said = await opinions(kafka_settings, names, committed=committed)
    assert {opinion.document_id for opinion in said} == {json.loads(document)["id"] for document in good}


async def test_sigterm_with_work_in_flight_loses_and_repeats_nothing(
    daemon: Daemon, kafka_settings: KafkaSettings, names: TopicSettings
) -> None:
    await daemon.start().ready()
    sent = await send(kafka_settings, names.documents, documents(minutes=1500))
    await daemon.until(lambda d: d.metric("babelwatch_documents_total") > 0)
    assert await daemon.end() == 0
    await daemon.start().ready()
    await daemon.until(
        lambda d: d.metric("babelwatch_lag_records", role="classify") == 0 and d.get("/readyz")[0] == 200
    )
    assert await daemon.end() == 0
    said = await opinions(kafka_settings, names, committed=await is_transactional(kafka_settings))
    assert Counter(Counter(opinion.id for opinion in said).values()) == {1: sent}


@pytest.mark.kafka
async def test_two_processes_share_the_work_and_one_may_be_killed(
    tmp_path: Path, kafka_address: str, names: TopicSettings, bundle: Path
) -> None:
    settings = KafkaSettings(bootstrap_servers=kafka_address, group_prefix=names.documents.split(".")[0])
    first, second = (Daemon(tmp_path / name, settings, names, bundle) for name in ("one", "two"))
    try:
        await first.start().ready()
        await second.start().ready()
        values = list(documents(minutes=2000))
        sender = asyncio.create_task(send(settings, names.documents, values))
        await second.until(lambda d: d.metric("babelwatch_documents_total") > 100)
        second.kill()
        await sender
        await first.until(
            lambda d: (
                d.metric("babelwatch_rebalances_total", role="classify") >= 2
                and len(
                    [
                        1
                        for line in d.get("/metrics")[1].splitlines()
                        if line.startswith("babelwatch_lag_records{") and 'role="classify"' in line
                    ]
                )
                == 4
                and d.metric("babelwatch_lag_records", role="classify") == 0
            )
        )
        assert await first.end() == 0
    finally:
        first.kill()
        second.kill()
    said = await opinions(settings, names, committed=True)
    assert Counter(Counter(opinion.id for opinion in said).values()) == {1: len(values)}


@pytest.mark.kafka
async def test_a_broker_that_goes_and_comes_back(tmp_path: Path, names: TopicSettings, bundle: Path) -> None:
    broker = servers.kafka(kafka_home())
    settings = KafkaSettings(bootstrap_servers=broker.address, group_prefix="gone")
    daemon = Daemon(tmp_path / "one", settings, names, bundle)
    try:
        daemon.start()  # before its broker
        await daemon.until(lambda d: "broker.unreachable" in d.log())
        broker.start()
        await daemon.ready()
        first = list(documents(minutes=100))
        await send(settings, names.documents, first)
        await daemon.until(lambda d: d.metric("babelwatch_documents_total", result="opinion") >= len(first))
        broker.kill(signal.SIGKILL)
        broker.start()
        second = list(documents(minutes=200))[len(first) :]
        await send(settings, names.documents, second)
        await daemon.until(
            lambda d: d.metric("babelwatch_documents_total", result="opinion") >= len(first) + len(second)
        )
        await daemon.until(lambda d: d.metric("babelwatch_lag_records", role="classify") == 0)
        assert await daemon.end() == 0
        said = await opinions(settings, names, committed=True)
        assert Counter(Counter(opinion.id for opinion in said).values()) == {1: len(first) + len(second)}
    finally:
        daemon.kill()
        broker.stop()


async def test_a_new_watchlist_is_taken_while_documents_flow_and_a_broken_one_is_not(
    daemon: Daemon, kafka_settings: KafkaSettings, names: TopicSettings
) -> None:
    await daemon.start().ready()
    file = daemon.folder / "watchlist.toml"
    sent = await send(kafka_settings, names.documents, documents(minutes=50))
    await daemon.until(lambda d: d.metric("babelwatch_documents_total", result="opinion") >= sent)
    file.write_text(file.read_text().replace('["Globex"]', '["Nobody"]'))
    await daemon.until(lambda d: d.metric("babelwatch_watchlist_reloads_total", result="ok") >= 1)
    assert daemon.process is not None
    reloads = daemon.metric("babelwatch_watchlist_reloads_total", result="ok")
    daemon.process.send_signal(signal.SIGHUP)
    await daemon.until(lambda d: d.metric("babelwatch_watchlist_reloads_total", result="ok") > reloads)
    file.write_text("[[entity]]\nid = 3\n")
    await daemon.until(lambda d: d.metric("babelwatch_watchlist_reloads_total", result="failed") >= 1)
    assert "watchlist.rejected" in daemon.log()
    later = [value for value in documents(minutes=100) if value not in set(documents(minutes=50))]
    await send(kafka_settings, names.documents, later)
    expected = sum(b"Globex" in value for value in later)
    await daemon.until(lambda d: d.metric("babelwatch_documents_total", result="unmatched") >= expected)
    assert daemon.metric("babelwatch_documents_total", result="unmatched") == expected
    assert await daemon.end() == 0


@pytest.mark.kafka
async def test_dead_letters_can_be_sent_back_once(
    tmp_path: Path, kafka_address: str, names: TopicSettings, bundle: Path
) -> None:
    settings = KafkaSettings(bootstrap_servers=kafka_address, group_prefix=names.documents.split(".")[0])
    daemon = Daemon(tmp_path / "one", settings, names, bundle)
    try:
        await daemon.start().ready()
        await send(settings, names.documents, [b'{"id": "w", "text": 17}', b"not json", *documents(minutes=5)])
        await daemon.until(lambda d: d.metric("babelwatch_documents_total") >= 22)
        assert await daemon.end() == 0
        config = load_config(daemon.config)
        assert await replay_deadletters(config, set(), dry_run=True) == {"sent wrong_type": 1, "sent not_json": 1}
        assert await replay_deadletters(config, {"wrong_type"}, dry_run=False) == {"sent wrong_type": 1, "left": 1}
        assert await replay_deadletters(config, {"wrong_type"}, dry_run=False) == {"left": 1}
        assert await replay_deadletters(config, set(), dry_run=False) == {"sent not_json": 1}
        assert await replay_deadletters(config, set(), dry_run=False) == {}
    finally:
        daemon.kill()
    sent_back = [record for record in await records(settings, names.documents, committed=True) if record.headers]
    assert sorted(record.value for record in sent_back) == [b"not json", b'{"id": "w", "text": 17}']


async def test_a_second_signal_ends_it_at_once(tmp_path: Path, names: TopicSettings, bundle: Path) -> None:
    broker = servers.tansu().start()
    daemon = Daemon(tmp_path / "one", KafkaSettings(bootstrap_servers=broker.address), names, bundle)
    try:
        await daemon.start().ready()
        assert broker.process is not None
        broker.process.send_signal(signal.SIGSTOP)  # so that nothing can be committed, and the first one has to wait
        assert daemon.process is not None
        daemon.process.send_signal(signal.SIGTERM)
        await daemon.until(lambda d: "process.stopping" in d.log())
        assert daemon.process.poll() is None
        assert await daemon.end(signal.SIGTERM) == 128 + signal.SIGTERM
    finally:
        daemon.kill()
        broker.kill()
        broker.stop()
