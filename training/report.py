"""The report of a run: scores per language and head with intervals, confusion, errors and curves; as JSON, HTML and Markdown."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from training import pages
from training.calibration import ANY_LANGUAGE, probabilities
from training.data.examples import Dataset, Example
from training.metrics import Score, calibration_error, confusion, score_languages
from training.recipe import Recipe

if TYPE_CHECKING:
    from training.run import Context

SCORES = "scores.json"
"""In the report's folder, and from there in the final checkpoint: the model card is made of it."""
PREDICTIONS = "predictions.npz"
_ERRORS = 4
"""Shown per language: what is wrong with the data or the model shows in a few."""


@dataclass(frozen=True)
class Wrong:
    """A text that was classified wrongly."""

    lang: str
    text: str
    truth: str
    predicted: str
    probability: float
    source: str
    row: int


@dataclass(frozen=True)
class HeadReport:
    """One head on one split."""

    labels: tuple[str, ...]
    languages: dict[str, Score]
    ece_before: dict[str, float]
    """Calibration error of the raw logits, by language."""
    zero_shot: tuple[str, ...]
    """Languages that it was never trained on."""
    mean: Score | None
    """Over the trained languages, each weighing the same."""
    zero_shot_mean: Score | None
    confusion: dict[str, list[list[int]]]
    """By language, counts by true label (row) and predicted label (column)."""
    errors: list[Wrong] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """Everything but the texts."""
        return {
            "labels": list(self.labels),
            "languages": {
                lang: asdict(found) | {"ece_before": self.ece_before[lang], "zero_shot": lang in self.zero_shot}
                for lang, found in self.languages.items()
            },
            "mean": asdict(self.mean) if self.mean else None,
            "zero_shot_mean": asdict(self.zero_shot_mean) if self.zero_shot_mean else None,
            "confusion": self.confusion,
        }


Report = dict[str, dict[str, HeadReport]]
"""By split, then by head."""


def run(context: Context, folder: Path) -> None:
    """The stage `report`: `scores.json`, `report.html`, `REPORT.md` and a picture of each stage's curves."""
    data = Dataset.load(context.data)
    calibrated = context.run / "calibrate"
    with np.load(calibrated / PREDICTIONS) as arrays:
        predictions = {name: arrays[name] for name in arrays.files}
    entries = json.loads((calibrated / "calibration.json").read_text(encoding="utf-8"))
    report = assess(context.recipe, data, predictions, entries)
    histories = _histories(context.run, context.recipe)
    scores = {split: {head: found.as_json() for head, found in heads.items()} for split, heads in report.items()}
    (folder / SCORES).write_text(json.dumps(scores, indent=1) + "\n", encoding="utf-8")
    pictures = {}
    for stage, history in histories.items():
        for kind, picture in _curves(stage, history).items():
            pictures[f"{stage}.{kind}.svg"] = picture
            (folder / f"{stage}.{kind}.svg").write_text(pages.standalone(picture), encoding="utf-8")
    (folder / "report.html").write_text(as_html(context.recipe, report, list(pictures.values())), encoding="utf-8")
    (folder / "REPORT.md").write_text(as_markdown(context.recipe, report, list(pictures)), encoding="utf-8")
    for head, found in report["validation"].items():
        if found.mean is not None:
            context.say(
                f"{head}: macro-F1 {100 * found.mean.macro_f1:.2f} "
                f"({100 * found.mean.macro_f1_low:.1f} to {100 * found.mean.macro_f1_high:.1f})"
            )


def assess(
    recipe: Recipe,
    data: Dataset,
    predictions: Mapping[str, NDArray[Any]],
    entries: Mapping[str, Mapping[str, Any]],
) -> Report:
    """Score what the stage `calibrate` predicted.

    Args:
        recipe: Of the run.
        data: Prepared.
        predictions: As `training.stages.calibrate.run` describes `predictions.npz`.
        entries: Calibration by head and language, for the splits that it was not fitted on.
    """
    report: Report = {}
    for split, examples in (("validation", data.validation), ("test", data.test)):
        heads = [head for head in recipe.heads if f"{split}.{head}.places" in predictions]
        report[split] = {}
        for head in heads:
            chosen = [examples[n] for n in predictions[f"{split}.{head}.places"]]
            if not chosen:
                continue
            logits = predictions[f"{split}.{head}.logits"].astype(np.float64)
            calibrated = predictions.get(f"{split}.{head}.probabilities")
            if calibrated is None:
                calibrated = _calibrated(logits, [e.lang for e in chosen], entries[head])
            report[split][head] = _assess_head(
                recipe.heads[head].labels, chosen, logits, calibrated, recipe.data.leave_out.get(head, ()), recipe.seed
            )
    return report


def _assess_head(
    labels: tuple[str, ...],
    examples: Sequence[Example],
    logits: NDArray[np.float64],
    calibrated: NDArray[np.float64],
    left_out: Sequence[str],
    seed: int,
) -> HeadReport:
    truth = np.array([example.label for example in examples], dtype=np.int64)
    langs = np.array([example.lang for example in examples])
    zero = np.isin(langs, list(left_out))
    raw = probabilities(logits, np.zeros(len(labels)))
    languages: dict[str, Score] = {}
    means: dict[bool, Score] = {}
    for kind in (False, True):
        rows = zero == kind
        if rows.any():
            found, means[kind] = score_languages(
                truth[rows], calibrated[rows], langs[rows], np.random.default_rng([seed, kind])
            )
            languages |= found
    predicted = calibrated.argmax(axis=1)
    return HeadReport(
        labels=labels,
        languages=dict(sorted(languages.items())),
        ece_before={lang: calibration_error(truth[langs == lang], raw[langs == lang]) for lang in languages},
        zero_shot=tuple(sorted(set(langs[zero].tolist()))),
        mean=means.get(False),
        zero_shot_mean=means.get(True),
        confusion={
            lang: confusion(truth[langs == lang], predicted[langs == lang], len(labels)).tolist()
            for lang in sorted(languages)
        },
        errors=_errors(labels, examples, calibrated),
    )


def _calibrated(logits: NDArray[np.float64], langs: Sequence[str], entries: Mapping[str, Any]) -> NDArray[np.float64]:
    """By the language's entry, its language's without the script, or the general one."""
    found = np.zeros_like(logits)
    tags = np.array(langs)
    for lang in set(langs):
        entry = entries.get(lang) or entries.get(lang.partition("-")[0]) or entries[ANY_LANGUAGE]
        bias = np.array(entry["bias"])
        parameters = np.append(np.log(entry["temperature"]), (bias - bias[-1])[:-1])
        found[tags == lang] = probabilities(logits[tags == lang], parameters)
    return found


def _errors(labels: Sequence[str], examples: Sequence[Example], calibrated: NDArray[np.float64]) -> list[Wrong]:
    """The surest errors of each language."""
    predicted, sure = calibrated.argmax(axis=1), calibrated.max(axis=1)
    found: defaultdict[str, list[Wrong]] = defaultdict(list)
    for i in np.argsort(-sure, kind="stable"):
        example, said = examples[i], int(predicted[i])
        if said != example.label and len(found[example.lang]) < _ERRORS:
            found[example.lang].append(
                Wrong(
                    example.lang, example.text, labels[example.label], labels[said], float(sure[i]), example.source,
                    example.row,
                )
            )  # fmt: skip
    return [wrong for lang in sorted(found) for wrong in found[lang]]


def _histories(run_folder: Path, recipe: Recipe) -> dict[str, dict[str, Any]]:
    found = {}
    for place in range(len(recipe.stages)):
        path = run_folder / recipe.folder(place) / "history.json"
        if path.exists():
            found[recipe.folder(place)] = json.loads(path.read_text(encoding="utf-8"))
    return found


def _curves(stage: str, history: Mapping[str, Any]) -> dict[str, str]:
    losses = [(float(x), float(y)) for x, y in history.get("losses", ())]
    scores = [(float(x), 100 * float(y)) for x, y in history.get("scores", ())]
    found = {
        "loss": pages.curve({"loss": losses}, f"{stage}: training loss, smoothed"),
        "score": pages.curve({"score": scores}, f"{stage}: score on the validation texts, in points"),
    }
    return {kind: picture for kind, picture in found.items() if picture}


_COLUMNS = ("language", "texts", "macro-F1", "accuracy", "calibration error", "before calibration")


def score_rows(scores: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Rows for `_COLUMNS` from one head of `scores.json`: each language, then the means.

    Args:
        scores: As `HeadReport.as_json` gives it.
    """
    rows = []
    for lang, found in scores["languages"].items():
        name = f"{lang} (zero-shot)" if found["zero_shot"] else lang
        rows.append((*_row(name, found), f"{found['ece_before']:.3f}"))
    for name, key in (("mean, zero-shot", "zero_shot_mean"), ("mean", "mean")):
        if scores[key] is not None:
            rows.append((*_row(name, scores[key]), ""))
    return rows


def score_table(scores: Mapping[str, Any]) -> list[str]:
    """One head of `scores.json` as lines of a Markdown table; 95 % bootstrap intervals in brackets."""
    return pages.markdown_table(_COLUMNS, score_rows(scores))


def _row(name: str, found: Mapping[str, Any]) -> tuple[str, ...]:
    def points(key: str) -> str:
        return f"{100 * found[key]:.1f} ({100 * found[f'{key}_low']:.1f}–{100 * found[f'{key}_high']:.1f})"

    return name, str(found["n"]), points("macro_f1"), points("accuracy"), f"{found['ece']:.3f}"


def as_html(recipe: Recipe, report: Report, pictures: Sequence[str]) -> str:
    """The report as one page without outside parts."""
    parts = [pages.paragraph(recipe.description)] if recipe.description else []
    parts.append(
        pages.paragraph(
            "In brackets, 95 % bootstrap intervals. Probabilities of validation texts are calibrated by a fit that has "
            "not seen them. A language marked zero-shot was never trained on for this head; each language weighs the "
            "same in a mean."
        )
    )
    for split, heads in report.items():
        for head, found in heads.items():
            scores = found.as_json()
            dots = [
                pages.Interval(lang, s.macro_f1, s.macro_f1_low, s.macro_f1_high) for lang, s in found.languages.items()
            ]
            parts += [
                pages.heading(f"{head} on {split} texts"),
                pages.table(_COLUMNS, score_rows(scores), total=found.mean is not None),
                pages.intervals(dots, "Macro-F1 with its 95 % interval"),
                pages.heading("Confusion", 3),
                pages.paragraph("Rows: true label. Columns: predicted label."),
                pages.grid([pages.matrix(lang, found.labels, counts) for lang, counts in found.confusion.items()]),
            ]
            if found.errors:
                rows = [
                    (e.lang, e.truth, e.predicted, f"{e.probability:.2f}", f"{e.source}:{e.row}", e.text)
                    for e in found.errors
                ]
                header = ("language", "true", "predicted", "probability", "row", "text")
                parts += [
                    pages.heading("Errors it was surest of", 3),
                    pages.table(header, rows, text=(1, 2, 4, 5)),
                ]
    if pictures:
        parts += [pages.heading("Curves"), *pictures]
    return pages.page(f"Run {recipe.name}", parts)


def as_markdown(recipe: Recipe, report: Report, pictures: Sequence[str]) -> str:
    """The report without the data's texts, which may not be ours to pass on."""
    lines = [f"# Run {recipe.name}", "", *([recipe.description, ""] if recipe.description else [])]
    lines += ["In brackets, 95 % bootstrap intervals.", ""]
    for split, heads in report.items():
        for head, found in heads.items():
            lines += [f"## {head} on {split} texts", "", *score_table(found.as_json()), ""]
    for picture in pictures:
        lines += [f"![{picture.removesuffix('.svg')}]({picture})", ""]
    return "\n".join(lines)
