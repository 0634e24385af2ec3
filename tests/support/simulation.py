"""A broker and a clock for simulations: transactions, fencing, lost answers and long pauses, all within milliseconds."""

from __future__ import annotations

import asyncio
import random
import selectors
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, TypeVar

from aiokafka.errors import KafkaConnectionError
from aiokafka.structs import ConsumerRecord, TopicPartition

from monitor.broker.committed import Committed
from monitor.broker.writer import Output, PartitionLostError

T = TypeVar("T")
PARTITION = TopicPartition("in", 0)


class _NoWaiting(selectors.DefaultSelector):  # type: ignore[misc,valid-type]
    """Instead of waiting, time passes."""

    passed_s = 0.0

    def select(self, timeout: float | None = None) -> list[Any]:
        ready: list[Any] = super().select(0)
        if not ready and timeout:
            self.passed_s += timeout
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop in which a sleep costs nothing and takes exactly as long as it says."""

    def __init__(self) -> None:
        self._waits = _NoWaiting()
        super().__init__(self._waits)

    def time(self) -> float:
        return self._waits.passed_s


def run(main: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run a coroutine in virtual time."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(main())


class Broker:
    """One input partition, what was written for it, and who may write.

    Args:
        rng: Decides what goes wrong.
        trouble: The chance that a step does.
    """

    def __init__(self, rng: random.Random, trouble: float) -> None:
        self.rng = rng
        self.trouble = trouble
        self.epoch = 0
        self.committed: Committed | None = None
        self.outputs: list[Output] = []
        self.log: list[ConsumerRecord[bytes, bytes]] = []

    def append(self, count: int) -> None:
        """More input; offsets have gaps, as behind the markers of a producer's transactions."""
        for _ in range(count):
            offset = self.log[-1].offset + self.rng.choice((1, 1, 1, 3)) if self.log else 0
            self.log.append(record(offset))

    @property
    def end(self) -> int:
        return self.log[-1].offset + 1 if self.log else 0

    async def settle(self, longest_s: float = 1.0) -> None:
        """Something takes its time, and sometimes far too much."""
        await asyncio.sleep(self.rng.expovariate(8 / longest_s))
        if self.rng.random() < self.trouble / 4:
            await asyncio.sleep(self.rng.uniform(5, 200))

    def writer(self) -> SimulatedWriter:
        return SimulatedWriter(self)


class SimulatedWriter:
    """A transactional writer: whoever starts last is the only one."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._epoch = -1

    async def start(self) -> Committed | None:
        broker = self._broker
        await broker.settle()
        self._fail_sometimes()
        broker.epoch += 1
        self._epoch = broker.epoch
        await broker.settle()
        self._fail_sometimes()
        return broker.committed

    async def write(self, outputs: Sequence[Output], next_offset: int, note: str = "") -> None:
        broker = self._broker
        async with asyncio.timeout(40):
            await broker.settle()
            self._fail_sometimes()
            if self._epoch != broker.epoch:
                raise PartitionLostError
            broker.outputs.extend(outputs)
            broker.committed = Committed(next_offset, note)
            # It is done, and we may never hear of it.
            await broker.settle()
            self._fail_sometimes()

    async def stop(self) -> None:
        await self._broker.settle()

    def _fail_sometimes(self) -> None:
        if self._broker.rng.random() < self._broker.trouble:
            raise KafkaConnectionError("simulated")


class Summing:
    """A processor with state: the number of records so far, written with each of them and restored from what is there."""

    chunk = 7
    idle_s = 5.0

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._count = 0
        self.memo = ""

    async def restore(self, start: Any) -> int | None:
        await self._broker.settle()
        self.memo = start.memo
        rows = [output for output in self._broker.outputs if output.topic == "state"]
        if not rows:
            return start.offset  # type: ignore[no-any-return]
        count, position = rows[-1].value.split(b",")  # type: ignore[union-attr]
        self._count = int(count)
        # What stands beside the offset is as old as the state.
        assert self.memo == str(self._count), (self.memo, self._count)
        return int(position)

    async def start(self, records: Sequence[ConsumerRecord[bytes, bytes]]) -> Awaitable[list[Output]]:
        outputs = []
        for item in records:
            self._count += 1
            outputs.append(Output("out", b"%d" % self._count, b"%d" % item.offset))
        self.memo = str(self._count)
        outputs.append(Output("state", b"s", b"%d,%d" % (self._count, records[-1].offset + 1), latest=True))
        return self._later(outputs)

    async def _later(self, outputs: list[Output]) -> list[Output]:
        await self._broker.settle()
        if self._broker.rng.random() < self._broker.trouble / 4:
            raise RuntimeError("simulated")
        return outputs

    async def idle(self) -> list[Output]:
        return [Output("idle", b"i", b"%d" % self._count)]


def record(offset: int) -> ConsumerRecord[bytes, bytes]:
    return ConsumerRecord(PARTITION.topic, PARTITION.partition, offset, 0, 0, b"k", b"v", None, 1, 1, ())
