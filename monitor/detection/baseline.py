"""What each series should show now, learned online: level, hour and weekday, over-dispersion, and how sure that is.

Everything here works on gathered rows (`counts.ROW`, [n]) and returns arrays [n]; nothing keeps state of its own.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from monitor.detection import migrations
from monitor.detection.counts import Bools, Floats, Ints, Rows, Seen

HOUR_MS, DAY_MS = 3_600_000, 86_400_000

LEVEL_FRACTION = 3 / 7
"""The volume's level forgets faster than the rest (3 days where they take 7), as attention to a name drifts over days
while its habits do not."""
CORRELATION_S = 1500.0
"""Half-life over which chance clumps of documents are counted as one: half an hour is about how long a chatter lasts.
Shorter, and a clump passes for many independent proofs; longer, and a short burst is drowned."""
HOUR_PRIOR, DAY_PRIOR, SHARE_HOUR_PRIOR = 10.0, 300.0, 500.0
"""Effective documents that a season bin must show before it counts half: a weekday is seen once a week, so one odd day
must not become the rule; an hour is seen daily."""
SHARE_PRIOR = 20.0
"""Documents that the entity's other languages are worth when a language is new."""
POPULATION_SHARE = 0.25
"""True negative share assumed before anything is known of an entity; a constant, not learned over entities, so that
a decision does not depend on which entities share a partition."""
POPULATION_POSITIVE = migrations.USUAL_POSITIVES
"""Part of what is not negative that is taken as positive before anything is known."""
PRIOR_CORRELATION = 0.02
"""How much documents of one bucket resemble each other until the series has shown it."""
PRIOR_STRETCHES = 8.0
"""Half-hours that this prior is worth. A dense series would else take one calm half-hour for proof that its documents are
independent, be in alarm at the next, and, as an alarm teaches nothing, never learn better: one of a hundred simulated names had
most of all false alarms."""
LANGUAGE_SPREAD = 0.1
"""Standard deviation of true shares between languages of one entity: what a new language may differ by."""
WEEKS_KEPT = 4
"""Half-lives, for the weekday bins, per half-life of the rest: a weekday comes once a week only."""
SETTLED_MS = 3 * HOUR_MS
"""Before this age the level is a guess, and its errors would pass for over-dispersion."""
WINSOR = 3.0
"""A bucket teaches the level at most this many times what was expected."""
NOISE_WINSOR = 30.0
"""And the over-dispersion this many times: a name whose posts come in bursts must be known to burst, but one burst beyond all
measure must not blind the series for weeks."""
OUTAGE_LOG_PROBABILITY = -20.0
"""A silence less probable than this is a broken source, not a quiet day, and teaches nothing."""


@dataclass(frozen=True, slots=True)
class Clock:
    """How much time a closed bucket stands for.

    Attributes:
        bucket_ms: Start of the bucket.
        length_ms: Its length.
        gap: float64 [n], empty buckets since the series was last seen, 0 or more.
        hour: Hour of the day with fraction, 0 to 24.
        weekday: 0 to 6.
    """

    bucket_ms: int
    length_ms: int
    gap: Floats
    hour: float
    weekday: int

    @classmethod
    def at(cls, bucket_ms: int, length_ms: int, seen_ms: Ints) -> Clock:
        """The clock of series last seen at `seen_ms` (int64 [n]); going backwards counts as no time."""
        gap = np.maximum((bucket_ms - seen_ms) / length_ms - 1, 0)
        middle_ms = bucket_ms + length_ms // 2
        return cls(bucket_ms, length_ms, gap, middle_ms % DAY_MS / HOUR_MS, middle_ms // DAY_MS % 7)

    @property
    def elapsed(self) -> Floats:
        """float64 [n], buckets since the series was last seen, this one included."""
        return self.gap + 1


@dataclass(frozen=True, slots=True)
class Volume:
    """Expected documents, float64 [n] each.

    Attributes:
        season: Factor of hour and weekday.
        gap_season: The same on average over the empty buckets before.
        level: Documents per bucket without season.
        mean: Documents expected in this bucket.
        gap_mean: Documents expected per empty bucket before it.
        dispersion: Negative binomial over-dispersion: variance = mean + dispersion * mean^2, set so that it holds
            for sums over half an hour.
        doubt: Relative standard error of `mean`.
    """

    season: Floats
    gap_season: Floats
    level: Floats
    mean: Floats
    gap_mean: Floats
    dispersion: Floats
    doubt: Floats


@dataclass(frozen=True, slots=True)
class Share:
    """Expected predicted-negative share, float64 [n] each.

    Attributes:
        mean: 0 to 1, exclusive.
        doubt: Its standard error.
        correlation: Extra variance per further document in a bucket, as for clustered samples.
        true: The same share after the correction for confusion, 0 to 1.
        positive: Share of predicted positives.
        positive_doubt: Its standard error.
        sentiment: Positive less negative share after the correction, -1 to 1.
    """

    mean: Floats
    doubt: Floats
    correlation: Floats
    true: Floats
    positive: Floats
    positive_doubt: Floats
    sentiment: Floats


def expect_volume(rows: Rows, clock: Clock) -> Volume:
    """The documents that the baseline expects, with over-dispersion and doubt."""
    season = _season(rows["hour"], clock.hour, HOUR_PRIOR) * _bin(rows["day"], clock.weekday, DAY_PRIOR)
    gap_season = season.copy()
    long = np.flatnonzero(clock.gap * clock.length_ms >= HOUR_MS)
    if len(long):
        hours, days = _coverage(clock, long)
        gap_season[long] = _mean_factor(rows["hour"][long], hours, HOUR_PRIOR) * _mean_factor(
            rows["day"][long], days, DAY_PRIOR
        )
    documents, buckets = rows["level"][:, 0], rows["level"][:, 1]
    level = (documents + 0.5) / (buckets + 0.25)
    mean = np.maximum(level * season, 1e-6)
    noise = rows["volume_noise"]
    # One bucket's worth of prior at dispersion 1 keeps a young series careful.
    dispersion = np.maximum((noise["excess"] + 1.0) / (noise["weight"] + 1.0), 1e-3)
    doubt = np.sqrt((1 + dispersion * mean) / (documents + 0.5))
    return Volume(season, gap_season, level, mean, np.maximum(level * gap_season, 1e-6), dispersion, doubt)


def expect_share(rows: Rows, clock: Clock, prior: Floats, true_prior: Floats, youden: Floats, unit: Floats) -> Share:
    """The share that the baseline expects, shrunk towards `prior`.

    Args:
        rows: The series.
        clock: Of the bucket.
        prior: float64 [n], predicted share to shrink towards: the entity's, through this language's confusion.
        true_prior: float64 [n], the entity's true share.
        youden: float64 [n], what one true point moves the predicted share.
        unit: float64 [n], as `Seen.unit`.
    """
    negatives, documents, corrected, positives, sentiment = rows["share"].T
    total = documents + SHARE_PRIOR
    level = (negatives + SHARE_PRIOR * prior) / total
    factor = _season(rows["share_hour"], clock.hour, SHARE_HOUR_PRIOR)
    mean = np.clip(level * factor, 0.005, 0.95)
    noise = rows["share_noise"]
    prior_weight = 100.0 + PRIOR_STRETCHES * max(1000 * CORRELATION_S / clock.length_ms, 1.0) * noise["clumped"]
    correlation = np.clip(
        (noise["excess"] + prior_weight * PRIOR_CORRELATION) / (noise["weight"] + prior_weight), 0.0, 1.0
    )
    # What was learned was learned in clusters, too: a bucket of documents that resemble each other says less.
    per_bucket = np.minimum(rows["level"][:, 0] / np.maximum(rows["level"][:, 1], 1.0) * unit, documents)
    sampling = mean * (1 - mean) * (1 + correlation * per_bucket) / total
    spread = (SHARE_PRIOR / total) ** 2 * (LANGUAGE_SPREAD * youden) ** 2
    level_true = (corrected + SHARE_PRIOR * true_prior) / total
    true = np.clip(level_true * factor, 0.0, 1.0)
    # Positives among what is not negative: the hour of the day moves both through the negatives alone.
    kind = (positives + SHARE_PRIOR * POPULATION_POSITIVE) / (np.maximum(documents - negatives, 0.0) + SHARE_PRIOR)
    positive = np.clip((1 - mean) * np.minimum(kind, 1.0), 0.005, 0.97)
    positive_doubt = np.sqrt(positive * (1 - positive) * (1 + correlation * per_bucket) / total + spread)
    usual = POPULATION_POSITIVE * (1 - true_prior) - true_prior
    level = (sentiment + SHARE_PRIOR * usual) / total
    shifted = level + (level_true - true) * (1 + POPULATION_POSITIVE)
    return Share(
        mean, np.sqrt(sampling + spread), correlation, true, positive, positive_doubt, np.clip(shifted, -1.0, 1.0)
    )


def documents_a_day(rows: Rows, clock: Clock, half_life_ms: float) -> Floats:
    """Documents a day on average over what is remembered, weighted as they came: float64 [n]."""
    age_ms = np.maximum(clock.bucket_ms - rows["born"], clock.length_ms)
    remembered_ms = (1 - 0.5 ** (age_ms / half_life_ms)) * half_life_ms / np.log(2)
    faded = 0.5 ** (clock.gap * clock.length_ms / half_life_ms)
    documents: Floats = rows["mass"] * faded * (DAY_MS / remembered_ms)
    return documents


def entity_share(rollup: Rows) -> Floats:
    """True negative share of the entity over its languages, shrunk towards the population: float64 [n]."""
    _, documents, corrected, _, _ = rollup["share"].T
    shares: Floats = np.clip((corrected + SHARE_PRIOR * POPULATION_SHARE) / (documents + SHARE_PRIOR), 0.01, 0.95)
    return shares


def learn_volume(
    rows: Rows, clock: Clock, volume: Volume, documents: Floats, frozen: Bools, half_life_ms: float
) -> None:
    """Teach the volume's baseline one bucket and the silence before it; changes `rows`.

    While an alarm lasts (`frozen`) the level takes in no more than the upper end of what is normal. How much a series
    clumps is learned from everything: bursts are what the next burst has to stand out from.
    """
    silence = -np.log1p(volume.dispersion * volume.gap_mean) / volume.dispersion * clock.gap
    gap = np.where(silence < OUTAGE_LOG_PROBABILITY, 0.0, clock.gap)
    spread = np.sqrt(volume.mean * (1 + _short_dispersion(volume, clock) * volume.mean))
    young = clock.bucket_ms - rows["born"] < DAY_MS
    busy = np.minimum(volume.mean + 2 * spread, 2 * (volume.mean + np.sqrt(volume.mean)))
    chance = 3 * np.sqrt(volume.mean) + 3
    limit = np.where(frozen, busy, WINSOR * volume.mean + chance)
    taken = np.where(young, documents, np.minimum(documents, limit))

    keep = 0.5 ** (clock.elapsed * clock.length_ms / half_life_ms)
    keep_level = keep ** (1 / LEVEL_FRACTION)
    rows["level"][:, 0] = keep_level * rows["level"][:, 0] + taken
    rows["level"][:, 1] = keep_level * rows["level"][:, 1] + volume.season + gap * volume.gap_season

    information = 1 / (1 + volume.dispersion * volume.mean)
    # A bin is only touched in its own hour or day, so it ages by the time since its last turn.
    decay = 0.5 ** (24 * clock.length_ms / half_life_ms)
    _teach_bin(rows["hour"], int(clock.hour), decay, taken * information, volume.level * information)
    decay_day = 0.5 ** (7 * clock.length_ms / (WEEKS_KEPT * half_life_ms))
    _teach_bin(rows["day"], clock.weekday, decay_day, taken * information, volume.mean * information)
    quiet = np.flatnonzero(gap > 0)
    if len(quiet):
        _teach_silence(rows, clock, quiet, gap, volume)
    quiet_mean = np.where(gap > 0, volume.gap_mean, 0.0)
    residual = np.minimum(documents, NOISE_WINSOR * volume.mean + chance) - volume.mean
    settled = clock.bucket_ms - rows["born"] >= SETTLED_MS
    _teach_noise(rows["volume_noise"], clock, residual, quiet_mean, volume.mean, volume.mean**2, keep, settled)


def learn_share(
    rows: Rows, clock: Clock, share: Share, seen: Seen, frozen: Bools, suspect: Bools, half_life_ms: float
) -> None:
    """Teach the share's baseline one bucket; changes `rows`. All in documents as they came: a weight is no proof.

    Args:
        rows: The series.
        clock: Of the bucket.
        share: What was expected.
        seen: What came; the corrected counts of one bucket may be below 0.
        frozen: bool [n], an alarm lasts: nothing is learned, and what was held is thrown away.
        suspect: bool [n], evidence of a rise is building up: held back, to be learned when it falls again.
        half_life_ms: Of the baseline.
    """
    unit = seen.unit
    negatives, documents = seen.negatives * unit, seen.documents * unit
    closed = frozen | suspect
    now = np.stack([negatives, documents, seen.corrected * unit, seen.positives * unit, seen.sentiment * unit], 1)
    if closed.any() or rows["held"].any():
        now += rows["held"]
        rows["held"] = np.where((suspect & ~frozen)[:, None], now, 0.0)
        now[closed] = 0.0
    passed = 0.5 ** (clock.elapsed * clock.length_ms / half_life_ms)
    rows["share"] = np.where(closed, 1.0, passed)[:, None] * rows["share"] + now
    decay = 0.5 ** (24 * clock.length_ms / half_life_ms)
    _teach_bin(rows["share_hour"], int(clock.hour), decay, now[:, 0], now[:, 1] * share.mean)
    # How much a series clumps is learned from what is held back, too: those are its clumps. What was seen during an alarm, and
    # what should have been, are both left out.
    variance = np.where(frozen, 0.0, documents * share.mean * (1 - share.mean))
    # A bucket far outside says that something happened, not that the series is noisy.
    limit = 4 * np.sqrt(variance * (1 + share.correlation * documents)) + 1
    residual = np.where(frozen, 0.0, np.clip(negatives - documents * share.mean, -limit, limit))
    settled = rows["share"][:, 1] > SHARE_PRIOR
    nothing = np.zeros_like(residual)
    keep = np.where(frozen, 1.0, passed)
    _teach_noise(rows["share_noise"], clock, residual, nothing, variance, documents * variance, keep, settled)


def _short_dispersion(volume: Volume, clock: Clock) -> Floats:
    """Over-dispersion of a single bucket, when that of half an hour is spread over its buckets."""
    return volume.dispersion * min(1.0, clock.length_ms / (1000 * CORRELATION_S))


def fade(clock: Clock) -> float:
    """What is left of a bucket's residual after one more bucket."""
    return float(0.5 ** (clock.length_ms / (1000 * CORRELATION_S)))


def _teach_noise(
    noise: Rows,
    clock: Clock,
    residual: Floats,
    quiet_mean: Floats,
    poisson: Floats,
    clumped: Floats,
    keep: Floats,
    settled: Bools,
) -> None:
    """Teach the over-dispersion one bucket and the empty ones before it, in closed form.

    The residual, smoothed by the factor f per bucket, is s <- f s + (seen - expected); if documents came one by one its
    square would be `poisson`; what it is beyond that, per unit of `clumped`, is the over-dispersion. Leaving the
    empty buckets out would look at the series only when something is in it, and find every sparse series clumped.
    """
    per_bucket = fade(clock)
    over_gap, rest = per_bucket**clock.gap, quiet_mean / (1 - per_bucket)
    once = per_bucket * (1 - over_gap) / (1 - per_bucket)
    twice = per_bucket**2 * (1 - over_gap**2) / (1 - per_bucket**2)
    start = noise["residual"] + rest
    squares = start**2 * twice - 2 * rest * start * once + clock.gap * rest**2
    quiet_base, base = _variance(noise["poisson"], quiet_mean, poisson, per_bucket, over_gap, twice, clock.gap)
    quiet_extra, extra = _variance(noise["clumped"], quiet_mean**2, clumped, per_bucket, over_gap, twice, clock.gap)
    now = per_bucket * (over_gap * start - rest) + residual
    noise["residual"], noise["poisson"], noise["clumped"] = now, base, extra
    noise["excess"] = keep * noise["excess"] + settled * (squares - quiet_base + now**2 - base)
    noise["weight"] = keep * noise["weight"] + settled * (quiet_extra + extra)


def _variance(
    before: Floats, quiet: Floats, bucket: Floats, per_bucket: float, over_gap: Floats, twice: Floats, gap: Floats
) -> tuple[Floats, Floats]:
    """A smoothed variance: its sum over the empty buckets, and its value now."""
    rest = quiet / (1 - per_bucket**2)
    total = before * twice + rest * (gap - twice)
    return total, per_bucket**2 * (over_gap**2 * (before - rest) + rest) + bucket


def _teach_bin(bins: Floats, number: int, decay: float, seen: Floats, expected: Floats) -> None:
    bins[:, number, 0] = decay * bins[:, number, 0] + seen
    bins[:, number, 1] = decay * bins[:, number, 1] + expected


def _teach_silence(rows: Rows, clock: Clock, quiet: Ints, gap: Floats, volume: Volume) -> None:
    information = gap[quiet] / np.maximum(clock.gap[quiet], 1) / (1 + volume.dispersion[quiet] * volume.gap_mean[quiet])
    hours, days = _coverage(clock, quiet)
    rows["hour"][quiet, :, 1] += hours * (information * volume.level[quiet])[:, None]
    rows["day"][quiet, :, 1] += days * (information * volume.gap_mean[quiet])[:, None]


def _season(bins: Floats, hour: float, prior: float) -> Floats:
    """Seasonal factor, linear between the middles of the hours so that no hour begins with a step."""
    before = int(np.floor(hour - 0.5)) % 24
    part = (hour - 0.5) % 1
    return (1 - part) * _bin(bins, before, prior) + part * _bin(bins, (before + 1) % 24, prior)


def _bin(bins: Floats, number: int, prior: float) -> Floats:
    factor: Floats = (bins[:, number, 0] + prior) / (bins[:, number, 1] + prior)
    return factor.astype(np.float64)


def _mean_factor(bins: Floats, covered: Floats, prior: float) -> Floats:
    factor = (bins[:, :, 0] + prior) / (bins[:, :, 1] + prior)
    mean: Floats = (factor * covered).sum(1) / np.maximum(covered.sum(1), 1e-9)
    return mean.astype(np.float64)


def _coverage(clock: Clock, chosen: Ints) -> tuple[Floats, Floats]:
    """Empty buckets by hour of the day [n, 24] and day of the week [n, 7] since the series was last seen."""
    end_h = clock.bucket_ms / HOUR_MS
    start_h = end_h - clock.gap[chosen] * clock.length_ms / HOUR_MS
    per_bucket = clock.length_ms / HOUR_MS
    hours = (_passed(end_h, 24, 1.0) - _passed(start_h[:, None], 24, 1.0)) / per_bucket
    days = (_passed(end_h / 24, 7, 1.0) - _passed(start_h[:, None] / 24, 7, 1.0)) * 24 / per_bucket
    return hours, days


def _passed(time: float | Floats, bins: int, width: float) -> Floats:
    """How much of each of the cyclic bins has passed by `time` since time 0."""
    cycle = bins * width
    passed: Floats = np.floor(time / cycle) * width + np.clip(time % cycle - np.arange(bins) * width, 0, width)
    return passed
