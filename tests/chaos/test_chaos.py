"""Three minutes of faults on a real three-node Kafka: nothing lost, nothing twice, nothing different."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos.harness import Chaos
from tests.chaos.schedule import WEIGHTS, schedule
from tests.conftest import kafka_home
from tests.support.cluster import Cluster
from tests.support.tiny_bundle import make_tiny_bundle

FAULTS_S = 116.0


@pytest.mark.chaos
@pytest.mark.kafka
@pytest.mark.timeout(900)
@pytest.mark.xdist_group("chaos")
async def test_nothing_is_lost_twice_or_different_whatever_dies_when(tmp_path: Path) -> None:
    faults = schedule(7, FAULTS_S, every_s=4.0)
    assert len(faults) >= 25
    assert {fault.kind for fault in faults} == set(WEIGHTS)
    cluster = Cluster(kafka_home())
    try:
        await cluster.start()
        report = await Chaos(cluster, tmp_path, make_tiny_bundle(tmp_path / "bundle"), 7, print).run(faults)
    finally:
        await cluster.stop()
    print(report)
    assert report.clean, str(report)
    assert report.alerts >= 4
    assert sum(report.faults.values()) >= 25
