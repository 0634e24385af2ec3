"""What one bucket says for and against a change of each signal, and what it adds to the windows since the onsets."""

from __future__ import annotations

import numpy as np

from monitor.detection import baseline, evidence
from monitor.detection.counts import (
    BESIDE,
    EFFECTS,
    NEGATIVE_VOLUME,
    SENTIMENT,
    SHARE,
    SHARES,
    SPREAD,
    VOLUME,
    WINDOW_FIELDS,
    Floats,
    Rows,
    Seen,
    window_sums,
)  # fmt: skip
from monitor.detection.decide import SENTIMENT_SPAN

DAY_MS = baseline.DAY_MS
SHARE_MARGIN = 0.25
"""Part of the minimal effect that still counts as no change: moods wander by a point or so and nobody cares."""
SHARE_DOUBT, VOLUME_DOUBT = 0.5, 0.5
"""Standard errors of what is expected that still count as no change. More would cost delay at every rise; what is left of
the doubt is covered by `budget.SAFETY`."""
EFFECT_DOUBTS = 2.0
"""Standard errors of the expected share that a size of change must have to be looked for: in the first hours of a name only
large changes are, else the baseline's own error is an alarm."""
SHARE_KNOWN = 50.0
"""Documents that a share's baseline must have seen: before, its prior speaks louder than itself, and any name that is
disliked from its first day would be an alarm."""
SHARE_KNOWN_MS = 3_600_000
"""And the time that it must have seen: documents of the same minutes resemble each other, be they ever so many."""
DOMINATES = 0.5
"""Part of an entity's documents from which on a language drowns the others in the rollup."""


def ratios(
    rows: Rows,
    clock: baseline.Clock,
    volume: baseline.Volume,
    share: baseline.Share,
    seen: Seen,
    parts: Floats,
    watched: int,
    minimal_effect: float,
    half_life_ms: float,
) -> tuple[Floats, Floats, Floats]:
    """Log-likelihood ratios of this bucket and of each empty one before, and the weights of the sizes of change.

    Args:
        rows: The series.
        clock: Of the bucket.
        volume: What was expected.
        share: What was expected.
        seen: What came.
        parts: float64 [signals], 0 for a signal that raises no alarm.
        watched: So many of the signals, the first, are looked at.
        minimal_effect: The smallest rise of a share worth an alarm.
        half_life_ms: Of the baseline.

    Returns:
        float64 [n, watched, effects], three times.
    """
    worth = seen.worth / np.maximum(seen.documents, 1e-12)
    step = minimal_effect * np.where(seen.documents > 0, seen.youden / np.maximum(seen.documents, 1e-12), 1.0)
    null = np.clip(share.mean + SHARE_DOUBT * share.doubt + SHARE_MARGIN * step, 0.005, 0.97)
    effects = step[:, None] * evidence.SHARE_STEPS
    steps = np.zeros((len(rows), watched, EFFECTS))
    quiet = np.zeros_like(steps)
    # Nothing is unusual in what is not known, and no change is seen that is smaller than the doubt.
    young = clock.bucket_ms - rows["born"] < SHARE_KNOWN_MS
    unknown = ((rows["share"][:, 1] < SHARE_KNOWN) | young)[:, None] | (effects < EFFECT_DOUBTS * share.doubt[:, None])
    unit = seen.unit
    weights = np.full_like(steps, 1 / EFFECTS)
    a_day = baseline.documents_a_day(rows, clock, half_life_ms) * unit
    alike = share.correlation * np.maximum(a_day * (clock.length_ms / DAY_MS) - 1, 0)
    of_shares = evidence.share_weights(null, effects, a_day / (1 + alike), ~unknown)
    for signal in (signal for signal in SHARES if signal < watched):
        weights[:, signal] = of_shares
    negatives, positives, documents = seen.negatives * unit, seen.positives * unit, seen.documents * unit
    found = evidence.share_ratio(negatives, documents, null, effects, share.correlation, worth)
    steps[:, SHARE] = np.where(unknown, 0.0, found)
    if parts[SENTIMENT]:
        fewer = np.clip(share.positive - SHARE_DOUBT * share.positive_doubt, 0.005, 0.99 - null)
        found = evidence.sentiment_ratio(
            negatives, positives, documents, null, fewer, SENTIMENT_SPAN * effects, share.correlation, worth
        )
        steps[:, SENTIMENT] = np.where(unknown, 0.0, found)
    if parts[SPREAD] and watched > SPREAD:
        steps[:, SPREAD] = np.clip(seen.beside[:, :EFFECTS], -evidence.STEP_LIMIT, evidence.STEP_LIMIT)
    # What weights add to the variance of a volume its over-dispersion has learned; this is for one heavy document among others.
    worth = worth * np.minimum(unit, 1.0)
    # A day must have been seen before "more than usual" means anything.
    known = (clock.bucket_ms - rows["born"] >= DAY_MS)[:, None]
    for signal, counts, of, doubt in (
        (NEGATIVE_VOLUME, seen.negatives, share.mean, np.hypot(volume.doubt, share.doubt / share.mean)),
        (VOLUME, seen.documents, 1.0, volume.doubt),
    ):
        if not parts[signal]:
            continue
        usual = of * (1 + VOLUME_DOUBT * doubt)
        steps[:, signal] = known * evidence.volume_ratio(counts, volume.mean * usual, volume.dispersion, worth)
        if clock.gap.any():
            quiet[:, signal] = known * evidence.volume_ratio(
                np.zeros_like(counts), volume.gap_mean * usual, volume.dispersion, worth
            )
    return steps, quiet, weights


def tell_beside(seen: Seen, share: baseline.Share, steps: Floats, part: Floats) -> None:
    """Note for the rollup what languages say that do not dominate their entity; changes `seen.beside`.

    Args:
        seen: Of languages.
        share: What was expected of them.
        steps: float64 [n, watched, effects], their ratios.
        part: float64 [n], of the entity's documents so far.
    """
    told = np.stack([
        seen.documents, seen.negatives, seen.corrected, seen.corrected_expected, seen.documents * share.mean
    ], axis=1)  # fmt: skip
    seen.beside = np.where((part < DOMINATES)[:, None], np.concatenate([steps[:, SHARE], told], axis=1), 0.0)


def extend_windows(rows: Rows, volume: baseline.Volume, share: baseline.Share, gap: Floats, watched: int) -> None:
    """Add what the empty buckets should have shown to the windows; changes `rows`."""
    quiet = np.flatnonzero(gap > 0)
    if len(quiet):
        window = rows["window"][:, :watched]
        documents = (gap * volume.gap_mean)[quiet, None, None]
        window["documents_expected"][quiet] += documents
        window["negatives_expected"][quiet] += documents * share.mean[quiet, None, None]


def add_to_windows(
    rows: Rows, volume: baseline.Volume, share: baseline.Share, seen: Seen, parts: Floats, watched: int
) -> None:
    """Add the bucket to the windows since the candidate onsets; changes `rows`."""
    window = rows["window"][:, :watched]
    sums = {
        "documents": seen.documents,
        "negatives": seen.negatives,
        "corrected": seen.corrected,
        "corrected_expected": seen.corrected_expected,
        "documents_expected": volume.mean,
        "negatives_expected": volume.mean * share.mean,
        "negatives_expected_mix": seen.documents * share.mean,
    }
    windows = window_sums(rows, watched)
    windows += np.tile(np.stack([sums[name] for name in WINDOW_FIELDS], axis=1, dtype=np.float32), watched * EFFECTS)
    if parts[SENTIMENT]:
        window["corrected"][:, SENTIMENT] += (seen.sentiment - seen.corrected)[:, None]
        window["corrected_expected"][:, SENTIMENT] += (seen.sentiment_expected - seen.corrected_expected)[:, None]
    if parts[SPREAD] and watched > SPREAD:
        for name, told in zip(BESIDE, seen.beside[:, EFFECTS:].T, strict=True):
            window[name][:, SPREAD] += (told - sums[name])[:, None]
