"""A bundle on labelled texts: scores per language of the very file that the daemon runs, as table, JSON and HTML."""

from __future__ import annotations

import html
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from export.corpus import Example, read_examples
from export.runner import bundle_outputs
from monitor.errors import BabelwatchError
from monitor.inference.bundle import Bundle, Head, Variant
from training.metrics import Score, confusion, score_languages

_SEED = 0
"""Of the bootstrap: the same data gives the same intervals."""


@dataclass(frozen=True)
class Evaluation:
    """One head of one bundle on one data set."""

    bundle: str
    """Name and version."""
    data: str
    variant: Variant
    head: Head
    languages: dict[str, Score]
    mean: Score
    """Average of the languages' figures, each weighing the same; `n` is the sum."""
    confusion: dict[str, list[list[int]]]
    """By language, counts by true label (row) and predicted label (column)."""


def evaluate_bundle(
    bundle_dir: Path, data: Path, *, head: str | None = None, variant: Variant = "int8", threads: int = 0
) -> Evaluation:
    """Classify a labelled file by onnxruntime and score it per language.

    Args:
        bundle_dir: The bundle.
        data: TSV with the columns ``language``, ``text`` and ``label`` or ``category``.
        head: Which of the bundle's heads the labels are of; None takes the first head that knows them all.
        variant: The precision to run.
        threads: 0 takes all cores.

    Raises:
        BundleError: The bundle cannot be used.
        BabelwatchError: The bundle has no such head or precision, or the data do not fit it.
    """
    bundle = Bundle.load(bundle_dir)
    chosen, examples = _find_head(bundle, data, head)
    if bundle.model_file(variant) is None:
        raise BabelwatchError(f"holds no {variant} model", where=str(bundle_dir))
    logits = bundle_outputs(bundle, [example.text for example in examples], variant, threads)[chosen.name]
    labels = np.array([example.label for example in examples], dtype=np.int64)
    langs = np.array([example.lang for example in examples])
    probabilities = np.zeros(logits.shape)
    matrices: dict[str, list[list[int]]] = {}
    for lang in sorted(set(langs.tolist())):
        rows = np.flatnonzero(langs == lang)
        probabilities[rows] = bundle.calibration(chosen.name, lang).probabilities(logits[rows])
        predicted = probabilities[rows].argmax(axis=1)
        matrices[lang] = confusion(labels[rows], predicted, len(chosen.labels)).tolist()
    scores, mean = score_languages(labels, probabilities, langs, np.random.default_rng(_SEED))
    manifest = bundle.manifest
    return Evaluation(f"{manifest.name} {manifest.version}", data.name, variant, chosen, scores, mean, matrices)


def _find_head(bundle: Bundle, data: Path, name: str | None) -> tuple[Head, list[Example]]:
    if name is not None:
        head = bundle.manifest.head(name)
        if head is None:
            known = ", ".join(found.name for found in bundle.manifest.heads)
            raise BabelwatchError(f"has no head {name!r}", where=str(bundle.path), hint=f"it has {known}")
        return head, read_examples(data, head.labels)
    refusal: BabelwatchError | None = None
    for head in bundle.manifest.heads:
        try:
            return head, read_examples(data, head.labels)
        except BabelwatchError as error:
            refusal = refusal or error
    assert refusal is not None  # a manifest has at least one head
    raise refusal


def as_table(evaluation: Evaluation) -> Table:
    """The scores for a terminal."""
    table = Table(title=f"{evaluation.bundle} · {evaluation.head.name} · {evaluation.data} · {evaluation.variant}")
    for name in _COLUMNS:
        table.add_column(name, justify="left" if name == "language" else "right")
    for row in _rows(evaluation):
        table.add_row(*row)
    return table


def as_json(evaluation: Evaluation) -> str:
    """The scores as indented JSON."""
    return json.dumps(_plain(evaluation), indent=1, ensure_ascii=False) + "\n"


def as_html(evaluation: Evaluation) -> str:
    """The scores and confusion matrices as one HTML page without outside parts."""
    title = f"{evaluation.bundle}: {evaluation.head.name} on {evaluation.data}"
    parts = [
        "<!doctype html>",
        f'<html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title><style>{_STYLE}</style></head>',
        f"<body><h1>{html.escape(title)}</h1><p>File: model.{evaluation.variant}.onnx.</p>",
        _html_table(_COLUMNS, _rows(evaluation)),
        "<h2>Confusion</h2><p>Rows: true label. Columns: predicted label.</p>",
    ]
    for lang, matrix in evaluation.confusion.items():
        rows = [(name, *map(str, row)) for name, row in zip(evaluation.head.labels, matrix, strict=True)]
        parts += [f"<h3>{html.escape(lang)}</h3>", _html_table(("", *evaluation.head.labels), rows)]
    return "\n".join([*parts, "</body></html>", ""])


_COLUMNS = ("language", "texts", "accuracy", "macro-F1", "95 % interval", "calibration error")
_STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#1b1b1b}"
    "table{border-collapse:collapse;margin:1rem 0}th,td{padding:.25rem .75rem;border-bottom:1px solid #ccc;"
    "text-align:right}th:first-child,td:first-child{text-align:left}tr:last-child{font-weight:600}"
    "@media(prefers-color-scheme:dark){body{background:#161616;color:#e8e8e8}th,td{border-color:#444}}"
)


def _rows(evaluation: Evaluation) -> list[tuple[str, ...]]:
    return [
        (
            lang,
            str(found.n),
            f"{100 * found.accuracy:.1f}",
            f"{100 * found.macro_f1:.1f}",
            f"{100 * found.macro_f1_low:.1f}–{100 * found.macro_f1_high:.1f}",
            f"{found.ece:.3f}",
        )
        for lang, found in [*evaluation.languages.items(), ("mean", evaluation.mean)]
    ]


def _plain(evaluation: Evaluation) -> dict[str, Any]:
    return {
        "bundle": evaluation.bundle,
        "data": evaluation.data,
        "variant": evaluation.variant,
        "head": evaluation.head.name,
        "labels": list(evaluation.head.labels),
        "languages": {lang: asdict(found) for lang, found in evaluation.languages.items()},
        "mean": asdict(evaluation.mean),
        "confusion": evaluation.confusion,
    }


def _html_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th>{html.escape(cell)}</th>" for cell in header)
    body = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><tr>{head}</tr>{body}</table>"
