"""Evidence that something changed, added up bucket by bucket over several sizes of change and all starting times.

For each signal and each of a few sizes of change a likelihood ratio of "changed by this much" against "as expected" is
kept in two ways. Shiryaev-Roberts sums add the ratios over all starting times, each weighted by the budget time that
passed (an e-detector: Shin, Ramdas, Rinaldo, "E-detectors", 2024, section 3): as long as nothing has changed their
expectation is the time passed, which is what makes the budget hold. The climb (Page's CUSUM) keeps the best
starting time alone: it is the estimate of the onset.
"""

from __future__ import annotations

import numpy as np

from monitor.detection.counts import EFFECTS, Bools, Floats, Ints, Rows

STEP_LIMIT = 30.0
"""No bucket counts for more than this, in nats either way: enough for any budget, and nothing overflows."""
EVIDENCE_LIMIT = 1e30
RATIOS = 2.0 ** np.arange(1, EFFECTS + 1)
"""Sizes of change of a volume: twice, four, eight and sixteen times what is expected."""
MAX_TILT = 3.0
"""A tilt of `e^3` makes any mix almost wholly negative; more would only overflow."""
MIXTURE = np.array(
    [[0.15, 0.35, 0.35, 0.15], [0.25] * 4, [0.15, 0.35, 0.35, 0.15], [0.15, 0.35, 0.35, 0.15], [0.25] * 4]
)
"""Prior weights of the sizes of change by signal, rows summing to 1. Shares mostly rise by 10 to 20 points; a smaller rise takes
hours anyway, and a larger one shows in a few documents."""
SHARE_STEPS = 2.0 ** np.arange(EFFECTS)
"""Sizes of change of a share, in multiples of the minimal effect."""


def share_ratio(
    negatives: Floats, documents: Floats, null: Floats, effects: Floats, correlation: Floats, worth: Floats
) -> Floats:
    """Log-likelihood ratios of raised shares, float64 [n, effects].

    Binomial, divided by the variance inflation of clustered samples (quasi-likelihood): to second order its
    exponential keeps expectation 1 when counts are that much over-dispersed.

    Args:
        negatives: float64 [n].
        documents: float64 [n].
        null: float64 [n], the highest share that is still no change, in (0, 1).
        effects: float64 [n, effects], rises over `null`.
        correlation: float64 [n], variance inflation per further document of the bucket.
        worth: float64 [n], 0 to 1: part of the documents that count as independent (reposts count less).
    """
    raised = np.minimum(null[:, None] + effects, 0.99)
    up = np.log(raised / null[:, None])
    down = np.log((1 - raised) / (1 - null[:, None]))
    steps = negatives[:, None] * up + (documents - negatives)[:, None] * down
    inflation = 1 + correlation * np.maximum(documents - 1, 0)
    limited: Floats = np.clip(steps * (worth / inflation)[:, None], -STEP_LIMIT, STEP_LIMIT)
    return limited


def volume_ratio(counts: Floats, null: Floats, dispersion: Floats, worth: Floats) -> Floats:
    """Log-likelihood ratios of multiplied volumes, float64 [n, effects]: negative binomial, exact for its dispersion.

    Args:
        counts: float64 [n].
        null: float64 [n], the highest mean that is still no change, above 0.
        dispersion: float64 [n], variance = mean + dispersion * mean^2.
        worth: float64 [n], 0 to 1: part of the documents that count as independent.
    """
    clumps = (dispersion * null)[:, None]
    shrink = np.log((1 + clumps * RATIOS) / (1 + clumps))
    steps = (counts * worth)[:, None] * (np.log(RATIOS) - shrink) - shrink / dispersion[:, None]
    limited: Floats = np.clip(steps, -STEP_LIMIT, STEP_LIMIT)
    return limited


def sentiment_ratio(
    negatives: Floats,
    positives: Floats,
    documents: Floats,
    null_negative: Floats,
    null_positive: Floats,
    effects: Floats,
    correlation: Floats,
    worth: Floats,
) -> Floats:
    """Log-likelihood ratios of a fallen mean sentiment (positives less negatives per document), float64 [n, effects].

    The three shares are tilted exponentially towards the negative, which is the likeliest way to a given mean
    (Siegmund, Sequential Analysis, 1985, section II.3); the ratio has expectation 1 whatever the tilt.

    Args:
        negatives: float64 [n].
        positives: float64 [n].
        documents: float64 [n].
        null_negative: float64 [n], the highest negative share that is still no change.
        null_positive: float64 [n], the lowest positive share that is still no change; both together below 1.
        effects: float64 [n, effects], falls of the mean.
        correlation: As for `share_ratio`.
        worth: As for `share_ratio`.
    """
    spread = null_positive + null_negative - (null_positive - null_negative) ** 2
    tilt = np.minimum(effects / np.maximum(spread, 0.01)[:, None], MAX_TILT)
    up = np.exp(tilt)
    mean = null_negative[:, None] * up + null_positive[:, None] / up + (1 - null_negative - null_positive)[:, None]
    steps = tilt * (negatives - positives)[:, None] - documents[:, None] * np.log(mean)
    inflation = 1 + correlation * np.maximum(documents - 1, 0)
    limited: Floats = np.clip(steps * (worth / inflation)[:, None], -STEP_LIMIT, STEP_LIMIT)
    return limited


def accumulate(rows: Rows, steps: Floats, quiet_steps: Floats, gap: Floats, spent: Floats, bucket_ms: int) -> Floats:
    """Add one bucket's log-likelihood ratios to the evidence; changes `rows`.

    Args:
        rows: The series.
        steps: float64 [n, watched, effects], of this bucket; `watched` is the first so many of the signals.
        quiet_steps: The same for each of the empty buckets before it, at most 0.
        gap: float64 [n], number of empty buckets.
        spent: float64 [n, watched], budget time in days of this bucket, and of each empty one.
        bucket_ms: Start of the bucket.

    Returns:
        float64 [n, watched], the mixture over sizes of change, in days of budget time.
    """
    watched = steps.shape[1]
    total: Floats = rows["evidence"][:, :watched].astype(np.float64)
    climb = rows["climb"][:, :watched]
    if gap.any():
        gaps = gap[:, None, None]
        passed = np.exp(np.maximum(quiet_steps * gaps, -700.0))
        # A start in any of the empty buckets has the ones after it against it: a geometric series.
        each = np.exp(np.minimum(quiet_steps, -1e-12))
        total *= passed
        total += spent[:, :, None] * each * np.where(quiet_steps < -1e-9, (1 - passed) / (1 - each), gaps)
        climb = climb + quiet_steps * gaps
    total += spent[:, :, None]
    total *= np.exp(steps)
    np.minimum(total, EVIDENCE_LIMIT, out=total)
    rows["evidence"][:, :watched] = total

    # An alarm keeps the onset it was raised with.
    fresh = (climb <= 0) & (rows["alarm"][:, :watched] == 0)[:, :, None]
    onset = rows["onset"][:, :watched]
    onset[fresh] = bucket_ms
    rows["window"][:, :watched][fresh] = np.zeros((), rows["window"].dtype)
    rows["climb"][:, :watched] = np.maximum(climb, 0) + steps
    return _mixed(total)


def clear(rows: Rows, which: Bools) -> None:
    """Start the evidence of the chosen (series, signal) anew; `which` is bool [n, signals]."""
    rows["evidence"][which] = 0.0
    rows["climb"][which] = 0.0


def total_evidence(rows: Rows) -> Floats:
    """The mixture over sizes of change, float64 [n, signals], in days of budget time."""
    return _mixed(rows["evidence"].astype(np.float64))


def _mixed(evidence: Floats) -> Floats:
    # Term by term: the order of a sum must not depend on how many series are worked on at once.
    weights = MIXTURE[: evidence.shape[1]]
    mixture: Floats = evidence[:, :, 0] * weights[:, 0]
    for effect in range(1, EFFECTS):
        mixture += evidence[:, :, effect] * weights[:, effect]
    return mixture


def best_effect(rows: Rows) -> Ints:
    """The size of change that explains the climb best, int64 [n, signals]."""
    best: Ints = rows["climb"].argmax(axis=2)
    return best


def descend(rows: Rows, steps: Floats, quiet_steps: Floats, gap: Floats) -> None:
    """Add one bucket to the evidence that alarms are over; changes `rows`.

    Arrays are as for `accumulate`. It is the climb turned round, with half the size of change that the alarm was raised
    for, so that an alarm lasts while about a quarter of its effect does.
    """
    for signal in range(steps.shape[1]):
        alarm = rows["alarm"][:, signal].astype(np.int64)
        effect = np.maximum(alarm - 2, 0)
        here = np.arange(len(rows))
        step = steps[here, signal, effect] + quiet_steps[here, signal, effect] * gap
        down = np.maximum(rows["descent"][:, signal], 0) - step
        rows["descent"][:, signal] = np.where(alarm > 0, np.minimum(down, 1e6), 0.0)
