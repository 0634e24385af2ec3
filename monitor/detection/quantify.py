"""From what the classifier said to what is so: shares corrected for its known confusion, with their uncertainty."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from monitor.detection.counts import Floats

MIN_YOUDEN = 0.05
"""A language whose classifier tells negatives from others less well than this is left uncorrected: dividing by less
would turn noise into shares."""


@dataclass(frozen=True, slots=True)
class Correction:
    """How one language's predicted counts become true ones.

    Attributes:
        weights: float64 [3]; `counts @ weights` estimates the true negatives without bias (adjusted count).
        sentiment: float64 [3]; the same for the true positives less the true negatives.
        false_rate: Share of non-negative documents that are called negative, 0 to 1.
        youden: True minus false positive rate of "negative", 0 to 1: what one true point moves the predicted share.
    """

    weights: Floats
    sentiment: Floats
    false_rate: float
    youden: float

    def observed_share(self, true_share: Floats) -> Floats:
        """The predicted negative share that a true share gives, elementwise."""
        return self.false_rate + self.youden * true_share


PERFECT = Correction(np.array([1.0, 0.0, 0.0]), np.array([-1.0, 0.0, 1.0]), 0.0, 1.0)


def correction(confusion: Floats | None) -> Correction:
    """The correction that a confusion matrix calls for.

    Args:
        confusion: float64 [3 true, 3 predicted], rows summing to 1 (Forman, "Quantifying counts and costs via
            classification", 2008, section 2.3); None for a classifier taken as perfect.
    """
    if confusion is None:
        return PERFECT
    false_rate = float(confusion[1:, 0].mean())
    youden = float(confusion[0, 0]) - false_rate
    if youden < MIN_YOUDEN:
        return PERFECT
    # All three classes: a move from positive to neutral changes the false alarms of "negative", not the negatives.
    if np.linalg.cond(confusion) < 1 / MIN_YOUDEN:
        inverse: Floats = np.linalg.inv(confusion).astype(np.float64)
        return Correction(inverse[:, 0].copy(), inverse[:, 2] - inverse[:, 0], false_rate, youden)
    weights = (np.array([1.0, 0.0, 0.0]) - false_rate) / youden
    return Correction(weights, np.array([0.0, 0.0, 1.0]) - weights, false_rate, youden)


def share_interval(documents: float, negatives: float, inflation: float) -> tuple[float, float, float]:
    """A corrected negative share, 0 to 1, with the ends of its 95 % interval.

    The counts' own spread, widened by what the correction multiplies it by; Agresti-Coull's two of each.

    Args:
        documents: More than 0.
        negatives: After the correction, by language: (predicted - false_rate * documents) / youden.
        inflation: The sum over the documents of 1 / youden^2.
    """
    share = min(max(negatives / documents, 0.0), 1.0)
    steady = (share * documents + 2) / (documents + 4)
    spread = 1.96 * (steady * (1 - steady) * inflation / documents / (documents + 4)) ** 0.5
    return share, max(share - spread, 0.0), min(share + spread, 1.0)


def adjusted_shares(counts: Floats, confusion: Floats) -> tuple[Floats, Floats]:
    """True shares by adjusted count, with their standard errors.

    Args:
        counts: float64 [..., 3] documents by predicted class.
        confusion: float64 [3 true, 3 predicted], rows summing to 1, invertible.

    Returns:
        Shares float64 [..., 3], clipped to 0..1 and summing to 1 (zeros where there is no document), and standard
        errors of the same shape from the sampling of documents; unclipped shares are unbiased, clipped ones nearly.
    """
    total = counts.sum(-1, keepdims=True)
    seen = np.divide(counts, total, out=np.zeros_like(counts, np.float64), where=total > 0)
    inverse = np.linalg.inv(confusion)
    raw = seen @ inverse
    second = seen @ inverse**2
    error = np.sqrt(np.maximum(second - raw**2, 0) / np.maximum(total, 1))
    clipped = np.clip(raw, 0, 1)
    sums = clipped.sum(-1, keepdims=True)
    return np.divide(clipped, sums, out=np.zeros_like(clipped), where=sums > 0), error


def em_shares(counts: Floats, confusion: Floats, *, iterations: int = 200) -> Floats:
    """True shares by maximum likelihood (expectation maximisation; Saerens, Latinne, Decaestecker 2002, section 2).

    Unlike the adjusted count it never leaves 0..1, at the price of iterations and of a small bias towards the inside;
    use it where few documents make the adjusted count leave the range.

    Args:
        counts: float64 [..., 3] documents by predicted class.
        confusion: float64 [3 true, 3 predicted], rows summing to 1.
        iterations: Steps; the error falls by a constant factor each.

    Returns:
        Shares float64 [..., 3] summing to 1.
    """
    shares = np.full(counts.shape, 1 / 3)
    total = np.maximum(counts.sum(-1, keepdims=True), 1e-12)
    for _ in range(iterations):
        predicted = np.maximum(shares @ confusion, 1e-12)
        shares = shares * ((counts / predicted) @ confusion.T) / total
    normalised: Floats = shares / np.maximum(shares.sum(-1, keepdims=True), 1e-12)
    return normalised
