"""Lanes that are fenced, cut off, slow, cancelled and reborn, in any order: each record is counted once, in order."""

from __future__ import annotations

import asyncio
import random

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monitor.roles import lane as lane_module
from monitor.roles.lane import Lane, Note
from tests.support.simulation import PARTITION, Broker, Summing, run


class Member:
    """A process that believes it owns the partition, and feeds its lane from wherever the lane says."""

    def __init__(self, broker: Broker) -> None:
        self.broker = broker
        self._next = 0
        self.lane = Lane(
            PARTITION,
            new_processor=lambda: Summing(broker),
            new_writer=broker.writer,
            read_to_end=self._read_to_end,
            opened=self._opened,
            commit_interval_s=0.5,
            on_commit=lambda outputs, seconds: None,
        )
        self.lane.open()
        self._feeding = asyncio.create_task(self._feed())

    async def _opened(self, partition: object, position: int | None) -> None:
        self._next = position or 0

    async def _read_to_end(self, partition: object) -> int | None:
        await self.broker.settle()
        return self._next if self._next >= self.broker.end else None

    async def _feed(self) -> None:
        while True:
            await asyncio.sleep(self.broker.rng.uniform(0.1, 1.5))
            records = [r for r in self.broker.log if r.offset >= self._next][: self.broker.rng.randint(1, 20)]
            # What is offered while the lane is closed is lost, as with a real client: it is fetched again after the seek.
            if records and self.lane.backlog < 60:
                self._next = records[-1].offset + 1
                self.lane.offer(records)

    async def gone(self) -> None:
        self._feeding.cancel()
        await self.lane.close()


async def story(seed: int, trouble: float, members: int) -> Broker:
    """Some owners one after the other and at once, then one that is left in peace."""
    broker = Broker(random.Random(seed), trouble)
    broker.append(broker.rng.randint(1, 60))
    living: list[Member] = []
    for _ in range(members):
        living.append(Member(broker))
        await asyncio.sleep(broker.rng.uniform(0, 30))
        broker.append(broker.rng.randint(0, 60))
        if broker.rng.random() < 0.7:
            # The others may go on for a while: zombies.
            await living.pop(broker.rng.randrange(len(living))).gone()
    for member in living:
        await member.gone()
    broker.trouble = 0.0
    last = Member(broker)
    while broker.committed is None or broker.committed.offset < broker.end:
        await asyncio.sleep(1)
    await asyncio.sleep(30)
    await last.gone()
    return broker


@pytest.fixture(autouse=True)
def virtual_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    class Clock:
        @staticmethod
        def monotonic() -> float:
            return asyncio.get_running_loop().time()

    monkeypatch.setattr(lane_module, "time", Clock)


@settings(max_examples=25)
@given(seed=st.integers(0, 2**32), trouble=st.sampled_from([0.0, 0.05, 0.2]), members=st.integers(0, 4))
def test_each_record_is_counted_once_and_in_order(seed: int, trouble: float, members: int) -> None:
    broker = run(lambda: story(seed, trouble, members))
    written = [output for output in broker.outputs if output.topic == "out"]
    assert [int(output.value or b"") for output in written] == [record.offset for record in broker.log]
    assert [int(output.key or b"") for output in written] == list(range(1, len(written) + 1))
    assert broker.committed is not None
    assert msgspec.json.decode(broker.committed.note, type=Note) == Note(memo=str(len(broker.log)), read_to=broker.end)
    # At its end and silent it says so, and only then: the claim counts everything.
    assert [output.value for output in broker.outputs if output.topic == "idle"][-1] == b"%d" % len(broker.log)


async def closed_at_once(first: str, ticks: int) -> int:
    """Records that a lane wrote which got one, or was drained, and was closed so many turns of the event loop later."""
    broker = Broker(random.Random(ticks), 0.0)
    member = Member(broker)
    while not member.lane.ready:
        await asyncio.sleep(0.1)
    member._feeding.cancel()
    await asyncio.sleep(1)
    if first == "offer":
        broker.append(1)
        member.lane.offer(broker.log)
    else:
        await member.lane.drain(0.0)
    for _ in range(ticks):
        await asyncio.sleep(0)
    closed, _ = await asyncio.wait([asyncio.create_task(member.lane.close())], timeout=60)
    assert closed
    return len(broker.outputs)


@pytest.mark.parametrize("first", ["offer", "drain"])
@pytest.mark.parametrize("ticks", range(8))
def test_a_lane_is_closed_at_once_even_while_it_is_told_of_something(first: str, ticks: int) -> None:
    assert run(lambda: closed_at_once(first, ticks)) == 0
