"""Writing the outputs of one input partition together with its offset: in a transaction, or at least once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.errors import (
    CommitFailedError,
    IllegalGenerationError,
    InvalidProducerEpoch,
    KafkaError,
    ProducerFenced,
    RebalanceInProgressError,
    UnknownMemberIdError,
)
from aiokafka.structs import TopicPartition

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

    async def start(self) -> None:
        """Become the partition's only writer."""

    async def write(self, outputs: Sequence[Output], next_offset: int) -> None:
        """Make outputs and offset durable; when it returns they are, when it raises none may be relied on.

        Raises:
            PartitionLostError: another member owns the partition.
            KafkaError: the broker did not take it; the partition must be re-opened from its committed offset.
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

    def __init__(self, producer: AIOKafkaProducer, group: str, partition: TopicPartition) -> None:
        self._producer = producer
        self._group = group
        self._partition = partition

    async def start(self) -> None:
        """Fence older writers; their open transaction is aborted by the broker."""
        await self._producer.start()

    async def write(self, outputs: Sequence[Output], next_offset: int) -> None:
        """One transaction: see `Writer.write`."""
        try:
            await self._producer.begin_transaction()
            try:
                await _send_all(self._producer, outputs)
                await self._producer.send_offsets_to_transaction({self._partition: next_offset}, self._group)
            except BaseException:
                await self._producer.abort_transaction()
                raise
            await self._producer.commit_transaction()
        except _LOST as error:
            raise PartitionLostError(str(self._partition)) from error

    async def stop(self) -> None:
        """Close the producer; a transaction still open is aborted by its successor."""
        await self._producer.stop()


class PlainWriter:
    """Outputs first, then the offset: at least once. Deterministic ids let readers drop the repeats."""

    def __init__(
        self, producer: AIOKafkaProducer, consumer: Callable[[], AIOKafkaConsumer], partition: TopicPartition
    ) -> None:
        self._producer = producer
        self._consumer = consumer
        self._partition = partition

    async def start(self) -> None:
        """The shared producer is started by its owner."""

    async def write(self, outputs: Sequence[Output], next_offset: int) -> None:
        """All outputs acknowledged, then the offset: see `Writer.write`."""
        await _send_all(self._producer, outputs)
        try:
            await self._consumer().commit({self._partition: next_offset})
        except _LOST as error:
            raise PartitionLostError(str(self._partition)) from error

    async def stop(self) -> None:
        """The shared producer is stopped by its owner."""


__all__ = ["Headers", "KafkaError", "Output", "PartitionLostError", "PlainWriter", "TransactionalWriter", "Writer"]
