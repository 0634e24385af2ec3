"""The correction for a classifier's known confusion."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitor.detection.quantify import PERFECT, adjusted_shares, correction, em_shares

CONFUSIONS = {
    "en": np.array([[0.80, 0.15, 0.05], [0.10, 0.75, 0.15], [0.05, 0.20, 0.75]]),
    "ar": np.array([[0.70, 0.20, 0.10], [0.05, 0.80, 0.15], [0.15, 0.10, 0.75]]),
    "th": np.array([[0.75, 0.20, 0.05], [0.20, 0.70, 0.10], [0.10, 0.10, 0.80]]),
}
"""A quarter of the labels wrong, differently by language."""


def predicted(truth: np.ndarray, confusion: np.ndarray, documents: int, rng: np.random.Generator) -> np.ndarray:
    return sum(rng.multinomial(n, row) for n, row in zip(rng.multinomial(documents, truth), confusion, strict=True))


def test_corrected_shares_are_right_where_a_quarter_of_labels_is_wrong_and_raw_ones_are_not():
    rng = np.random.default_rng(0)
    corrected, raw, em = [], [], []
    for confusion in CONFUSIONS.values():
        for negative in (0.05, 0.15, 0.3, 0.6):
            truth = np.array([negative, (1 - negative) * 0.6, (1 - negative) * 0.4])
            counts = np.array([predicted(truth, confusion, 3000, rng) for _ in range(20)], float)
            corrected.append(np.abs(adjusted_shares(counts, confusion)[0][:, 0] - negative).mean())
            em.append(np.abs(em_shares(counts, confusion)[:, 0] - negative).mean())
            raw.append(np.abs(counts[:, 0] / 3000 - negative).mean())
    assert np.mean(corrected) < 0.02
    assert np.mean(em) < 0.02
    assert np.mean(raw) > 0.04


def test_the_standard_error_is_that_of_repeated_samples():
    rng = np.random.default_rng(1)
    truth, confusion = np.array([0.3, 0.4, 0.3]), CONFUSIONS["ar"]
    counts = np.array([predicted(truth, confusion, 400, rng) for _ in range(500)], float)
    shares, errors = adjusted_shares(counts, confusion)
    assert errors[:, 0].mean() == pytest.approx(shares[:, 0].std(), rel=0.1)


def test_the_linear_correction_ignores_a_move_from_positive_to_neutral():
    weights = correction(CONFUSIONS["th"]).weights
    calm, dull = np.array([0.2, 0.2, 0.6]), np.array([0.2, 0.6, 0.2])
    assert calm @ CONFUSIONS["th"] @ weights == pytest.approx(0.2)
    assert dull @ CONFUSIONS["th"] @ weights == pytest.approx(0.2)


def test_the_mood_is_corrected_too():
    for confusion in CONFUSIONS.values():
        for mix in ([0.2, 0.2, 0.6], [0.5, 0.4, 0.1]):
            assert np.array(mix) @ confusion @ correction(confusion).sentiment == pytest.approx(mix[2] - mix[0])


@pytest.mark.parametrize("confusion", [None, np.full((3, 3), 1 / 3), np.eye(3)[::-1]])
def test_a_classifier_that_cannot_tell_is_left_uncorrected(confusion):
    assert correction(confusion) is PERFECT


@given(st.lists(st.floats(0, 1e15), min_size=3, max_size=3), st.sampled_from(sorted(CONFUSIONS)))
def test_shares_are_shares_whatever_the_counts(counts: list[float], lang: str):
    for shares in (
        adjusted_shares(np.array(counts), CONFUSIONS[lang])[0],
        em_shares(np.array(counts), CONFUSIONS[lang], iterations=20),
    ):
        assert (shares >= 0).all()
        assert shares.sum() == pytest.approx(1.0) or (sum(counts) < 1e-6 and shares.sum() <= 1.0)
