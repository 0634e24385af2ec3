"""Pieces of a self-contained HTML page: tables, intervals, confusion matrices and curves as SVG; nothing outside is loaded."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

_STYLE = """
:root { --ink: #1b1b1b; --soft: #6b6b6b; --line: #ddd; --back: #fff; --accent: #2563a8; --good: 37 99 168; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e8e8e8; --soft: #9a9a9a; --line: #3a3a3a; --back: #161616; --accent: #7fb2e6; --good: 90 150 215; } }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 64rem; margin: 2rem auto; padding: 0 1rem; color: var(--ink);
  background: var(--back); }
h1, h2, h3 { line-height: 1.2; } h2 { margin-top: 2.5rem; } .note, figcaption { color: var(--soft); }
table { border-collapse: collapse; margin: 1rem 0; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .75rem; border-bottom: 1px solid var(--line); text-align: right; vertical-align: top; }
th:first-child, td:first-child, td.text, th.text { text-align: left; } tr.total td { font-weight: 600; }
figure { margin: 1rem 0; } svg { max-width: 100%; height: auto; } svg text { fill: var(--ink); font: 12px system-ui, sans-serif; }
.grid { display: flex; flex-wrap: wrap; gap: 0 2rem; } .grid table { font-size: .85rem; }
.grid td, .grid th { padding: .15rem .5rem; }
"""


def page(title: str, parts: Sequence[str]) -> str:
    """A whole page.

    Args:
        title: Plain text.
        parts: HTML, as the functions here make it.
    """
    told = html.escape(title)
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{told}</title>'
    body = "\n".join(parts)
    return (
        f'<!doctype html>\n<html lang="en"><head>{head}<style>{_STYLE}</style></head>\n<body><h1>{told}</h1>\n{body}\n'
        "</body></html>\n"
    )


def heading(text: str, level: int = 2) -> str:
    """A heading of plain text."""
    return f"<h{level}>{html.escape(text)}</h{level}>"


def paragraph(text: str) -> str:
    """A paragraph of plain text."""
    return f'<p class="note">{html.escape(text)}</p>'


def table(
    header: Sequence[str], rows: Sequence[Sequence[str]], *, text: Sequence[int] = (), total: bool = False
) -> str:
    """A table of plain text.

    Args:
        header: One cell a column.
        rows: Cells by row.
        text: Columns with running text, set to the left.
        total: The last row sums up the others.
    """
    kinds = [' class="text"' if i in text else "" for i in range(len(header))]
    lines = [
        "<tr>" + "".join(f"<th{kind}>{html.escape(c)}</th>" for c, kind in zip(header, kinds, strict=True)) + "</tr>"
    ]
    for place, row in enumerate(rows):
        cells = "".join(f"<td{kind}>{html.escape(c)}</td>" for c, kind in zip(row, kinds, strict=True))
        kind = ' class="total"' if total and place == len(rows) - 1 else ""
        lines.append(f"<tr{kind}>{cells}</tr>")
    return f"<table>{''.join(lines)}</table>"


def matrix(title: str, labels: Sequence[str], counts: Sequence[Sequence[int]]) -> str:
    """A confusion matrix: rows true, columns predicted, shaded by the share of its row."""
    head = "".join(f"<th>{html.escape(label)}</th>" for label in labels)
    lines = [f"<tr><th>{html.escape(title)}</th>{head}</tr>"]
    for label, row in zip(labels, counts, strict=True):
        total = max(sum(row), 1)
        cells = "".join(f'<td style="background:rgb(var(--good) / {n / total:.2f})">{n}</td>' for n in row)
        lines.append(f"<tr><td>{html.escape(label)}</td>{cells}</tr>")
    return f"<table>{''.join(lines)}</table>"


def grid(parts: Sequence[str]) -> str:
    """Small pieces side by side."""
    return f'<div class="grid">{"".join(parts)}</div>'


@dataclass(frozen=True)
class Interval:
    """A figure with its interval."""

    name: str
    value: float
    low: float
    high: float


def intervals(rows: Sequence[Interval], caption: str) -> str:
    """Figures with their intervals as dots on lines, one a row, on a common axis."""
    left, width, step = 90, 620, 20
    low = math.floor(min(row.low for row in rows) * 20) / 20
    high = math.ceil(max(row.high for row in rows) * 20) / 20
    span = max(high - low, 0.05)
    bottom = step * len(rows) + 8

    def x(value: float) -> float:
        return left + (value - low) / span * width

    parts = []
    for tick in _ticks(low, low + span):
        parts.append(f'<line x1="{x(tick):.1f}" x2="{x(tick):.1f}" y1="0" y2="{bottom}" stroke="var(--line)"/>')
        parts.append(f'<text x="{x(tick):.1f}" y="{bottom + 14}" text-anchor="middle">{tick:.2f}</text>')
    for place, row in enumerate(rows):
        y = step * place + step / 2
        parts.append(f'<text x="{left - 8}" y="{y + 4}" text-anchor="end">{html.escape(row.name)}</text>')
        parts.append(
            f'<line x1="{x(row.low):.1f}" x2="{x(row.high):.1f}" y1="{y}" y2="{y}" stroke="var(--accent)" stroke-width="2"/>'
        )
        parts.append(f'<circle cx="{x(row.value):.1f}" cy="{y}" r="4" fill="var(--accent)"/>')
    return _figure(parts, left + width + 30, bottom + 22, caption)


def curve(series: Mapping[str, Sequence[tuple[float, float]]], caption: str, x_name: str = "step") -> str:
    """Lines over a common axis; a series of few points has them marked.

    Args:
        series: Points (x, y) by name; empty ones are left out.
        caption: Below the picture.
        x_name: Of the horizontal axis.
    """
    shown = {name: points for name, points in series.items() if points}
    if not shown:
        return ""
    left, width, height = 60, 640, 220
    every = [point for points in shown.values() for point in points]
    x_low, x_high = min(p[0] for p in every), max(p[0] for p in every)
    y_low, y_high = min(p[1] for p in every), max(p[1] for p in every)
    x_span, y_span = (x_high - x_low) or 1.0, (y_high - y_low) or 1.0

    def place(point: tuple[float, float]) -> tuple[float, float]:
        return left + (point[0] - x_low) / x_span * width, 10 + (1 - (point[1] - y_low) / y_span) * height

    parts = []
    for tick in _ticks(y_low, y_low + y_span):
        y = place((x_low, tick))[1]
        parts.append(f'<line x1="{left}" x2="{left + width}" y1="{y:.1f}" y2="{y:.1f}" stroke="var(--line)"/>')
        parts.append(f'<text x="{left - 8}" y="{y + 4:.1f}" text-anchor="end">{tick:.4g}</text>')
    for tick in _ticks(x_low, x_low + x_span):
        x = place((tick, y_low))[0]
        parts.append(f'<text x="{x:.1f}" y="{height + 28}" text-anchor="middle">{tick:,.6g}</text>')
    parts.append(f'<text x="{left + width / 2}" y="{height + 44}" text-anchor="middle">{html.escape(x_name)}</text>')
    for number, (name, points) in enumerate(shown.items()):
        dash = ("", "6 4", "2 3", "8 3 2 3")[number % 4]
        way = " ".join(f"{x:.1f},{y:.1f}" for x, y in map(place, points))
        parts.append(
            f'<polyline points="{way}" fill="none" stroke="var(--accent)" stroke-width="2" stroke-dasharray="{dash}"/>'
        )
        if len(points) <= 40:
            parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="var(--accent)"/>' for x, y in map(place, points)]
        x, y = place(points[-1])
        if len(shown) > 1:
            parts.append(f'<text x="{x - 4:.1f}" y="{y - 6:.1f}" text-anchor="end">{html.escape(name)}</text>')
    return _figure(parts, left + width + 20, height + 52, caption)


def standalone(figure: str) -> str:
    """The picture of a figure as an SVG file of its own, on a white ground."""
    start, end = figure.index("<svg"), figure.index("</svg>") + len("</svg>")
    colours = {"var(--ink)": "#1b1b1b", "var(--line)": "#dddddd", "var(--accent)": "#2563a8"}
    drawn = figure[start:end].replace(
        "<svg", '<svg xmlns="http://www.w3.org/2000/svg" font-family="sans-serif" font-size="12"', 1
    )
    for name, value in colours.items():
        drawn = drawn.replace(name, value)
    return drawn.replace("><", '><rect width="100%" height="100%" fill="#ffffff"/><', 1) + "\n"


def _figure(parts: Sequence[str], width: int, height: int, caption: str) -> str:
    told = html.escape(caption)
    return (
        f'<figure><svg viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img" aria-label="{told}">'
        f"{''.join(parts)}</svg><figcaption>{told}</figcaption></figure>"
    )


def _ticks(low: float, high: float) -> list[float]:
    """Four to ten round numbers between two.

    >>> _ticks(0.52, 0.81)
    [0.55, 0.6, 0.65, 0.7, 0.75, 0.8]
    """
    raw = (high - low) / 6
    power = 10.0 ** math.floor(math.log10(raw))
    step = min((m * power for m in (1, 2, 5, 10)), key=lambda candidate: abs(candidate - raw))
    first = math.ceil(low / step - 1e-9)
    return [round(n * step, 10) for n in range(first, math.floor(high / step + 1e-9) + 1)]


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a Markdown table; bars within cells are escaped."""
    lines = [header, ["---"] * len(header), *rows]
    return [f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |" for cells in lines]
