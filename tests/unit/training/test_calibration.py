"""Calibration undoes what is wrong per language, and every figure is of texts that the fit has not seen."""

from __future__ import annotations

import numpy as np
import pytest

from training.calibration import ANY_LANGUAGE, calibrate, probabilities


def made(
    n: int, seed: int, temperature: float = 1.0, bias: tuple[float, ...] = (0.0, 0.0, 0.0)
) -> tuple[np.ndarray, np.ndarray]:
    """Logits and labels that need this temperature and bias."""
    rng = np.random.default_rng(seed)
    right = rng.normal(size=(n, 3)) * 2
    said = np.exp(right) / np.exp(right).sum(1, keepdims=True)
    truth = np.array([rng.choice(3, p=row) for row in said])
    return (right - np.array(bias)) * temperature, truth


OPTIONS = {"folds": 5, "min_texts": 50, "prior": 6.0, "seed": 0}


def test_each_language_gets_what_it_needs() -> None:
    parts = [made(1500, 0), made(1500, 1, temperature=3.0), made(1500, 2, bias=(-2.0, 0.0, 0.0)), made(20, 3)]
    logits = np.concatenate([logits for logits, _ in parts])
    truth = np.concatenate([truth for _, truth in parts])
    langs = ["en"] * 1500 + ["de"] * 1500 + ["th"] * 1500 + ["zz"] * 20
    found = calibrate(logits, truth, langs, **OPTIONS).entries
    assert set(found) == {ANY_LANGUAGE, "de", "en", "th"}  # 20 texts say too little
    assert found["de"]["temperature"] == pytest.approx(3.0, rel=0.15)
    assert found["th"]["bias"][0] == pytest.approx(-2.0, abs=0.3)
    for lang in ("de", "th"):
        assert found[lang]["ece_after"] < found[lang]["ece_before"]
        assert np.allclose(np.sum(found[lang]["confusion"], axis=1), 1)
    assert found["th"]["macro_f1"] > found["th"]["macro_f1_before"]


def test_the_figures_are_not_of_the_fit_itself() -> None:
    """Labels that have nothing to do with the logits: fitted and judged on the same texts, they would look learned."""
    rng = np.random.default_rng(0)
    logits, truth = rng.normal(size=(90, 7)) * 3, rng.integers(0, 7, 90)
    found = calibrate(logits, truth, ["en"] * 90, **OPTIONS | {"prior": 0.01})
    assert found.entries[ANY_LANGUAGE]["accuracy"] < 0.3
    assert found.probabilities.shape == (90, 7)


def test_a_script_has_its_entry_and_so_has_the_language() -> None:
    logits, truth = made(300, 0)
    found = calibrate(logits, truth, ["hi-Latn"] * 150 + ["en"] * 150, **OPTIONS).entries
    assert {"hi-Latn", "hi", "en"} < set(found)
    assert found["hi"]["n"] == found["hi-Latn"]["n"] == 150


def test_a_zero_shot_language_takes_the_general_parameters() -> None:
    logits, truth = made(600, 0)
    other, answers = made(600, 1, bias=(-2.0, 0.0, 0.0))
    found = calibrate(
        np.concatenate([logits, other]), np.concatenate([truth, answers]), ["en"] * 600 + ["sw"] * 600,
        **OPTIONS, zero_shot=["sw"],
    ).entries  # fmt: skip
    assert found["sw"]["zero_shot"]
    assert found["sw"]["bias"] == found[ANY_LANGUAGE]["bias"]


def test_probabilities_are_as_the_bundle_defines_them() -> None:
    from monitor.inference.bundle import Calibration

    logits, _ = made(50, 4)
    eye = tuple(tuple(row) for row in np.eye(3).tolist())
    theirs = Calibration(temperature=2.0, bias=(0.5, -0.25, 0.0), confusion=eye, n=1).probabilities(logits)
    assert np.allclose(probabilities(logits, np.array([np.log(2.0), 0.5, -0.25])), theirs)
