"""When evidence becomes an alarm, and when an alarm is over."""

from __future__ import annotations

import numpy as np

from monitor.detection import evidence
from monitor.detection.baseline import DAY_MS, HOUR_MS, Clock, Share, Volume
from monitor.detection.counts import (
    NEGATIVE_VOLUME,
    SENTIMENT,
    SHARE,
    SHARES,
    SIGNALS,
    SPREAD,
    VOLUME,
    Bools,
    Floats,
    Ints,
    Rows,
    Seen,
)
from monitor.detection.settings import DetectionSettings

MIN_EVIDENCE = float(np.log(100.0))
"""A climb below this is no alarm whatever the budget: a budget of many alarms a day is no reason to raise them."""
END_EVIDENCE = 3.0
"""An alarm ends when its being over is this many nats likelier than its going on (20 to 1)."""
CALM_EVIDENCE, EBB_EVIDENCE = 0.5, 1.0
"""And of this many, where what else is known of the entity says that it is over: its languages together are back, or the burst
of negatives that came with the alarm is. A language of three posts an hour takes half a day to say so alone. More is asked after a
burst, which may end before the mood is better: with half a nat one in twelve simulated alarms ended too soon, with this one in 25."""
FEW_AN_HOUR = 20.0
"""Only for series of fewer documents an hour: larger ones say soon enough themselves, and a language whose mood stays a little worse
than its entity's would be let go and found out again, over and over."""
BURST, SUBSIDED, NO_BURST = 6.0, 1, -1.0
"""An alarm with so many times the usual negatives came with a burst, and that is over when four times the usual
(`evidence.RATIOS[SUBSIDED]`) is as unlikely as `END_EVIDENCE` says: below about twice the usual."""
SILENCE_END_MS = 6 * 3_600_000
"""A share's alarm ends after this long without a document: there is nothing left to be alarmed about."""
NEGATIVE_BY_NATURE = 0.5
"""Where most documents are negative as a rule, a burst is bad news without a change of share."""
SENTIMENT_SPAN = 2.0
"""The mean sentiment runs from -1 to 1, twice as far as a share: so many times the minimal effect of a share is its own."""
ADOPTED_DOCUMENTS = 500.0
"""What an alarm that became the new normal is worth in the share's baseline: sure, but quick to correct."""


def raise_alarms(
    rows: Rows, total: Floats, spent: Floats, bar_days: float, correlation: Floats, unit: Floats,
    settings: DetectionSettings, clock: Clock,
) -> Bools:  # fmt: skip
    """Put the signals in alarm whose evidence has reached the bar and that are worth it; changes `rows`.

    Args:
        rows: The series, their evidence and windows up to this bucket.
        total: float64 [n, watched], evidence by signal in days of budget time; the signals behind are not watched.
        spent: float64 [n, watched], budget time of this bucket, in days; 0 for a signal that raises no alarm.
        bar_days: Evidence at which any signal is in alarm.
        correlation: float64 [n], variance inflation of the negatives per further document of a bucket.
        unit: float64 [n], as `Seen.unit`.
        settings: The detector's.
        clock: Of the bucket.

    Returns:
        bool [n, signals], the alarms raised now.
    """
    raised: Bools = np.zeros((len(rows), len(SIGNALS)), bool)
    above = np.argwhere((total >= bar_days) & (spent > 0))
    chosen = np.unique(above[:, 0])
    if not len(chosen):
        return raised
    strong = np.zeros_like(raised)
    strong[above[:, 0], above[:, 1]] = True
    strong &= rows["alarm"] == 0
    some = rows[chosen]
    here, signals = np.ogrid[: len(chosen), : len(SIGNALS)]
    best = evidence.best_effect(some)
    window = some["window"][here, signals, best]
    enough = strong[chosen] & (some["climb"][here, signals, best] >= MIN_EVIDENCE)
    enough &= window["documents"] >= settings.minimum_documents
    bar = np.log(bar_days / np.maximum(spent[chosen].max(1), 1e-12))
    buckets = np.maximum((clock.bucket_ms - some["onset"][here, signals, best]) / clock.length_ms + 1, 1)
    unit = unit[chosen, None]
    inflation = 1 + correlation[chosen, None] * np.maximum(window["documents"] * unit / buckets - 1, 0)
    needed = inflation / unit * np.maximum(bar, MIN_EVIDENCE)[:, None]
    raised[chosen] = enough & _matters(settings, window, needed)
    rows["alarm"][chosen] = np.where(raised[chosen], best + 1, some["alarm"])
    rows["raised"][raised] = clock.bucket_ms
    rows["descent"][raised] = 0.0
    rows["ebb"][raised.any(1)] = NO_BURST
    return raised


def _matters(settings: DetectionSettings, window: Rows, needed: Floats) -> Bools:
    """Whether each signal's rise is large enough, and bad enough, to wake somebody: bool [n, signals].

    Args:
        settings: The detector's.
        window: [n, signals], sums since the onset.
        needed: float64 [n, signals], nats by which the share of the same window must be up for a rise of negative volume: a
            harmless burst has more negatives as it has more of everything, and how often bursts come is nothing that a
            budget could be set by.
    """
    documents = np.maximum(window["documents"].astype(np.float64), 1e-9)
    effect = (window["corrected"] - window["corrected_expected"]) / documents
    usual = np.clip(window["negatives_expected_mix"] / documents, 0.005, 0.95)
    share = window["negatives"] / documents
    by_nature = window["corrected_expected"] / documents >= NEGATIVE_BY_NATURE
    unchanged = share >= usual - np.sqrt(usual * (1 - usual) / documents)
    higher = np.clip(share, usual, 1 - 1e-6)
    divergence = higher * np.log(higher / usual) + (1 - higher) * np.log((1 - higher) / (1 - usual))
    higher_share = (documents * divergence >= needed) & (effect >= settings.minimal_effect)
    bad = higher_share | (by_nature & unchanged)
    ratio = settings.minimal_ratio
    matters: Bools = np.zeros(effect.shape, bool)
    matters[:, SHARE] = effect[:, SHARE] >= settings.minimal_effect
    matters[:, SPREAD] = effect[:, SPREAD] >= settings.minimal_effect
    matters[:, SENTIMENT] = effect[:, SENTIMENT] <= -SENTIMENT_SPAN * settings.minimal_effect
    more = window["negatives"] >= ratio * window["negatives_expected"]
    matters[:, NEGATIVE_VOLUME] = more[:, NEGATIVE_VOLUME] & bad[:, NEGATIVE_VOLUME]
    matters[:, VOLUME] = (window["documents"] >= ratio * window["documents_expected"])[:, VOLUME]
    return matters


def end_alarms(
    rows: Rows, parents: Rows, before: Bools, steps: Floats, quiet_steps: Floats, clock: Clock, volume: Volume,
    share: Share, seen: Seen, settings: DetectionSettings,
) -> Bools:  # fmt: skip
    """Find the alarms that end with this bucket: bool [n, signals]; changes `rows`.

    An alarm ends when its signal is back, when nothing is said any more, or when it has lasted so long that it is the
    new normal: the baseline then takes over what the alarm showed. Less is asked of it (`_enough`) once its entity's
    share over all languages is back, or its burst of negatives over. The alarm itself is left set, to be described.

    Args:
        rows: The series.
        parents: [n], their entities' rollups, as of the bucket before for a language.
        before: bool [n, signals], in alarm before this bucket.
        steps: float64 [n, watched, effects], log-likelihood ratios of this bucket.
        quiet_steps: The same of each empty one before it.
        clock: Of the bucket.
        volume: What was expected.
        share: What was expected.
        seen: What came.
        settings: The detector's.
    """
    ended = np.zeros_like(before)
    if not before.any():
        return ended
    evidence.descend(rows, np.where(before[:, : steps.shape[1], None], steps, 0.0), quiet_steps, clock.gap)
    silence = END_EVIDENCE * clock.length_ms / SILENCE_END_MS
    for signal in SHARES:
        rows["descent"][before[:, signal] & (seen.documents == 0), signal] += silence
    expired = before & (clock.bucket_ms - rows["raised"] >= settings.freeze_days * DAY_MS)
    chosen = np.flatnonzero(before.any(1))
    enough = np.full(before.shape, END_EVIDENCE)
    enough[chosen] = _enough(rows, parents, chosen, clock, volume, share, seen)
    ended = before & ((rows["descent"] >= enough) | expired)
    _adopt(rows, np.flatnonzero(expired.any(1)), clock)
    return ended


def _enough(rows: Rows, parents: Rows, chosen: Ints, clock: Clock, volume: Volume, share: Share, seen: Seen) -> Floats:
    """Evidence at which the chosen rows' alarms are over, given what else is known: float64 [chosen, signals]; changes `rows`."""
    some, entity = rows[chosen], parents[chosen]
    here, signals = np.ogrid[: len(chosen), : len(SIGNALS)]
    alarm = some["alarm"] > 0
    effect = np.maximum(some["alarm"].astype(np.int64) - 1, 0)
    # The entity's own alarm ended since this one was raised.
    few = volume.mean[chosen] * HOUR_MS < FEW_AN_HOUR * clock.length_ms
    pooled = few[:, None] & (entity["alarm"][:, [SHARE]] == 0) & (entity["raised"][:, [SHARE]] > some["raised"])
    window = some["window"][here, signals, effect]
    ratio = window["negatives"] / np.maximum(window["negatives_expected"], 1e-9)
    # The window of `language_spread` holds some languages of its series only.
    counted = alarm & (np.arange(len(SIGNALS)) != SPREAD)
    burst = np.where(counted, ratio, 0.0).max(1) >= BURST
    # As if independent: what the over-dispersion has learned of late is the burst itself, and to be wrong costs little.
    dispersion, one, unit = np.full(len(chosen), 1e-3), np.ones(len(chosen)), seen.unit[chosen]
    usual, quiet = (mean[chosen] * share.mean[chosen] * unit for mean in (volume.mean, volume.gap_mean))
    step = evidence.volume_ratio(seen.negatives[chosen] * unit, usual, dispersion, one)[:, SUBSIDED]
    step = step + clock.gap[chosen] * evidence.volume_ratio(0 * one, quiet, dispersion, one)[:, SUBSIDED]
    ebb = np.where(burst | (some["ebb"] >= 0), np.clip(np.maximum(some["ebb"], 0.0) - step, 0.0, 1e6), NO_BURST)
    rows["ebb"][chosen] = ebb
    after_burst = np.where(ebb >= END_EVIDENCE, EBB_EVIDENCE, END_EVIDENCE)[:, None]
    enough: Floats = np.where(pooled, CALM_EVIDENCE, after_burst)
    return enough


def _adopt(rows: Rows, which: Ints, clock: Clock) -> None:
    """Take what an alarm showed as the new normal: worth a day of volume, and `ADOPTED_DOCUMENTS` of share.

    What `language_spread` shows is not all of its series, so its end adopts nothing; the new level is learned.
    """
    for position in which:
        row = rows[position]
        signal = int((row["alarm"] > 0).argmax())
        if signal == SPREAD:
            continue
        effect = int(row["alarm"][signal]) - 1
        window = row["window"][signal, effect]
        documents = float(window["documents"])
        buckets = (clock.bucket_ms - int(row["onset"][signal, effect])) / clock.length_ms + 1
        weight = min(1.0, ADOPTED_DOCUMENTS / max(documents, 1.0))
        row["share"] = weight * _shown(row["share"], window, signal)
        day = DAY_MS / clock.length_ms
        row["level"] = documents / buckets * day, day
        rows[position] = row


def _shown(before: Floats, window: Rows, signal: int) -> Floats:
    """The sums of a share's baseline (`counts.ROW["share"]`) as a window showed them."""
    documents, negatives = float(window["documents"]), float(window["negatives"])
    rise = negatives - float(window["negatives_expected_mix"])
    used = max(float(before[1]), 1e-9)
    kind = float(before[3]) / max(used - float(before[0]), 1e-9)
    positives, sentiment = kind * (documents - negatives), float(before[4]) / used * documents - rise
    corrected = float(window["corrected"])
    if signal == SENTIMENT:
        # Its window holds the sentiment where others hold negatives; what fell beyond the negatives' rise were positives.
        fall = float(window["corrected_expected"]) - corrected
        positives = max(positives - max(fall - rise, 0.0), 0.0)
        sentiment, corrected = corrected, float(before[2]) / used * documents + rise
    return np.array([negatives, documents, corrected, positives, sentiment])
