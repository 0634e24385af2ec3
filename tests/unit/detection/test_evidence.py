"""The evidence: fair while nothing changes, quick when something does, and honest about when it began."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitor.detection import evidence
from monitor.detection.counts import EFFECTS, NEGATIVE_VOLUME, ROW, SHARE, SIGNALS, VOLUME

VOLUMES = [NEGATIVE_VOLUME, VOLUME]
NO_CHANGE = np.zeros((1, len(SIGNALS), EFFECTS))
WEIGHTS = np.array([0.5, 0.5, 0.0, 0.0])
"""A sample's mean of ratios of large changes says nothing: it hangs on a few."""
STEPS = np.broadcast_to(0.05 * evidence.SHARE_STEPS, (1, EFFECTS))


def accumulate(
    rows: np.ndarray, steps: np.ndarray, bucket: int, *, quiet: np.ndarray = NO_CHANGE, gap: float = 0.0
) -> None:
    spent = np.full((len(rows), len(SIGNALS)), 1.0)
    weights = np.broadcast_to(WEIGHTS, steps.shape)
    evidence.accumulate(rows, steps, quiet, np.full(len(rows), gap), spent, weights, bucket)


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


def quiet_shares(buckets: int, count: int) -> np.ndarray:
    """Rows after so many buckets of three documents each in which nothing changed."""
    rng = np.random.default_rng(2)
    rows, ones = np.zeros(count, ROW), np.ones(count)
    for bucket in range(buckets):
        steps = np.zeros((count, len(SIGNALS), EFFECTS))
        x = rng.binomial(3, 0.3, count).astype(float)
        found = evidence.share_ratio(x, 3 * ones, 0.3 * ones, np.repeat(STEPS, count, 0), 0 * ones, ones)
        steps[:, [SHARE, NEGATIVE_VOLUME]] = found[:, None]
        accumulate(rows, steps, bucket)
    return rows


def test_the_expected_evidence_is_the_time_that_passed():
    rows = quiet_shares(30, 40_000)
    total = evidence.total_evidence(rows).astype(float)
    assert total[:, NEGATIVE_VOLUME].mean() == pytest.approx(30, rel=0.05)
    # What was not staked lies in the purse.
    assert (total[:, SHARE] + rows["purse"][:, SHARE]).mean() == pytest.approx(30, rel=0.02)
    assert (rows["purse"][:, SHARE] >= 0).all()


def test_the_evidence_of_a_share_does_not_fall_below_what_its_purse_can_pay():
    rows = quiet_shares(400, 200)
    before = rows["evidence"][:, SHARE].copy()
    accumulate(rows, NO_CHANGE, 400)
    assert (rows["evidence"][:, SHARE] >= 0.9 * evidence.STAKE * rows["purse"][:, [SHARE]] * WEIGHTS).all()
    assert (rows["evidence"][:, SHARE] >= before).all()
    # And the purse is not hoarded: what passes is staked.
    assert rows["purse"][:, SHARE].mean() < 300


def test_an_alarm_saves_nothing_for_the_time_after_it():
    rows = np.zeros(2, ROW)
    rows["alarm"][1, SHARE] = 1
    for bucket in range(100):
        accumulate(rows, NO_CHANGE - 5.0, bucket)
    assert rows["purse"][0, SHARE] > 5
    assert rows["purse"][1, SHARE] == 0


def test_stakes_go_to_the_sizes_that_the_volume_can_show():
    one, null = np.ones(3), np.full(3, 0.27)
    sought = np.ones((3, EFFECTS), bool)
    sought[2, 0] = False
    effects = np.repeat(STEPS, 3, 0)
    few, many, coarse = evidence.share_weights(null, effects, np.array([50.0, 5_000.0, 5_000.0]), sought)
    assert [few.sum(), many.sum(), coarse.sum()] == pytest.approx([1, 1, 1])
    assert few[2] + few[3] > 0.5
    assert many[0] + many[1] > 0.8
    assert coarse[0] == 0
    nothing = evidence.share_weights(null, effects, 1e-9 * one, np.zeros((3, EFFECTS), bool))
    assert np.isfinite(nothing).all()


@given(st.integers(1, 200), st.floats(-1.0, -1e-6))
def test_a_gap_at_once_is_the_same_as_its_buckets_one_by_one(gap: int, step: float):
    quiet = np.zeros((1, len(SIGNALS), EFFECTS))
    quiet[:, VOLUMES] = step  # no document is no evidence about a share
    once, apart = np.zeros(1, ROW), np.zeros(1, ROW)
    for rows in (once, apart):
        rows["evidence"], rows["climb"] = 5.0 * WEIGHTS, 3.0
    accumulate(once, NO_CHANGE + 0.3, gap, quiet=quiet, gap=gap)
    for bucket in range(gap):
        accumulate(apart, quiet, bucket)
    accumulate(apart, NO_CHANGE + 0.3, gap)
    assert once["evidence"][:, VOLUMES] == pytest.approx(apart["evidence"][:, VOLUMES], rel=1e-6)
    for rows in (once, apart):
        staked = rows["evidence"][:, SHARE].sum() * np.exp(-0.3) + rows["purse"][:, SHARE]
        assert staked == pytest.approx(5.0 + gap + 1, rel=1e-5)


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


def test_where_half_the_size_is_below_the_doubt_an_alarm_descends_by_its_own():
    rows = np.zeros(1, ROW)
    rows["alarm"][0, SHARE] = 4
    steps = NO_CHANGE.copy()
    steps[:, SHARE, 3] = -1.0
    for _ in range(10):
        evidence.descend(rows, steps, NO_CHANGE, np.zeros(1))
    assert rows["descent"][0, SHARE] > 8


@given(st.floats(0, 2.0**63), st.floats(0, 1), st.floats(0.005, 0.97), st.floats(0, 1), st.floats(1e-6, 2.0**62))
def test_steps_are_finite_and_limited(documents: float, part: float, null: float, correlation: float, mean: float):
    one = np.ones(1)
    shares = evidence.share_ratio(one * documents * part, one * documents, one * null, STEPS, one * correlation, one)
    volumes = evidence.volume_ratio(one * documents, one * mean, one * max(correlation, 1e-3), one)
    for steps in (shares, volumes):
        assert (np.abs(steps) <= evidence.STEP_LIMIT).all()
