"""When a rise began and when it was over, from the counts of an entity's buckets; pure.

A sequential test knows that a share rose, or is back, before or after it did; the likeliest change point says when.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from monitor.detection import baseline, explain
from monitor.detection.cells import CellStore
from monitor.detection.counts import ROLLUP
from monitor.detection.findings import Finding

ONSET_PRIOR = 20.0
"""Documents that the baseline's expectation is worth beside the last hours, when the onset is looked for."""


Counted = list[tuple[int, float, float]]
"""(bucket, documents, negatives) in order of time."""


def counted(cells: CellStore, entity: str, languages: Sequence[str], end_ms: int) -> Counted:
    """An entity's closed buckets before `end_ms`, in these languages, in all without any."""
    found: Counted = []
    for bucket, cell in cells.of(entity, end_ms):
        rows = [cell.counts[lang] for lang in languages or cell.counts if lang in cell.counts]
        found.append((bucket, sum(sum(row[:3]) for row in rows), sum(row[0] for row in rows)))
    return found


def dated(finding: Finding, cells: CellStore, end_ms: int) -> Finding:
    """The finding with a sharper onset."""
    rows = counted(cells, finding.entity, () if finding.lang == ROLLUP else (finding.lang,), end_ms)
    usual = _usual_share(rows, finding.onset_ms, finding.expected)
    onset_ms = explain.change_point([row for row in rows if row[0] >= finding.onset_ms], usual)
    return replace(finding, onset_ms=onset_ms) if onset_ms is not None else finding


def last_bucket(rows: Counted, onset_ms: int, ended_ms: int, expected: float | None) -> int | None:
    """The last bucket of a rise: sooner than one could be sure that it is over, which is when an incident ends.

    Args:
        rows: As `counted` gives them.
        onset_ms: Of the rise.
        ended_ms: When it was certain.
        expected: The share that is usual, None where something else rose.
    """
    usual = _usual_share(rows, onset_ms, expected)
    return explain.change_point([row for row in rows if onset_ms <= row[0] < ended_ms][::-1], usual)


def _usual_share(rows: Counted, onset_ms: int, expected: float | None) -> float:
    """The share before an onset, as it was counted and not as it was corrected: the counts since are not corrected either.

    Args:
        rows: Of the last hours.
        onset_ms: What is earlier counts.
        expected: The baseline's word, worth `ONSET_PRIOR` documents; None where it is not about a share.
    """
    earlier = [row for row in rows if row[0] < onset_ms]
    documents, negatives = sum(row[1] for row in earlier), sum(row[2] for row in earlier)
    prior = baseline.POPULATION_SHARE if expected is None else expected
    return (negatives + ONSET_PRIOR * prior) / (documents + ONSET_PRIOR)
