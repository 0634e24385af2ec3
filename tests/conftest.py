"""Fixtures that all tests share: the real brokers, and names of one's own on them."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from monitor.broker.settings import KafkaSettings, TopicSettings
from tests.support import servers

ROOT = Path(__file__).parent.parent

# A shared two-core machine is too noisy for hypothesis' own clock.
settings.register_profile("default", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("default")


def kafka_home() -> Path:
    """The folder of a real Apache Kafka, or a skip with the reason."""
    home = os.environ.get("KAFKA_HOME")
    if not home or not (Path(home) / "kafka-node").exists():
        pytest.skip("KAFKA_HOME names no Apache Kafka")
    return Path(home).resolve()


@pytest.fixture(scope="session")
def tansu_address() -> Iterator[str]:
    server = servers.tansu().start()
    yield server.address
    server.stop()


@pytest.fixture(scope="session")
def kafka_address() -> Iterator[str]:
    server = servers.kafka(kafka_home()).start()
    yield server.address
    server.stop()


@pytest.fixture(params=["tansu", "kafka"])
def broker_address(request: pytest.FixtureRequest) -> str:
    """A test with this runs twice: on the embedded broker and on a real Kafka."""
    return str(request.getfixturevalue(f"{request.param}_address"))


@pytest.fixture
def names() -> TopicSettings:
    """Topics of the test's own, so that tests share a broker and not their records."""
    prefix = f"t{uuid.uuid4().hex[:8]}"
    return TopicSettings(**{field: f"{prefix}.{field}" for field in TopicSettings.model_fields})


@pytest.fixture
def kafka_settings(broker_address: str, names: TopicSettings) -> KafkaSettings:
    return KafkaSettings(
        bootstrap_servers=broker_address,
        group_prefix=names.documents.split(".")[0],
        commit_interval_s=0.05,
        session_timeout_s=10,
    )
