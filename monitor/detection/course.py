"""When a rise began and when it was over, from the counts of an entity's buckets; pure.

A sequential test knows that something rose, or is back, before or after it did; the change point says when.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from monitor.detection import baseline, explain
from monitor.detection.cells import CellStore
from monitor.detection.counts import ROLLUP, SIGNALS, VOLUME
from monitor.detection.findings import Finding

ONSET_PRIOR = 20.0
"""Documents that the baseline's expectation is worth beside the last hours, when the onset is looked for."""
EARLIER = 30
"""Buckets that an onset may lie before the test's, whose first may by chance have been quiet ones."""
LEAST_BUCKETS = 30
"""Before an onset, of which a usual rate can be told."""


Counted = list[tuple[int, float, float]]
"""(bucket, documents, negatives) in order of time."""


def counted(cells: CellStore, entity: str, languages: Sequence[str], end_ms: int) -> Counted:
    """An entity's closed buckets before `end_ms`, in these languages, in all without any."""
    found: Counted = []
    for bucket, cell in cells.of(entity, end_ms):
        rows = [cell.counts[lang] for lang in languages or cell.counts if lang in cell.counts]
        found.append((bucket, sum(sum(row[:3]) for row in rows), sum(row[0] for row in rows)))
    return found


def dated(finding: Finding, cells: CellStore, end_ms: int, length_ms: int) -> Finding:
    """The finding with a sharper onset.

    Args:
        finding: Of anything but topics.
        cells: What was counted.
        end_ms: Of the newest bucket.
        length_ms: Of a bucket.
    """
    rows = counted(cells, finding.entity, () if finding.lang == ROLLUP else (finding.lang,), end_ms)
    if finding.signal == SIGNALS[VOLUME]:  # whatever their mood
        rows = [(bucket, total, total) for bucket, total, _ in rows]
        usual = explain.Usual(None, _rate(rows, finding.onset_ms, length_ms))
    else:
        usual = _usual(rows, finding.onset_ms, finding.expected if finding.unit == "share" else None, length_ms)
    since_ms = finding.onset_ms - EARLIER * length_ms
    onset_ms = explain.change_point([row for row in rows if row[0] >= since_ms], usual, end_ms - length_ms, length_ms)
    return replace(finding, onset_ms=onset_ms) if onset_ms is not None else finding


def last_bucket(rows: Counted, onset_ms: int, ended_ms: int, expected: float | None, length_ms: int) -> int | None:
    """The last bucket of a rise: sooner than one could be sure that it is over, which is when an incident ends.

    Args:
        rows: As `counted` gives them.
        onset_ms: Of the rise.
        ended_ms: When it was certain.
        expected: The share that is usual, None where something else rose.
        length_ms: Of a bucket.
    """
    usual = _usual(rows, onset_ms, expected, length_ms)
    rise = [row for row in rows if onset_ms <= row[0] < ended_ms]
    return explain.change_point(rise[::-1], usual, onset_ms, length_ms)


def _usual(rows: Counted, onset_ms: int, expected: float | None, length_ms: int) -> explain.Usual:
    """What was usual before an onset, as it was counted and not as it was corrected: the counts since are not corrected either.

    Args:
        rows: Of the last hours.
        onset_ms: What is earlier counts.
        expected: The baseline's word, worth `ONSET_PRIOR` documents; None where it is not about a share.
        length_ms: Of a bucket.
    """
    earlier = [row for row in rows if row[0] < onset_ms]
    documents, negatives = sum(row[1] for row in earlier), sum(row[2] for row in earlier)
    prior = baseline.POPULATION_SHARE if expected is None else expected
    share = (negatives + ONSET_PRIOR * prior) / (documents + ONSET_PRIOR)
    return explain.Usual(share, _rate(rows, onset_ms, length_ms))


def _rate(rows: Counted, onset_ms: int, length_ms: int) -> float | None:
    """Negatives a bucket before an onset; None where that was too short a time to tell."""
    earlier = [row for row in rows if row[0] < onset_ms]
    buckets = (onset_ms - earlier[0][0]) / length_ms if earlier else 0.0
    return max(sum(row[2] for row in earlier), 0.5) / buckets if buckets >= LEAST_BUCKETS else None
