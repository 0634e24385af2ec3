"""Quiet hours and the time of the summary: local time decides, across midnight and the change of the clocks."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitor.sinks.hours import Calendar, Hours, clock_time

BERLIN = ZoneInfo("Europe/Berlin")


def ms(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=BERLIN).timestamp() * 1000)


@pytest.mark.parametrize(
    ("when", "quiet"),
    [
        ("2026-03-05T21:59", False),
        ("2026-03-05T22:00", True),
        ("2026-03-06T06:59", True),  # Friday morning belongs to Thursday's night
        ("2026-03-06T07:00", False),
        ("2026-03-06T23:00", False),  # Friday's night is not in sun-thu
        ("2026-03-07T12:00", True),  # Saturday, all day
        ("2026-03-08T06:00", False),
        ("2026-03-08T23:30", True),
        ("2026-03-29T03:30", False),
        ("2026-03-29T22:00", True),  # the day the clocks change
    ],
)
def test_quiet_is_a_matter_of_local_time(when: str, quiet: bool) -> None:
    calendar = Calendar(("sun-thu 22:00-07:00", "sat 00:00-24:00"), "", "Europe/Berlin")
    assert calendar.quiet(ms(when)) is quiet


@pytest.mark.parametrize("text", ["22-7", "25:00-07:00", "22:00-07:60", "22:00-22:00", "xyz 22:00-07:00", "22:00", ""])
def test_what_is_no_stretch_of_hours_is_refused_with_a_form(text: str) -> None:
    with pytest.raises(ValueError, match=r"look|day|same"):
        Hours.parse(text)


@pytest.mark.parametrize("text", ["24:00", "8:00", "08:60", "noon"])
def test_what_is_no_time_of_day_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="time of day"):
        clock_time(text)


@given(st.integers(0, 1439), st.integers(0, 1440), st.datetimes(datetime(2025, 1, 1), datetime(2027, 1, 1)))
def test_a_stretch_and_its_complement_cover_the_day_once(begin: int, end: int, local: datetime) -> None:
    if begin == end or (begin == 0 and end == 1440):
        return

    def form(minute: int) -> str:
        return f"{minute // 60:02d}:{minute % 60:02d}"

    one = Hours.parse(f"{form(begin)}-{form(end)}")
    other = Hours.parse(f"{form(end % 1440)}-{form(begin)}") if end % 1440 != begin else None
    assert one.covers(local) is not (other.covers(local) if other else False)


def test_the_summary_is_due_once_after_its_time() -> None:
    calendar = Calendar((), "08:00", "Europe/Berlin")
    since = ms("2026-03-28T09:00")
    assert not calendar.summary_due(since, ms("2026-03-29T07:59"))
    assert calendar.summary_due(since, ms("2026-03-29T08:00"))  # in the night between, an hour was left out
    assert not calendar.summary_due(ms("2026-03-29T08:00"), ms("2026-03-29T23:00"))
    assert not Calendar((), "", "UTC").summary_due(0, since)


def test_all_of_a_day_is_quiet() -> None:
    calendar = Calendar(("00:00-24:00",), "", "UTC")
    start = datetime(2026, 1, 1, tzinfo=UTC)
    assert all(calendar.quiet(int((start + timedelta(minutes=7 * n)).timestamp() * 1000)) for n in range(300))
