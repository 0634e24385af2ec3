"""`babelwatch erase` on real brokers: what was said goes from state, alerts and topics; the counts and the rest stay."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from monitor.broker import client
from monitor.broker.settings import KafkaSettings, TopicSettings
from monitor.privacy import document_hash
from monitor.records import Action, decode_action
from tests.support.daemon import Daemon, alerts, opinions, records, send
from tests.support.stream import documents
from tests.support.tiny_bundle import make_tiny_bundle


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_bundle(tmp_path_factory.mktemp("bundle") / "tiny")


@pytest.fixture
def daemon(tmp_path: Path, kafka_settings: KafkaSettings, names: TopicSettings, bundle: Path) -> Iterator[Daemon]:
    made = Daemon(tmp_path / "one", kafka_settings, names, bundle)
    yield made
    made.kill()


def erase(daemon: Daemon, *arguments: str, refused: bool = False) -> str:
    command = [sys.executable, "-m", "monitor.cli", "erase", "--config", str(daemon.config), *arguments]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == (2 if refused else 0), ended.stdout + ended.stderr
    return ended.stderr if refused else ended.stdout


async def test_a_document_and_an_author_are_erased_from_all_that_is_kept(
    daemon: Daemon, kafka_settings: KafkaSettings, names: TopicSettings
) -> None:
    committed = await client.has_transactions(kafka_settings)
    await daemon.start().ready()
    await send(kafka_settings, names.documents, documents(minutes=420, rise=(360, 420)))
    await daemon.until(lambda d: d.metric("babelwatch_alerts_total", state="firing") >= 1)
    await daemon.until(lambda d: d.metric("babelwatch_lag_records", role="classify") == 0)
    # The metric counts an alert before its transaction is committed.
    while not (told := await alerts(kafka_settings, names, committed=committed)):
        await asyncio.sleep(0.2)
    first = told[0]
    target = first.evidence.posts[0].document_id
    # The second is erased by its author: visitor 17 wrote document d17.
    said = await opinions(kafka_settings, names, committed=committed)
    by_author = next(
        o.document_id
        for o in said
        if o.entity == "acme" and o.published_ms > first.onset_ms and o.document_id != target and "awful" in o.text
    )
    words = {f"visitor {name.removeprefix('d')} of" for name in (target, by_author)}

    async def kept(topic: str) -> str:
        """Everything readable on a topic, the newest value of each key where only that stands."""
        found = await records(kafka_settings, topic, committed=committed)
        if topic == names.state:
            newest = {(r.partition, r.key): r.value for r in found}
            return "".join(value.decode(errors="replace") for value in newest.values() if value)
        return "".join(r.value.decode(errors="replace") for r in found if r.value)

    for topic in (names.state, names.opinions):
        text = await kept(topic)
        assert all(word in text for word in words), topic
    assert f"visitor {target.removeprefix('d')} of" in await kept(names.alerts)
    counted = daemon.metric("babelwatch_documents_total", result="opinion")

    arguments = ("--document", target, "--author", f"visitor{by_author.removeprefix('d')}")
    told = erase(daemon, *arguments, "--dry-run")
    # Without transactions an opinion may lie there more than once: every copy is found.
    said = await opinions(kafka_settings, names, committed=committed)
    copies = sum(opinion.document_id in (target, by_author) for opinion in said)
    assert copies == 2 if committed else copies >= 2
    assert f"{copies}  {names.opinions}: gone by" in told, told + daemon.log()
    state = await kept(names.state)
    assert all(word in state for word in words)

    erase(daemon, *arguments)
    for _ in range(200):
        state = await kept(names.state)
        if not any(word in state for word in words):
            break
    assert not any(word in state for word in words)
    assert "visitor" in state, "the others are still there"
    (action,) = [decode_action(r.value) for r in await records(kafka_settings, names.audit, committed=committed)]
    assert isinstance(action, Action)
    assert set(action.changes) == {document_hash(target), document_hash(by_author)}
    incident = f"/api/v1/incidents/{first.incident}"
    await daemon.until(lambda d: not any(word in d.get(incident)[1] for word in words))

    # At once, where the broker can cut a topic off.
    await daemon.until(lambda d: d.metric("babelwatch_lag_records", role="classify") == 0)
    if not committed:  # the embedded broker cannot
        assert "does not cut topics off" in erase(daemon, *arguments, "--cut", refused=True)
        assert await daemon.end() == 0
        return
    told = erase(daemon, *arguments, "--cut")
    assert f"{names.alerts}: cut off" in told
    for topic in (names.alerts, names.opinions):
        text = await kept(topic)
        assert not any(word in text for word in words), topic
    again = await alerts(kafka_settings, names, committed=committed)
    assert (again[0].id, again[0].sequence, again[0].evidence.observed) == (
        first.id, first.sequence, first.evidence.observed,
    )  # fmt: skip
    assert await opinions(kafka_settings, names, committed=committed)

    # A restart goes on from what is left.
    assert await daemon.end() == 0
    await daemon.start().ready()
    assert not any(word in daemon.get(incident)[1] for word in words)
    more = list(documents(minutes=425, rise=(360, 425)))[420 * 4 :]
    await send(kafka_settings, names.documents, more)
    await daemon.until(lambda d: d.metric("babelwatch_documents_total", result="opinion") >= len(more))
    assert counted
    assert await daemon.end() == 0
