"""What classify says depends on the documents alone: not on restarts; and of event time it tells what closes a bucket."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
from aiokafka.structs import ConsumerRecord, TopicPartition

from monitor.broker.settings import KafkaSettings, TopicSettings
from monitor.detection.settings import DetectionSettings
from monitor.documents.duplicates import Duplicates
from monitor.documents.entities import Matcher
from monitor.documents.eventtime import EventClock
from monitor.documents.language import LanguageIdentifier
from monitor.documents.parse import DocumentSettings, Parser
from monitor.documents.prepare import Preparer
from monitor.inference.bundle import Bundle
from monitor.inference.classifier import Classifier
from monitor.inference.engine import Engine
from monitor.inference.settings import InferenceSettings
from monitor.metrics import Metrics
from monitor.records import Opinion, Watermark, decode_opinion_message
from monitor.roles import classify
from monitor.roles.classify import ClassifyProcessor
from monitor.roles.lane import Start
from monitor.watchlist import load_watchlist
from tests.support.stream import MINUTE_MS, START_MS, WATCHLIST
from tests.support.tiny_bundle import make_tiny_bundle

DOCUMENTS = TopicPartition("documents", 0)
MINUTES, EACH = 20, 6
DETECTION = DetectionSettings()


def record(offset: int, at_ms: int, text: str = "Acme is good") -> ConsumerRecord[bytes, bytes]:
    value = json.dumps({"id": f"d{offset}", "text": text, "published_at": at_ms / 1000}).encode()
    return ConsumerRecord(DOCUMENTS.topic, 0, offset, at_ms, 0, None, value, None, 0, len(value), ())


async def none_deadly(texts: Sequence[str]) -> set[int]:
    return set()


@asynccontextmanager
async def processors(folder: Path) -> AsyncIterator[partial[ClassifyProcessor]]:
    """Makes processors of one partition, with the tiny model."""
    (folder / "watchlist.toml").write_text(WATCHLIST)
    inference = InferenceSettings(bundle=make_tiny_bundle(folder / "bundle"), threads=1)
    engine = Engine(Bundle.load(inference.bundle), inference)
    matcher = Matcher(load_watchlist(folder / "watchlist.toml"))
    async with Classifier(engine, inference) as classifier:
        yield partial(
            ClassifyProcessor, DOCUMENTS, kafka=KafkaSettings(), topics=TopicSettings(), document_partitions=1,
            opinion_partitions=3, preparer=Preparer(Parser(DocumentSettings()), matcher, LanguageIdentifier(), b"key"),
            classifier=classifier, closed_at=DETECTION.closed_at, deadly=none_deadly, metrics=Metrics(),
        )  # fmt: skip
    engine.close()


async def test_a_watermark_is_told_when_it_closes_a_bucket_and_not_with_each_commit(tmp_path: Path) -> None:
    told: Counter[int] = Counter()
    over_ms = 0
    clock = EventClock()
    async with processors(tmp_path) as new_processor:
        processor = new_processor()
        for offset in range(MINUTES * EACH):
            # Each second one is half a minute behind.
            at_ms = START_MS + offset * MINUTE_MS // EACH - (offset % 2) * MINUTE_MS // 2
            for output in await (await processor.start([record(offset, at_ms)])):
                message = decode_opinion_message(output.value or b"")
                if isinstance(message, Watermark):
                    assert output.partition is not None
                    told[output.partition] += 1
                    over_ms = DETECTION.closed_at(message.time_ms)
            now_ms = clock.observe(at_ms)
            assert now_ms is None or over_ms == DETECTION.closed_at(now_ms)
    assert told.keys() == {0, 1, 2}
    assert all(MINUTES - 2 <= count <= MINUTES + 1 for count in told.values())


async def test_a_restart_anywhere_changes_no_opinion(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One story reposted for longer than the window reaches, each time in other dress; one clock that is far ahead."""
    window = 30
    words = ("good", "awful", "okay")
    story = "Acme left two hundred passengers on the floor of the airport overnight"
    topic = [
        record(
            offset,
            START_MS + offset * MINUTE_MS // EACH + (50 * MINUTE_MS if offset == 40 else 0),
            f"{'RT @ann: ' * (offset % 2)}{story}{'! 😡 '[: offset // 8 % 4]}"
            if offset % 8 == 0 or offset % 28 == 3
            else f"Acme is {words[offset % 3]} today, says visitor {offset} of the shop in the north",
        )
        for offset in range(200)
    ]

    async def read(*args: object, start: int, end: int, **more: object) -> AsyncIterator[Sequence[object]]:
        yield topic[start:end]

    monkeypatch.setattr(classify, "read_range", read)
    monkeypatch.setattr(classify, "WINDOW_RECORDS", window)
    monkeypatch.setattr(classify, "Duplicates", partial(Duplicates, window_records=window))

    async def run(life: int) -> list[Opinion]:
        """A new process after so many documents."""
        said: list[Opinion] = []
        memo = ""
        for first in range(0, len(topic), life):
            processor = new_processor()
            await processor.restore(Start(first, memo=memo))
            for document in topic[first : first + life]:
                messages = [decode_opinion_message(o.value or b"") for o in await (await processor.start([document]))]
                said += [message for message in messages if isinstance(message, Opinion)]
            memo = processor.memo
        return said

    async with processors(tmp_path) as new_processor:
        undisturbed = await run(len(topic))
        assert await run(17) == undisturbed
    assert len(undisturbed) == len(topic)
    assert sum(bool(opinion.repost_of) for opinion in undisturbed) > 20
