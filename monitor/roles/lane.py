"""One input partition of one role: records in order -> processor -> ledger -> writer, with one commit in flight."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple, Protocol

import msgspec
import structlog
from aiokafka.structs import ConsumerRecord, TopicPartition

from monitor.broker.client import explain
from monitor.broker.committed import Committed
from monitor.broker.offsets import Ledger, Work
from monitor.broker.writer import KafkaError, Output, PartitionLostError, Writer, squash
from monitor.waiting import told_within

log = structlog.get_logger("monitor.lane")

MAX_CONCURRENT = 4
"""Batches of one partition between `start` and done: enough to keep the model fed while one batch is prepared and one
is written; more would only hold memory."""

REOPEN_FIRST_S, REOPEN_LAST_S = 0.5, 15.0


class Note(msgspec.Struct, omit_defaults=True):
    """What stands beside a committed offset."""

    begun: int = 0
    """How often work was begun here; a commit of finished work takes it away."""
    memo: str = ""
    """The processor's, about the records before the offset."""
    read_to: int = 0
    """Beyond the offset there is no record before this one: what stands there are the markers of transactions."""


CARE_AFTER = 2
"""So many times work was begun at one offset and never ended: no coincidence any more (a kill, a host that went away)."""

ALONE_AFTER = 3
"""Care has not helped: no record is deadly by itself, but some are together (memory, a fault of one shape of batch)."""


class Start(NamedTuple):
    """Where a lane begins."""

    offset: int | None
    """The group's committed offset, None when there is none."""
    careful_until: int = 0
    """Records before this offset ended the process, or the lane, the last times: find out which, and refuse it."""
    alone: bool = False
    """That has not helped: until then take each record by itself."""
    memo: str = ""
    """As the processor gave it behind the last record before the offset; empty when it is not known."""


class Processor(Protocol):
    """What a role does with the records of one partition; made anew when the partition is (re)opened."""

    @property
    def chunk(self) -> int:
        """Most records that one `start` takes: a unit of work, and of what a crash repeats."""

    async def restore(self, start: Start) -> int | None:
        """Bring back the state; returns the offset to go on from, or None for the oldest there is."""

    async def start(self, records: Sequence[ConsumerRecord[bytes, bytes]]) -> Awaitable[list[Output]]:
        """Take records; called in order, one call at a time. The awaitable gives the outputs when they are ready."""

    @property
    def memo(self) -> str:
        """What the next owner must know of the records taken so far, besides state and outputs; kept with the offset, so short."""

    @property
    def idle_s(self) -> float:
        """How long nothing must have come before `idle` is asked, again and again while nothing comes."""

    async def idle(self) -> list[Output]:
        """What is to be written each time that everything was read and nothing came for `idle_s`."""


IDLE_S = 5.0
"""Silence after which a partition that was read to its end says that it is idle; it says so again after each such silence.
Twice this is what one silent partition delays the alerts of the others."""


class Lane:
    """The life of one assigned partition: open, run, drain, close; re-opened from committed state when a write fails.

    Args:
        partition: The input partition.
        new_processor: Makes a processor with no state.
        new_writer: Makes a writer; starting it fences older ones.
        read_to_end: Asks the broker whether the partition has been read to its end; the client's position if so, else None.
        opened: Called with the position when the lane can take records from it.
        commit_interval_s: Least time between commits.
        on_commit: Called after each commit with the number of outputs and the seconds it took.
    """

    def __init__(
        self,
        partition: TopicPartition,
        *,
        new_processor: Callable[[], Processor],
        new_writer: Callable[[], Writer],
        read_to_end: Callable[[TopicPartition], Awaitable[int | None]],
        opened: Callable[[TopicPartition, int | None], Awaitable[None]],
        commit_interval_s: float,
        on_commit: Callable[[int, float], None],
    ) -> None:
        self.partition = partition
        self.ready = False
        self.lost = False
        self.processor: Processor | None = None
        self.behind_since: float | None = None
        """Since when nothing came although the partition holds more (`time.monotonic`); None while all is well."""
        self._new_processor = new_processor
        self._new_writer = new_writer
        self._read_to_end = read_to_end
        self._opened = opened
        self._commit_interval_s = commit_interval_s
        self._on_commit = on_commit
        self._queue: deque[Sequence[ConsumerRecord[bytes, bytes]]] = deque()
        self._queued = 0
        self._queued_bytes = 0
        self._chunk = 1
        self._expected: int | None = None
        self._ledger: Ledger[Output] = Ledger(0)
        self._asides: list[Output] = []
        self._read_to = 0
        self._writing = 0
        self._writing_bytes = 0
        self._changed = asyncio.Event()
        self._finished = asyncio.Event()
        self._committed_once = asyncio.Event()
        self._committing = False
        self._draining = False
        self._task: asyncio.Task[None] | None = None

    @property
    def backlog(self) -> int:
        """Records taken from the client and not yet committed."""
        return self._queued + self._ledger.records + self._writing

    @property
    def backlog_bytes(self) -> int:
        """Size of those records."""
        return self._queued_bytes + self._ledger.size_bytes + self._writing_bytes

    @property
    def position(self) -> int | None:
        """The next offset to take, None before the lane is open."""
        return self._expected

    def open(self) -> None:
        """Begin: restore, then take records, until `close`."""
        self._task = asyncio.create_task(self._live(), name=f"lane {self.partition.topic}-{self.partition.partition}")

    def offer(self, records: Sequence[ConsumerRecord[bytes, bytes]]) -> None:
        """Take the client's next records; what was taken before (a seek raced a fetch) is left out."""
        if not self.ready or self._expected is None:
            return
        if records[0].offset < self._expected:
            records = [record for record in records if record.offset >= self._expected]
        for place in range(0, len(records), self._chunk):
            self._queue.append(records[place : place + self._chunk])
        if records:
            self._expected = records[-1].offset + 1
            self._queued += len(records)
            self._queued_bytes += _size(records)
            self.behind_since = None
            self._changed.set()

    def skip_to(self, offset: int) -> None:
        """What lies before is not to be had any more."""
        if self._expected is not None:
            self._expected = max(self._expected, offset)

    async def drain(self, deadline: float) -> bool:
        """Finish and commit what was taken; True when nothing is left at `deadline` (`time.monotonic`)."""
        self._draining = True
        self._changed.set()
        self._finished.set()
        while self.ready and self.backlog and time.monotonic() < deadline:
            self._committed_once.clear()
            if not await told_within(self._committed_once, max(0.0, deadline - time.monotonic())):
                break
        self._draining = False
        return not self.backlog

    async def close(self) -> None:
        """Stop at once; what is not committed is read again by the next owner."""
        self.ready = False
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _live(self) -> None:
        """Open and run, again and again: a failed write means that only the committed state can be trusted."""
        wait_s = REOPEN_FIRST_S
        while True:
            started = time.monotonic()
            writer = self._new_writer()
            try:
                await self._run(writer)
            except Exception as error:
                self._report(_first(error), wait_s)
            finally:
                self.ready = False
                self._queue.clear()
                self._asides.clear()
                self._committing = False
                self._queued = self._queued_bytes = self._writing = self._writing_bytes = 0
                self._ledger = Ledger(0)
                self.behind_since = None
                self._committed_once.set()
                await writer.stop()
            if self.lost:
                return
            wait_s = REOPEN_FIRST_S if time.monotonic() - started > REOPEN_LAST_S else min(wait_s * 2, REOPEN_LAST_S)
            await asyncio.sleep(wait_s)

    def _report(self, error: BaseException, wait_s: float) -> None:
        where = {"topic": self.partition.topic, "partition": self.partition.partition}
        if isinstance(error, PartitionLostError):
            self.lost = True
            log.warning("partition.lost", **where)
        elif isinstance(error, KafkaError | OSError | TimeoutError):
            log.warning("partition.reopening", **where, reason=explain(error), retry_in_s=wait_s)
        else:
            log.error("partition.failed", **where, retry_in_s=wait_s, exc_info=error)

    async def _run(self, writer: Writer) -> None:
        committed = await writer.start()
        processor = self._new_processor()
        self._chunk = processor.chunk
        self.processor = processor
        note = read_note(committed)
        begun = note.begun
        careful_until = committed.offset + MAX_CONCURRENT * self._chunk if committed and begun >= CARE_AFTER else 0
        alone = bool(careful_until) and begun >= ALONE_AFTER
        if careful_until:
            log.warning("partition.careful", topic=self.partition.topic, partition=self.partition.partition,
                        offset=committed.offset if committed else 0, attempts=begun, alone=alone)  # fmt: skip
        start = Start(committed.offset if committed else None, careful_until, alone, note.memo)
        position = await processor.restore(start)
        self._ledger = Ledger(position or 0, note.memo)
        self._expected = position or 0
        self.ready = True
        await self._opened(self.partition, position)
        # A group, so that the first failure ends the others and the lane is opened anew.
        async with asyncio.TaskGroup() as group:
            group.create_task(self._process(processor, group, writer, begun))

    async def _process(self, processor: Processor, group: asyncio.TaskGroup, writer: Writer, begun: int) -> None:
        slots = asyncio.Semaphore(MAX_CONCURRENT)
        one_at_a_time = asyncio.Lock()
        group.create_task(self._commit(writer, one_at_a_time))
        await self._await_records(processor)
        async with one_at_a_time:
            # On record before the first record is touched: whoever finds this note knows that work here never ended.
            await writer.write([], self._ledger.end, _noted(Note(begun + 1, self._ledger.memo)))
        while True:
            await slots.acquire()
            records = self._queue.popleft()
            size_bytes = _size(records)
            work = self._ledger.begin(records[-1].offset + 1, len(records), size_bytes)
            self._queued -= len(records)
            self._queued_bytes -= size_bytes
            result = await processor.start(records)
            work.memo = processor.memo
            group.create_task(self._finish(work, result, slots))
            await self._await_records(processor)

    async def _await_records(self, processor: Processor) -> None:
        """Return when there are records; meanwhile say that the partition is idle, when it truly is."""
        while not self._queue:
            self._changed.clear()
            if not await told_within(self._changed, processor.idle_s):
                await self._look_for_the_end(processor)

    async def _look_for_the_end(self, processor: Processor) -> None:
        if self.backlog or self._asides or self._committing:
            # The next claim is checked only when the last one is written: what it vouches for lies before that.
            return
        try:
            read_to = await self._read_to_end(self.partition)
        except (KafkaError, TimeoutError) as error:
            # A broker that does not answer is not silence: what was written meanwhile would come late.
            log.debug("end.unknown", partition=self.partition.partition, reason=explain(error))
            return
        if read_to is None:
            self.behind_since = self.behind_since or time.monotonic()
        elif not self._queue:
            self.behind_since = None
            self._read_to = read_to
            self._asides = await processor.idle()
            self._finished.set()

    async def _finish(self, work: Work[Output], result: Awaitable[list[Output]], slots: asyncio.Semaphore) -> None:
        try:
            self._ledger.finish(work, await result)
        finally:
            slots.release()
        self._finished.set()

    async def _commit(self, writer: Writer, one_at_a_time: asyncio.Lock) -> None:
        last = 0.0
        while True:
            while not self._ledger.ready and not self._asides:
                self._finished.clear()
                await self._finished.wait()
            wait_s = last + self._commit_interval_s - time.monotonic()
            if wait_s > 0 and not self._draining:
                # Wakes early for a drain only; what finishes meanwhile joins this commit.
                await asyncio.sleep(min(wait_s, 0.05))
                continue
            last = time.monotonic()
            before, before_bytes = self._ledger.records, self._ledger.size_bytes
            outputs, offset = self._ledger.take()
            note = Note(memo=self._ledger.memo, read_to=self._read_to if self._asides else 0)
            outputs += self._asides
            self._asides = []
            self._committing = True
            self._writing = before - self._ledger.records
            self._writing_bytes = before_bytes - self._ledger.size_bytes
            outputs = squash(outputs)
            async with one_at_a_time:
                await writer.write(outputs, offset, _noted(note))
            self._writing = self._writing_bytes = 0
            self._committing = False
            self._committed_once.set()
            self._on_commit(len(outputs), time.monotonic() - last)


def _first(error: BaseException) -> BaseException:
    """The first cause within exception groups."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _size(records: Sequence[ConsumerRecord[bytes, bytes]]) -> int:
    return sum(max(record.serialized_value_size, 0) for record in records)


def read_note(committed: Committed | None) -> Note:
    """The note beside an offset; an empty one when somebody else wrote it."""
    try:
        return msgspec.json.decode(committed.note, type=Note) if committed and committed.note else Note()
    except msgspec.DecodeError:
        return Note()


def _noted(note: Note) -> str:
    return msgspec.json.encode(note).decode()
