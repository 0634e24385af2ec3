"""A bundle on labelled texts: scores per language of the very file that the daemon runs, as table, JSON and HTML."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from export.corpus import Columns, Example, read_examples
from export.runner import bundle_outputs
from monitor.errors import BabelwatchError
from monitor.inference.bundle import Bundle, Head, Variant
from training import pages
from training.metrics import Score, confusion, score_languages

_SEED = 0
"""Of the bootstrap: the same data gives the same intervals."""
_ERRORS = 5
"""Shown of each language."""


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
    errors: list[Error]
    """The surest ones of each language."""


@dataclass(frozen=True)
class Error:
    """A text that was classified wrongly."""

    lang: str
    text: str
    truth: str
    predicted: str
    probability: float
    """Of the predicted label, calibrated."""


def evaluate_bundle(
    bundle_dir: Path,
    data: Path,
    *,
    head: str | None = None,
    variant: Variant = "int8",
    columns: Columns | None = None,
    threads: int = 0,
) -> Evaluation:
    """Classify a labelled file by onnxruntime and score it per language.

    Args:
        bundle_dir: The bundle.
        data: TSV, CSV, JSON Lines or Parquet with a language, a text and a label in each row.
        head: Which of the bundle's heads the labels are of; None takes the first head that knows them all.
        variant: The precision to run.
        columns: Where columns or labels are called otherwise than usual.
        threads: 0 takes all cores.

    Raises:
        BundleError: The bundle cannot be used.
        BabelwatchError: The bundle has no such head or precision, or the data do not fit it.
    """
    bundle = Bundle.load(bundle_dir)
    chosen, examples = _find_head(bundle, data, head, columns)
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
    return Evaluation(
        bundle=f"{manifest.name} {manifest.version}",
        data=data.name,
        variant=variant,
        head=chosen,
        languages=scores,
        mean=mean,
        confusion=matrices,
        errors=_errors(chosen, examples, probabilities),
    )


def _errors(head: Head, examples: Sequence[Example], probabilities: NDArray[np.float64]) -> list[Error]:
    predicted, sure = probabilities.argmax(axis=1), probabilities.max(axis=1)
    by_lang: defaultdict[str, list[Error]] = defaultdict(list)
    for i in np.argsort(-sure, kind="stable"):
        example, said = examples[i], int(predicted[i])
        if said != example.label and len(by_lang[example.lang]) < _ERRORS:
            truth, wrong = head.labels[example.label], head.labels[said]
            by_lang[example.lang].append(Error(example.lang, example.text, truth, wrong, float(sure[i])))
    return [error for lang in sorted(by_lang) for error in by_lang[lang]]


def _find_head(bundle: Bundle, data: Path, name: str | None, columns: Columns | None) -> tuple[Head, list[Example]]:
    if name is not None:
        head = bundle.manifest.head(name)
        if head is None:
            known = ", ".join(found.name for found in bundle.manifest.heads)
            raise BabelwatchError(f"has no head {name!r}", where=str(bundle.path), hint=f"it has {known}")
        return head, read_examples(data, head.labels, columns)
    refusal: BabelwatchError | None = None
    for head in bundle.manifest.heads:
        try:
            return head, read_examples(data, head.labels, columns)
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
    """Scores, confusion matrices and error examples as one HTML page without outside parts."""
    shown = {**evaluation.languages, "mean": evaluation.mean}
    labels = evaluation.head.labels
    dots = [pages.Interval(lang, s.macro_f1, s.macro_f1_low, s.macro_f1_high) for lang, s in shown.items()]
    parts = [
        pages.paragraph(
            f"model.{evaluation.variant}.onnx, run by onnxruntime. In brackets, 95 % bootstrap intervals; "
            "in the mean each language weighs the same."
        ),
        pages.table(_COLUMNS, _rows(evaluation), total=True),
        pages.intervals(dots, "Macro-F1 with its 95 % interval"),
        pages.heading("Confusion"),
        pages.paragraph("Rows: true label. Columns: predicted label."),
        pages.grid([pages.matrix(lang, labels, found) for lang, found in evaluation.confusion.items()]),
    ]
    if evaluation.errors:
        rows = [(e.lang, e.truth, e.predicted, f"{e.probability:.2f}", e.text) for e in evaluation.errors]
        parts += [
            pages.heading("Errors it was surest of"),
            pages.table(("language", "true", "predicted", "probability", "text"), rows, text=(1, 2, 4)),
        ]
    return pages.page(f"{evaluation.bundle}: {evaluation.head.name} on {evaluation.data}", parts)


_COLUMNS = ("language", "texts", "macro-F1", "accuracy", "calibration error")


def _rows(evaluation: Evaluation) -> list[tuple[str, ...]]:
    return [
        (
            lang,
            str(found.n),
            f"{100 * found.macro_f1:.1f} ({100 * found.macro_f1_low:.1f}–{100 * found.macro_f1_high:.1f})",
            f"{100 * found.accuracy:.1f} ({100 * found.accuracy_low:.1f}–{100 * found.accuracy_high:.1f})",
            f"{found.ece:.3f} ({found.ece_low:.3f}–{found.ece_high:.3f})",
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
        "errors": [asdict(error) for error in evaluation.errors],
    }
