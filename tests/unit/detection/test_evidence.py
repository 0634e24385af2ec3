"""The evidence: fair while nothing changes, quick when something does, and honest about when it began."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitor.detection import evidence
from monitor.detection.counts import EFFECTS, ROW, SIGNALS

NO_CHANGE = np.zeros((1, len(SIGNALS), EFFECTS))
STEPS = np.broadcast_to(0.05 * evidence.SHARE_STEPS, (1, EFFECTS))


def accumulate(
    rows: np.ndarray, steps: np.ndarray, bucket: int, *, quiet: np.ndarray = NO_CHANGE, gap: float = 0.0
) -> None:
    spent = np.full((len(rows), len(SIGNALS)), 1.0)
    evidence.accumulate(rows, steps, quiet, np.full(len(rows), gap), spent, bucket)


def test_likelihood_ratios_of_shares_and_volumes_have_expectation_one():
    rng = np.random.default_rng(0)
    count = 200_000
    documents = np.full(count, 12.0)
    null, ones = np.full(count, 0.3), np.ones(count)
    shares = evidence.share_ratio(
        rng.binomial(12, 0.3, count), documents, null, np.repeat(STEPS[:, :3], count, 0), np.zeros(count), ones
    )
    assert np.exp(shares).mean(0) == pytest.approx(np.ones(3), abs=0.03)
    dispersion = np.full(count, 0.5)
    counts = rng.poisson(4 * rng.gamma(2, 0.5, count)).astype(float)
    volumes = evidence.volume_ratio(counts, np.full(count, 4.0), dispersion, ones)
    # At most one is what bounds false alarms; rare huge ratios keep a sample's mean below it.
    assert (np.exp(volumes[:, :2]).mean(0) <= 1.03).all()
    assert (np.exp(volumes[:, :2]).mean(0) >= 0.9).all()


def test_the_likelihood_ratio_of_a_fallen_mood_has_expectation_one_and_grows_when_praise_ends():
    rng = np.random.default_rng(5)
    count, ones = 200_000, np.ones(200_000)
    effects = np.repeat(2 * STEPS[:, :3], count, 0)

    def steps(mix: list[float]) -> np.ndarray:
        x = rng.multinomial(12, mix, count).astype(float)
        return evidence.sentiment_ratio(x[:, 0], x[:, 2], 12 * ones, 0.2 * ones, 0.4 * ones, effects, 0 * ones, ones)

    assert np.exp(steps([0.2, 0.4, 0.4])).mean(0) == pytest.approx(np.ones(3), abs=0.03)
    assert (steps([0.2, 0.7, 0.1]).mean(0) > 0.1).all()


def test_clustered_samples_are_no_unfair_evidence():
    rng = np.random.default_rng(1)
    count, documents = 200_000, 20
    correlation = 0.1
    shape = (1 - correlation) / correlation
    clustered = rng.binomial(documents, rng.beta(0.3 * shape, 0.7 * shape, count)).astype(float)
    total, null, ones = np.full(count, 20.0), np.full(count, 0.3), np.ones(count)
    effects = np.repeat(STEPS[:, :2], count, 0)
    naive = np.exp(evidence.share_ratio(clustered, total, null, effects, np.zeros(count), ones)).mean(0)
    honest = np.exp(evidence.share_ratio(clustered, total, null, effects, np.full(count, correlation), ones)).mean(0)
    assert (naive > 1.02).all()
    assert honest == pytest.approx(np.ones(2), abs=0.02)


def test_the_expected_evidence_is_the_time_that_passed():
    rng = np.random.default_rng(2)
    rows = np.zeros(40_000, ROW)
    for bucket in range(30):
        steps = np.zeros((len(rows), len(SIGNALS), EFFECTS))
        x = rng.binomial(3, 0.3, len(rows)).astype(float)
        ones = np.ones(len(rows))
        steps[:, 0] = evidence.share_ratio(x, 3 * ones, 0.3 * ones, np.repeat(STEPS, len(rows), 0), 0 * ones, ones)
        accumulate(rows, steps, bucket)
    assert rows["evidence"][:, 0, :2].mean(0) == pytest.approx([30, 30], rel=0.05)


@given(st.integers(1, 200), st.floats(-1.0, -1e-6))
def test_a_gap_at_once_is_the_same_as_its_buckets_one_by_one(gap: int, step: float):
    quiet = np.full((1, len(SIGNALS), EFFECTS), step)
    once, apart = np.zeros(1, ROW), np.zeros(1, ROW)
    for rows in (once, apart):
        rows["evidence"], rows["climb"] = 5.0, 3.0
    accumulate(once, NO_CHANGE + 0.3, gap, quiet=quiet, gap=gap)
    for bucket in range(gap):
        accumulate(apart, quiet, bucket)
    accumulate(apart, NO_CHANGE + 0.3, gap)
    assert once["evidence"] == pytest.approx(apart["evidence"], rel=1e-6)


def test_the_onset_is_where_the_climb_began():
    rows = np.zeros(1, ROW)
    down, up = NO_CHANGE - 0.5, NO_CHANGE + 2.0
    for bucket in range(50):
        accumulate(rows, down if bucket < 40 else up, bucket)
    assert (rows["onset"] == 40).all()


def test_an_alarm_descends_when_its_signal_is_back_and_not_before():
    rows = np.zeros(1, ROW)
    rows["alarm"][0, 0] = 2
    for _ in range(10):
        evidence.descend(rows, NO_CHANGE + 1.0, NO_CHANGE, np.zeros(1))
    assert rows["descent"][0, 0] <= 0
    for _ in range(10):
        evidence.descend(rows, NO_CHANGE - 1.0, NO_CHANGE, np.zeros(1))
    assert rows["descent"][0, 0] > 8
    assert (rows["descent"][0, 1:] == 0).all()


@given(st.floats(0, 2.0**63), st.floats(0, 1), st.floats(0.005, 0.97), st.floats(0, 1), st.floats(1e-6, 2.0**62))
def test_steps_are_finite_and_limited(documents: float, part: float, null: float, correlation: float, mean: float):
    one = np.ones(1)
    shares = evidence.share_ratio(one * documents * part, one * documents, one * null, STEPS, one * correlation, one)
    volumes = evidence.volume_ratio(one * documents, one * mean, one * max(correlation, 1e-3), one)
    for steps in (shares, volumes):
        assert (np.abs(steps) <= evidence.STEP_LIMIT).all()
