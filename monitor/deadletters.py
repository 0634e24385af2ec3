"""Sending dead letters back, once what was wrong is mended: documents to be read again, alerts to the sink that refused them."""

from __future__ import annotations

import asyncio
import base64
from collections import Counter
from collections.abc import AsyncIterator, Sequence, Set
from types import TracebackType
from typing import Self

import msgspec
from aiokafka import AIOKafkaConsumer
from aiokafka.errors import KafkaError
from aiokafka.structs import ConsumerRecord, OffsetAndMetadata, TopicPartition

from monitor.broker import client
from monitor.broker.deadletter import FOR_SINK, REPLAYED
from monitor.broker.reading import is_behind
from monitor.broker.settings import KafkaSettings
from monitor.config import Config
from monitor.errors import BabelwatchError
from monitor.records import DeadLetter, decode_deadletter

Kind = tuple[str, ...]
"""What letters have in common: role, reason, and the sink if there is one."""


async def replay_deadletters(
    config: Config, reasons: Set[str], *, sinks: Set[str] = frozenset(), dry_run: bool
) -> Counter[str]:
    """Send documents back to the documents topic, and refused alerts to the alerts topic for their sink alone.

    A sink's alert passes the notify role again, with its mutes and hours; one that a later step of its incident has
    overtaken is not told any more. Each kind of letter has a consumer group that remembers how far it came, so a letter is
    sent back once, and those that were left out can be sent another time.

    Args:
        config: Where Kafka is.
        reasons: Only these; empty for all.
        sinks: Only alerts that these refused; empty for all, documents too.
        dry_run: Count only, and remember nothing.

    Returns:
        Letters by what was done: `sent <reason>`, `cut <reason>` (the value was shortened), `no sink <name>` (it is not in the
        configuration), `left`; what no role would take again is in none.

    Raises:
        BabelwatchError: no Kafka or no such sink is named, or the broker refuses; what was sent may then be sent again.
    """
    if config.kafka.embedded:
        raise BabelwatchError("no Kafka is named", where="kafka.bootstrap_servers")
    known = {sink.name for sink in config.sinks}
    if unknown := sorted(sinks - known):
        raise BabelwatchError(
            f"there is no sink {unknown[0]!r}", where="sinks", hint=f"one of {', '.join(sorted(known))}"
        )
    counts = await client.patiently(
        "looking up the topics", lambda: client.ensure_topics(config.kafka, [config.topics.deadletter])
    )
    partitions = [TopicPartition(config.topics.deadletter, p) for p in range(counts[config.topics.deadletter])]
    done: Counter[str] = Counter()
    reader = client.consumer(config.kafka, group=None, read_committed=True)
    writer = client.producer(config.kafka)
    await client.patiently("connecting", reader.start)
    await client.patiently("connecting", writer.start)
    try:
        async with _Progress(config.kafka, partitions) as progress:
            sending = []
            async for record, letter in _letters(reader, partitions):
                kind = (letter.role, letter.reason, *([letter.sink] if letter.sink else []))
                if await progress.passed(kind, record):
                    continue
                what = _what(letter, reasons, sinks, known)
                done[what] += 1
                if what.startswith("sent ") and not dry_run:
                    topic = config.topics.alerts if letter.sink else config.topics.documents
                    sent = await writer.send(topic, _value(letter), key=record.key, headers=_headers(letter, record))
                    sending.append(sent)
                    progress.note(kind, record)
            # Remembered only once all of it was taken.
            await asyncio.gather(*sending)
            await progress.commit()
    except KafkaError as error:
        raise BabelwatchError(
            f"the broker refused: {client.explain(error)}", hint="nothing of this run is remembered"
        ) from error
    finally:
        await client.stop(writer)
        await client.stop(reader)
    return done


async def _letters(
    reader: AIOKafkaConsumer, partitions: Sequence[TopicPartition]
) -> AsyncIterator[tuple[ConsumerRecord[bytes, bytes], DeadLetter]]:
    """Every letter that is there now and that some role may take again."""
    reader.assign(partitions)
    await reader.seek_to_beginning()
    ends = await reader.end_offsets(partitions)
    while await is_behind(reader, ends):
        for batch in (await reader.getmany(timeout_ms=500, max_records=500)).values():
            for record in batch:
                try:
                    letter = decode_deadletter(record.value or b"")
                except (msgspec.DecodeError, UnicodeDecodeError):
                    continue
                if letter.role == "classify" or letter.sink:
                    yield record, letter


def _what(letter: DeadLetter, reasons: Set[str], sinks: Set[str], known: Set[str]) -> str:
    if (reasons and letter.reason not in reasons) or (sinks and letter.sink not in sinks):
        return "left"
    if letter.sink and letter.sink not in known:
        return f"no sink {letter.sink}"
    return f"{'cut' if letter.truncated else 'sent'} {letter.reason}"


def _value(letter: DeadLetter) -> bytes:
    return base64.b64decode(letter.value) if letter.encoding == "base64" else letter.value.encode()


def _headers(letter: DeadLetter, record: ConsumerRecord[bytes, bytes]) -> Sequence[tuple[str, bytes]]:
    place = (REPLAYED, f"{record.topic}/{record.partition}/{record.offset}".encode())
    return [place, (FOR_SINK, letter.sink.encode())] if letter.sink else [place]


class _Progress:
    """How far each kind of letters was sent back: the committed offsets of a consumer group for each.

    Args:
        settings: The connection.
        partitions: Of the dead-letter topic.
    """

    def __init__(self, settings: KafkaSettings, partitions: Sequence[TopicPartition]) -> None:
        self._settings = settings
        self._partitions = partitions
        self._groups: dict[Kind, AIOKafkaConsumer] = {}
        self._passed: dict[Kind, dict[TopicPartition, int]] = {}
        self._noted: dict[Kind, dict[TopicPartition, OffsetAndMetadata]] = {}

    async def passed(self, kind: Kind, record: ConsumerRecord[bytes, bytes]) -> bool:
        """Whether a letter was sent back by an earlier run."""
        if kind not in self._groups:
            name = ".".join((self._settings.group_prefix, "deadletter-replay", *kind))
            group = self._groups[kind] = client.consumer(self._settings, group=name, read_committed=True)
            await client.patiently("connecting", group.start)
            group.assign(self._partitions)
            self._passed[kind] = {p: await group.committed(p) or 0 for p in self._partitions}
        return bool(record.offset < self._passed[kind][TopicPartition(record.topic, record.partition)])

    def note(self, kind: Kind, record: ConsumerRecord[bytes, bytes]) -> None:
        """It was sent back now."""
        place = TopicPartition(record.topic, record.partition)
        self._noted.setdefault(kind, {})[place] = OffsetAndMetadata(record.offset + 1, "")

    async def commit(self) -> None:
        """Remember what was noted."""
        for kind, offsets in self._noted.items():
            await self._groups[kind].commit(offsets)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for group in self._groups.values():
            await client.stop(group)
