"""What `babelwatch export` does and shows."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from export import parity
from export.checkpoint import load_checkpoint
from export.errors import ExportError
from export.run import BASELINE, DEFAULT_VOCABULARY, ExportOptions, ExportReport, export_bundle
from export.texts import gather
from monitor.inference.bundle import VARIANTS, model_file_name


def export_run(
    run: Path,
    out_dir: Path,
    *,
    console: Console,
    name: str | None = None,
    data: Path | None = None,
    variants: Sequence[str] = ("int8",),
    vocabulary: int | None = DEFAULT_VOCABULARY,
    max_f1_drop: float | None = None,
    benchmark: bool = True,
    threads: int = 0,
) -> ExportReport:
    """Export a run, telling each stage as it begins.

    Args:
        run: A run's folder, or a checkpoint.
        out_dir: The bundle's folder.
        console: For the stages.
        name: Of the bundle; by default its folder's.
        data: A folder with more texts.
        variants: Precisions to make.
        vocabulary: Pieces to keep at most; None keeps all.
        max_f1_drop: Points of macro-F1 that any file may lose, instead of each precision's own limit.
        benchmark: Measure the speed.
        threads: Cores for onnxruntime; 0 takes all.

    Raises:
        ExportError: Something cannot be read, or a file is over its limits; then no bundle is written.
    """
    unknown = [variant for variant in variants if variant not in VARIANTS]
    if unknown:
        raise ExportError(f"{unknown[0]!r} is no precision", where="--variant", hint=f"one of {', '.join(VARIANTS)}")
    if out_dir.exists() and not (out_dir / "bundle.json").exists() and any(out_dir.iterdir()):
        raise ExportError("is a folder with something else in it", where=str(out_dir), hint="name another for --out")
    started = time.monotonic()

    def progress(stage: str) -> None:
        console.print(f"[dim]{time.monotonic() - started:6.1f} s[/]  {stage}", highlight=False)

    progress("reading the checkpoint and its texts")
    checkpoint = load_checkpoint(run)
    texts = gather(run, checkpoint.heads, data)
    if not texts.examples:
        console.print(
            "[yellow]no labelled texts[/]: the gate cannot tell what is lost in F1 (name a folder with --data)"
        )
    limits = dict(parity.LIMITS)
    if max_f1_drop is not None:
        limits = {variant: dataclasses.replace(limit, f1_drop=max_f1_drop) for variant, limit in limits.items()}
    options = ExportOptions(
        name=name or out_dir.absolute().name,
        vocabulary=vocabulary,
        variants=tuple(variant for variant in VARIANTS if variant in variants),
        texts=texts,
        limits=limits,
        benchmark=benchmark,
        threads=threads,
    )
    report = export_bundle(checkpoint, out_dir, options=options, progress=progress)
    progress("done")
    return report


def as_table(report: ExportReport) -> Table:
    """Size, speed and parity of each file, for a terminal."""
    table = Table(title=f"{report.manifest.name} {report.manifest.version}", caption=_caption(report))
    columns = ("file", "MB", "texts/s", "speed", "kept class", "F1 drop", "largest difference")
    for column in columns:
        table.add_column(column, justify="left" if column == "file" else "right", no_wrap=column == "file")
    base = report.texts_per_s.get(BASELINE)
    if base is not None:
        table.add_row(BASELINE, "", f"{base:.1f}", "1.00", "", "", "")
    for variant in VARIANTS:
        size = report.sizes.get(model_file_name(variant))
        if size is None:
            continue
        speed = report.texts_per_s.get(variant)
        table.add_row(
            model_file_name(variant),
            f"{size / 1e6:.1f}",
            "" if speed is None else f"{speed:.1f}",
            "" if speed is None or base is None else f"{speed / base:.2f}",
            *_parity(report.parity.get(variant, {})),
        )
    return table


def as_json(report: ExportReport) -> str:
    """The whole report, indented."""
    return json.dumps(report.as_json(), indent=1, ensure_ascii=False) + "\n"


def _parity(heads: dict[str, Any]) -> tuple[str, str, str]:
    """Worst figures over the heads."""
    if not heads:
        return "", "", ""
    drops = [head["mean_f1_drop"] for head in heads.values() if head["mean_f1_drop"] is not None]
    return (
        f"{100 * min(head['agreement'] for head in heads.values()):.1f} %",
        f"{max(drops):+.2f}" if drops else "",
        f"{max(head['max_probability_difference'] for head in heads.values()):.3f}",
    )


def _caption(report: ExportReport) -> str:
    parts = [f"{report.pieces:,} pieces, {len(report.manifest.languages)} languages"]
    if report.coverage:
        lang, worst = max(report.coverage.items(), key=lambda item: item[1].unknown_rate)
        parts.append(f"most unknown tokens: {lang} {100 * worst.unknown_rate:.3f} %")
    parts.append(f"tokenizer compared on {report.tokenizer.lines:,} lines of {len(report.tokenizer.scripts)} scripts")
    if report.lengths:
        parts.append("tokens per text: " + ", ".join(f"{name} {n}" for name, n in report.lengths.items()))
    return "; ".join(parts)
