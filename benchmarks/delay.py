"""How soon is a planted rise of the negative share seen? Against what people use now, each at the same false-alarm rate.

Run: `python benchmarks/delay.py [--series 150] [--days 21] [--per-bucket 4] [--together] [--picture delays.svg]`. Every method's threshold is set on quiet
traffic to the same number of false alarms a day and series, the threshold for ours being the budget; then a rise of known size is
planted and the median delay taken. Competitors are given their best variant (interval, allowance) in hindsight; Page-Hinkley's default allowance
is shown beside it. With `--together`
series of all the densities are one watchlist, with one setting for all of them, as in life; without, each method is tuned anew to each
density. ADWIN and Page-Hinkley come from `river` when it is installed, see each document by itself, and get their threshold only in hindsight.
"""

from __future__ import annotations

import argparse
import importlib.util
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from monitor.detection.bank import ROLLUP, SeriesBank
from monitor.detection.counts import Bools, Floats
from monitor.detection.settings import DetectionSettings, Signal

BUCKET_S = 300
PER_DAY = 86_400 // BUCKET_S
BASE = 0.25
RIVER_DEFAULT = 0.005
"""Allowance that `river`'s Page-Hinkley has when nobody chooses one."""
RIVER_ALLOWANCE = 0.05
"""Of `river`'s Page-Hinkley: what suits ours best on most of this traffic."""
HORIZON = PER_DAY
"""Buckets after the rise in which it must be seen; later counts as a day."""
Statistic = Callable[[Floats, Floats], Floats]


def traffic(
    series: int, days: int, per_bucket: float, rise: float, rng: np.random.Generator, *, lively: bool
) -> tuple[Floats, Floats]:
    """Negatives and documents, float64 [buckets, series]; the rise begins `HORIZON` before the end.

    Lively traffic is what streams are like: the volume clumps over half an hour, the mood wanders by a point from day to
    day, and documents of one bucket resemble each other. Else all documents are independent.
    """
    buckets = days * PER_DAY
    season = 1 + 0.5 * np.cos(2 * np.pi * np.arange(buckets) / PER_DAY)
    rate = np.repeat(per_bucket * season[:, None], series, axis=1)
    share = np.full((buckets, series), BASE)
    if lively:
        rate *= np.exp(0.5 * wander(buckets, series, 0.5, rng) - 0.125)
        share += 0.01 * wander(buckets, series, 24.0, rng)
    share[buckets - HORIZON :] += rise
    if lively:
        share = rng.beta(50 * share, 50 * (1 - share))
    documents = rng.poisson(rate).astype(np.float64)
    return rng.binomial(documents.astype(np.int64), share).astype(np.float64), documents


def watchlist(
    series: int, days: int, densities: Sequence[float], rise: float, rng: np.random.Generator, *, lively: bool
) -> tuple[Floats, Floats]:
    """The traffic of so many series of each density (documents a bucket), side by side."""
    parts = [traffic(series, days, density, rise, rng, lively=lively) for density in densities]
    return np.concatenate([x for x, _ in parts], axis=1), np.concatenate([n for _, n in parts], axis=1)


def named(densities: Sequence[float], unit: float = 1.0) -> str:
    """The densities, times a unit, for a heading."""
    return " or ".join(f"{unit * density:g}" for density in densities)


def wander(buckets: int, series: int, half_life_h: float, rng: np.random.Generator) -> Floats:
    """A stationary random walk of variance 1 with this half-life, float64 [buckets, series]."""
    keep = 0.5 ** (BUCKET_S / 3600 / half_life_h)
    steps = np.sqrt(1 - keep**2) * rng.normal(0, 1, (buckets, series))
    steps[0] /= np.sqrt(1 - keep**2)
    for number in range(1, buckets):
        steps[number] += keep * steps[number - 1]
    return steps


def lag_sum(values: Floats, length: int, lag: int = 0) -> Floats:
    """Sum over the `length` rows that end `lag` rows before each row."""
    total = np.concatenate([np.zeros((1, values.shape[1])), values.cumsum(0)])
    end = np.maximum(np.arange(len(values)) + 1 - lag, 0)
    return total[end] - total[np.maximum(end - length, 0)]


def window_share(negatives: Floats, documents: Floats, length: int) -> Floats:
    return (lag_sum(negatives, length) + 1) / (lag_sum(documents, length) + 4)


def fixed_threshold(length: int) -> Statistic:
    return lambda negatives, documents: window_share(negatives, documents, length)


def standardised(length: int, history: int, lag: int) -> Statistic:
    """Standard deviations over the mean of a moving history of window shares."""

    def statistic(negatives: Floats, documents: Floats) -> Floats:
        share = window_share(negatives, documents, length)
        steps = share[::length].repeat(length, axis=0)[: len(share)] if length > 1 else share
        count = np.maximum(np.minimum(np.arange(len(share))[:, None] - lag, history), 1)
        mean = lag_sum(steps, history, lag) / count
        square = lag_sum(steps**2, history, lag) / count
        return (share - mean) / np.sqrt(np.maximum(square - mean**2, 1e-4))

    return statistic


def seasonal_esd(length: int) -> Statistic:
    """Residual from the hour's median over median absolute deviation, a week back (S-H-ESD, as in Twitter ADVec)."""

    def statistic(negatives: Floats, documents: Floats) -> Floats:
        share = window_share(negatives, documents, length)
        out = np.zeros_like(share)
        for start in range(7 * PER_DAY, len(share), PER_DAY // 24):
            past = share[start - 7 * PER_DAY : start]
            hour = past.reshape(7, 24, PER_DAY // 24, -1)[:, 0]
            middle = np.median(past, 0)
            season = np.median(hour.reshape(-1, share.shape[1]), 0) - middle
            spread = 1.4826 * np.median(np.abs(past - middle), 0)
            stop = min(start + PER_DAY // 24, len(share))
            out[start:stop] = (share[start:stop] - middle - season) / np.maximum(spread, 1e-3)
        return out

    return statistic


def seasonal_residual(length: int) -> Statistic:
    """Residual from trend and hour-of-day means over their standard error: what a Prophet band does, refitted hourly."""

    def statistic(negatives: Floats, documents: Floats) -> Floats:
        lag, days = PER_DAY // 24, 7
        share = window_share(negatives, documents, length)
        trend = lag_sum(negatives, days * PER_DAY, lag) / np.maximum(lag_sum(documents, days * PER_DAY, lag), 1)
        spread = np.sqrt(trend * (1 - trend) / np.maximum(lag_sum(documents, length), 1))
        return (share - trend) / np.maximum(spread, 1e-3)

    return statistic


def page_hinkley(negatives: Floats, documents: Floats, allowance: float, bar: float) -> Bools:
    """Page-Hinkley over documents, per bucket: cumulative excess over the running mean and an allowance, with restart."""
    level = np.zeros(negatives.shape[1])
    alarm = np.zeros(negatives.shape, bool)
    seen_negatives, seen = np.full_like(level, 1.0), np.full_like(level, 4.0)
    for number, (x, n) in enumerate(zip(negatives, documents, strict=True)):
        level = np.maximum(level + x - n * (seen_negatives / seen + allowance), 0)
        seen_negatives, seen = seen_negatives + x, seen + n
        alarm[number] = level >= bar
        level[alarm[number]] = 0.0
    return alarm


def told_everything(negatives: Floats, documents: Floats, rise: float, bar: float) -> Bools:
    """Page's test that is told the usual share and the one size of the rise that will come, with restart.

    No rule at this rate has a smaller worst mean delay (Moustakides 1986), if documents are independent: the bound in practice.
    """
    raised = BASE + rise
    steps = negatives * np.log(raised / BASE) + (documents - negatives) * np.log((1 - raised) / (1 - BASE))
    level, alarm = np.zeros(negatives.shape[1]), np.zeros(negatives.shape, bool)
    for number, step in enumerate(steps):
        level = np.maximum(level, 0) + step
        alarm[number] = level >= bar
        level[alarm[number]] = 0.0
    return alarm


METHODS: dict[str, list[Statistic]] = {
    "fixed threshold": [fixed_threshold(1), fixed_threshold(12)],
    "3-sigma moving average": [standardised(1, PER_DAY, 0), standardised(12, PER_DAY, 0)],
    "EARS C2": [standardised(1, 7, 2), standardised(12, 7 * 12, 2 * 12)],
    "S-H-ESD (ADVec)": [seasonal_esd(1), seasonal_esd(12)],
    "seasonal residual": [seasonal_residual(1), seasonal_residual(12)],
}


def episodes(alarm: Bools) -> int:
    """Alarms of a boolean series matrix, those within an hour of each other counted once."""
    rest = PER_DAY // 24
    recent = lag_sum(alarm.astype(np.float64), rest, 1) > 0
    return int((alarm & ~recent).sum())


def calibrate(statistic: Floats, rate: float) -> float:
    """The threshold at which quiet traffic gives `rate` alarms a day and series."""
    allowed = rate * statistic.size / PER_DAY
    low, high = float(statistic.min()), float(statistic.max()) + 1e-9
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if episodes(statistic >= middle) > allowed else (low, middle)
    return high


def delays_of(alarm: Bools) -> Floats:
    """Delay in minutes by series: from the rise to the end of the first bucket in alarm; a day if there is none.

    Series that happened to be in alarm when the rise began are left out.
    """
    after = alarm[-HORIZON:, ~alarm[-HORIZON - 1]]
    first = np.where(after.any(0), after.argmax(0) + 1, HORIZON)
    return first * (BUCKET_S / 60)


def ours(
    negatives: Floats, documents: Floats, per_day: float, signals: Sequence[Signal] = DetectionSettings().signals
) -> Bools:
    """New or lasting alarms of the series bank with these signals, bool [buckets, series]."""
    count = negatives.shape[1]
    names = [f"e{number}" for number in range(count)]
    settings = DetectionSettings(
        bucket_s=BUCKET_S, false_alarms_per_day=per_day * count, signals=tuple(signals), minimum_documents=1
    )
    bank = SeriesBank(settings, entities=names)
    place = {name: number for number, name in enumerate(names)}
    alarm = np.zeros(negatives.shape, bool)
    for bucket, (x, n) in enumerate(zip(negatives, documents, strict=True)):
        rows = np.flatnonzero(n)
        counts = np.stack([x, n - x, np.zeros_like(n)], axis=1)[rows]
        keys = [(names[row], ROLLUP) for row in rows]
        for item in bank.update(bucket * BUCKET_S * 1000, keys, counts, np.zeros(len(rows), np.int64)):
            alarm[bucket, place[item.entity]] |= item.active
    return alarm


def every(data: tuple[Floats, Floats], wanted: int) -> tuple[Floats, Floats]:
    """About so many of the series, evenly taken: of each density alike."""
    step = max(1, data[0].shape[1] // wanted)
    return data[0][:, ::step], data[1][:, ::step]


def river_alarms(negatives: Floats, documents: Floats, name: str, setting: float) -> Bools:
    """Detections of a river drift detector fed with documents one by one."""
    from river import drift  # type: ignore[import-not-found]

    alarm = np.zeros(negatives.shape, bool)
    rng = np.random.default_rng(0)
    for series in range(negatives.shape[1]):
        if name == "ADWIN":
            detector = drift.ADWIN(delta=setting)
        else:
            detector = drift.PageHinkley(threshold=setting, delta=RIVER_ALLOWANCE, mode="up")
        for bucket, (x, n) in enumerate(zip(negatives[:, series], documents[:, series], strict=True)):
            for value in rng.permutation(np.arange(int(n)) < x):
                before = detector.estimation if name == "ADWIN" else 0.0
                detector.update(int(value))
                # ADWIN tells of falls too; only a rise is an alarm here.
                alarm[bucket, series] |= detector.drift_detected and (name != "ADWIN" or detector.estimation > before)
    return alarm


def tune(run: Callable[[float], Bools], settings: list[float], rate: float) -> float:
    """The most sensitive setting within the rate, by bisection; `settings` go from the least to the most sensitive."""

    def within(setting: float) -> bool:
        alarm = run(setting)[7 * PER_DAY :]
        starts = alarm.copy()
        starts[1:] &= ~alarm[:-1]
        return bool(starts.sum() <= rate * alarm.size / PER_DAY)

    low, high = 0, len(settings)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if within(settings[middle]) else (low, middle)
    return settings[low]


def bound_minutes(rise: float, densities: Sequence[float], rate: float) -> float:
    """Lorden's bound: no rule with this rate has a smaller worst mean delay, to first order; the mean over the densities."""
    raised = BASE + rise
    divergence = raised * np.log(raised / BASE) + (1 - raised) * np.log((1 - raised) / (1 - BASE))
    documents = [np.log(density * PER_DAY / rate) / divergence for density in densities]
    return float(
        np.mean([n / (density * 1.4) * BUCKET_S / 60 for n, density in zip(documents, densities, strict=True)])
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--series", type=int, default=150)
    parser.add_argument("--days", type=int, default=21)
    parser.add_argument("--per-bucket", type=float, nargs="+", default=[1.0, 4.0, 20.0])
    parser.add_argument("--rises", type=float, nargs="+", default=[0.1, 0.15, 0.2, 0.3, 0.4])
    parser.add_argument("--together", action="store_true", help="all densities in one watchlist, one setting for all")
    parser.add_argument("--lively", action="store_true", help="clumped volume, wandering mood, documents alike")
    parser.add_argument("--rate", type=float, default=0.05, help="false alarms a day and series")
    parser.add_argument("--seed", type=int, default=5)
    parser.add_argument("--river-series", type=int, default=0)
    parser.add_argument("--picture", type=Path, help="an SVG of the last table: mean delay by size of the rise")
    options = parser.parse_args()
    for densities in [options.per_bucket] if options.together else [[density] for density in options.per_bucket]:
        table = report(options, densities)
        if options.picture:
            bounds = [bound_minutes(rise, densities, options.rate) for rise in options.rises]
            options.picture.write_text(picture(table, options.rises, bounds, options.rate), encoding="utf-8")


def report(options: argparse.Namespace, densities: Sequence[float]) -> dict[str, list[Floats]]:
    """Print one table: median (mean) delay in minutes by method and rise."""
    rng = np.random.default_rng(options.seed)
    quiet = watchlist(options.series, options.days, densities, 0.0, rng, lively=options.lively)
    raised = [watchlist(options.series, 9, densities, rise, rng, lively=options.lively) for rise in options.rises]
    print(
        f"\n{named(densities)} {'lively' if options.lively else 'independent'} documents per 5 minutes, {options.rate:g} false alarms a day and series, median (mean) minutes"
    )
    print(f"{'':26}" + "".join(f"{f'+{rise:.2f}':>14}" for rise in options.rises))
    table: dict[str, list[Floats]] = {}
    for name, variants in METHODS.items():
        tried = []
        for statistic in variants:
            bar = calibrate(statistic(*quiet)[7 * PER_DAY :], options.rate)
            tried.append([delays_of(statistic(*data) >= bar) for data in raised])
        table[name] = best(tried)
        line(name, table[name])
    hinkley = []
    for allowance in (RIVER_DEFAULT, 0.025, 0.05, 0.1):
        bar = tune(
            lambda h, a=allowance: page_hinkley(*quiet, a, h), [1600.0 * 0.98**i for i in range(310)], options.rate
        )
        hinkley.append([delays_of(page_hinkley(*data, allowance, bar)) for data in raised])
    for name, delays in ((f"Page-Hinkley, {RIVER_DEFAULT:g}", hinkley[0]), ("Page-Hinkley", best(hinkley))):
        table[name] = delays
        line(name, delays)
    if options.river_series and importlib.util.find_spec("river"):
        for name, grid in (
            ("ADWIN", [1e-7, 1e-5, 1e-4, 1e-3, 1e-2, 0.03, 0.1, 0.3]),
            ("PageHinkley (river)", [400.0, 200, 100, 70, 50, 40, 30, 25, 20, 16, 13, 10, 8]),
        ):
            setting = tune(
                lambda s, n=name: river_alarms(*every(quiet, options.river_series), n, s), grid, options.rate
            )
            table[name] = [
                delays_of(river_alarms(*every(data, options.river_series), name, setting)) for data in raised
            ]
            line(name, table[name])
    budgets = [float(budget) for budget in options.rate * 1.08 ** np.arange(-4, 62)]
    budget = tune(lambda s: ours(*quiet, s), budgets, options.rate)
    for name, setting in ((f"Babelwatch (budget {budget:.2g})", budget), ("Babelwatch (budget = rate)", options.rate)):
        table[name] = [delays_of(ours(*data, setting)) for data in raised]
        line(name, table[name])
    told = []
    for rise, data in zip(options.rises, raised, strict=True):
        bar = tune(lambda h, r=rise: told_everything(*quiet, r, h), [12.0 * 0.99**i for i in range(160)], options.rate)
        told.append(delays_of(told_everything(*data, rise, bar)))
    line("told share and size", told)
    print(
        f"{'bound (Lorden)':26}" + "".join(f"{bound_minutes(r, densities, options.rate):14.0f}" for r in options.rises)
    )
    return table


def picture(table: dict[str, list[Floats]], rises: Sequence[float], bounds: Sequence[float], rate: float) -> str:
    """Mean delay against the size of the rise, on a logarithmic scale, as SVG."""
    width, height, left, low, high = 760, 400, 60, np.log(10), np.log(24 * 60)
    shown = {name: [float(found.mean()) for found in delays] for name, delays in table.items()} | {
        "bound": list(bounds)
    }

    def x(rise: float) -> float:
        return left + (rise - rises[0]) / (rises[-1] - rises[0]) * (width - left - 190)

    def y(minutes: float) -> float:
        return 20 + (high - np.log(min(max(minutes, 10), 24 * 60))) / (high - low) * (height - 60)

    parts = [
        f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {width} {height}' font-family='sans-serif' font-size='12'>"
        f"<rect width='{width}' height='{height}' fill='white'/><text x='{left}' y='14'>Mean delay by the rise of the negative "
        f"share, each at {rate:g} false alarms a day and series</text>"
    ]
    for minutes, told in ((10, "10 min"), (30, "30 min"), (60, "1 h"), (180, "3 h"), (480, "8 h"), (1440, "a day")):
        parts.append(
            f"<path d='M{left} {y(minutes):.1f}H{width - 190}' stroke='#ddd'/>"
            f"<text x='{left - 6}' y='{y(minutes) + 4:.1f}' text-anchor='end'>{told}</text>"
        )
    parts += [f"<text x='{x(r):.1f}' y='{height - 18}' text-anchor='middle'>+{r:.2f}</text>" for r in rises]
    taken, dashes = 0.0, " stroke-dasharray='4 3'"
    for name, delays in sorted(shown.items(), key=lambda item: y(item[1][-1])):
        ours = name.startswith("Babelwatch")
        colour = "#c4314b" if ours else "#111" if name == "bound" else "#7a8794"
        points = " ".join(f"{x(rise):.1f},{y(delay):.1f}" for rise, delay in zip(rises, delays, strict=True))
        taken = max(taken + 14, y(delays[-1]) + 4)
        parts.append(
            f"<polyline points='{points}' fill='none' stroke='{colour}' stroke-width='{2.5 if ours else 1.3}'"
            f"{dashes if name == 'bound' else ''}/>"
            f"<text x='{width - 184}' y='{taken:.1f}' fill='{colour}'>{name}</text>"
        )
    return "".join(parts) + "</svg>\n"


def best(tried: list[list[Floats]]) -> list[Floats]:
    """The one variant that is soonest over all rises, by geometric mean."""
    return min(tried, key=lambda delays: float(np.mean([np.log(found.mean()) for found in delays])))


def line(name: str, delays: list[Floats]) -> None:
    print(f"{name:26}" + "".join(f"{f'{np.median(d):.0f} ({np.mean(d):.0f})':>14}" for d in delays), flush=True)


if __name__ == "__main__":
    main()
