"""Which partitions wait for which, whatever the readers do; no broker."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import msgspec
from aiokafka.errors import KafkaConnectionError
from hypothesis import given
from hypothesis import strategies as st

from monitor.broker.committed import Committed
from monitor.documents.eventtime import EventClock
from monitor.roles.alignment import Alignment, standing
from monitor.roles.lane import Note

HOUR_MS = 3_600_000
AHEAD_MS = 6 * HOUR_MS


def committed(hours: float, offset: int, read_to: int = 0) -> Committed:
    memo = msgspec.json.encode(EventClock(int(hours * HOUR_MS))).decode()
    return Committed(offset, msgspec.json.encode(Note(memo=memo, read_to=read_to)).decode())


@dataclass
class Group:
    """What a coordinator and the leaders of some partitions would tell."""

    offsets: dict[int, Committed] = field(default_factory=dict)
    ends: dict[int, int] = field(default_factory=dict)
    """A partition that is not there is offline."""
    asked: int = 0

    def alignment(self) -> Alignment:
        return Alignment(AHEAD_MS, self.ask, self.end)

    async def ask(self) -> dict[int, Committed]:
        return self.offsets

    async def end(self, partition: int) -> int:
        self.asked += 1
        if partition not in self.ends:
            raise KafkaConnectionError
        return self.ends[partition]


async def held(group: Group, alignment: Alignment, looks: int = 2) -> set[int]:
    for _ in range(looks):
        await alignment.look()
    return set(alignment.held)


async def test_who_is_far_ahead_waits_until_the_slow_one_has_come_near() -> None:
    group = Group({0: committed(10, 50), 1: committed(17, 900), 2: committed(15, 800)}, {0: 60, 1: 1000, 2: 1000})
    alignment = group.alignment()
    assert await held(group, alignment, looks=1) == set(), "nobody is slow at first sight"
    assert await held(group, alignment, looks=1) == {1}
    group.offsets[0] = committed(11, 55)
    assert await held(group, alignment) == set()


async def test_whoever_is_near_costs_no_question() -> None:
    group = Group({number: committed(10 + number, 50) for number in range(4)})
    assert await held(group, group.alignment()) == set()
    assert group.asked == 0


async def test_a_silent_partition_holds_up_nobody_even_behind_the_markers_of_a_transaction() -> None:
    group = Group({0: committed(10, 50, read_to=52), 1: committed(90, 900)}, {0: 52, 1: 1000})
    alignment = group.alignment()
    assert await held(group, alignment, looks=5) == set()
    group.ends[0] = 53
    assert await held(group, alignment, looks=1) == set(), "something came this moment"
    assert await held(group, alignment, looks=1) == {1}, "and is not read"


async def test_one_that_keeps_up_holds_up_nobody_whatever_the_clocks_of_its_documents_say() -> None:
    group = Group({0: committed(10, 0), 1: committed(90, 900)}, {0: 5, 1: 1000})
    alignment = group.alignment()
    for number in range(1, 10):
        await alignment.look()
        assert not alignment.held
        group.offsets[0], group.ends[0] = committed(10, 5 * number), 5 * number + 5


async def test_an_offline_partition_is_waited_for() -> None:
    group = Group({0: committed(10, 50), 1: committed(17, 900)}, {1: 1000})
    assert await held(group, group.alignment()) == {1}


async def test_notes_of_somebody_else_say_nothing() -> None:
    strange = [Committed(5), Committed(5, "moved by hand"), Committed(5, '{"memo":"?"}'), Committed(5, '{"begun":1}')]
    assert [standing(one) for one in strange] == [None] * 4
    group = Group({**dict(enumerate(strange)), 9: committed(90, 900)})
    assert await held(group, group.alignment()) == set()


@given(
    st.dictionaries(st.integers(0, 7), st.tuples(st.integers(0, 48), st.integers(0, 9), st.integers(0, 3)), min_size=1)
)
def test_nobody_waits_for_itself_and_the_bound_holds(places: dict[int, tuple[int, int, int]]) -> None:
    """Somebody can always go on; whoever has no more than `ahead` before the slowest reader does."""
    group = Group(
        {number: committed(hours, offset) for number, (hours, offset, _) in places.items()},
        {number: offset + unread for number, (_, offset, unread) in places.items()},
    )
    waiting = asyncio.run(held(group, group.alignment()))
    reading = [hours for hours, _, unread in places.values() if unread]
    first = max(hours for hours, _, _ in places.values())
    slowest = min((hours for hours in reading if hours < first - 6), default=None)
    expected = {n for n, (hours, _, _) in places.items() if slowest is not None and hours > slowest + 6}
    assert waiting == expected
    assert len(waiting) < len(places)
