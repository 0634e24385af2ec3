"""How far off is the onset that an alert tells? Rises of known size and moment, with and without more documents.

Run: `python benchmarks/onset.py [--series 60]`. Each series has some documents a minute, a fifth of them negative; from one
minute on more of them are, and in half of the rises there are also more of them. The detector finds the rise, then the
onset is told as it is in an alert (`monitor/detection/course.py`), beside where the sequential test began.
"""

from __future__ import annotations

import argparse

import numpy as np

from monitor.detection import course
from monitor.detection.bank import SeriesBank
from monitor.detection.cells import CellStore
from monitor.detection.findings import Finding
from monitor.detection.settings import DetectionSettings

MINUTE_MS, START_MS = 60_000, 1_772_409_600_000
USUAL, NEUTRAL = 0.22, 0.6
QUIET_MIN, RISE_MIN, KEPT_MIN = 2 * 1440, 10 * 60, 6 * 60


def rises(rate: float, more: float, factor: float, series: int) -> list[tuple[float, float]]:
    """Minutes by which each rise that was found is dated too late: by the test alone, and as it is told.

    Args:
        rate: Documents a minute.
        more: Added to the negative share.
        factor: On the documents.
        series: How many.
    """
    rng = np.random.default_rng(1)
    names = [f"e{number}" for number in range(series)]
    bank = SeriesBank(DetectionSettings(), entities=names, confusion=lambda _: None)
    cells = CellStore()
    begins = QUIET_MIN + rng.integers(0, 60, series)
    found: dict[str, tuple[float, float]] = {}
    for minute in range(QUIET_MIN + 60 + RISE_MIN):
        rising = minute >= begins
        documents = rng.poisson(rate * np.where(rising, factor, 1.0))
        negative = rng.binomial(documents, USUAL + more * rising)
        neutral = rng.binomial(documents - negative, NEUTRAL)
        counts = np.stack([negative, neutral, documents - negative - neutral], axis=1)
        bucket_ms = START_MS + minute * MINUTE_MS
        here = np.flatnonzero(documents)
        findings = bank.update(
            bucket_ms, [(names[n], "en") for n in here], counts[here].astype(float), np.zeros(len(here))
        )
        for n in here:
            cells.open(names[n], bucket_ms).counts["en"] = [*map(int, counts[n]), 0]
        cells.expire(bucket_ms - KEPT_MIN * MINUTE_MS, {})
        for finding in findings:
            place = names.index(finding.entity)
            if finding.active and rising[place] and finding.entity not in found:
                begun_ms = START_MS + int(begins[place]) * MINUTE_MS
                found[finding.entity] = _off(finding, cells, bucket_ms, begun_ms)
        if len(found) == series:
            break
    return list(found.values())


def _off(finding: Finding, cells: CellStore, bucket_ms: int, begun_ms: int) -> tuple[float, float]:
    told = course.dated(finding, cells, bucket_ms + MINUTE_MS, MINUTE_MS)
    return (finding.onset_ms - begun_ms) / MINUTE_MS, (told.onset_ms - begun_ms) / MINUTE_MS


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--series", type=int, default=60)
    options = parser.parse_args()
    print(
        "| documents a minute | negative share | documents | found | test: mean off, within a bucket | told: mean off, within a bucket |"
    )
    print("| --- | --- | --- | --- | --- | --- |")
    for rate in (0.7, 4.0, 20.0):
        for more in (0.15, 0.3, 0.6):
            for factor in (1.0, 2.5):
                off = np.abs(np.array(rises(rate, more, factor, options.series)))
                test, told = (f"{off[:, n].mean():.1f} min, {100 * (off[:, n] <= 1).mean():.0f} %" for n in range(2))
                print(f"| {rate:g} | +{more:g} | {factor:g} times | {len(off)} | {test} | {told} |", flush=True)


if __name__ == "__main__":
    main()
