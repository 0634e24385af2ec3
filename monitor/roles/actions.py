"""Follows the audit topic, so that every replica knows who is muted and what is acknowledged, after a restart too."""

from __future__ import annotations

import asyncio

import msgspec
import structlog
from aiokafka.errors import KafkaError
from aiokafka.structs import TopicPartition

from monitor.broker import client
from monitor.broker.settings import KafkaSettings
from monitor.records import decode_action
from monitor.sinks.actions import Actions

log = structlog.get_logger("monitor.actions")


class ActionFeed:
    """The audit topic as a set of facts.

    Args:
        kafka: The connection.
        topic: The audit topic.
        partitions: How many it has.
    """

    def __init__(self, kafka: KafkaSettings, topic: str, partitions: int) -> None:
        self.actions = Actions()
        self.ready = asyncio.Event()
        """Set when everything was read that was there at the start: nobody is told of a muted entity before."""
        self._kafka = kafka
        self._partitions = [TopicPartition(topic, number) for number in range(partitions)]

    async def run(self, stopping: asyncio.Event) -> None:
        """Read from the beginning and go on until `stopping`; a failure is waited out."""
        while not stopping.is_set():
            reader = client.consumer(self._kafka, group=None, read_committed=True)
            await client.patiently("following actions", reader.start, stopping=stopping)
            try:
                reader.assign(self._partitions)
                await reader.seek_to_beginning()
                ends = await reader.end_offsets(self._partitions)
                while not stopping.is_set():
                    for records in (await reader.getmany(timeout_ms=300)).values():
                        for record in records:
                            self._take(record.value)
                    if not self.ready.is_set() and all([await reader.position(p) >= ends[p] for p in self._partitions]):
                        self.ready.set()
            except (KafkaError, TimeoutError) as error:
                log.warning("actions.failed", reason=client.explain(error))
                await asyncio.sleep(1.0)
            finally:
                await client.stop(reader)

    def _take(self, value: bytes | None) -> None:
        try:
            self.actions.take(decode_action(value or b""))
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            log.warning("action.unreadable", reason=str(error))
