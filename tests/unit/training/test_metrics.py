"""Scores are what a count by hand gives; intervals hold what they should."""

from __future__ import annotations

import numpy as np
import pytest

from training.metrics import calibration_error, confusion, macro_f1, score, score_languages


def test_macro_f1_averages_over_labels() -> None:
    truth, said = np.array([0, 0, 1, 2]), np.array([0, 1, 1, 0])
    assert macro_f1(truth, said, 3) == pytest.approx((0.5 + 2 / 3 + 0) / 3)


def test_a_label_that_nobody_names_does_not_count() -> None:
    assert macro_f1(np.array([0, 1]), np.array([0, 1]), 5) == 1.0


def test_confusion_has_the_truth_in_rows() -> None:
    assert confusion(np.array([0, 0, 1]), np.array([1, 1, 1]), 2).tolist() == [[0, 2], [0, 1]]


def test_calibration_error_is_the_gap_between_confidence_and_accuracy() -> None:
    probabilities = np.array([[0.9, 0.1], [0.9, 0.1]])
    assert calibration_error(np.array([0, 1]), probabilities) == pytest.approx(0.4)


def made(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    probabilities = rng.dirichlet([1.0, 1.0, 1.0], n)
    truth = np.array([rng.choice(3, p=row) for row in probabilities])
    return truth, probabilities


def test_intervals_hold_the_figure_and_shrink_with_more_texts() -> None:
    few, many = (score(*made(n, 3), np.random.default_rng(0)) for n in (100, 1600))
    for found in (few, many):
        assert found.accuracy_low < found.accuracy < found.accuracy_high
        assert found.macro_f1_low < found.macro_f1 < found.macro_f1_high
        assert found.ece < found.ece_high
    ratio = (few.macro_f1_high - few.macro_f1_low) / (many.macro_f1_high - many.macro_f1_low)
    assert 3 < ratio < 5.5  # the square root of 16, give or take


def test_an_interval_of_accuracy_is_the_binomial_one() -> None:
    truth, probabilities = made(900, 5)
    found = score(truth, probabilities, np.random.default_rng(0))
    half = 1.96 * np.sqrt(found.accuracy * (1 - found.accuracy) / 900)
    assert (found.accuracy_high - found.accuracy_low) / 2 == pytest.approx(half, rel=0.1)


def test_each_language_weighs_the_same_in_the_mean() -> None:
    truth = np.array([0] * 30 + [0] * 3)
    probabilities = np.array([[0.8, 0.2]] * 30 + [[0.3, 0.7]] * 3)
    languages = np.array(["en"] * 30 + ["sw"] * 3)
    scores, mean = score_languages(truth, probabilities, languages, np.random.default_rng(0))
    assert list(scores) == ["en", "sw"]
    assert (scores["en"].accuracy, scores["sw"].accuracy, mean.accuracy) == (1.0, 0.0, 0.5)
    assert (mean.n, mean.accuracy_low, mean.accuracy_high) == (33, 0.5, 0.5)  # certain within each language
