"""Scores of a classifier: accuracy, macro-F1, calibration error, and their bootstrap intervals."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

_ECE_BINS = 15
_RESAMPLES = 500


def macro_f1(truth: NDArray[np.integer[Any]], predicted: NDArray[np.integer[Any]], labels: int) -> float:
    """Mean over the labels of the F1 score; a label that is neither true nor predicted anywhere is left out.

    >>> macro_f1(np.array([0, 0, 1]), np.array([0, 1, 1]), 2)
    0.6666666666666666
    """
    matrix = confusion(truth, predicted, labels)
    hits, true, said = np.diag(matrix), matrix.sum(axis=1), matrix.sum(axis=0)
    seen = true + said > 0
    return float(np.mean(2 * hits[seen] / (true + said)[seen])) if seen.any() else 0.0


def confusion(truth: NDArray[np.integer[Any]], predicted: NDArray[np.integer[Any]], labels: int) -> NDArray[np.int64]:
    """Counts by true label (row) and predicted label (column); *Shape:* ``[labels, labels]``."""
    return np.bincount(truth * labels + predicted, minlength=labels * labels).reshape(labels, labels)


def calibration_error(truth: NDArray[np.integer[Any]], probabilities: NDArray[np.floating[Any]]) -> float:
    """Expected calibration error of the top label over equal-width bins (Guo et al. 2017, equation 3)."""
    confidence = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == truth
    bins = np.minimum((confidence * _ECE_BINS).astype(np.int64), _ECE_BINS - 1)
    gaps = np.bincount(bins, weights=right - confidence, minlength=_ECE_BINS)
    return float(np.abs(gaps).sum() / len(truth))


@dataclass(frozen=True)
class Score:
    """One head on one language."""

    n: int
    accuracy: float
    macro_f1: float
    low: float
    """Macro-F1, 2.5th percentile over bootstrap resamples."""
    high: float
    ece: float


def score(truth: NDArray[np.int64], probabilities: NDArray[np.floating[Any]], rng: np.random.Generator) -> Score:
    """All scores at once.

    Args:
        truth: *Shape:* ``[texts]``.
        probabilities: *Shape:* ``[texts, labels]``.
        rng: Draws the bootstrap resamples.
    """
    predicted, labels = probabilities.argmax(axis=1), probabilities.shape[1]
    draws = rng.integers(0, len(truth), (_RESAMPLES, len(truth)))
    resampled = [macro_f1(truth[draw], predicted[draw], labels) for draw in draws]
    low, high = np.percentile(resampled, [2.5, 97.5])
    return Score(
        n=len(truth),
        accuracy=float(np.mean(predicted == truth)),
        macro_f1=macro_f1(truth, predicted, labels),
        low=float(low),
        high=float(high),
        ece=calibration_error(truth, probabilities),
    )
