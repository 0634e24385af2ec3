"""Where a consumer group stands, with the notes beside its offsets; asked so that a transaction being settled can be waited for."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, NamedTuple

from aiokafka.client import AIOKafkaClient, ConnectionGroup, CoordinationType
from aiokafka.errors import BrokerResponseError, KafkaError, for_code
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.types import (
    Boolean,
    CompactArray,
    CompactString,
    Int16,
    Int32,
    Int64,
    Schema,
    TaggedFields,
)
from aiokafka.structs import TopicPartition

UNSTABLE = 88
"""UNSTABLE_OFFSET_COMMIT: a transaction that moves this offset has ended, and the coordinator has not yet taken note."""

RETRY_S = 0.05


class Committed(NamedTuple):
    """A group's committed offset of one partition, and the note that was committed with it."""

    offset: int
    note: str = ""


class _Response(Response):  # type: ignore[misc]
    API_KEY = 9
    API_VERSION = 7
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        (
            "topics",
            CompactArray(
                ("name", CompactString("utf-8")),
                (
                    "partitions",
                    CompactArray(
                        ("partition", Int32),
                        ("offset", Int64),
                        ("leader_epoch", Int32),
                        ("metadata", CompactString("utf-8")),
                        ("error_code", Int16),
                        ("tags", TaggedFields),
                    ),
                ),
                ("tags", TaggedFields),
            ),
        ),
        ("error_code", Int16),
        ("tags", TaggedFields),
    )


class _RequestV7(RequestStruct):  # type: ignore[misc]
    FLEXIBLE_VERSION = True
    API_KEY = 9
    API_VERSION = 7
    RESPONSE_TYPE = _Response
    SCHEMA = Schema(
        ("group_id", CompactString("utf-8")),
        (
            "topics",
            CompactArray(
                ("name", CompactString("utf-8")),
                ("partitions", CompactArray(Int32)),
                ("tags", TaggedFields),
            ),
        ),
        ("require_stable", Boolean),
        ("tags", TaggedFields),
    )


class _OffsetFetch(Request[_RequestV7]):  # type: ignore[misc]
    """OffsetFetch v7 (KIP-447), which aiokafka does not have; brokers since 2.5 do, and all that have transactions we use."""

    API_KEY = 9

    def __init__(self, group: str, topic: str, partitions: Sequence[int], *, stable: bool) -> None:
        self._group = group
        self._topic = topic
        self._partitions = partitions
        self._stable = stable

    def build(self, request_struct_class: type[_RequestV7]) -> _RequestV7:
        topics: list[Any] = [(self._topic, list(self._partitions), {})]
        return request_struct_class(self._group, topics, self._stable, {})


async def fetch_committed(client: AIOKafkaClient, group: str, partition: TopicPartition) -> Committed | None:
    """The group's offset with every ended transaction counted in, None when nothing was ever committed.

    Without `require_stable` a coordinator of Kafka 3 may still tell the offset before the last transaction for a moment
    after that transaction is over: its records would be written twice.

    Raises:
        KafkaError: the coordinator cannot be reached, or refuses.
    """
    while True:
        code, found = await _ask(client, group, partition.topic, [partition.partition], stable=True)
        if code != UNSTABLE:
            return _told(code, found).get(partition.partition)
        await asyncio.sleep(RETRY_S)


async def last_committed(
    client: AIOKafkaClient, group: str, topic: str, partitions: Sequence[int]
) -> dict[int, Committed]:
    """The group's offsets as they are at this moment, by partition; those where nothing was ever committed are left out.

    Raises:
        KafkaError: the coordinator cannot be reached, or refuses.
    """
    return _told(*await _ask(client, group, topic, partitions, stable=False))


async def _ask(
    client: AIOKafkaClient, group: str, topic: str, partitions: Sequence[int], *, stable: bool
) -> tuple[int, dict[int, Committed]]:
    """The first error, and what was told."""
    node = await client.coordinator_lookup(CoordinationType.GROUP, group)
    request = _OffsetFetch(group, topic, partitions, stable=stable)
    answer: Any = await client.send(node, request, group=ConnectionGroup.COORDINATION)
    entries = [entry for _, told, _ in answer.topics for entry in told]
    code = answer.error_code or next((entry[4] for entry in entries if entry[4]), 0)
    return code, {entry[0]: Committed(entry[1], entry[3] or "") for entry in entries if entry[1] >= 0}


def _told(code: int, found: dict[int, Committed]) -> dict[int, Committed]:
    if code:
        raise _error(code)
    return found


def _error(code: int) -> KafkaError:
    kind = for_code(code)
    return kind() if issubclass(kind, KafkaError) else BrokerResponseError(f"error {code}")
