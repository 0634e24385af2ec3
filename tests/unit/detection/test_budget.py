"""The budget: shared over everything watched, never more than there is."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitor.detection import budget
from monitor.detection.settings import DetectionSettings


def test_the_bar_rises_with_the_watchlist_and_falls_with_the_budget():
    settings = DetectionSettings(false_alarms_per_day=2.0)
    bar = budget.bar_days(settings, 100)
    assert bar == budget.SAFETY * 50.0
    assert budget.bar_days(DetectionSettings(false_alarms_per_day=4.0), 100) == bar / 2
    assert budget.bar_days(settings, 200) == bar * 2


def test_signals_that_raise_no_alarm_get_nothing():
    parts = budget.signal_parts(DetectionSettings())
    assert parts.tolist() == [0.5, 0.25, 0.125, 0.125, 0.0]
    assert budget.signal_parts(DetectionSettings(signals=("volume",))).tolist() == [0.0, 0.0, 0.0, 0.0, 1.0]
    assert budget.without(parts, 3).sum() == 1.0
    assert budget.without(parts, 3)[3] == 0.0


@given(st.lists(st.floats(0, 1e12), min_size=1, max_size=20))
def test_an_entitys_parts_add_up_to_no_more_than_all_of_it(mass: list[float]):
    masses = np.array(mass)
    languages = np.full(len(masses), float(len(masses)))
    parts = budget.language_parts(masses, np.full(len(masses), masses.sum()), languages)
    total = parts.sum() + budget.rollup_parts(languages)[0]
    assert total <= 1 + 1e-9
    assert (parts > 0).all()


def test_a_language_that_speaks_more_gets_more():
    parts = budget.language_parts(np.array([900.0, 100.0]), np.array([1000.0, 1000.0]), np.array([2.0, 2.0]))
    assert parts[0] > 2 * parts[1]
    assert parts.sum() == pytest.approx(0.5)
