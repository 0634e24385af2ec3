"""Event time of a partition: forward only, deaf to single wrong clocks."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from monitor.documents.eventtime import CONFIRMATIONS, JUMP_MS, EventClock

DAY_MS = 86_400_000


@given(st.lists(st.integers(0, 2**50)))
def test_it_never_goes_back(times: list[int]) -> None:
    clock = EventClock()
    seen = [now for t in times if (now := clock.observe(t)) is not None]
    assert seen == sorted(seen)


@given(st.lists(st.integers(0, 1000), min_size=5, max_size=50), st.integers(0, 49))
def test_one_document_from_the_future_changes_nothing(steps: list[int], place: int) -> None:
    times = [DAY_MS + sum(steps[: n + 1]) for n in range(len(steps))]
    with_outlier = [*times]
    with_outlier.insert(min(max(place, CONFIRMATIONS), len(times) - 1), 400 * DAY_MS)
    clock, disturbed = EventClock(), EventClock()
    for t in times:
        clock.observe(t)
    for t in with_outlier:
        disturbed.observe(t)
    assert disturbed.time_ms == clock.time_ms == times[-1]


def test_a_stream_that_moved_on_is_followed() -> None:
    clock = EventClock(DAY_MS)
    later = [DAY_MS + JUMP_MS * 5 + n for n in range(CONFIRMATIONS)]
    assert [clock.observe(t) for t in later][-1] == later[0]
