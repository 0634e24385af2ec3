"""Evidence that something changed, added up bucket by bucket over several sizes of change and all starting times.

For each signal and each of a few sizes of change a likelihood ratio of "changed by this much" against "as expected" is
kept in two ways. The evidence adds up the ratios over starting times, each times the budget time staked on it
(an e-detector: Shin, Ramdas, Rinaldo, "E-detectors", 2024, section 3): as long as nothing has changed its
expectation is the time staked, whatever the stakes, if only each is set before its bucket is seen. That is what makes the
budget hold. The climb (Page's CUSUM) keeps the best starting time alone: it is the estimate of the onset.

Volumes stake each bucket's time on that bucket, which makes Shiryaev-Roberts sums. Shares save it in a purse and stake
where it is worth most: where the evidence has fallen below a part of the purse it is raised to that. Evidence that cannot fall
below a level is Page's test, which is some 5 % sooner; and since what a fall costs is paid from the time that passed, the budget
holds without a threshold being simulated for each kind of series.
"""

from __future__ import annotations

import numpy as np

from monitor.detection.counts import EFFECTS, SHARES, WINDOW_FIELDS, Bools, Floats, Ints, Rows, window_sums

STEP_LIMIT = 30.0
"""No bucket counts for more than this, in nats either way: enough for any budget, and nothing overflows."""
EVIDENCE_LIMIT = 1e30
RATIOS = 2.0 ** np.arange(1, EFFECTS + 1)
"""Sizes of change of a volume: twice, four, eight and sixteen times what is expected."""
MAX_TILT = 3.0
"""A tilt of `e^3` makes any mix almost wholly negative; more would only overflow."""
SHARE_STEPS = np.array([1.0, 1.6, 3.2, 6.4])
"""Sizes of change of a share, in multiples of the minimal effect. With what is no change yet (`weigh.SHARE_MARGIN`) the second is a
rise of ten points, at the default; the largest is sooner than any other from about 25 points on."""
SOUGHT_EVIDENCE = 2.2
"""Nats by which the days that a change takes to be found are reckoned for its weight (`share_weights`). An alarm needs some six; with
those, a series of twelve documents an hour was later for small rises and no sooner for large ones, and from 1.5 to 3 it made no difference."""
STAKE = 0.1
"""Part of its purse to which the evidence of a share is raised where it has fallen lower. A smaller part is a steadier stake, but a purse
longer in filling: a series of one document in five minutes has filled this one in a day and a half."""


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


def share_weights(null: Floats, effects: Floats, per_day: Floats, sought: Bools) -> Floats:
    """How the stakes of shares are divided among the sizes of change, float64 [n, effects], rows summing to 1.

    A weight w costs its size log(1/w) nats, and those cost days / nats each: the sum of what all sizes lose is least with
    weights in proportion to the days they take. What would take many days is as good as never found, and its weight falls
    off exponentially. So a series of thousands of documents looks for small changes first, since large ones show at
    once, and one of a hundred for large ones, since small ones never show.

    Args:
        null: As for `share_ratio`.
        effects: As for `share_ratio`.
        per_day: float64 [n], independent documents that are expected in a day.
        sought: bool [n, effects], which sizes are looked for at all.
    """
    raised = np.minimum(null[:, None] + effects, 0.99)
    nats = raised * np.log(raised / null[:, None]) + (1 - raised) * np.log((1 - raised) / (1 - null[:, None]))
    days = SOUGHT_EVIDENCE / np.maximum(nats * per_day[:, None], 1e-9)
    log_weights = np.where(sought, np.log(days) - days, -1e12)
    weights: Floats = np.exp(log_weights - log_weights.max(1, keepdims=True))
    return weights / _over_effects(weights)[:, None]


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


def accumulate(
    rows: Rows, steps: Floats, quiet_steps: Floats, gap: Floats, spent: Floats, weights: Floats, bucket_ms: int
) -> Floats:
    """Add one bucket's log-likelihood ratios to the evidence; changes `rows`.

    Args:
        rows: The series.
        steps: float64 [n, watched, effects], of this bucket; `watched` is the first so many of the signals.
        quiet_steps: The same for each of the empty buckets before it, at most 0.
        gap: float64 [n], number of empty buckets.
        spent: float64 [n, watched], budget time in days of this bucket, and of each empty one.
        weights: float64 [n, watched, effects], how the time is divided among the sizes of change; they sum to 1.
        bucket_ms: Start of the bucket.

    Returns:
        float64 [n, watched], the evidence of all sizes of change together, in days of budget time.
    """
    watched = steps.shape[1]
    total: Floats = rows["evidence"][:, :watched].astype(np.float64)
    climb = rows["climb"][:, :watched]
    stakes = _stakes(rows, total, spent, weights, gap)
    if gap.any():
        gaps = gap[:, None, None]
        passed = np.exp(np.maximum(quiet_steps * gaps, -700.0))
        # A start in any of the empty buckets has the ones after it against it: a geometric series.
        each = np.exp(np.minimum(quiet_steps, -1e-12))
        total *= passed
        staked = spent[:, :, None] * weights * each * np.where(quiet_steps < -1e-9, (1 - passed) / (1 - each), gaps)
        staked[:, [signal for signal in SHARES if signal < watched]] = 0.0
        total += staked
        climb = climb + quiet_steps * gaps
    total += stakes
    total *= np.exp(steps)
    np.minimum(total, EVIDENCE_LIMIT, out=total)
    rows["evidence"][:, :watched] = total

    # An alarm keeps the onset it was raised with.
    fresh = (climb <= 0) & (rows["alarm"][:, :watched] == 0)[:, :, None]
    onset = rows["onset"][:, :watched]
    onset[fresh] = bucket_ms
    windows = window_sums(rows, watched)
    windows *= np.repeat(~fresh.reshape(len(rows), watched * EFFECTS), len(WINDOW_FIELDS), axis=1)
    rows["climb"][:, :watched] = np.maximum(climb, 0) + steps
    return _over_effects(total)


def _stakes(rows: Rows, total: Floats, spent: Floats, weights: Floats, gap: Floats) -> Floats:
    """Budget time staked on a change with this bucket, float64 [n, watched, effects]; takes that of shares from their purses.

    Nothing is saved during an alarm: an alarm of days would be followed by a stake of days.
    """
    stakes: Floats = spent[:, :, None] * weights
    shares = [signal for signal in SHARES if signal < spent.shape[1]]
    saved = np.where(rows["alarm"][:, shares] == 0, spent[:, shares] * (gap + 1)[:, None], 0.0)
    purse = rows["purse"][:, shares] + saved
    missing = np.maximum(STAKE * purse[:, :, None] * weights[:, shares] - total[:, shares], 0.0)
    stakes[:, shares] = missing
    rows["purse"][:, shares] = purse - _over_effects(missing)
    return stakes


def clear(rows: Rows, which: Bools) -> None:
    """Start the evidence of the chosen (series, signal) anew; `which` is bool [n, signals]."""
    rows["evidence"][which] = 0.0
    rows["climb"][which] = 0.0


def total_evidence(rows: Rows) -> Floats:
    """The evidence of all sizes of change together, float64 [n, signals], in days of budget time."""
    return _over_effects(rows["evidence"].astype(np.float64))


def _over_effects(values: Floats) -> Floats:
    # Term by term: the order of a sum must not depend on how many series are worked on at once.
    total: Floats = values[..., 0].copy()
    for effect in range(1, EFFECTS):
        total += values[..., effect]
    return total


def best_effect(rows: Rows) -> Ints:
    """The size of change that explains the climb best, int64 [n, signals]."""
    best: Ints = rows["climb"].argmax(axis=2)
    return best


def descend(rows: Rows, steps: Floats, quiet_steps: Floats, gap: Floats) -> None:
    """Add one bucket to the evidence that alarms are over; changes `rows`.

    Arrays are as for `accumulate`. It is the climb turned round, with half the size of change that the alarm was raised
    for, so that an alarm lasts while about a quarter of its effect does; where too little is known for that, with the whole.
    """
    for signal in range(steps.shape[1]):
        alarm = rows["alarm"][:, signal].astype(np.int64)
        own, half = np.maximum(alarm - 1, 0), np.maximum(alarm - 2, 0)
        here = np.arange(len(rows))
        # Half the size may be below the doubt about what is usual, where nothing is told of it: then the alarm's own has to do.
        told = steps[here, signal, half] != 0
        step = np.where(told, steps[here, signal, half], steps[here, signal, own])
        step = step + quiet_steps[here, signal, half] * gap
        down = np.maximum(rows["descent"][:, signal], 0) - step
        rows["descent"][:, signal] = np.where(alarm > 0, np.minimum(down, 1e6), 0.0)
