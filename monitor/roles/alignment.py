"""Keeps the partitions of documents together in event time: one that is far ahead of the slowest waits for it.

A detector must keep what is ahead of the slowest partition, since no bucket is closed before that has passed it. How far the
others may be ahead is therefore what bounds its memory (as watermark alignment does in Flink, FLIP-182). Where each partition
stands is known to every process from the notes beside the group's offsets, also of one whose reader died.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import NamedTuple

import msgspec
import structlog
from aiokafka.errors import KafkaError

from monitor.broker.client import explain
from monitor.broker.committed import Committed
from monitor.documents.eventtime import EventClock
from monitor.roles.lane import read_note
from monitor.waiting import told_within

log = structlog.get_logger("monitor.alignment")

EVERY_S = 5.0
"""Between two looks: what a partition reads meanwhile is what it may overshoot by."""

LEAST_AHEAD_MS = 3_600_000
"""Partitions that are nearer to each other never wait: a look comes too seldom for that."""

LOOK_S, END_S = 10.0, 3.0
"""For one look, and for one question where a partition ends: a partition that is offline must not hide the others."""

Ask = Callable[[], Awaitable[Mapping[int, Committed]]]
AskEnd = Callable[[int], Awaitable[int]]


class Standing(NamedTuple):
    """Where the group stands in one partition."""

    time_ms: int
    """Its event clock."""
    read_to: int
    """It has read everything before this offset."""


def standing(committed: Committed) -> Standing | None:
    """What the note beside an offset tells; None when it does not tell the event time."""
    note = read_note(committed)
    try:
        clock = msgspec.json.decode(note.memo or "{}", type=EventClock)
    except msgspec.DecodeError:
        return None
    return None if clock.time_ms is None else Standing(clock.time_ms, max(committed.offset, note.read_to))


class Alignment:
    """Decides which partitions wait.

    Args:
        ahead_ms: How far the event time of a partition may be ahead of the slowest that has unread documents; an hour at least.
        ask: The group's offsets by partition, and the notes beside them.
        end: Where a partition ends now.
    """

    def __init__(self, ahead_ms: int, ask: Ask, end: AskEnd) -> None:
        self.held: dict[int, int | None] = {}
        """Partitions that wait, and where each ends; None when that could not be known."""
        self._ahead_ms = max(ahead_ms, LEAST_AHEAD_MS)
        self._ask = ask
        self._end = end
        self._ends: dict[int, int | None] = {}
        """Where the slow ones ended at the look before; None when that could not be known."""

    async def run(self, stopping: asyncio.Event) -> None:
        """Look every few seconds until `stopping`."""
        while not stopping.is_set():
            try:
                async with asyncio.timeout(LOOK_S):
                    await self.look()
            except (KafkaError, OSError) as error:
                # As it was: a coordinator that moves takes seconds, and nothing is lost by waiting a little longer.
                log.debug("alignment.unknown", reason=explain(error))
            await told_within(stopping, EVERY_S)

    async def look(self) -> None:
        """Compare the partitions.

        One is slow when it is too far behind the first and has not read by now what was there at the look before: so the
        silent ones, and those that keep up whatever their documents' clocks say, hold up nobody; and one whose reader or
        broker is gone does.

        Raises:
            KafkaError, TimeoutError: the group's coordinator does not answer.
        """
        found = {partition: standing(committed) for partition, committed in (await self._ask()).items()}
        known = {partition: place for partition, place in found.items() if place is not None}
        first_ms = max((place.time_ms for place in known.values()), default=0)
        behind = [partition for partition, place in known.items() if place.time_ms < first_ms - self._ahead_ms]
        before = self._ends
        self._ends = await self._ends_of(behind)
        slow = [p for p in behind if p in before and ((end := before[p]) is None or known[p].read_to < end)]
        limit_ms = min((known[p].time_ms for p in slow), default=first_ms) + self._ahead_ms
        held = [partition for partition, place in known.items() if place.time_ms > limit_ms]
        if held != list(self.held):
            log.info("partitions.held", held=held, slow=slow, ahead_h=self._ahead_ms / 3_600_000)
        self.held = await self._ends_of(held)

    async def _ends_of(self, partitions: Sequence[int]) -> dict[int, int | None]:
        return dict(zip(partitions, await asyncio.gather(*map(self._end_of, partitions)), strict=True))

    async def _end_of(self, partition: int) -> int | None:
        try:
            async with asyncio.timeout(END_S):
                return await self._end(partition)
        except (KafkaError, OSError):  # a TimeoutError is one of the latter
            return None
