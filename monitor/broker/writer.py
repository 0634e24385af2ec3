"""Writing the outputs of one input partition together with its offset: in a transaction, or at least once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.errors import (
    CommitFailedError,
    IllegalGenerationError,
    IllegalOperation,
    IncompatibleBrokerVersion,
    InvalidProducerEpoch,
    KafkaError,
    ProducerFenced,
    RebalanceInProgressError,
    UnknownMemberIdError,
)
from aiokafka.structs import OffsetAndMetadata, TopicPartition

from monitor.broker import client
from monitor.broker.committed import Committed, fetch_committed
from monitor.broker.settings import KafkaSettings

Headers = tuple[tuple[str, bytes], ...]


class Output(NamedTuple):
    """A record to be written; without a partition, its key decides."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: Headers = ()
    partition: int | None = None
    latest: bool = False
    """Whether only the last one of its topic, partition and key matters (a watermark, a row of state)."""


def squash(outputs: Sequence[Output]) -> list[Output]:
    """Drop every `latest` output that a later one of the same commit replaces; the order of the rest stands.

    >>> rows = [Output("s", b"a", b"1", latest=True), Output("o", b"a", b"x"), Output("s", b"a", b"2", latest=True)]
    >>> [output.value for output in squash(rows)]
    [b'x', b'2']
    """
    last = {(o.topic, o.partition, o.key): place for place, o in enumerate(outputs) if o.latest}
    return [o for place, o in enumerate(outputs) if not o.latest or last[o.topic, o.partition, o.key] == place]


class PartitionLostError(Exception):
    """Another member owns the partition now: what is in flight must be forgotten, not repeated."""


WRITE_TIMEOUT_S = 40.0
"""Beyond the transaction timeout (30 s), after which the broker has aborted it anyway. Without it a client that spins on a
dead coordinator (aiokafka#905) would hold its partition for ever."""

_LOST = (
    ProducerFenced,
    InvalidProducerEpoch,
    CommitFailedError,
    IllegalGenerationError,
    UnknownMemberIdError,
    RebalanceInProgressError,
)


class Writer(Protocol):
    """Where the outputs of one input partition go."""

    async def start(self) -> Committed | None:
        """Become the partition's only writer, and only then ask where the group stands; None when nowhere yet."""

    async def write(self, outputs: Sequence[Output], next_offset: int, note: str = "") -> None:
        """Make outputs and offset durable; when it returns they are, when it raises none may be relied on.

        `note` is kept beside the offset, until the next write.

        Raises:
            PartitionLostError: another member owns the partition.
            KafkaError, TimeoutError: the broker did not take it; the partition must be re-opened from its committed offset.
        """

    async def stop(self) -> None:
        """Give the connections back."""


async def _send_all(producer: AIOKafkaProducer, outputs: Sequence[Output]) -> None:
    futures = [
        await producer.send(
            output.topic, output.value, key=output.key, partition=output.partition, headers=list(output.headers)
        )
        for output in outputs
    ]
    if futures:
        await asyncio.gather(*futures)


class TransactionalWriter:
    """Outputs and offset in one transaction, under a transactional id of the input partition's own.

    aiokafka sends offsets without the group's generation (no KIP-447), so the group cannot fence a zombie; the id can:
    whoever starts a writer for the partition makes every older one fail (KIP-98).
    """

    def __init__(self, settings: KafkaSettings, group: str, partition: TopicPartition) -> None:
        self._settings = settings
        self._group = group
        self._partition = partition
        identity = f"{group}.{partition.topic}.{partition.partition}"
        self._producer = client.producer(settings, transactional_id=identity)

    async def start(self) -> Committed | None:
        """Fence older writers: the broker settles their transaction, which then counts or does not."""
        await client.begin(self._producer, self._settings)
        async with asyncio.timeout(client.CONNECT_TIMEOUT_S):
            return await fetch_committed(self._producer.client, self._group, self._partition)

    async def write(self, outputs: Sequence[Output], next_offset: int, note: str = "") -> None:
        """One transaction: see `Writer.write`. One that fails is left to the broker, which aborts it for our successor."""
        offsets = {self._partition: OffsetAndMetadata(next_offset, note)}
        try:
            async with asyncio.timeout(WRITE_TIMEOUT_S):
                await self._producer.begin_transaction()
                await _send_all(self._producer, outputs)
                await self._producer.send_offsets_to_transaction(offsets, self._group)
                await self._producer.commit_transaction()
        except _LOST as error:
            raise PartitionLostError(str(self._partition)) from error
        except IllegalOperation as error:
            # The transaction failed in the background while its records were still being handed over.
            raise KafkaError(f"the transaction is over ({error})") from error

    async def stop(self) -> None:
        """Close the producer."""
        await client.stop(self._producer)


class PlainWriter:
    """Outputs first, then the offset: at least once. Deterministic ids let readers drop the repeats."""

    def __init__(
        self,
        producer: AIOKafkaProducer,
        consumer: Callable[[], AIOKafkaConsumer],
        group: str,
        partition: TopicPartition,
    ) -> None:
        self._producer = producer
        self._consumer = consumer
        self._group = group
        self._partition = partition

    async def start(self) -> Committed | None:
        """The shared producer is started by its owner."""
        async with asyncio.timeout(client.CONNECT_TIMEOUT_S):
            try:
                return await fetch_committed(self._producer.client, self._group, self._partition)
            except IncompatibleBrokerVersion:  # it does not know the request that tells notes too
                offset = await self._consumer().committed(self._partition)
        return Committed(offset) if offset is not None else None

    async def write(self, outputs: Sequence[Output], next_offset: int, note: str = "") -> None:
        """All outputs acknowledged, then the offset: see `Writer.write`."""
        try:
            async with asyncio.timeout(WRITE_TIMEOUT_S):
                await _send_all(self._producer, outputs)
                await self._consumer().commit({self._partition: OffsetAndMetadata(next_offset, note)})
        except _LOST as error:
            raise PartitionLostError(str(self._partition)) from error

    async def stop(self) -> None:
        """The shared producer is stopped by its owner."""


__all__ = ["Headers", "KafkaError", "Output", "PartitionLostError", "PlainWriter", "TransactionalWriter", "Writer"]
