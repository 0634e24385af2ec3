"""Calibration: temperature, bias and confusion per language, judged on texts that the fit has not seen. NumPy and SciPy alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from training.metrics import calibration_error, confusion, macro_f1

ANY_LANGUAGE = "*"
_SMOOTHING = 0.5
"""Added to each count of the general confusion matrix, so that nothing is impossible."""
_CONFUSION_PRIOR = 5.0
"""Texts per row of a language's confusion matrix that are the general one's: with a hundred texts per label, 5 %."""

Parameters = NDArray[np.float64]
"""Log temperature, then the biases of all labels but the last, whose bias is 0; *Shape:* ``[labels]``."""


@dataclass(frozen=True)
class Fitted:
    """One head's calibration."""

    entries: dict[str, dict[str, Any]]
    """By language, as `calibration.json` has them: temperature, bias, confusion, n, and what was measured."""
    probabilities: NDArray[np.float64]
    """Of every text, by a fit that has not seen it; *Shape:* ``[texts, labels]``."""


def calibrate(
    logits: NDArray[np.floating[Any]],
    truth: NDArray[np.int64],
    langs: Sequence[str],
    *,
    folds: int,
    min_texts: int,
    prior: float,
    seed: int,
    zero_shot: Sequence[str] = (),
) -> Fitted:
    """Fit and judge one head.

    A language's own parameters are pulled towards the general ones, and taken only where they give the unseen texts of
    that language a higher likelihood than the general ones do (cross-fitting). Confusion matrices and all figures are of
    texts that the parameters were not fitted on.

    Args:
        logits: *Shape:* ``[texts, labels]``.
        truth: *Shape:* ``[texts]``.
        langs: One for each text; an entry is made for a tag with a script and for the tag without.
        folds: Parts for cross-fitting.
        min_texts: A language with fewer has no entry.
        prior: Pull towards the general parameters, as so many texts.
        seed: Of the folds.
        zero_shot: Languages that take the general parameters whatever their texts say.
    """
    values, tags = np.asarray(logits, dtype=np.float64), np.asarray(langs)
    fold = _folds(truth, tags, folds, seed)
    general = _fit(values, truth, _even(tags))
    general_unseen, own_unseen = np.zeros_like(values), np.zeros_like(values)
    members = {lang: rows for lang, rows in _members(tags).items() if len(rows) >= min_texts}
    for part in range(folds):
        seen, unseen = fold != part, fold == part
        without = _fit(values[seen], truth[seen], _even(tags[seen]))
        general_unseen[unseen] = own_unseen[unseen] = probabilities(values[unseen], without)
        # The narrower tag last: a text with a script takes its own tag's fit.
        for lang in sorted(members, key=len):
            inside = np.isin(np.arange(len(truth)), members[lang])
            own = _fit(values[seen & inside], truth[seen & inside], None, without, prior)
            own_unseen[unseen & inside] = probabilities(values[unseen & inside], own)
    entries: dict[str, dict[str, Any]] = {}
    chosen = general_unseen.copy()
    matrix = confusion(truth, general_unseen.argmax(1), values.shape[1]) + _SMOOTHING
    general_matrix = matrix / matrix.sum(1, keepdims=True)
    for lang, rows in sorted(members.items(), key=lambda item: len(item[0])):
        better = _likelihood(own_unseen[rows], truth[rows]) > _likelihood(general_unseen[rows], truth[rows])
        own_taken = better and lang not in zero_shot
        found = _fit(values[rows], truth[rows], None, general, prior) if own_taken else general
        if own_taken:
            chosen[rows] = own_unseen[rows]
        entries[lang] = _entry(values[rows], truth[rows], chosen[rows], found, general_matrix, lang in zero_shot)
    entries[ANY_LANGUAGE] = _entry(values, truth, chosen, general, None, False)
    return Fitted(dict(sorted(entries.items())), chosen)


def probabilities(logits: NDArray[np.float64], parameters: Parameters) -> NDArray[np.float64]:
    """``softmax(logits / temperature + bias)``; *Shape:* ``[texts, labels]``."""
    scaled = logits / np.exp(parameters[0]) + np.append(parameters[1:], 0.0)
    exponent = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    found: NDArray[np.float64] = exponent / exponent.sum(axis=1, keepdims=True)
    return found


def _fit(
    logits: NDArray[np.float64],
    truth: NDArray[np.int64],
    weights: NDArray[np.float64] | None,
    centre: Parameters | None = None,
    prior: float = 1.0,
) -> Parameters:
    """Most likely parameters under a normal prior around `centre` (Guo et al. 2017, section 4.2, with a bias)."""
    centre = np.zeros(logits.shape[1]) if centre is None else centre
    each = np.ones(len(truth)) if weights is None else weights
    told = np.eye(logits.shape[1])[truth]

    def cost(values: Parameters) -> tuple[float, Parameters]:
        said = probabilities(logits, values)
        away = values - centre
        loss = -float(each @ np.log(np.maximum(said[np.arange(len(truth)), truth], 1e-12))) + prior * float(away @ away)
        slope = (said - told) * each[:, None]
        temperature = -float((slope * logits).sum()) / np.exp(values[0])
        return loss, np.append(temperature, slope.sum(0)[:-1]) + 2 * prior * away

    found: Parameters = minimize(cost, centre, jac=True, method="L-BFGS-B").x
    return found


def _even(tags: NDArray[np.str_]) -> NDArray[np.float64]:
    """Weights with which each language counts the same; they sum to the number of texts."""
    _, inverse, counts = np.unique(tags, return_inverse=True, return_counts=True)
    weights: NDArray[np.float64] = len(tags) / len(counts) / counts[inverse]
    return weights


def _members(tags: NDArray[np.str_]) -> dict[str, NDArray[np.intp]]:
    """Texts by language, and by language without its script."""
    plain = np.array([str(tag).split("-")[0] for tag in tags])
    found: Mapping[str, NDArray[np.intp]] = {str(tag): np.flatnonzero(tags == tag) for tag in np.unique(tags)}
    return {str(tag): np.flatnonzero(plain == tag) for tag in np.unique(plain)} | dict(found)


def _folds(truth: NDArray[np.int64], tags: NDArray[np.str_], folds: int, seed: int) -> NDArray[np.int64]:
    """A fold for each text, even over languages and labels."""
    rng = np.random.default_rng(seed)
    found = np.zeros(len(truth), dtype=np.int64)
    for tag in np.unique(tags):
        for label in np.unique(truth):
            rows = np.flatnonzero((tags == tag) & (truth == label))
            found[rng.permutation(rows)] = (np.arange(len(rows)) + rng.integers(folds)) % folds
    return found


def _likelihood(said: NDArray[np.float64], truth: NDArray[np.int64]) -> float:
    return float(np.log(np.maximum(said[np.arange(len(truth)), truth], 1e-12)).sum())


def _entry(
    logits: NDArray[np.float64],
    truth: NDArray[np.int64],
    unseen: NDArray[np.float64],
    parameters: Parameters,
    general: NDArray[np.float64] | None,
    zero_shot: bool,
) -> dict[str, Any]:
    labels = logits.shape[1]
    raw = probabilities(logits, np.zeros(labels))
    counts = confusion(truth, unseen.argmax(1), labels) + (
        _SMOOTHING if general is None else _CONFUSION_PRIOR * general
    )
    return {
        "temperature": float(np.exp(parameters[0])),
        "bias": [*parameters[1:].tolist(), 0.0],
        "confusion": (counts / counts.sum(1, keepdims=True)).tolist(),
        "n": len(truth),
        "macro_f1": macro_f1(truth, unseen.argmax(1), labels),
        "macro_f1_before": macro_f1(truth, raw.argmax(1), labels),
        "accuracy": float(np.mean(unseen.argmax(1) == truth)),
        "ece_before": calibration_error(truth, raw),
        "ece_after": calibration_error(truth, unseen),
        "zero_shot": zero_shot,
    }
