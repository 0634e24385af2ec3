"""How far event time has come in one input partition, robust against single documents with a wrong clock; pure."""

from __future__ import annotations

import msgspec

JUMP_MS = 3_600_000
"""A document further ahead than an hour is not believed alone: one wrong clock would make all that follow it late."""

CONFIRMATIONS = 3
"""So many documents in a row, all far ahead, are believed: the stream itself moved on (a gap, a restarted source)."""


class EventClock(msgspec.Struct):
    """The newest event time that the documents of a partition agree on.

    It only moves forward, and depends on nothing but the documents in their order.

    >>> clock = EventClock()
    >>> [clock.observe(t) for t in (1_000, 2_000, 1_500, 9_000_000_000, 3_000)]
    [None, None, 1000, 1000, 3000]
    """

    time_ms: int | None = None
    ahead: list[int] = msgspec.field(default_factory=list)
    """Times that are not believed yet."""

    def observe(self, published_ms: int) -> int | None:
        """Take the next document's time; returns the clock's, None until it is known."""
        if self.time_ms is None or published_ms > self.time_ms + JUMP_MS:
            self.ahead.append(published_ms)
            if len(self.ahead) == CONFIRMATIONS:
                self.time_ms = min(self.ahead)
                self.ahead.clear()
            return self.time_ms
        self.ahead.clear()
        self.time_ms = max(self.time_ms, published_ms)
        return self.time_ms
