"""What a role tells of itself at any moment, a rebalance included."""

from __future__ import annotations

from aiokafka.structs import TopicPartition

from monitor.broker import client
from monitor.broker.settings import KafkaSettings
from monitor.metrics import Metrics
from monitor.roles.lane import Lane
from monitor.roles.stream import StreamRole


async def test_lag_is_unknown_while_the_group_decides_anew() -> None:
    """Lanes stay through a rebalance; the client has no partitions in it."""
    kafka, partition = KafkaSettings(bootstrap_servers="127.0.0.1:9"), TopicPartition("documents", 0)
    role = StreamRole("classify", partition.topic, settings=kafka, transactions=True, metrics=Metrics())
    role._consumer = client.consumer(kafka, group="g", read_committed=True)
    role._lanes[partition] = lane = Lane(
        partition, new_processor=None, new_writer=None, read_to_end=None, opened=None, commit_interval_s=1, on_commit=None  # type: ignore[arg-type]
    )  # fmt: skip
    lane._expected = 5
    assert list(role.lags()) == []
    assert role.positions() == {0: 0}
