"""All watched series as arrays: one bucket of counts in, the signals in alarm out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from monitor.detection.settings import DetectionSettings

Floats = npt.NDArray[np.float64]
SeriesKey = tuple[str, str]
ROLLUP = "*"


@dataclass(frozen=True, slots=True)
class Finding:
    """One series' signal that is, or has just stopped being, in alarm at a closed bucket."""

    entity: str
    lang: str
    """The language, or `*` for the rollup over languages."""
    signal: str
    bucket_ms: int
    onset_ms: int
    active: bool
    """False exactly once, at the bucket where the alarm ends."""
    log_evidence: float
    threshold: float
    """`log_evidence` at which this signal alarms, from the budget."""
    observed: float
    expected: float
    low: float
    high: float
    unit: Literal["share", "documents/h"]
    documents: int
    """Since the onset."""
    negatives: float
    """Since the onset, corrected for the classifier's known confusion."""
    effect: float
    """`observed - expected` for a share (points), `observed / expected` for a volume (factor)."""


@dataclass(frozen=True, slots=True)
class SeriesView:
    """What a status page shows of one series' signal."""

    entity: str
    lang: str
    signal: str
    bucket_ms: int
    observed: float
    expected: float
    low: float
    high: float
    unit: Literal["share", "documents/h"]
    active: bool


class SeriesBank:
    """The state of every series (entity x language, and `*` over an entity's languages) and its evidence.

    Args:
        settings: The detector's options.
        entities: The watched entity ids over the whole deployment: the budget is shared over them, and a series of
            another entity is ignored. The same list everywhere, so that decisions do not depend on partitions.
        confusion: By language, the classifier's known confusion: float64 [3 true, 3 predicted], rows summing to 1,
            in the order of `records.SENTIMENTS`; None when unknown (taken as without error).
    """

    def __init__(
        self,
        settings: DetectionSettings,
        *,
        entities: Sequence[str],
        confusion: Callable[[str], Floats | None] = lambda _lang: None,
    ) -> None:
        self._settings = settings
        self._confusion = confusion
        self._rows: dict[SeriesKey, list[float]] = {}
        self._touched: set[SeriesKey] = set()
        self._entities = frozenset(entities)

    def update(
        self, bucket_ms: int, rows: Sequence[SeriesKey], counts: Floats, reposts: npt.NDArray[np.int64]
    ) -> list[Finding]:
        """Take one closed bucket of the series that have documents in it, and let time pass for all others.

        Buckets come in order of time, each once. Rows name real languages only, each series once a bucket: the
        rollup `*` is made here, so that it can be compared language by language.

        Args:
            bucket_ms: Start of the bucket, a multiple of the bucket length.
            rows: (entity, language) of each row.
            counts: float64 [rows, 3], documents by most probable sentiment (hard labels, which is what the confusion
                describes; fractional where documents carry sampling weights), reposts included.
            reposts: int64 [rows], how many of the row's documents repeat an earlier text.

        Returns:
            The signals in alarm, and those that have just stopped, in a deterministic order.
        """
        findings: list[Finding] = []
        totals: dict[str, Floats] = {}
        for (entity, _), count in zip(rows, counts, strict=True):
            totals[entity] = totals.get(entity, np.zeros(3)) + count
        items = [*zip(rows, counts, strict=True), *(((e, ROLLUP), c) for e, c in totals.items())]
        for key, count in items:
            if key[0] not in self._entities:
                continue
            row = self._rows.setdefault(key, [6.0, 24.0, 0.0, 0.0, 0.0, 0.0, 0.0])
            negatives, total, score, onset, active, window_negatives, window_total = row
            n, x = float(count.sum()), float(count[0])
            share = negatives / total
            gain = x * np.log((share + 0.2) / share) + (n - x) * np.log(max(0.8 - share, 0.01) / (1 - share))
            if score == 0.0:
                onset, window_negatives, window_total = float(bucket_ms), 0.0, 0.0
            score = min(max(0.0, score + float(gain)), 40.0)
            window_negatives, window_total = window_negatives + x, window_total + n
            alarmed, was = score > (1.0 if active else 12.0), bool(active)
            if not alarmed:
                negatives, total = 0.999 * negatives + x, 0.999 * total + n
            self._rows[key] = [negatives, total, score, onset, float(alarmed), window_negatives, window_total]
            self._touched.add(key)
            if alarmed or was:
                seen = window_negatives / max(window_total, 1.0)
                error = 2.0 * np.sqrt(seen * (1 - seen) / max(window_total, 1.0))
                findings.append(
                    Finding(
                        *key, "negative_share", bucket_ms, int(onset), alarmed, score, 12.0, seen, share,
                        max(seen - error, 0.0), min(seen + error, 1.0), "share", int(window_total), window_negatives,
                        seen - share,
                    )
                )  # fmt: skip
        return findings

    def changed(self) -> dict[SeriesKey, bytes]:
        """The state of each series that was touched since the last call (or since `restore`)."""
        touched, self._touched = sorted(self._touched), set()
        return {key: np.asarray(self._rows[key]).tobytes() for key in touched}

    def dump(self) -> dict[SeriesKey, bytes]:
        """The state of every series."""
        return {key: np.asarray(row).tobytes() for key, row in sorted(self._rows.items())}

    def restore(self, states: Mapping[SeriesKey, bytes]) -> None:
        """Put back series as `changed` or `dump` gave them; series that are not watched are left out.

        Raises:
            StateError: A state is damaged or of an unknown version.
        """
        for key, state in states.items():
            if key[0] in self._entities:
                self._rows[key] = np.frombuffer(state).tolist()

    def drop(self, entities: Sequence[str]) -> None:
        """Forget all series of these entities: another partition's owner goes on with them."""
        self._rows = {key: row for key, row in self._rows.items() if key[0] not in entities}

    def set_entities(self, entities: Sequence[str]) -> list[SeriesKey]:
        """Watch these entities from the next bucket on, and share the budget anew.

        Returns:
            The series that no longer exist, so that their stored state can be deleted.
        """
        self._entities = frozenset(entities)
        gone = sorted(key for key in self._rows if key[0] not in self._entities)
        for key in gone:
            del self._rows[key]
        return gone

    def views(self) -> Iterator[SeriesView]:
        """What every series' signals are and should be now."""
        for (entity, lang), row in sorted(self._rows.items()):
            share = row[0] / row[1]
            seen = row[5] / row[6] if row[6] else share
            yield SeriesView(
                entity,
                lang,
                "negative_share",
                int(row[3]),
                seen,
                share,
                share - 0.1,
                share + 0.1,
                "share",
                bool(row[4]),
            )
