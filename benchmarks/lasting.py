"""Does an alarm last as long as what it tells of? Rises of known size and length: alarms that end too soon, and how late the rest.

Run: `python benchmarks/lasting.py [--series 100]`. The negative share rises from 0.25 for twelve hours and falls back; traffic is the
lively one of `delay.py`.
"""

from __future__ import annotations

import argparse

import numpy as np
from delay import BUCKET_S, PER_DAY, ours, traffic

DAYS, HELD = 10, PER_DAY // 2
"""Of learning, and buckets that the rise holds; `HORIZON` is the day at whose start it begins."""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--series", type=int, default=100)
    parser.add_argument("--per-bucket", type=float, nargs="+", default=[0.5, 2.0, 8.0])
    parser.add_argument("--rises", type=float, nargs="+", default=[0.1, 0.2, 0.4])
    options = parser.parse_args()
    print("rise, documents an hour: alarms, those that ended within the twelve hours, minutes from the rise's end to the "
          "alarm's, median (nine of ten within)")  # fmt: skip
    for per_bucket in options.per_bucket:
        for rise in options.rises:
            rng = np.random.default_rng(3)
            raised = traffic(options.series, DAYS, per_bucket, rise, rng, lively=True)
            after = traffic(options.series, 2, per_bucket, 0.0, rng, lively=True)
            # The rise's day, cut off in its middle.
            counts = [np.concatenate([up[: -PER_DAY + HELD], down]) for up, down in zip(raised, after, strict=True)]
            alarm = ours(counts[0], counts[1], 0.05, ("negative_share",))[(DAYS - 1) * PER_DAY :]
            first = np.where(alarm[:HELD].any(0), alarm[:HELD].argmax(0), -1)
            raised_at = first >= 0
            early = [bool((~alarm[first[n] : HELD, n]).any()) for n in np.flatnonzero(raised_at)]
            lasting = [n for n in np.flatnonzero(raised_at) if alarm[HELD - 1, n]]
            late = [int((~alarm[HELD:, n]).argmax()) for n in lasting]
            minutes = np.array(late or [0]) * BUCKET_S / 60
            print(
                f"+{rise:.2f} {per_bucket * 12:5.0f}/h: {raised_at.sum():4} alarms, {np.mean(early):6.1%} too soon, "
                f"{np.median(minutes):5.0f} ({np.quantile(minutes, 0.9):.0f}) min"
            )


if __name__ == "__main__":
    main()
