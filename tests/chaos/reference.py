"""What should have come out: one run of the pure core over the whole input, in memory, with no broker and no clock."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np
from aiokafka.partitioner import DefaultPartitioner
from aiokafka.structs import ConsumerRecord

from monitor.config import Config
from monitor.detection.correlate import Correlator, Watched
from monitor.detection.detector import Detector, EntityInfo
from monitor.documents.duplicates import Duplicates, Kind
from monitor.documents.entities import Matcher
from monitor.documents.eventtime import EventClock
from monitor.documents.language import LanguageIdentifier
from monitor.documents.parse import Parser
from monitor.documents.prepare import Prepared, Preparer, Raw
from monitor.inference.batching import isolate
from monitor.inference.bundle import Bundle
from monitor.inference.engine import Engine, InferenceError
from monitor.inference.results import Classification, Reader
from monitor.records import Opinion, Origin, StepMessage, Watermark, cloud_event, encode
from monitor.roles.classify import EVIDENCE_CHARS
from monitor.watchlist import Watchlist


@dataclass
class Expected:
    """What classify must have written."""

    opinions: dict[str, Opinion] = field(default_factory=dict)
    """By id."""
    refused: dict[tuple[int, int], str] = field(default_factory=dict)
    """Reason by (partition, offset) of the document."""
    clocks: dict[int, int] = field(default_factory=dict)
    """Event time (ms) at the end of each documents partition."""


@dataclass
class Judged:
    """What detect and correlate must have written."""

    alerts: list[bytes] = field(default_factory=list)
    """Values of the alerts topic."""
    state: dict[int, dict[bytes, bytes]] = field(default_factory=dict)
    """Rows by partition."""


class Reference:
    """The pure core in memory.

    Args:
        config: As the processes had it.
        watchlist: What was watched all the while.
    """

    def __init__(self, config: Config, watchlist: Watchlist) -> None:
        self._config = config
        self._topic = config.topics.documents
        self._watchlist = watchlist
        bundle = Bundle.load(config.inference.bundle)
        self._engine = Engine(bundle, config.inference)
        self._reader = Reader(bundle)
        self._calibration = bundle.manifest.calibration.get("sentiment", {})
        key = config.service.author_salt.get_secret_value().encode()
        self._preparer = Preparer(Parser(config.documents), Matcher(watchlist), LanguageIdentifier(), key)
        self._entities = {e.id: EntityInfo(e.name, e.names, dict(e.labels)) for e in watchlist.entities.values()}

    def expect(self, documents: Mapping[int, Sequence[ConsumerRecord[bytes, bytes]]]) -> Expected:
        """Classify the whole input, by partition and in order."""
        expected = Expected()
        for partition, records in sorted(documents.items()):
            expected.clocks[partition] = self._classify(partition, records, expected)
        return expected

    def judge(self, opinions: Sequence[Opinion], clocks: Mapping[int, int], partitions: int) -> Judged:
        """Detect and correlate all opinions at once.

        Args:
            opinions: In the order of their documents.
            clocks: Event time at the end of each documents partition.
            partitions: Of the opinions topic.
        """
        judged = Judged()
        config = self._config
        steps: list[StepMessage] = []
        for number in range(partitions):
            mine = [o for o in opinions if partition_of(o.entity, partitions) == number]
            detector = Detector(config.detection, config.alerts, self._entities, self._confusion)
            detector.observe(mine)
            # Every partition is read to its end, falls silent, and says so until all have come along.
            for claim in range(3):
                detector.observe(
                    [
                        Watermark(topic=self._topic, partition=p, time_ms=time_ms, partitions=len(clocks), idle=True,
                                  still_idle=claim > 0)
                        for p, time_ms in clocks.items()
                    ]
                )  # fmt: skip
            steps += detector.report(detector.advance(), partition=number, partitions=partitions)
            judged.state[number] = _rows(detector.take_changes())
        watched = {e.id: Watched(e.name, dict(e.labels)) for e in self._watchlist.entities.values()}
        correlator = Correlator(config.alerts, watched)
        judged.alerts = [encode(cloud_event(alert)) for alert in correlator.take(steps)]
        judged.state[0] |= _rows(correlator.take_changes())
        return judged

    def _confusion(self, lang: str) -> Any:
        entry = self._calibration.get(lang) or self._calibration.get("*")
        return np.array(entry.confusion, np.float64) if entry is not None else None

    def _classify(self, partition: int, records: Sequence[ConsumerRecord[bytes, bytes]], into: Expected) -> int:
        """Opinions and refusals of one partition; returns its clock."""
        duplicates, clock = Duplicates(), EventClock()
        for record in records:
            raw = Raw(
                record.value, Origin(topic=self._topic, partition=partition, offset=record.offset), record.timestamp
            )
            batch = self._preparer.prepare([raw], duplicates)
            for refused in batch.refused:
                into.refused[partition, record.offset] = str(refused.rejected.reason)
            now_ms = 0
            for published_ms in batch.times_ms:
                now_ms = clock.observe(published_ms) or 0
            for item in batch.prepared:
                answer = self._ask(item)
                if isinstance(answer, InferenceError):
                    into.refused[partition, record.offset] = f"model_{answer.reason}"
                else:
                    for opinion in _opinions(item, answer, now_ms):
                        into.opinions[opinion.id] = opinion
        return clock.time_ms or 0

    def _ask(self, item: Prepared) -> Classification | InferenceError:
        def run(texts: Sequence[str]) -> list[Classification]:
            ids = self._engine.encode(texts)
            outputs = self._engine.infer(ids, self._engine.grid.length_for(len(ids[0])))
            return self._reader.read(outputs, [item.document.lang])

        return isolate(run, [item.document.text], InferenceError)[0]


def _opinions(item: Prepared, said: Classification, now_ms: int) -> list[Opinion]:
    document, verdict = item.document, item.verdict
    return [
        Opinion(
            id=f"{document.id}|{entity}", document_id=document.id, entity=entity, published_ms=document.published_ms,
            lang=document.lang, sentiment=said.sentiment, topic=said.topic, text=document.text[:EVIDENCE_CHARS],
            source=document.source, author=document.author, url=document.url, reach=document.reach,
            fingerprint=verdict.fingerprint, repost_of=verdict.of if verdict.kind is Kind.REPOST else "",
            embedding=base64.b64encode(said.embedding or b"").decode(), bundle=said.bundle, origin=document.origin,
            clock_ms=now_ms, weight=document.weight,
        )
        for entity in item.entities
    ]  # fmt: skip


def _rows(changes: Sequence[tuple[bytes, bytes | None]]) -> dict[bytes, bytes]:
    return {key: value for key, value in changes if value is not None}


def partition_of(key: str, partitions: int) -> int:
    every = list(range(partitions))
    return int(DefaultPartitioner()(key.encode(), every, every))


def readable(row: bytes | None) -> Any:
    """A row of state that two runs may write in different bytes: sets, and posts of an open bucket, have no order."""
    if row is None:
        return None
    try:
        return _sorted(msgspec.msgpack.decode(row))
    except msgspec.DecodeError:
        return row


def _sorted(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _sorted(item) for key, item in value.items()}
    if isinstance(value, list):
        items = [_sorted(item) for item in value]
        if items and all(isinstance(item, dict) and "rank" in item for item in items):
            return sorted(items, key=lambda item: int(item["rank"]))
        return sorted(items) if items and all(isinstance(item, int) and item > 2**40 for item in items) else items
    return value


def differences(wanted: Any, found: Any, path: str = "") -> Iterator[str]:
    """Where two decoded values differ, path by path: `evidence.documents: 12, not 13`."""
    if isinstance(wanted, dict) and isinstance(found, dict):
        for key in sorted(wanted.keys() | found.keys(), key=str):
            yield from differences(wanted.get(key), found.get(key), f"{path}.{key}".removeprefix("."))
    elif isinstance(wanted, list) and isinstance(found, list) and len(wanted) == len(found):
        for place, (left, right) in enumerate(zip(wanted, found, strict=True)):
            yield from differences(left, right, f"{path}[{place}]")
    elif wanted != found:
        yield f"{path}: {wanted!r:.200}, not {found!r:.200}"
