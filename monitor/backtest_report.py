"""A backtest as one HTML file that needs nothing else: pictures of the series, decisions and labels, and how well it went."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from statistics import median
from typing import Literal

import numpy as np

from monitor.backtest import Quality, Scored, Window, nab_score

WIDTH, HEIGHT, MARGIN = 1100, 220, 46
POINTS = 1100
"""Columns of a picture: each shows the extremes of its rows, so that no spike is lost however long the series."""

COLUMNS = (
    "NAB standard", "NAB low FP", "precision", "recall", "median delay", "false alarms/day", "false alarms",
)  # fmt: skip

STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --paper: #fff; --line: #2563a8; --band: #2563a833; --bad: #c4314b;
  --label: #c4314b22; --quiet: #8a939e; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e9ee; --paper: #14171b; --line: #7db4f0; --band: #7db4f033;
  --bad: #ff7b8f; --label: #ff7b8f22; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); max-width: 1140px;
  margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; } th, td { padding: .25rem .8rem; text-align: right;
  border-bottom: 1px solid #8884; } th:first-child, td:first-child { text-align: left; }
svg { width: 100%; height: auto; } text { font: 11px system-ui, sans-serif; fill: var(--quiet); }
.figure { overflow-x: auto; }
"""


@dataclass(frozen=True, slots=True)
class Backtested:
    """One series' backtest.

    Attributes:
        name: As shown.
        scored: Its rows; with the normal band where there is one.
        windows: Labelled anomalies; None when the series has no labels.
        quality: How the alerts compare with the labels; None without labels.
        unit: What its values are.
    """

    name: str
    scored: Sequence[Scored]
    windows: Sequence[Window] | None = None
    quality: Quality | None = None
    unit: Literal["count", "share"] = "count"


def report(runs: Mapping[str, Sequence[Backtested]], *, title: str = "Backtest") -> str:
    """The report as HTML.

    Args:
        runs: By the name of the parameters, the series backtested with them; pictures are drawn of the first only, the
            tables compare all side by side.
        title: Of the page.
    """
    first = next(iter(runs.values()), ())
    figures = (
        f"<h2>{html.escape(series.name)}</h2>{_facts(series)}<div class=figure>{_picture(series)}</div>"
        for series in first
    )
    body = "\n".join([_comparison(runs), *figures])
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>"
        f"<title>{html.escape(title)}</title><style>{STYLE}</style><h1>{html.escape(title)}</h1>{body}</html>\n"
    )


def _comparison(runs: Mapping[str, Sequence[Backtested]]) -> str:
    head = "<tr><th>parameters" + "".join(f"<th>{name}" for name in (*COLUMNS, "alerts"))
    rows = []
    for name, series in runs.items():
        judged = [item.quality for item in series if item.quality is not None]
        figures = _figures(judged) if judged else ("–",) * len(COLUMNS)
        alerts = sum(row.alert for item in series for row in item.scored)
        rows.append(f"<tr><td>{html.escape(name)}{''.join(f'<td>{figure}' for figure in (*figures, alerts))}</tr>")
    return f"<table>{head}{''.join(rows)}</table>"


def summary(series: Sequence[Backtested]) -> str:
    """One line on how well all labelled series together went."""
    judged = [item.quality for item in series if item.quality is not None]
    return ", ".join(f"{name} {value}" for name, value in zip(COLUMNS, _figures(judged), strict=True))


def _figures(judged: Sequence[Quality]) -> tuple[str, ...]:
    found, false = sum(item.found for item in judged), sum(item.false_alarms for item in judged)
    windows, days = sum(item.windows for item in judged), sum(item.days for item in judged)
    delays = [delay for item in judged for delay in item.delays_h]
    return (
        f"{nab_score(judged):.1f}",
        f"{nab_score(judged, 'low false positives'):.1f}",
        f"{found / (found + false):.2f}" if found + false else "–",
        f"{found / windows:.2f}" if windows else "–",
        f"{median(delays):.1f} h" if delays else "–",
        f"{false / days:.3f}" if days else "–",
        str(false),
    )


def _facts(series: Backtested) -> str:
    alerts = sum(row.alert for row in series.scored)
    quality = series.quality
    if quality is None:
        return f"<p>{len(series.scored):,} rows, {alerts} alerts.</p>"
    return (
        f"<p>{len(series.scored):,} rows, {alerts} alerts; {quality.found} of {quality.windows} labelled windows found, "
        f"{quality.false_alarms} alerts outside them in {quality.days:.0f} days.</p>"
    )


def _picture(series: Backtested) -> str:
    rows = series.scored
    if not rows:
        return ""
    times = np.array([row.time_ms for row in rows], np.float64)
    start, span = times[0], max(times[-1] - times[0], 1.0)
    column = np.minimum(((times - start) / span * (POINTS - 1)).astype(int), POINTS - 1)
    top = max(*(row.value for row in rows), *(row.high for row in rows), 1.0 if series.unit == "count" else 0.05)

    def x(time_ms: float) -> float:
        return float(MARGIN + (time_ms - start) / span * (WIDTH - MARGIN))

    def y(value: float) -> float:
        # Square root: spikes and quiet nights are both to be seen, and zero has a place.
        return HEIGHT - 20 - float(np.sqrt(max(value, 0.0) / top)) * (HEIGHT - 34)

    shapes = [
        f"<rect x='{x(a):.1f}' y='4' width='{max(x(b) - x(a), 1):.1f}' height='{HEIGHT - 24}' fill='var(--label)'/>"
        for a, b in series.windows or ()
    ]
    edges = np.concatenate([[0], np.flatnonzero(np.diff(column)) + 1, [len(rows)]])
    chunks = [rows[a:b] for a, b in pairwise(edges)]
    if any(row.high for row in rows):
        upper = [(x(c[0].time_ms), y(float(np.mean([r.high for r in c])))) for c in chunks]
        lower = [(x(c[0].time_ms), y(float(np.mean([r.low for r in c])))) for c in chunks]
        points = " ".join(f"{a:.1f},{b:.1f}" for a, b in upper + lower[::-1])
        shapes.append(f"<polygon points='{points}' fill='var(--band)'/>")
    line = " ".join(
        f"{x(c[0].time_ms):.1f},{y(value):.1f}" for c in chunks for value in _extremes([row.value for row in c])
    )
    shapes.append(f"<polyline points='{line}' fill='none' stroke='var(--line)' stroke-width='0.8'/>")
    shapes += [
        f"<path d='M{x(row.time_ms):.1f} {HEIGHT - 18}l-5 10h10z' fill='var(--bad)'><title>{html.escape(row.timestamp)}: "
        f"{row.value:g}, score {row.score:.2f}</title></path>"
        for row in rows
        if row.alert
    ]
    for part in (0.01, 0.1, 0.4, 1.0):
        shapes.append(
            f"<text x='{MARGIN - 6}' y='{y(part * top) + 4:.1f}' text-anchor='end'>{_amount(part * top, series.unit)}</text>"
        )
    for step in range(6):
        moment = start + span * step / 5
        day = datetime.fromtimestamp(moment / 1000, UTC).strftime("%Y-%m-%d")
        anchor = "start" if step == 0 else "end" if step == 5 else "middle"
        shapes.append(f"<text x='{x(moment):.1f}' y='{HEIGHT - 1}' text-anchor='{anchor}'>{day}</text>")
    return (
        f"<svg viewBox='0 0 {WIDTH} {HEIGHT}' role='img' aria-label='{html.escape(series.name)}: counts, normal band, "
        f"alerts and labelled windows'>{''.join(shapes)}</svg>"
    )


def _amount(value: float, unit: str) -> str:
    return f"{value:,.0f}" if unit == "count" else f"{100 * value:.0f} %"


def _extremes(values: Sequence[float]) -> tuple[float, float]:
    return min(values), max(values)
