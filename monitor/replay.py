"""Sending a file of documents (JSON Lines, plain, .gz or .zst) into Kafka, at the pace of its own event time."""

from __future__ import annotations

import asyncio
import gzip
import io
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import zstandard

from monitor.broker import client
from monitor.broker.settings import KafkaSettings
from monitor.documents.eventtime import EventClock
from monitor.documents.parse import DocumentSettings, Parser
from monitor.errors import BabelwatchError

ZSTD_MAGIC, GZIP_MAGIC = b"\x28\xb5\x2f\xfd", b"\x1f\x8b"

PACE_STEP_S = 0.05
"""Records due within so short a time go out together: a sleep for each would cost more than it orders."""


@dataclass(frozen=True, slots=True)
class Line:
    """One record to be sent."""

    value: bytes | None
    """None for a line `null`: a record without a value, as compaction leaves them."""
    key: bytes | None
    """The document's id, so that repeats of one id meet in one partition."""
    due_ms: int | None
    """Event time at which the stream has come so far; None before it is known."""


def open_lines(path: Path) -> IO[bytes]:
    """Open a file of lines, whatever it is compressed with (told by its first bytes, not by its name).

    Raises:
        BabelwatchError: the file cannot be read.
    """
    try:
        magic = path.open("rb").read(4)
    except OSError as error:
        raise BabelwatchError(f"cannot be read: {error.strerror}", where=str(path)) from None
    if magic.startswith(GZIP_MAGIC):
        return io.BufferedReader(gzip.GzipFile(path, "rb"))
    if magic.startswith(ZSTD_MAGIC):
        return io.BufferedReader(zstandard.ZstdDecompressor().stream_reader(path.open("rb")))
    return path.open("rb")


def read_lines(path: Path, settings: DocumentSettings) -> Iterator[Line]:
    """The records of a file in their order; lines that are no documents are sent as they are.

    Raises:
        BabelwatchError: the file cannot be read.
    """
    clock, parser = EventClock(), Parser(settings)
    source = open_lines(path)
    try:
        for raw in iter(source.readline, b""):
            value = raw.rstrip(b"\r\n")
            if not value:
                continue
            identity, published_ms = parser.peek(value)
            due_ms = clock.observe(published_ms) if published_ms is not None else clock.time_ms
            yield Line(None if value == b"null" else value, identity.encode() if identity else None, due_ms)
    except (OSError, EOFError, zstandard.ZstdError) as error:
        raise BabelwatchError(f"is damaged: {error}", where=str(path)) from None


async def paced(lines: Iterator[Line], speed: float) -> AsyncIterator[list[Line]]:
    """Group lines by the moment they are due: event time runs `speed` times as fast as the clock, 0 without waiting."""
    started: tuple[float, int] | None = None
    group: list[Line] = []
    for line in lines:
        if speed > 0 and line.due_ms is not None:
            if started is None:
                started = (time.monotonic(), line.due_ms)
            ahead_s = (line.due_ms - started[1]) / 1000 / speed - (time.monotonic() - started[0])
            if ahead_s > PACE_STEP_S:
                yield group
                group = []
                await asyncio.sleep(ahead_s)
        group.append(line)
        if len(group) >= 1000:
            yield group
            group = []
    yield group


async def replay(
    path: Path,
    *,
    kafka: KafkaSettings,
    topic: str,
    documents: DocumentSettings,
    speed: float,
    on_progress: Callable[[int, int | None], None],
) -> int:
    """Send a file into a topic; returns the number of records.

    Args:
        path: The file.
        kafka: Where to.
        topic: Created when missing.
        documents: How to find a document's id and time.
        speed: Event time per time, 0 for as fast as it goes.
        on_progress: Told the number of records sent and the event time reached (ms).

    Raises:
        BabelwatchError: the file cannot be read.
    """
    lines = read_lines(path, documents)
    await client.patiently("looking up the topic", lambda: client.ensure_topics(kafka, [topic]))
    producer = client.producer(kafka)
    await client.patiently("connecting", producer.start)
    sent = 0
    try:
        async for group in paced(lines, speed):
            for line in group:
                # A record has a key or a value: the client insists.
                key = line.key if line.value is not None else b""
                await producer.send(topic, line.value, key=key)
            sent += len(group)
            on_progress(sent, group[-1].due_ms if group else None)
        await producer.flush()
    finally:
        await producer.stop()
    return sent


def count_lines(path: Path) -> int:
    """Lines in a file, for a progress bar."""
    source = open_lines(path)
    return sum(1 for raw in iter(source.readline, b"") if raw.strip())


__all__ = ["Line", "count_lines", "open_lines", "paced", "read_lines", "replay"]
