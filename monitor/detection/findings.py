"""What the bank says: a signal in alarm with its size and interval, and the expected band of any series."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from monitor.detection import baseline
from monitor.detection.counts import NEGATIVE_VOLUME, SENTIMENT, SHARE, SIGNALS, SPREAD, VOLUME, Rows, SeriesKey
from monitor.detection.quantify import Correction

Unit = Literal["share", "documents/h", "mean", "topic"]
UNITS: dict[int, Unit] = {
    SHARE: "share", NEGATIVE_VOLUME: "documents/h", SENTIMENT: "mean", SPREAD: "share", VOLUME: "documents/h",
}  # fmt: skip
INTERVAL_Z = 1.96
"""A 95 % interval."""
MAX_LOG_SPREAD = 5.0
"""An interval of a volume is never wider than this either way, in nats: a factor of 150 says that nothing is known."""
HOUR_MS = 3_600_000


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
    """Mean since the onset."""
    expected: float
    low: float
    high: float
    unit: Unit
    documents: int
    """Since the onset."""
    negatives: float
    """Since the onset, corrected for the classifier's known confusion."""
    effect: float
    """`observed - expected` for a share or a mean (points), `observed / expected` for a volume (factor)."""
    topic: str = ""
    """Of a shift of topics: the one on the rise. Shares are then its, and `negatives` documents about it."""


@dataclass(frozen=True, slots=True)
class SeriesView:
    """What a status page shows of one series' signal: what it was lately, and the band that would be normal."""

    entity: str
    lang: str
    signal: str
    bucket_ms: int
    observed: float
    expected: float
    low: float
    high: float
    unit: Unit
    active: bool


def finding(
    key: SeriesKey, row: Rows, signal: int, *, bucket_ms: int, length_ms: int, youden: float, inflation: float,
    log_evidence: float, threshold: float, active: bool,
) -> Finding:  # fmt: skip
    """Describe one alarm from its series' row.

    Args:
        key: The series.
        row: Its row, whose `alarm` for the signal is set.
        signal: Index into `SIGNALS`.
        bucket_ms: The bucket of the decision.
        length_ms: Length of a bucket.
        youden: What one true point moves the predicted share; widens the interval of a corrected share.
        inflation: Variance of the window's counts over that of independent documents, at least 1.
        log_evidence: As reported.
        threshold: As reported.
        active: Whether the alarm goes on.
    """
    effect_index = int(row["alarm"][signal]) - 1
    window = row["window"][signal, effect_index]
    onset_ms = int(row["onset"][signal, effect_index])
    documents = max(float(window["documents"]), 1e-9)
    seen = float(window["negatives"]) / documents
    expected = float(window["corrected_expected"]) / documents
    measured = float(window["corrected"])
    negatives = min(max(measured, 0.0), documents)
    if signal == SENTIMENT:
        observed = min(max(measured / documents, -1.0), 1.0)
        spread = max(2 * seen + observed - observed**2, 0.25 / documents)
        error = INTERVAL_Z * float(np.sqrt(spread * inflation / documents)) / youden
        low, high, effect = max(observed - error, -1.0), min(observed + error, 1.0), observed - expected
        negatives = min(max(seen * documents, 0.0), documents)
    elif signal in (SHARE, SPREAD):
        observed = negatives / documents
        error = INTERVAL_Z * float(np.sqrt(max(seen * (1 - seen), 0.25 / documents) * inflation / documents)) / youden
        low, high, effect = max(observed - error, 0.0), min(observed + error, 1.0), observed - expected
    else:
        hours = max(bucket_ms + length_ms - onset_ms, length_ms) / HOUR_MS
        usual = expected if signal == NEGATIVE_VOLUME else 1.0
        count = negatives if signal == NEGATIVE_VOLUME else documents
        mean = max(float(window["documents_expected"]) * usual, 1e-9)
        observed, expected, effect = count / hours, mean / hours, count / mean
        spread = float(np.exp(min(INTERVAL_Z * np.sqrt(inflation / max(count, 1.0)), MAX_LOG_SPREAD)))
        low, high = observed / spread, observed * spread
    return Finding(
        entity=key[0], lang=key[1], signal=SIGNALS[signal], bucket_ms=bucket_ms, onset_ms=onset_ms, active=active,
        log_evidence=log_evidence, threshold=threshold, observed=observed, expected=expected, low=low, high=high,
        unit=UNITS[signal], documents=round(documents), negatives=negatives, effect=effect,
    )  # fmt: skip


def views(
    key: SeriesKey, rows: Rows, clock: baseline.Clock, volume: baseline.Volume, share: baseline.Share,
    correct: Correction, signals: Sequence[str],
) -> Iterator[SeriesView]:  # fmt: skip
    """What one series' share and volumes were lately and the band of what is normal, from its row and its expectations."""
    row, fade = rows[0], baseline.fade(clock)
    buckets_per_hour = HOUR_MS / clock.length_ms
    mean, level_share, true = float(volume.mean[0]), float(share.mean[0]), float(share.true[0])
    recent = max(mean + float(row["volume_noise"]["residual"]) * (1 - fade), 0.0)
    for index in (SHARE, NEGATIVE_VOLUME, VOLUME):
        signal = SIGNALS[index]
        if signal not in signals:
            continue
        if index == SHARE:
            documents = max(recent / (1 - fade), 1.0)
            observed = true + float(row["share_noise"]["residual"]) / documents / correct.youden
            spread = 2 * float(np.sqrt(level_share * (1 - level_share) / documents)) / correct.youden
            points = [true, observed, true - spread, true + spread]
            expected, seen, low, high = (min(max(point, 0.0), 1.0) for point in points)
        else:
            part = true if index == NEGATIVE_VOLUME else 1.0
            spread = 2 * float(np.sqrt(mean * (1 - fade) * (1 + volume.dispersion[0] * mean)))
            expected, seen, low, high = (
                max(value, 0.0) * part * buckets_per_hour for value in (mean, recent, mean - spread, mean + spread)
            )
        yield SeriesView(
            key[0], key[1], signal, clock.bucket_ms, seen, expected, low, high, UNITS[index], bool(row["alarm"][index])
        )
