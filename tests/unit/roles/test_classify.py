"""What classify tells the detectors of event time: all that closes a bucket, and no more."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from aiokafka.structs import ConsumerRecord, TopicPartition

from monitor.broker.settings import KafkaSettings, TopicSettings
from monitor.detection.settings import DetectionSettings
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
from monitor.records import Watermark, decode_opinion_message
from monitor.roles.classify import ClassifyProcessor
from monitor.watchlist import load_watchlist
from tests.support.stream import MINUTE_MS, START_MS, WATCHLIST
from tests.support.tiny_bundle import make_tiny_bundle

DOCUMENTS = TopicPartition("documents", 0)
MINUTES, EACH = 20, 6


def record(offset: int) -> tuple[int, ConsumerRecord[bytes, bytes]]:
    """The n-th document and its time; each second one is half a minute behind."""
    at_ms = START_MS + offset * MINUTE_MS // EACH - (offset % 2) * MINUTE_MS // 2
    value = json.dumps({"id": f"d{offset}", "text": "Acme is good", "published_at": at_ms / 1000}).encode()
    return at_ms, ConsumerRecord(DOCUMENTS.topic, 0, offset, at_ms, 0, None, value, None, 0, len(value), ())


async def none_deadly(texts: Sequence[str]) -> set[int]:
    return set()


async def test_a_watermark_is_told_when_it_closes_a_bucket_and_not_with_each_commit(tmp_path: Path) -> None:
    (tmp_path / "watchlist.toml").write_text(WATCHLIST)
    detection, inference = DetectionSettings(), InferenceSettings(bundle=make_tiny_bundle(tmp_path / "b"), threads=1)
    engine = Engine(Bundle.load(inference.bundle), inference)
    matcher = Matcher(load_watchlist(tmp_path / "watchlist.toml"))
    told: Counter[int] = Counter()
    over_ms = 0
    clock = EventClock()
    async with Classifier(engine, inference) as classifier:
        processor = ClassifyProcessor(
            DOCUMENTS, kafka=KafkaSettings(), topics=TopicSettings(), document_partitions=1, opinion_partitions=3,
            preparer=Preparer(Parser(DocumentSettings()), matcher, LanguageIdentifier(), b"key"), classifier=classifier,
            closed_at=detection.closed_at, deadly=none_deadly, metrics=Metrics(),
        )  # fmt: skip
        for offset in range(MINUTES * EACH):
            at_ms, document = record(offset)
            for output in await (await processor.start([document])):
                message = decode_opinion_message(output.value or b"")
                if isinstance(message, Watermark):
                    assert output.partition is not None
                    told[output.partition] += 1
                    over_ms = detection.closed_at(message.time_ms)
            now_ms = clock.observe(at_ms)
            assert now_ms is None or over_ms == detection.closed_at(now_ms)
    engine.close()
    assert told.keys() == {0, 1, 2}
    assert all(MINUTES - 2 <= count <= MINUTES + 1 for count in told.values())
