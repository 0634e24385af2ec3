"""Delay against false alarms: one planted rise, every method at every sensitivity. A table and a picture.

Run: `python benchmarks/delay_curve.py [--rise 0.2] [--per-bucket 1 4 20] [--picture docs/delay.svg]`. The traffic and the methods are those of
`delay.py`; ADWIN and Page-Hinkley of `river` (the group `bench`) see each document by itself, and fewer series, as they are slow.
"""

from __future__ import annotations

import argparse
import importlib.util
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from delay import (
    BUCKET_S,
    HORIZON,
    METHODS,
    PER_DAY,
    calibrate,
    delays_of,
    episodes,
    every,
    named,
    ours,
    page_hinkley,
    river_alarms,
    tune,
    watchlist,
)

from monitor.detection.counts import Bools, Floats

RATES = (0.02, 0.05, 0.15, 0.5, 1.5)
"""False alarms a day and series at which the others are read."""
Curve = list[tuple[float, float]]
"""(false alarms a day and series, mean delay in minutes)."""
Pair = tuple[Floats, Floats]


def starts(alarm: Bools) -> float:
    """Alarms a day and series that begin after the first week."""
    rest = alarm[7 * PER_DAY :]
    return episodes(rest) * PER_DAY / rest.size


def mean_delay(alarm: Bools) -> float:
    """In minutes; a day where the method was in alarm everywhere when the rise began."""
    delays = delays_of(alarm)
    return float(delays.mean()) if delays.size else HORIZON * BUCKET_S / 60


def measured(run: Callable[[Pair], Bools], quiet: Pair, raised: Pair) -> tuple[float, float]:
    """One method at one setting."""
    return starts(run(quiet)), mean_delay(run(raised))


def curves(quiet: Pair, raised: Pair, river_series: int) -> dict[str, Curve]:
    """Every method's curve; with several variants the best at each rate."""
    found: dict[str, Curve] = {}
    for name, variants in METHODS.items():
        found[name] = []
        for rate in RATES:
            tried = []
            for statistic in variants:
                bar = calibrate(statistic(*quiet)[7 * PER_DAY :], rate)
                tried.append(mean_delay(statistic(*raised) >= bar))
            found[name].append((rate, min(tried)))
    found["Page-Hinkley, tuned"] = []
    for rate in RATES:
        tried = []
        for allowance in (0.025, 0.05, 0.1):
            bars = [400.0 * 0.95**step for step in range(100)]
            bar = tune(lambda h, a=allowance: page_hinkley(*quiet, a, h), bars, rate)
            tried.append(mean_delay(page_hinkley(*raised, allowance, bar)))
        found["Page-Hinkley, tuned"].append((rate, min(tried)))
    if river_series and importlib.util.find_spec("river"):
        few, few_raised = (every(data, river_series) for data in (quiet, raised))
        for name, kind, grid in (
            ("ADWIN (river)", "ADWIN", (1e-8, 1e-5, 1e-3, 1e-2, 1e-1)),
            ("Page-Hinkley (river)", "PageHinkley", (200.0, 100.0, 50.0, 25.0, 12.0)),
        ):
            found[name] = [
                measured(lambda data, k=kind, s=setting: river_alarms(*data, k, s), few, few_raised) for setting in grid
            ]
    budgets = [0.01 * 4.0**step for step in range(6)]
    found["Babelwatch"] = [measured(lambda data, b=budget: ours(*data, b), quiet, raised) for budget in budgets]
    return found


def picture(found: dict[str, Curve], rise: float, densities: Sequence[float]) -> str:
    """False alarms (logarithmic) against mean delay (logarithmic), as SVG; lower and further left is better."""
    width, height, left, right = 760, 420, 64, 190
    low, high = np.log(0.005), np.log(3.0)
    soon, late = np.log(20.0), np.log(1440.0)

    def x(rate: float) -> float:
        return left + float((np.log(min(max(rate, 0.005), 3.0)) - low) / (high - low)) * (width - left - right)

    def y(minutes: float) -> float:
        return 30 + float((late - np.log(min(max(minutes, 20), 1440))) / (late - soon)) * (height - 80)

    parts = [
        f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {width} {height}' font-family='sans-serif' font-size='12'>"
        f"<rect width='{width}' height='{height}' fill='white'/><text x='{left}' y='18'>Mean delay of a rise of +{rise:.2f} against "
        f"false alarms, {named(densities, 3600 / BUCKET_S)} documents an hour</text>"
        f"<text x='{left}' y='{height - 8}'>false alarms a day and series</text>"
    ]
    for minutes, told in ((30, "30 min"), (60, "1 h"), (180, "3 h"), (480, "8 h"), (1440, "a day")):
        parts.append(
            f"<path d='M{left} {y(minutes):.1f}H{width - right}' stroke='#ddd'/>"
            f"<text x='{left - 6}' y='{y(minutes) + 4:.1f}' text-anchor='end'>{told}</text>"
        )
    parts += [
        f"<text x='{x(rate):.1f}' y='{height - 28}' text-anchor='middle'>{rate:g}</text>"
        for rate in (0.01, 0.03, 0.1, 0.3, 1)
    ]
    taken = 0.0
    for name, curve in sorted(found.items(), key=lambda item: y(item[1][-1][1])):
        colour, wide = ("#c4314b", 2.5) if name == "Babelwatch" else ("#7a8794", 1.3)
        points = " ".join(f"{x(rate):.1f},{y(delay):.1f}" for rate, delay in curve)
        taken = max(taken + 14, y(curve[-1][1]) + 4)
        parts.append(
            f"<polyline points='{points}' fill='none' stroke='{colour}' stroke-width='{wide}'/>"
            f"<text x='{width - right + 8}' y='{taken:.1f}' fill='{colour}'>{name}</text>"
        )
    return "".join(parts) + "</svg>\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--series", type=int, default=20, help="of each density")
    parser.add_argument("--river-series", type=int, default=12)
    parser.add_argument("--days", type=int, default=16)
    parser.add_argument(
        "--per-bucket", type=float, nargs="+", default=[1.0, 4.0, 20.0], help="densities, in one watchlist"
    )
    parser.add_argument("--rise", type=float, default=0.2)
    parser.add_argument("--picture", type=Path)
    options = parser.parse_args()
    rng = np.random.default_rng(11)
    densities = options.per_bucket
    quiet = watchlist(options.series, options.days, densities, 0.0, rng, lively=True)
    raised = watchlist(options.series, 9, densities, options.rise, rng, lively=True)
    print(f"+{options.rise:.2f}, {named(densities)} lively documents per {BUCKET_S} s, {options.series} series each, "
          f"{options.days} quiet days; false alarms a day and series: mean minutes, {HORIZON * BUCKET_S // 60} when never")  # fmt: skip
    found = curves(quiet, raised, options.river_series)
    for name, curve in found.items():
        print(f"{name:24}" + "  ".join(f"{rate:.3f}: {delay:4.0f}" for rate, delay in curve), flush=True)
    if options.picture:
        options.picture.write_text(picture(found, options.rise, densities), encoding="utf-8")


if __name__ == "__main__":
    main()
