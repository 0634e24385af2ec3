"""How many bucket updates a second and core, and how much memory for a million series.

Run: `python benchmarks/detection.py [--series 1000000] [--buckets 5]`. Each update is one series' bucket with documents, with
its entity's rollup on top (counted as updates of their own in the second figure).
"""

from __future__ import annotations

import argparse
import os
import platform
import resource
import time

import numpy as np

from monitor.detection.bank import SeriesBank
from monitor.detection.settings import DetectionSettings

LANGUAGES = ("ar", "de", "en", "es", "fr", "hi", "it", "ja", "pt")


def cpu_name() -> str:
    with open("/proc/cpuinfo", encoding="utf-8") as info:
        names = [line.split(":")[1].strip() for line in info if line.startswith("model name")]
    return names[0] if names else platform.machine()


def resident_mib() -> float:
    with open("/proc/self/statm", encoding="utf-8") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--series", type=int, default=1_000_000, help="rollups included")
    parser.add_argument("--buckets", type=int, default=5)
    options = parser.parse_args()
    entities = [f"entity-{number:06d}" for number in range(options.series // (len(LANGUAGES) + 1))]
    keys = [(entity, lang) for entity in entities for lang in LANGUAGES]
    print(f"{cpu_name()}, one core, Python {platform.python_version()}, numpy {np.__version__}")
    before = resident_mib()
    bank = SeriesBank(DetectionSettings(), entities=entities)
    rng = np.random.default_rng(0)
    zeros = np.zeros(len(keys), np.int64)
    rates: list[float] = []
    walls: list[float] = []
    for bucket in range(options.buckets):
        documents = rng.poisson(5, len(keys)) + 1
        negatives = rng.binomial(documents, 0.2)
        counts = np.stack([negatives, documents - negatives, 0 * documents], axis=1).astype(np.float64)
        started, worked = time.perf_counter(), time.process_time()
        # The second two days after the first, so that every signal is past its learning time.
        bank.update((bucket > 0) * 2 * 86_400_000 + bucket * 60_000, keys, counts, zeros)
        walls.append(time.perf_counter() - started)
        rates.append(len(keys) / (time.process_time() - worked))
    steady, wall = float(np.median(rates[2:])), len(keys) / float(np.median(walls[2:]))
    print(
        f"{len(bank):,} series: {steady:,.0f} bucket updates per second of processor time ({wall:,.0f} by the clock), "
        f"{steady * len(bank) / len(keys):,.0f} with the rollups'"
    )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"memory: {resident_mib() - before:,.0f} MiB for the bank, {peak:,.0f} MiB at the peak of the process")
    few = keys[: len(LANGUAGES)]
    started = time.perf_counter()
    for step in range(200):
        bank.update((options.buckets + 2 * 1440 + step) * 60_000, few, counts[: len(few)], zeros[: len(few)])
    print(f"smallest update ({len(few)} series of one entity): {(time.perf_counter() - started) / 200 * 1e3:.2f} ms")


if __name__ == "__main__":
    main()
