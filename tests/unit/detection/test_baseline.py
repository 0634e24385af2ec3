"""What the baseline learns, and what it must not learn from."""

from dataclasses import fields

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitor.detection import baseline
from monitor.detection.counts import ROW, Seen

LENGTH_MS = 300_000
PER_HOUR, PER_DAY = 12, 288
HALF_LIFE_MS = 7 * baseline.DAY_MS


def fresh(born_ms: int = 0) -> np.ndarray:
    rows = np.zeros(1, ROW)
    rows["born"], rows["at"] = born_ms, born_ms - LENGTH_MS
    return rows


def teach(rows: np.ndarray, bucket: int, documents: float, *, frozen: bool = False) -> baseline.Volume:
    clock = baseline.Clock.at(bucket * LENGTH_MS, LENGTH_MS, rows["at"])
    volume = baseline.expect_volume(rows, clock)
    baseline.learn_volume(rows, clock, volume, np.array([float(documents)]), np.array([frozen]), HALF_LIFE_MS)
    rows["at"] = bucket * LENGTH_MS
    return volume


def season(bucket: int) -> float:
    return 20 * (1 + 0.8 * np.cos(2 * np.pi * bucket / PER_DAY)) * (0.5 if bucket // PER_DAY % 7 >= 5 else 1.0)


def learned(days: int, *, seed: int = 0, level: float = 1.0) -> tuple[np.ndarray, list[float]]:
    rng, rows, errors = np.random.default_rng(seed), fresh(), []
    for bucket in range(days * PER_DAY):
        volume = teach(rows, bucket, rng.poisson(level * season(bucket)))
        errors.append(float(volume.mean[0]) / (level * season(bucket)))
    return rows, errors


def test_it_learns_the_hours_and_the_weekdays():
    _, errors = learned(28)
    last_week = np.abs(np.log(errors[-7 * PER_DAY :]))
    assert last_week.mean() < 0.2


def test_poisson_counts_show_no_over_dispersion_and_clumped_ones_do():
    rng = np.random.default_rng(3)
    rows, clumped = fresh(), fresh()
    clump = 0.0
    for bucket in range(10 * PER_DAY):
        teach(rows, bucket, rng.poisson(20))
        clump = 0.9 * clump + np.sqrt(1 - 0.81) * rng.normal()
        teach(clumped, bucket, rng.poisson(20 * np.exp(0.5 * clump - 0.125)))
    clock = baseline.Clock.at(10 * PER_DAY * LENGTH_MS, LENGTH_MS, rows["at"])
    assert 20 * baseline.expect_volume(rows, clock).dispersion[0] < 0.5
    assert 20 * baseline.expect_volume(clumped, clock).dispersion[0] > 5


def test_a_sparse_poisson_series_is_not_taken_for_clumped():
    # It is only looked at when a document comes: that must not look like a clump each time.
    rng, rows = np.random.default_rng(4), fresh()
    for bucket in np.flatnonzero(rng.random(60 * PER_DAY) < 0.01):
        teach(rows, int(bucket), 1)
    clock = baseline.Clock.at(60 * PER_DAY * LENGTH_MS, LENGTH_MS, rows["at"])
    volume = baseline.expect_volume(rows, clock)
    assert volume.mean[0] == pytest.approx(0.01, rel=0.4)
    assert volume.dispersion[0] * volume.mean[0] < 0.5


def test_a_dead_source_teaches_nothing_and_a_quiet_night_does():
    rows, _ = learned(14)
    before = rows.copy()
    teach(rows, 14 * PER_DAY + 2 * PER_DAY, 20)
    assert rows["level"][0, 0] / rows["level"][0, 1] == pytest.approx(
        before["level"][0, 0] / before["level"][0, 1], 0.05
    )
    sparse = fresh()
    for bucket in range(0, 14 * PER_DAY, 24):
        teach(sparse, bucket, 1)
    level = sparse["level"][0, 0] / sparse["level"][0, 1]
    assert level == pytest.approx(1 / 24, rel=0.2)


def test_an_alarm_teaches_the_level_no_more_than_a_busy_hour_would():
    rows, _ = learned(14)
    level = rows["level"][0, 0] / rows["level"][0, 1]
    for bucket in range(14 * PER_DAY, 14 * PER_DAY + 6 * PER_HOUR):
        teach(rows, bucket, 50 * season(bucket), frozen=True)
    assert rows["level"][0, 0] / rows["level"][0, 1] < 1.15 * level


def expect_share(rows: np.ndarray, prior: float, bucket: int = 0) -> baseline.Share:
    clock = baseline.Clock.at(bucket * LENGTH_MS, LENGTH_MS, rows["at"])
    return baseline.expect_share(rows, clock, np.array([prior]), np.array([prior]), np.ones(1), np.ones(1))


def seen(documents: float, negatives: float, positives: float) -> Seen:
    nothing = {field.name: np.zeros(1) for field in fields(Seen)}
    counts = {"documents": documents, "negatives": negatives, "corrected": negatives, "positives": positives}
    counts["sentiment"] = positives - negatives
    return Seen(**nothing | {name: np.array([float(count)]) for name, count in counts.items()})


def test_a_new_language_is_expected_to_be_like_the_others_with_doubt_that_shrinks():
    rows = fresh()
    new = expect_share(rows, 0.4)
    assert new.mean[0] == pytest.approx(0.4)
    assert new.doubt[0] > 0.1
    for bucket in range(200):
        clock = baseline.Clock.at(bucket * LENGTH_MS, LENGTH_MS, rows["at"])
        share = expect_share(rows, 0.4, bucket)
        no = np.zeros(1, bool)
        baseline.learn_share(rows, clock, share, seen(10, 2, 5), no, no, HALF_LIFE_MS)
        rows["at"] = bucket * LENGTH_MS
    known = expect_share(rows, 0.4, 200)
    assert known.mean[0] == pytest.approx(0.2, abs=0.03)
    assert known.doubt[0] < 0.02
    assert known.positive[0] == pytest.approx(0.5, abs=0.03)
    assert known.sentiment[0] == pytest.approx(0.3, abs=0.05)


@given(
    st.lists(st.tuples(st.integers(0, 2 * 10**6), st.sampled_from([0.0, 1.0, 7.0, 1e4, 2.0**63])), max_size=30),
    st.sampled_from([0, -5 * baseline.DAY_MS, 4_102_444_800_000]),
)
def test_it_stays_finite_through_gaps_of_days_huge_counts_and_any_year(steps: list[tuple[int, float]], start: int):
    rows = fresh(start)
    first = bucket = start // LENGTH_MS
    for gap, documents in steps:
        bucket = max(bucket + gap, first)
        volume = teach(rows, bucket, documents)
        for value in (volume.mean, volume.gap_mean, volume.dispersion, volume.doubt):
            assert np.isfinite(value).all()
            assert (value > 0).all()
    assert all(np.isfinite(rows[name]).all() for name in ("level", "hour", "day", "mass"))


def test_one_calm_stretch_is_no_proof_that_documents_are_independent():
    rows, no = fresh(), np.zeros(1, bool)

    def correlation(bucket: int) -> float:
        return float(expect_share(rows, 0.25, bucket).correlation[0])

    for bucket in range(7 * PER_DAY):
        clock = baseline.Clock.at(bucket * LENGTH_MS, LENGTH_MS, rows["at"])
        # As even as can be.
        baseline.learn_share(rows, clock, expect_share(rows, 0.25, bucket), seen(400, 100, 100), no, no, HALF_LIFE_MS)
        rows["at"] = bucket * LENGTH_MS
        if bucket == PER_HOUR:
            assert correlation(bucket) > 0.5 * baseline.PRIOR_CORRELATION
    assert correlation(7 * PER_DAY) < 0.1 * baseline.PRIOR_CORRELATION
