"""Do quiet days stay within the false-alarm budget? Simulated quiet traffic of every kind, at every setting of the knob.

Run: `python benchmarks/false_alarms.py [--entities 60] [--days 35] [--budgets 0.1 1 10]`. It prints alarms a day, the cold start included,
with a 95 % upper bound (alarms clustered by entity), against the budget. Alarms of one entity that overlap count once, as they
do for the person they reach: they are one incident.
"""

from __future__ import annotations

import argparse
import platform
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from monitor.detection.bank import SeriesBank
from monitor.detection.counts import Floats
from monitor.detection.settings import DetectionSettings

LANGUAGES = ("ar", "de", "en", "th")
LANGUAGE_WEIGHTS = np.array([0.1, 0.2, 0.6, 0.1])
DAY_S = 86_400


@dataclass(frozen=True, slots=True)
class Traffic:
    """A kind of quiet traffic.

    Attributes:
        name: As printed.
        per_day: Lowest and highest mean documents per entity and day; drawn log-uniformly per entity.
        clumps: Variance of the log-normal chance factor of the volume, correlated over half an hour.
        mood: Standard deviation, in points, of a slow wander of the negative share (half-life a day).
        cascade: Concentration of the share within a bucket: beta-binomial with this many pseudo-documents; 0 for binomial.
        bursts_per_day: Harmless bursts: volume times six for an hour, mix unchanged.
    """

    name: str
    per_day: tuple[float, float]
    clumps: float = 0.0
    mood: float = 0.0
    cascade: float = 0.0
    bursts_per_day: float = 0.0


KINDS = (
    Traffic("sparse, Poisson", (3, 100)),
    Traffic("dense, Poisson", (1_000, 30_000)),
    Traffic("sparse, clumped", (3, 100), clumps=1.0, mood=0.01, cascade=20),
    Traffic("dense, clumped", (1_000, 30_000), clumps=0.3, mood=0.01, cascade=50),
    Traffic("harmless bursts", (30, 3_000), clumps=0.3, mood=0.01, cascade=50, bursts_per_day=0.5),
)


def confusion(lang: str) -> Floats:
    """A classifier that is a quarter wrong, differently in each language."""
    error = {"ar": 0.30, "de": 0.20, "en": 0.15, "th": 0.35}[lang]
    lean = {"ar": 0.7, "de": 0.5, "en": 0.4, "th": 0.3}[lang]
    return np.array(
        [
            [1 - error, error * 0.8, error * 0.2],
            [error * lean, 1 - error, error * (1 - lean)],
            [error * 0.3, error * 0.7, 1 - error],
        ]
    )


class Simulation:
    """Quiet traffic, bucket by bucket."""

    def __init__(self, kind: Traffic, entities: int, bucket_s: int, rng: np.random.Generator) -> None:
        self.kind, self.entities, self.bucket_s, self.rng = kind, entities, bucket_s, rng
        count = entities
        low, high = np.log(self.kind.per_day)
        self.rate = np.exp(rng.uniform(low, high, count)) * self.bucket_s / DAY_S
        self.peak_h = rng.uniform(0, 24, count)
        self.swing = rng.uniform(0.2, 0.9, count)
        self.weekend = rng.uniform(0.4, 1.2, count)
        self.share = rng.uniform(0.1, 0.4, (count, 1)) + rng.normal(0, 0.05, (count, len(LANGUAGES)))
        self.neutral = rng.uniform(0.3, 0.6, (count, 1))
        self.wander = np.zeros((count, 1))
        self.clump = rng.normal(0, 1, count)
        self.burst_left = np.zeros(count)
        self.tables = np.stack([confusion(lang) for lang in LANGUAGES])
        self.keys = [(f"e{e:05d}", lang) for e in range(count) for lang in LANGUAGES]
        self.names = [f"e{e:05d}" for e in range(count)]

    def bucket(self, number: int) -> Floats:
        """Predicted counts of one bucket, float64 [entities, languages, 3]."""
        rng, kind, step_h = self.rng, self.kind, self.bucket_s / 3600
        hour, day = number * step_h % 24, int(number * step_h // 24) % 7
        keep = 0.5 ** (step_h / 0.5)
        self.clump = keep * self.clump + np.sqrt(1 - keep**2) * rng.normal(0, 1, self.entities)
        slow = 0.5 ** (step_h / 24)
        self.wander = slow * self.wander + np.sqrt(1 - slow**2) * kind.mood * rng.normal(0, 1, self.wander.shape)
        started = rng.random(self.entities) < kind.bursts_per_day * step_h / 24
        self.burst_left = np.where(started, 1.0, self.burst_left - step_h)
        spread = np.sqrt(np.log1p(kind.clumps))
        rate = self.rate * (1 + self.swing * np.cos(2 * np.pi * (hour - self.peak_h) / 24))
        rate *= np.where(day >= 5, self.weekend, 1.0) * np.exp(spread * self.clump - spread**2 / 2)
        rate *= np.where(self.burst_left > 0, 6.0, 1.0)
        documents = rng.poisson(rate[:, None] * LANGUAGE_WEIGHTS)
        negative = np.clip(self.share + self.wander, 0.02, 0.9)
        if kind.cascade:
            negative = rng.beta(negative * kind.cascade, (1 - negative) * kind.cascade)
        mix = np.stack([negative, (1 - negative) * self.neutral, (1 - negative) * (1 - self.neutral)], axis=-1)
        predicted = np.einsum("elt,ltp->elp", mix, self.tables)
        predicted /= predicted.sum(-1, keepdims=True)
        return rng.multinomial(documents, predicted).astype(np.float64)


def quiet_alarms(
    kinds: Sequence[Traffic], per_day: float, entities: int, days: int, bucket_s: int
) -> tuple[Floats, list[dict[str, int]]]:
    """Alarms per kind and entity over all days, the cold start included, and by kind how many of each signal.

    All kinds run through one bank whose budget is so many times larger: the bar, and so each alarm, is the same as for
    each kind on its own.
    """
    simulations = [Simulation(kind, entities, bucket_s, np.random.default_rng(n)) for n, kind in enumerate(kinds)]
    settings = DetectionSettings(bucket_s=bucket_s, false_alarms_per_day=per_day * len(kinds))
    names = [f"{n}-{name}" for n, simulation in enumerate(simulations) for name in simulation.names]
    keys = [(f"{n}-{name}", lang) for n, simulation in enumerate(simulations) for name, lang in simulation.keys]
    bank = SeriesBank(settings, entities=names, confusion=confusion)
    place = {name: divmod(index, entities) for index, name in enumerate(names)}
    alarms, signals = np.zeros((len(kinds), entities)), [dict.fromkeys(settings.signals, 0) for _ in kinds]
    firing: set[tuple[str, str, str]] = set()
    open_alarms = dict.fromkeys(names, 0)
    for number in range(days * DAY_S // bucket_s):
        counts = np.concatenate([simulation.bucket(number).reshape(-1, 3) for simulation in simulations])
        rows = np.flatnonzero(counts.sum(1))
        zeros = np.zeros(len(rows), np.int64)
        for item in bank.update(number * bucket_s * 1000, [keys[row] for row in rows], counts[rows], zeros):
            key = (item.entity, item.lang, item.signal)
            if item.active and key not in firing:
                if not open_alarms[item.entity]:
                    kind, entity = place[item.entity]
                    alarms[kind, entity] += 1
                    signals[kind][item.signal] += 1
                firing.add(key)
                open_alarms[item.entity] += 1
            elif not item.active:
                firing.remove(key)
                open_alarms[item.entity] -= 1
    return alarms, signals


def upper_bound(alarms: Floats) -> float:
    """95 % upper bound of the expected sum: by entity, as one entity's alarms are not independent, and never below
    Poisson's bound for few alarms."""
    clustered = alarms.sum() + 1.645 * np.sqrt(len(alarms) * alarms.var())
    poisson = alarms.sum() + 1.645 * np.sqrt(alarms.sum() + 0.7) + 1.9
    return float(max(clustered, poisson))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--entities", type=int, default=60, help="of each kind of traffic")
    parser.add_argument("--days", type=int, default=35)
    parser.add_argument("--bucket-s", type=int, default=900)
    parser.add_argument("--budgets", type=float, nargs="+", default=[0.1, 0.3, 1.0, 3.0, 10.0])
    parser.add_argument("--kinds", type=int, nargs="+", default=list(range(len(KINDS))))
    options = parser.parse_args()
    kinds = [KINDS[number] for number in options.kinds]
    print(f"{platform.processor() or platform.machine()}, Python {platform.python_version()}, numpy {np.__version__}")
    print(
        f"{options.entities} entities x {len(LANGUAGES)} languages + rollup of each kind, {options.days} days of "
        f"{options.bucket_s} s buckets; alarms a day (95 % upper bound)"
    )
    for per_day in options.budgets:
        started = time.process_time()
        alarms, signals = quiet_alarms(kinds, per_day, options.entities, options.days, options.bucket_s)
        for kind, found, by_signal in zip(kinds, alarms, signals, strict=True):
            upper = upper_bound(found) / options.days
            print(
                f"{kind.name:18} budget {per_day:5.1f}: {found.sum() / options.days:6.3f} ({upper:.3f}) "
                f"{'ok' if upper <= per_day else 'OVER':4} { {n: c for n, c in by_signal.items() if c} }"
            )
        print(f"  {time.process_time() - started:.0f} s of processor time", flush=True)


if __name__ == "__main__":
    main()
