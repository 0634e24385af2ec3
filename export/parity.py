"""The gate: does each ONNX file say what the checkpoint says, in every language? If not, no bundle is written."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom

from export.errors import ExportError
from export.runner import Outputs
from monitor.inference.bundle import Calibration, Variant
from training.metrics import macro_f1

_CHANCE = 1e-4
"""How rarely a language at its limit may be refused by chance. A hundred samples of 40 texts are checked in one export:
compared bare, the noise of the smallest would decide."""


@dataclass(frozen=True)
class Limits:
    """How far a file may be from the checkpoint."""

    probability: float
    """Largest difference of any calibrated probability, on any text."""
    agreement: float
    """Smallest share of texts with the same class: over all languages as it is counted, and in each one as far as its
    few texts can tell (`_CHANCE`)."""
    f1_drop: float
    """Largest loss of macro-F1 averaged over the languages of a labelled set, in points of 100, beyond one standard error of
    it: a set of a few thousand texts cannot tell less."""


LIMITS: Mapping[Variant, Limits] = {
    # Same weights, other order of the sums.
    "fp32": Limits(probability=1e-3, agreement=0.995, f1_drop=0.1),
    "fp16": Limits(probability=0.05, agreement=0.98, f1_drop=0.2),
    # A text near a border may change its class by any rounding, so the agreement is the smaller the more such texts.
    "int8": Limits(probability=0.35, agreement=0.93, f1_drop=0.3),
    # A quarter of int8's steps; a base that was stored in 4 bits and fine-tuned is no longer on their grid.
    "int4": Limits(probability=0.6, agreement=0.85, f1_drop=1.0),
}


@dataclass(frozen=True)
class Difference:
    """One head, one language, one file."""

    texts: int
    probability: float
    """Largest difference of a calibrated probability."""
    agreement: float
    f1_drop: float | None
    """Macro-F1 of the checkpoint less the file's, in points; None without labels."""


@dataclass(frozen=True)
class Sample:
    """Texts of one language, perhaps with a head's labels."""

    lang: str
    texts: Sequence[str]
    head: str = ""
    """The head that `labels` are of; without it the texts serve all heads, unlabelled."""
    labels: NDArray[np.int64] | None = None


Report = dict[str, dict[str, Difference]]
"""By head, then by language; a language with labels is named ``lang``, one without ``lang (unlabelled)``."""


def compare(
    reference: Callable[[Sequence[str]], Outputs],
    candidate: Callable[[Sequence[str]], Outputs],
    samples: Sequence[Sample],
    calibration: Callable[[str, str], Calibration],
    heads: Sequence[str],
) -> Report:
    """Run both on the same texts.

    Args:
        reference: Outputs of the checkpoint.
        candidate: Outputs of the file.
        samples: Per language.
        calibration: Of a head in a language.
        heads: To compare.
    """
    flat = [text for sample in samples for text in sample.texts]
    expected, found = reference(flat), candidate(flat)
    report: Report = {head: {} for head in heads}
    start = 0
    for sample in samples:
        rows = slice(start, start + len(sample.texts))
        start = rows.stop
        for head in [sample.head] if sample.head else heads:
            calibrated = calibration(head, sample.lang)
            a = calibrated.probabilities(expected[head][rows])
            b = calibrated.probabilities(found[head][rows])
            key = sample.lang if sample.head else f"{sample.lang} (unlabelled)"
            report[head][key] = _difference(a, b, sample.labels)
    return report


def _difference(a: NDArray[np.float64], b: NDArray[np.float64], labels: NDArray[np.int64] | None) -> Difference:
    first, second = a.argmax(axis=1), b.argmax(axis=1)
    drop = None
    if labels is not None:
        k = a.shape[1]
        drop = 100 * (macro_f1(labels, first, k) - macro_f1(labels, second, k))
    # A file that gives NaN is as far off as can be, and must not pass because NaN compares false.
    distance = np.nan_to_num(np.abs(a - b), nan=1.0)
    return Difference(
        texts=len(a), probability=float(distance.max()), agreement=float(np.mean(first == second)), f1_drop=drop
    )


def check(report: Report, limits: Limits, name: str) -> None:
    """Refuse a file that is over its limits.

    Raises:
        ExportError: Naming the head, the language and the figure that is over.
    """
    for head, languages in report.items():
        for lang, found in languages.items():
            place = f"{name}, head {head}, language {lang}"
            if found.probability > limits.probability:
                what = f"a probability differs by {found.probability:.4f} from the checkpoint's, limit {limits.probability}"
                raise ExportError(what, where=place, hint="no bundle was written")
            changed = round(found.texts * (1 - found.agreement))
            if binom.sf(changed - 1, found.texts, 1 - limits.agreement) < _CHANCE:
                _refuse_agreement(found.agreement, found.texts, limits, place)
        pooled = _pooled(languages.values())
        if pooled < limits.agreement:
            texts = sum(found.texts for found in languages.values())
            _refuse_agreement(pooled, texts, limits, f"{name}, head {head}, all languages")
        labelled = [found for found in languages.values() if found.f1_drop is not None]
        drop = float(np.mean([found.f1_drop for found in labelled])) if labelled else 0.0
        error = _standard_error(labelled)
        if drop > limits.f1_drop + error:
            what = f"macro-F1 falls by {drop:.2f} points on average (give or take {error:.2f}), limit {limits.f1_drop}"
            raise ExportError(what, where=f"{name}, head {head}", hint="no bundle was written")


def _standard_error(labelled: Sequence[Difference]) -> float:
    """How far the average drop may be off by chance, in points.

    Each text whose class changed is a point up or down, whichever it happens to be: of m changed among n texts, the sum
    is within the square root of m (McNemar 1947), and one of them moves the score by about 100 / n.
    """
    texts = sum(found.texts for found in labelled)
    changed = sum(found.texts * (1 - found.agreement) for found in labelled)
    return float(100 * np.sqrt(changed) / texts) if texts else 0.0


def _pooled(found: Iterable[Difference]) -> float:
    """Agreement over the texts of all languages; 1 without any."""
    texts, kept = 0, 0.0
    for difference in found:
        texts += difference.texts
        kept += difference.agreement * difference.texts
    return kept / texts if texts else 1.0


def _refuse_agreement(agreement: float, texts: int, limits: Limits, place: str) -> None:
    what = f"only {agreement:.1%} of {texts} texts keep their class, limit {limits.agreement:.1%}"
    raise ExportError(what, where=place, hint="no bundle was written")


def summary(report: Report) -> dict[str, Any]:
    """The report as JSON values, with the worst figures of each head first."""
    return {
        head: {
            "max_probability_difference": round(max(d.probability for d in languages.values()), 5),
            "agreement": round(_pooled(languages.values()), 5),
            "min_agreement": round(min(d.agreement for d in languages.values()), 5),
            "mean_f1_drop": _rounded_mean([d.f1_drop for d in languages.values() if d.f1_drop is not None]),
            "languages": {
                lang: {k: round(v, 5) if isinstance(v, float) else v for k, v in asdict(d).items()}
                for lang, d in languages.items()
            },
        }
        for head, languages in report.items()
        if languages
    }


def _rounded_mean(values: Sequence[float]) -> float | None:
    return round(float(np.mean(values)), 3) if values else None
