"""Quiet hours and times of day, in a time zone, over the clock that is handed in; pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, time, timedelta
from zoneinfo import ZoneInfo

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
ALL_DAYS = frozenset(range(7))

_FORM = re.compile(r"(?:(?P<days>[a-z,-]+) )?(?P<begin>\d\d:\d\d)-(?P<end>\d\d:\d\d)")
MINUTES = 24 * 60


@dataclass(frozen=True, slots=True)
class Hours:
    """A stretch of the day on some weekdays; one that passes midnight belongs to the day on which it begins.

    >>> night = Hours.parse("mon-fri 22:00-07:00")
    >>> berlin = ZoneInfo("Europe/Berlin")
    >>> night.covers(datetime(2026, 3, 6, 23, 30, tzinfo=berlin)), night.covers(datetime(2026, 3, 7, 6, 59, tzinfo=berlin))
    (True, True)
    >>> night.covers(datetime(2026, 3, 7, 23, 30, tzinfo=berlin)), night.covers(datetime(2026, 3, 7, 7, 0, tzinfo=berlin))
    (False, False)
    """

    days: frozenset[int]
    """0 Monday to 6 Sunday."""
    begin: int
    """Minute of the day, 0 to 1440."""
    end: int

    @classmethod
    def parse(cls, text: str) -> Hours:
        """Read `[days ]HH:MM-HH:MM`; days are `mon-fri`, `sat,sun` or left out.

        Raises:
            ValueError: with what is wrong and how it should look.
        """
        found = _FORM.fullmatch(text.strip().lower())
        if found is None:
            raise ValueError('quiet hours look like "22:00-07:00" or "sat,sun 00:00-24:00"')
        begin, end = _minute(found["begin"]), _minute(found["end"])
        if begin == end:
            raise ValueError('begin and end are the same; a whole day is "00:00-24:00"')
        return cls(_days(found["days"]) if found["days"] else ALL_DAYS, begin, end)

    def covers(self, local: datetime) -> bool:
        """Whether a local time lies within."""
        minute, day = local.hour * 60 + local.minute, local.weekday()
        if self.begin < self.end:
            return day in self.days and self.begin <= minute < self.end
        return (day in self.days and minute >= self.begin) or ((day - 1) % 7 in self.days and minute < self.end)


class Calendar:
    """One sink's quiet hours and the time of its daily summary.

    Args:
        quiet: Forms that `Hours.parse` reads.
        daily_at: `HH:MM`, or empty.
        time_zone: IANA name. Local time decides, so that 07:00 stays 07:00 when the clocks change.
    """

    def __init__(self, quiet: Sequence[str], daily_at: str, time_zone: str) -> None:
        self._quiet = [Hours.parse(text) for text in quiet]
        self._daily_at = clock_time(daily_at) if daily_at else None
        self.zone = ZoneInfo(time_zone)

    def quiet(self, now_ms: int) -> bool:
        """Whether a time (Unix milliseconds) lies in quiet hours."""
        if not self._quiet:
            return False
        local = datetime.fromtimestamp(now_ms / 1000, self.zone)
        return any(hours.covers(local) for hours in self._quiet)

    def summary_due(self, since_ms: int, now_ms: int) -> bool:
        """Whether the time of the daily summary has come between the two."""
        if self._daily_at is None:
            return False
        since = datetime.fromtimestamp(since_ms / 1000, self.zone)
        due = datetime.combine(since.date(), self._daily_at, self.zone)
        if due <= since:
            due = datetime.combine(since.date() + timedelta(days=1), self._daily_at, self.zone)
        return now_ms >= due.timestamp() * 1000


def clock_time(text: str) -> time:
    """Read `HH:MM`.

    Raises:
        ValueError: it is no time of day.
    """
    if not re.fullmatch(r"\d\d:\d\d", text) or _minute(text) == MINUTES:
        raise ValueError('a time of day looks like "08:00"')
    return time(*divmod(_minute(text), 60))


def _minute(text: str) -> int:
    hour, minute = int(text[:2]), int(text[3:])
    if hour * 60 + minute > MINUTES or minute > 59:
        raise ValueError(f"{text} is no time of day (00:00 to 24:00)")
    return hour * 60 + minute


def _days(text: str) -> frozenset[int]:
    days: set[int] = set()
    for part in text.split(","):
        first, _, last = part.partition("-")
        if first not in DAYS or (last and last not in DAYS):
            raise ValueError(f"{part!r} is no day; days are {', '.join(DAYS)}")
        begin, end = DAYS.index(first), DAYS.index(last or first)
        days |= {day % 7 for day in range(begin, end + 1 + (7 if end < begin else 0))}
    return frozenset(days)
