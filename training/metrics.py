"""Scores of a classifier: accuracy, macro-F1, calibration error, per language, with bootstrap intervals.

The one place for them: training, its report and the export's gate and evaluation count alike. Needs NumPy alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

_ECE_BINS = 15
_RESAMPLES = 500
"""Enough for the ends of a 95 % interval to be within a tenth of its width."""
_INTERVAL = (2.5, 97.5)


def macro_f1(truth: NDArray[np.integer[Any]], predicted: NDArray[np.integer[Any]], labels: int) -> float:
    """Mean over the labels of the F1 score; a label that is neither true nor predicted anywhere is left out.

    >>> macro_f1(np.array([0, 0, 1]), np.array([0, 1, 1]), 2)
    0.6666666666666666
    """
    return float(_macro_f1(confusion(truth, predicted, labels)[None])[0])


def _macro_f1(matrices: NDArray[np.integer[Any]]) -> NDArray[np.float64]:
    """Of each confusion matrix; *Shape:* ``[matrices, labels, labels]`` to ``[matrices]``."""
    hits = np.diagonal(matrices, axis1=1, axis2=2)
    either = matrices.sum(axis=1) + matrices.sum(axis=2)
    scores = np.divide(2 * hits, either, out=np.zeros(hits.shape), where=either > 0)
    found: NDArray[np.float64] = scores.sum(axis=1) / np.maximum((either > 0).sum(axis=1), 1)
    return found


def confusion(truth: NDArray[np.integer[Any]], predicted: NDArray[np.integer[Any]], labels: int) -> NDArray[np.int64]:
    """Counts by true label (row) and predicted label (column); *Shape:* ``[labels, labels]``."""
    return np.bincount(truth * labels + predicted, minlength=labels * labels).reshape(labels, labels)


def calibration_error(truth: NDArray[np.integer[Any]], probabilities: NDArray[np.floating[Any]]) -> float:
    """Expected calibration error of the top label over equal-width bins (Guo et al. 2017, equation 3)."""
    bins, gaps = _calibration_gaps(truth, probabilities)
    return float(np.abs(np.bincount(bins, weights=gaps, minlength=_ECE_BINS)).sum() / len(truth))


def _calibration_gaps(
    truth: NDArray[np.integer[Any]], probabilities: NDArray[np.floating[Any]]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Per text, its bin of confidence, and right (0 or 1) less confidence."""
    confidence = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == truth
    bins = np.minimum((confidence * _ECE_BINS).astype(np.int64), _ECE_BINS - 1)
    return bins, right - confidence


@dataclass(frozen=True)
class Score:
    """One head on one language; each figure with its 95 % bootstrap interval."""

    n: int
    accuracy: float
    accuracy_low: float
    accuracy_high: float
    macro_f1: float
    macro_f1_low: float
    macro_f1_high: float
    ece: float
    """Expected calibration error, 0 to 1. Its resamples lie above it on average: noise adds to an absolute value."""
    ece_low: float
    ece_high: float


def score(truth: NDArray[np.int64], probabilities: NDArray[np.floating[Any]], rng: np.random.Generator) -> Score:
    """All scores of one set of texts.

    Args:
        truth: *Shape:* ``[texts]``, at least one.
        probabilities: *Shape:* ``[texts, labels]``.
        rng: Draws the bootstrap resamples.
    """
    return _score(len(truth), _figures(truth, probabilities), _resampled(truth, probabilities, rng))


def score_languages(
    truth: NDArray[np.int64],
    probabilities: NDArray[np.floating[Any]],
    languages: NDArray[np.str_],
    rng: np.random.Generator,
) -> tuple[dict[str, Score], Score]:
    """Scores per language, and their average.

    Args:
        truth: *Shape:* ``[texts]``, at least one.
        probabilities: *Shape:* ``[texts, labels]``.
        languages: *Shape:* ``[texts]``.
        rng: Draws the bootstrap resamples.

    Returns:
        By language in order of the codes; and the average in which each language weighs the same, its interval from
        resampling within each language.
    """
    scores: dict[str, Score] = {}
    figures, drawn = [], []
    for lang in sorted(set(languages.tolist())):
        rows = languages == lang
        figures.append(_figures(truth[rows], probabilities[rows]))
        drawn.append(_resampled(truth[rows], probabilities[rows], rng))
        scores[lang] = _score(int(rows.sum()), figures[-1], drawn[-1])
    return scores, _score(len(truth), np.mean(figures, axis=0), np.mean(drawn, axis=0))


def _figures(truth: NDArray[np.int64], probabilities: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """Accuracy, macro-F1 and calibration error."""
    predicted = probabilities.argmax(axis=1)
    return np.array(
        [
            np.mean(predicted == truth),
            macro_f1(truth, predicted, probabilities.shape[1]),
            calibration_error(truth, probabilities),
        ]
    )


def _resampled(
    truth: NDArray[np.int64], probabilities: NDArray[np.floating[Any]], rng: np.random.Generator
) -> NDArray[np.float64]:
    """`_figures` of resamples with replacement; *Shape:* ``[resamples, 3]``."""
    n, labels = probabilities.shape
    cells = truth * labels + probabilities.argmax(axis=1)
    bins, gaps = _calibration_gaps(truth, probabilities)
    matrices = np.empty((_RESAMPLES, labels * labels), dtype=np.int64)
    errors = np.empty(_RESAMPLES)
    for i in range(_RESAMPLES):
        draw = rng.integers(0, n, n)
        matrices[i] = np.bincount(cells[draw], minlength=labels * labels)
        errors[i] = np.abs(np.bincount(bins[draw], weights=gaps[draw], minlength=_ECE_BINS)).sum() / n
    square = matrices.reshape(-1, labels, labels)
    return np.column_stack([np.trace(square, axis1=1, axis2=2) / n, _macro_f1(square), errors])


def _score(n: int, figures: NDArray[np.float64], drawn: NDArray[np.float64]) -> Score:
    low, high = np.percentile(drawn, _INTERVAL, axis=0)
    named: Mapping[str, float] = {
        f"{name}{end}": float(values[i])
        for i, name in enumerate(("accuracy", "macro_f1", "ece"))
        for end, values in (("", figures), ("_low", low), ("_high", high))
    }
    return Score(n=n, **named)
