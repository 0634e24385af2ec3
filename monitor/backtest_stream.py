"""Opinions or documents from a file through the daemon's own detector and correlator: the alerts it would have sent, and the series behind."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from monitor.backtest import BacktestError, Scored
from monitor.detection.correlate import Correlator, Watched
from monitor.detection.counts import Floats
from monitor.detection.detector import Detector, EntityInfo
from monitor.documents.eventtime import CONFIRMATIONS, EventClock
from monitor.records import Alert, Opinion, Origin, Watermark, decode_opinion_message

if TYPE_CHECKING:
    from monitor.config import Config
    from monitor.detection.incidents import AlertSettings
    from monitor.detection.settings import DetectionSettings
    from monitor.inference.bundle import Bundle
    from monitor.replay import Line

CHUNK = 256
"""Documents prepared and classified at once, as in the daemon."""
CONFIRMED_WITHIN = 2 * (CONFIRMATIONS - 1)
"""Lines after which the event clock has come to a document, even where each is an hour after the one before."""
LATEST_MS = 4_102_444_800_000
"""2100-01-01."""


@dataclass(slots=True)
class Replayed:
    """What a stream gave.

    Attributes:
        alerts: In order of event time.
        series: By entity, the negative share over its languages bucket by bucket, with the band of what is normal; an
            alert is the bucket at which an incident fires.
        opinions: Counted.
        late: Opinions that came after their bucket was closed.
        refused: Documents that could not be read or classified, by reason.
    """

    alerts: list[Alert] = field(default_factory=list)
    series: dict[str, list[Scored]] = field(default_factory=dict)
    opinions: int = 0
    late: int = 0
    refused: dict[str, int] = field(default_factory=dict)


def read_opinions(path: Path) -> Iterator[Opinion]:
    """Opinions of a JSON lines file (plain, .gz or .zst), in its order; watermarks are left out.

    Raises:
        BacktestError: A line is not an opinion.
    """
    from monitor.replay import open_lines

    with open_lines(path) as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                message = decode_opinion_message(line)
            except msgspec.DecodeError as error:
                raise BacktestError(
                    f"not an opinion: {error}", where=f"{path}:{number}",
                    hint="`babelwatch schema opinion` shows the form; documents go to --documents",
                ) from error  # fmt: skip
            if isinstance(message, Opinion):
                yield message


def read_documents(path: Path, config: Config, bundle: Bundle, refused: dict[str, int]) -> Iterator[Opinion]:
    """Opinions that the daemon would make of a JSON lines file of documents (plain, .gz or .zst).

    Args:
        path: The file.
        config: Names the mapping of fields, the watchlist and the inference settings.
        bundle: The model.
        refused: Filled with the number of documents that gave no opinion, by reason.
    """

    async def made() -> AsyncIterator[list[Opinion]]:
        from monitor.documents.duplicates import Duplicates
        from monitor.documents.entities import Matcher
        from monitor.documents.language import LanguageIdentifier
        from monitor.documents.parse import Parser
        from monitor.documents.prepare import Preparer, Raw
        from monitor.inference.classifier import Classifier
        from monitor.inference.engine import Engine
        from monitor.inference.results import Failure
        from monitor.replay import read_lines
        from monitor.roles.classify import opinions_of
        from monitor.watchlist import load_watchlist

        key = config.service.author_salt.get_secret_value().encode()
        matcher = Matcher(load_watchlist(config.watchlist))
        preparer = Preparer(Parser(config.documents), matcher, LanguageIdentifier(), key)
        engine, duplicates = Engine(bundle, config.inference), Duplicates()
        try:
            async with Classifier(engine, config.inference) as classifier:
                lines = enumerate(_stamped(read_lines(path, config.documents)))
                while chunk := list(islice(lines, CHUNK)):
                    raws = [Raw(line.value, Origin(topic="file", partition=0, offset=n), at) for n, (line, at) in chunk]
                    batch = preparer.prepare(raws, duplicates)
                    for item in batch.refused:
                        _count(refused, str(item.rejected.reason))
                    documents = [item.document for item in batch.prepared]
                    outcomes = await classifier.classify([d.text for d in documents], [d.lang for d in documents])
                    opinions: list[Opinion] = []
                    for prepared, outcome in zip(batch.prepared, outcomes, strict=True):
                        if isinstance(outcome, Failure):
                            _count(refused, f"model_{outcome.reason}")
                        else:
                            opinions += opinions_of(prepared, outcome)
                    yield opinions
        finally:
            engine.close()

    # The model wants an event loop, the reader of opinions an iterator: each step of one runs the other.
    with asyncio.Runner() as runner:
        source = made()
        while True:
            try:
                yield from runner.run(anext(source))  # type: ignore[arg-type]
            except StopAsyncIteration:
                return


def _stamped(lines: Iterable[Line]) -> Iterator[tuple[Line, int]]:
    """Lines with the time that a broker would have put on them: how far the file itself had come a few lines later, when
    documents after a gap have confirmed each other. What is dated after that is not believed, as in the daemon; nor are the
    last two documents, where they come an hour after all others."""
    held: deque[Line] = deque()
    newest_ms = 0
    for line in lines:
        held.append(line)
        newest_ms = max(newest_ms, line.due_ms or 0)
        if len(held) > CONFIRMED_WITHIN:
            yield held.popleft(), newest_ms
    # So few documents that no clock agrees on them are taken as they are.
    yield from ((line, newest_ms or LATEST_MS) for line in held)


def replay(
    opinions: Iterable[Opinion],
    detector: Detector,
    correlator: Correlator,
    settings: DetectionSettings,
    on_advance: Callable[[Sequence[Alert]], None] = lambda alerts: None,
) -> Iterator[Alert]:
    """The alerts that a stream of opinions gives, in event time.

    Args:
        opinions: In about the order of publication; later than the allowed lateness is late here as in the daemon, and a
            single one from far in the future is not believed.
        detector: A fresh detector, or one that goes on.
        correlator: Joins the incidents that are one, likewise.
        settings: The detector's.
        on_advance: Told of the alerts of each step in which buckets were closed.
    """
    length_ms, told_ms, newest_ms = settings.bucket_s * 1000, 0, 0
    clock = EventClock()

    def advance(time_ms: int) -> list[Alert]:
        detector.observe([Watermark(topic="backtest", partition=0, partitions=1, time_ms=time_ms)])
        alerts = correlator.take(detector.report(detector.advance(), partition=0, partitions=1))
        on_advance(alerts)
        return alerts

    for opinion in opinions:
        time_ms = clock.observe(opinion.published_ms)
        if time_ms is not None and time_ms // length_ms > told_ms // length_ms:
            told_ms = time_ms
            yield from advance(time_ms)
        newest_ms = max(newest_ms, opinion.published_ms)
        detector.observe([opinion])
    yield from advance(newest_ms + length_ms + settings.allowed_lateness_s * 1000)


def backtest_opinions(
    opinions: Iterable[Opinion],
    detection: DetectionSettings,
    alerts: AlertSettings,
    entities: Mapping[str, EntityInfo],
    bundle: Bundle | None,
    *,
    band: bool = False,
) -> Replayed:
    """Run the daemon's detector and correlator over opinions, and keep what they saw.

    Args:
        opinions: In about the order of publication.
        detection: When a change is an alarm.
        alerts: How alarms become incidents.
        entities: What is watched, by id.
        bundle: Gives the classifier's confusion by language; None for labels taken as right.
        band: Whether to keep the series and what would have been normal (slower).
    """

    def confusion(lang: str) -> Floats | None:
        return None if bundle is None else np.array(bundle.calibration("sentiment", lang).confusion, np.float64)

    detector = Detector(detection, alerts, entities, confusion)
    correlator = Correlator(alerts, {entity: Watched(info.name, info.labels) for entity, info in entities.items()})
    result = Replayed(series={entity: [] for entity in entities} if band else {})

    def follow(told: Sequence[Alert]) -> None:
        firing = {entity for a in told if a.state == "firing" for entity in (a.entity, *a.entities)}
        for entity, rows in result.series.items():
            for view in detector.views_of(entity):
                if view.signal != "negative_share" or (rows and view.bucket_ms <= rows[-1].time_ms):
                    continue
                stamp = datetime.fromtimestamp(view.bucket_ms / 1000, UTC).isoformat()
                rows.append(
                    Scored(
                        stamp, view.bucket_ms, view.observed, 0.0, entity in firing, view.expected, view.low, view.high
                    )
                )

    result.alerts = list(replay(opinions, detector, correlator, detection, follow))
    result.opinions, result.late = detector.stats.opinions, detector.stats.late
    return result


def entities_of(opinions: Iterable[Opinion]) -> dict[str, EntityInfo]:
    """The entities that a stream names: what is watched when no watchlist says it."""
    return {entity: EntityInfo(entity) for entity in sorted({opinion.entity for opinion in opinions})}


def _count(counts: dict[str, int], name: str) -> None:
    counts[name] = counts.get(name, 0) + 1
