"""Quiet traffic of every kind stays within the budget: independent, over-dispersed, sparse, dense, seasonal, with harmless bursts.

`benchmarks/false_alarms.py` asks the same at length, with confidence bounds; this is its traffic, for a fortnight.
"""

from __future__ import annotations

from typing import Any

import pytest

from monitor.detection import budget, decide
from tests.support.scripts import script

DAYS, ENTITIES, BUCKET_S = 14, 6, 3600


@pytest.fixture(scope="module")
def benchmark() -> Any:
    return script("benchmarks", "false_alarms")


@pytest.mark.parametrize("per_day", [0.3, 3.0])
def test_every_kind_of_quiet_traffic_stays_within_the_budget(benchmark: Any, per_day: float) -> None:
    alarms, _ = benchmark.quiet_alarms(benchmark.KINDS, per_day, ENTITIES, DAYS, BUCKET_S)
    for kind, found in zip(benchmark.KINDS, alarms, strict=True):
        assert found.sum() <= per_day * DAYS, kind.name


def test_without_the_bar_it_would_not(benchmark: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget, "SAFETY", 1e-4)
    monkeypatch.setattr(decide, "MIN_EVIDENCE", 0.0)
    alarms, _ = benchmark.quiet_alarms(benchmark.KINDS, 0.3, ENTITIES, DAYS, BUCKET_S)
    assert alarms.sum() > 10 * 0.3 * DAYS
