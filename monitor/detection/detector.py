"""Opinions and watermarks in, alerts out: the detector of one opinions partition; pure, in event time only.

The same opinions give the same alerts in whatever order they come within the allowed lateness, in batches of any size:
buckets are closed by watermarks alone, and what a bucket holds does not depend on the order in which it was filled.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import msgspec
import numpy as np
import numpy.typing as npt

from monitor.detection import course, explain, wording
from monitor.detection.bank import ROLLUP, Finding, SeriesBank, SeriesView
from monitor.detection.budget import BudgetUse
from monitor.detection.cells import Cell, CellStore, squares
from monitor.detection.erasing import erase_from_cell, erase_from_evidence
from monitor.detection.incidents import AlertSettings, Incident, IncidentBook, Step, alert_id
from monitor.detection.quantify import Correction, correction, share_interval
from monitor.detection.settings import DetectionSettings
from monitor.detection.stored import PROGRESS, STATE_VERSION, Progress, cell_key, incident_key, pack, unpack
from monitor.detection.topics import TOPIC_SHIFT, TopicBank
from monitor.records import (
    Alert,
    Breadth,
    Closed,
    EntityStep,
    Erasure,
    Evidence,
    OpinionMessage,
    StepMessage,
    Watermark,
)


@dataclass(frozen=True, slots=True)
class EntityInfo:
    """What the detector knows of a watched entity."""

    name: str
    names: tuple[str, ...] = ()
    """Every alias: never shown as a term."""
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Recent:
    """What was said of an entity lately, corrected for the classifier's known confusion."""

    entity: str
    lang: str
    documents: int
    share: float
    """Negative share, 0 to 1."""
    low: float
    high: float
    """Its 95 % interval."""


@dataclass(frozen=True, slots=True)
class Stats:
    """What the detector counted."""

    opinions: int = 0
    late: int = 0
    duplicates: int = 0


class StateError(ValueError):
    """A stored state that this version cannot read."""


class Detector:
    """Counts, judges and explains the opinions of one partition.

    Args:
        settings: When a change is an alarm.
        alerts: How alarms become incidents.
        entities: What is watched, by id; all of it, whichever partition holds it, since the budget is shared over all.
        confusion: The classifier's confusion for a language, or None when it is unknown.
        state: Rows as `take_changes` gave them, to go on from.

    Raises:
        StateError: the state cannot be read.
    """

    def __init__(
        self,
        settings: DetectionSettings,
        alerts: AlertSettings,
        entities: Mapping[str, EntityInfo],
        confusion: Callable[[str], npt.NDArray[np.float64] | None],
        state: Mapping[bytes, bytes] | None = None,
    ) -> None:
        self._settings = settings
        self._alerts = alerts
        self._entities = dict(entities)
        self._length_ms = settings.bucket_s * 1000
        self._keep_ms = int(alerts.evidence_hours * 3_600_000)
        self._confusion = confusion
        self._corrections: dict[str, Correction] = {}
        self._bank = SeriesBank(settings, entities=list(self._entities), confusion=confusion)
        self._topics = TopicBank(settings, list(self._entities)) if TOPIC_SHIFT in settings.signals else None
        self._book = IncidentBook(alerts, self._length_ms)
        self._cells = CellStore()
        self._last: dict[str, Evidence] = {}
        self._progress = Progress()
        self._breadth: list[Breadth] = []
        self._farewells: list[Alert] = []
        self._told_ms = 0
        self._touched: set[bytes] = set()
        self._gone: set[bytes] = set()
        if state:
            self._restore(state)

    # --- in -------------------------------------------------------------------------------------------------------

    def observe(self, messages: Sequence[OpinionMessage]) -> None:
        """Take opinions into their buckets and watermarks into account; decides nothing."""
        progress = self._progress
        for message in messages:
            if isinstance(message, Watermark):
                self._take_watermark(message)
                continue
            if isinstance(message, Erasure):
                self._erase(message)
                continue
            if message.entity not in self._entities:
                continue
            bucket_ms = message.published_ms - message.published_ms % self._length_ms
            # By its own partition's clock first: how far the others are depends on how fast each is read.
            if bucket_ms < max(progress.closed_ms, self._settings.closed_at(message.clock_ms)):
                progress.late += 1
                continue
            if self._cells.open(message.entity, bucket_ms).add(message):
                progress.opinions += 1
                self._touched.add(cell_key(message.entity, bucket_ms))
            else:
                progress.duplicates += 1

    def _erase(self, order: Erasure) -> None:
        """Forget what an order names, in the evidence of buckets and of incidents."""
        gone = set(order.documents)
        for name, bucket_ms, cell in self._cells:
            voices = len(cell.authors)
            if (found := erase_from_cell(cell, order)) or len(cell.authors) != voices:
                gone |= found
                self._touched.add(cell_key(name, bucket_ms))
        for entity, shown in list(self._last.items()):
            if (left := erase_from_evidence(shown, gone)) is not shown:
                self._last[entity] = left
                self._touched.add(incident_key(entity))

    def _take_watermark(self, message: Watermark) -> None:
        progress = self._progress
        source = f"{message.topic}/{message.partition}"
        time_ms = max(message.time_ms, progress.sources.get(source, 0))
        if message.still_idle:
            time_ms = max(time_ms, progress.idle.get(source, 0))
        progress.sources[source] = time_ms
        progress.expected[message.topic] = max(message.partitions, progress.expected.get(message.topic, 0))
        if message.idle:
            progress.idle[source] = max(progress.sources.values())
        else:
            progress.idle.pop(source, None)

    @property
    def watermark_ms(self) -> int | None:
        """Event time before which no opinion is waited for; None until every source has spoken.

        The least over the sources. One that is silent comes along one claim behind the others: when it says that it is
        *still* idle, it was read to its end after it had said so before, and so after all that the others had said by
        then. A partition whose reader died makes no claims, and is waited for. Opinions do not move the watermark: then
        the order of arrival would matter.
        """
        sources = self._progress.sources
        if not sources or len(sources) < sum(self._progress.expected.values()):
            return None
        return min(sources.values())

    def advance(self) -> list[Alert]:
        """Close every bucket that is over by the watermark and the allowed lateness, in order; returns the alerts."""
        watermark_ms = self.watermark_ms
        alerts, self._farewells = self._farewells, []
        if watermark_ms is None:
            return alerts
        end_ms = self._settings.closed_at(watermark_ms)
        if end_ms <= self._progress.closed_ms:
            return alerts
        for bucket_ms in self._due(end_ms):
            alerts += self._close(bucket_ms)
            # After each bucket: what an explanation sees must not depend on how many are closed at once.
            self._expire(bucket_ms)
        self._progress.closed_ms = end_ms
        return alerts

    def report(self, alerts: Sequence[Alert], *, partition: int, partitions: int) -> list[StepMessage]:
        """What the correlator is told after `advance`: the steps, and how far this partition has come.

        Args:
            alerts: As `advance` returned them.
            partition: Of the opinions.
            partitions: How many there are.
        """
        messages: list[StepMessage] = [EntityStep(alert=alert) for alert in alerts]
        if self._progress.closed_ms > self._told_ms:
            self._told_ms = self._progress.closed_ms
            breadth, self._breadth = self._breadth, self._breadth[-1:]
            messages.append(
                Closed(partition=partition, partitions=partitions, closed_ms=self._told_ms, breadth=tuple(breadth))
            )
        return messages

    def _due(self, end_ms: int) -> Iterator[int]:
        """Buckets to close: those with opinions, and while an incident is open every one, since silence ends it."""
        filled = self._cells.buckets(self._progress.closed_ms, end_ms)
        if not filled and not self._book.open:
            return
        bucket_ms = self._progress.closed_ms or (filled[0] if filled else end_ms)
        place = 0
        while bucket_ms < end_ms:
            if self._book.open or (place < len(filled) and filled[place] == bucket_ms):
                yield bucket_ms
                bucket_ms += self._length_ms
            else:
                while place < len(filled) and filled[place] < bucket_ms:
                    place += 1
                if place == len(filled):
                    return
                bucket_ms = filled[place]

    def _close(self, bucket_ms: int) -> list[Alert]:
        rows: list[tuple[str, str]] = []
        counts: list[list[float]] = []
        for entity, cell in self._cells.at(bucket_ms):
            cell.close()
            self._touched.add(cell_key(entity, bucket_ms))
            for lang, row in sorted(cell.counts.items()):
                rows.append((entity, lang))
                counts.append([*row[:4], squares(row)])
        table = np.array(counts, np.float64).reshape(-1, 5)
        findings = self._bank.update(bucket_ms, rows, table[:, :3], table[:, 3], table[:, 4])
        findings += self._close_topics(bucket_ms)
        self._progress.closed_ms = bucket_ms + self._length_ms
        known, rising = self._bank.breadth()
        if not self._breadth or (known, rising) != (self._breadth[-1].known, self._breadth[-1].rising):
            self._breadth.append(Breadth(at_ms=self._progress.closed_ms, known=known, rising=rising))
        findings = [self._dated(finding) for finding in findings]
        before = {incident.entity for incident in self._book.open}
        steps = self._book.update(bucket_ms, findings, self._reach)
        for entity in before | {incident.entity for incident in self._book.open}:
            self._touched.add(incident_key(entity))
        return [self._alert(step) for step in steps]

    def _close_topics(self, bucket_ms: int) -> list[Finding]:
        if self._topics is None:
            return []
        cells = [(entity, cell) for entity, cell in self._cells.at(bucket_ms) if cell.by_topic]

        def part(of: Callable[[Sequence[float]], float]) -> dict[str, float]:
            return {entity: sum(map(of, cell.counts.values())) / cell.documents for entity, cell in cells}

        counts = {entity: cell.by_topic for entity, cell in cells}
        return self._topics.update(bucket_ms, counts, part(lambda row: row[3]), part(squares))

    def _dated(self, finding: Finding) -> Finding:
        if not finding.active or finding.unit == "topic" or finding.entity in {i.entity for i in self._book.open}:
            return finding
        return course.dated(finding, self._cells, self._progress.closed_ms, self._length_ms)

    def _ended_ms(self, incident: Incident) -> int:
        shown = self._last[incident.entity]
        if shown.unit == "topic":
            return incident.ended_ms
        rows = course.counted(self._cells, incident.entity, incident.languages, self._progress.closed_ms)
        expected = shown.expected if shown.unit == "share" else None
        last_ms = course.last_bucket(rows, incident.onset_ms, incident.ended_ms, expected, self._length_ms)
        return incident.ended_ms if last_ms is None else last_ms + self._length_ms

    def _reach(self, entity: str, since_ms: int) -> int:
        """Of an entity's negative posts since an event time."""
        return sum(
            cell.reach for bucket, cell in self._cells.of(entity, self._progress.closed_ms) if bucket >= since_ms
        )

    # --- out ------------------------------------------------------------------------------------------------------

    def _alert(self, step: Step) -> Alert:
        incident, finding = step.incident, step.finding
        info = self._entities[incident.entity]
        at_ms = self._progress.closed_ms
        if finding is not None:
            window = self._window(incident, at_ms)
            shown = explain.evidence(finding, window, posts=self._alerts.posts, names=(info.name, *info.names))
            if finding.unit != "topic":
                incident.languages = sorted({*incident.languages, *explain.event_languages(window)})
            self._last[incident.entity] = shown
        else:
            incident.ended_ms = self._ended_ms(incident)
            window = self._window(incident, incident.ended_ms)
            shown = explain.closing(
                self._last[incident.entity], incident.signal, window, self._corrected_negatives(window.inside)
            )
        sequence = incident.sequence - 1
        alert = Alert(
            id=alert_id(incident.id, incident.signal, incident.onset_ms, step.state, sequence),
            incident=incident.id,
            entity=incident.entity,
            entity_name=info.name,
            signal=incident.signal,
            state=step.state,
            severity=incident.severity,
            onset_ms=incident.onset_ms,
            at_ms=at_ms,
            languages=tuple(_by_share(incident.languages, shown)),
            summary="",
            description="",
            evidence=shown,
            labels=dict(info.labels),
            ended_ms=incident.ended_ms,
            sequence=sequence,
        )
        return wording.worded(alert, {incident.entity: info.name})

    def _window(self, incident: Incident, end_ms: int) -> explain.Window:
        closed = self._cells.of(incident.entity, end_ms)
        start = incident.onset_ms - incident.onset_ms % self._length_ms
        inside = [cell for bucket, cell in closed if bucket >= start]
        before = [cell for bucket, cell in closed if bucket < start]
        first = closed[0][0] if closed else start
        return explain.Window(
            inside=inside,
            before=before,
            before_buckets=max(0, (start - first) // self._length_ms),
            inside_buckets=max(1, (end_ms - start) // self._length_ms),
            bucket_ms=self._length_ms,
        )

    def _corrected_negatives(self, cells: Iterable[Cell]) -> float:
        """Negatives in these cells, by adjusted counts (Forman 2008)."""
        found = 0.0
        for cell in cells:
            for lang, row in cell.counts.items():
                correct = self._correction(lang)
                found += (row[0] - correct.false_rate * sum(row[:3])) / correct.youden
        return found

    def _correction(self, lang: str) -> Correction:
        known = self._corrections.get(lang)
        if known is None:
            known = self._corrections[lang] = correction(self._confusion(lang))
        return known

    def _expire(self, now_ms: int) -> None:
        """Forget evidence that is too old for any explanation."""
        onsets = {incident.entity: incident.onset_ms for incident in self._book.open}
        held = {entity: onset_ms - self._keep_ms for entity, onset_ms in onsets.items()}
        gone, thinned = self._cells.expire(now_ms - self._keep_ms, held)
        self._gone.update(cell_key(*key) for key in gone)
        self._touched.update(cell_key(*key) for key in thinned)
        for entity in self._book.forget(now_ms):
            self._last.pop(entity, None)
            self._gone.add(incident_key(entity))

    # --- state ----------------------------------------------------------------------------------------------------

    def take_changes(self) -> list[tuple[bytes, bytes | None]]:
        """The rows of state that changed since the last call, ordered by key; None for a row that is gone.

        A row is one series, one entity's bucket, one entity's incident, or the progress of the partition: small, keyed,
        and complete in itself, as a compacted topic wants it.
        """
        changes: dict[bytes, bytes | None] = dict.fromkeys(self._gone)
        for (entity, lang), row in self._bank.changed().items():
            changes[f"series|{entity}|{lang}".encode()] = row
        for (entity, topic), row in self._topics.changed().items() if self._topics is not None else ():
            changes[f"topic|{entity}|{topic}".encode()] = row
        for key in self._touched:
            kind, entity, *bucket = key.decode().split("|")
            if kind == "cell":
                cell = self._cells.get(entity, int(bucket[0]))
                changes[key] = pack(cell) if cell is not None else None
            else:
                incident = self._book.incidents.get(entity)
                changes[key] = pack((incident, self._last.get(entity))) if incident is not None else None
        changes[PROGRESS] = pack(self._progress)
        self._touched.clear()
        self._gone.clear()
        return sorted(changes.items())

    def _restore(self, state: Mapping[bytes, bytes]) -> None:
        series: dict[tuple[str, str], bytes] = {}
        topics: dict[tuple[str, str], bytes] = {}
        try:
            for key, value in state.items():
                kind, *rest = key.decode().split("|")
                if kind == "progress":
                    self._progress = unpack(value, Progress)
                elif kind == "series":
                    series[rest[0], rest[1]] = value
                elif kind == "topic":
                    topics[rest[0], rest[1]] = value
                elif kind == "cell" and rest[0] in self._entities:
                    self._cells.put(rest[0], int(rest[1]), unpack(value, Cell))
                elif kind == "incident" and rest[0] in self._entities:
                    incident, last = unpack(value, tuple[Incident, Evidence | None])
                    self._book.incidents[rest[0]] = incident
                    if last is not None:
                        self._last[rest[0]] = last
        except (msgspec.DecodeError, ValueError, IndexError) as error:
            raise StateError(f"the stored state cannot be read: {error}") from error
        if self._progress.version != STATE_VERSION:
            raise StateError(
                f"the stored state has version {self._progress.version}, this release reads {STATE_VERSION}"
            )
        self._bank.restore(series)
        if self._topics is not None:
            self._topics.restore(topics)

    # --- watchlist and views ----------------------------------------------------------------------------------------

    def set_entities(self, entities: Mapping[str, EntityInfo]) -> None:
        """Watch these entities from the next bucket on; what is no longer watched is forgotten, and its incident ends."""
        for entity in sorted(self._entities.keys() - entities.keys()):
            step = self._book.end(entity, self._progress.closed_ms)
            if step is not None:
                self._farewells.append(self._alert(step))
            self._last.pop(entity, None)
            self._gone.update(cell_key(entity, bucket_ms) for bucket_ms in self._cells.drop(entity))
            if self._book.incidents.pop(entity, None) is not None:
                self._gone.add(incident_key(entity))
        self._entities = dict(entities)
        for name, lang in self._bank.set_entities(list(entities)):
            self._gone.add(f"series|{name}|{lang}".encode())
        for name, topic in self._topics.set_entities(list(entities)) if self._topics is not None else ():
            self._gone.add(f"topic|{name}|{topic}".encode())

    @property
    def stats(self) -> Stats:
        """Counted since the state began."""
        return Stats(self._progress.opinions, self._progress.late, self._progress.duplicates)

    def budget_use(self) -> BudgetUse:
        """What the false-alarm budget allowed this partition, and the alarms it raised, since the detector was made."""
        used = self._bank.budget_use()
        if self._topics is None:
            return used
        topics = self._topics.budget_use()
        return replace(used, raised=used.raised + topics.raised, allowed=used.allowed + topics.allowed)

    @property
    def open_incidents(self) -> list[Incident]:
        """Pending and firing, by entity."""
        return self._book.open

    @property
    def closed_ms(self) -> int:
        """End of the last closed bucket; 0 before the first."""
        return self._progress.closed_ms

    def __len__(self) -> int:
        """Number of series."""
        return len(self._bank)

    def views(self) -> Iterable[SeriesView]:
        """Every series' signals with their expected bands, for people to look at."""
        return self._bank.views()

    def views_of(self, entity: str, lang: str = ROLLUP) -> Iterable[SeriesView]:
        """The same of one series; nothing while it does not exist."""
        return self._bank.views_of((entity, lang))

    def recent(self, window_ms: int = 3_600_000) -> list[Recent]:
        """The shares of the last closed buckets, by entity and language, with the rollup `*`.

        Adjusted counts (Forman 2008): the classifier's false positives are taken off and its misses added, by language.
        """
        sums: dict[tuple[str, str], list[float]] = {}
        start_ms = self._progress.closed_ms - window_ms
        recent = self._cells.buckets(start_ms, self._progress.closed_ms)
        for entity, cell in (item for bucket_ms in recent for item in self._cells.at(bucket_ms)):
            for lang, row in cell.counts.items():
                correct = self._correction(lang)
                count = sum(row[:3])
                negatives = (row[0] - correct.false_rate * count) / correct.youden
                for key in ((entity, lang), (entity, ROLLUP)):
                    total = sums.setdefault(key, [0.0, 0.0, 0.0])
                    total[0] += count
                    total[1] += negatives
                    total[2] += count / correct.youden**2
        found = []
        for (entity, lang), (documents, negatives, inflation) in sorted(sums.items()):
            share, low, high = share_interval(documents, negatives, inflation)
            found.append(Recent(entity, lang, int(documents), share, low, high))
        return found


def _by_share(languages: Iterable[str], shown: Evidence) -> list[str]:
    """The language with the largest part in the rise first."""
    part = {share.name: share.share for share in shown.languages}
    return sorted(languages, key=lambda lang: (-part.get(lang, 0.0), lang))


__all__ = [
    "AlertSettings",
    "Detector",
    "EntityInfo",
    "Finding",
    "StateError",
    "Stats",
]
