"""What breaks when: a seeded list of faults; pure."""

from __future__ import annotations

import random
from dataclasses import dataclass

MEMBERS = ("classify-1", "classify-2", "detect-1", "detect-2", "notify-1")
"""The processes under test, by role and number."""

SESSION_S = 8.0
"""The session timeout of the groups: a process that sleeps longer comes back as a zombie."""

WEIGHTS = {
    "kill": 8, "stop": 5, "broker": 3, "group_coordinator": 2, "transaction_coordinator": 2, "delay": 3, "drop": 3,
    "cut": 3, "sink": 2, "clock": 3, "full_disk": 2, "no_watchlist": 1,
}  # fmt: skip
"""How often each kind of fault is drawn; the first round takes each kind once."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that goes wrong."""

    at_s: float
    """Since the beginning."""
    kind: str
    member: str
    """Which process; empty for faults that are not a process's."""
    node: int
    """Which broker, or the network before it."""
    for_s: float
    """How long it lasts."""
    shift_s: int = 0
    """Of a clock."""

    def __str__(self) -> str:
        where = self.member or ("" if self.kind == "sink" else f"broker {self.node + 1}")
        shift = f" by {self.shift_s:+d} s" if self.shift_s else ""
        return f"{self.kind} {where}{shift} for {self.for_s:.0f} s"


def schedule(seed: int, duration_s: float, *, every_s: float) -> list[Fault]:
    """Faults over a stretch of time, each kind at least once where there is room.

    Args:
        seed: The same seed gives the same faults.
        duration_s: Their length.
        every_s: Mean distance between two.

    >>> faults = schedule(1, 120, every_s=4)
    >>> len(faults) == 30 and {fault.kind for fault in faults} == set(WEIGHTS)
    True
    """
    rng = random.Random(seed)
    count = round(duration_s / every_s)
    kinds = list(WEIGHTS)
    rng.shuffle(kinds)
    kinds += rng.choices(list(WEIGHTS), list(WEIGHTS.values()), k=max(0, count - len(kinds)))
    return [
        _fault(rng, (n + rng.uniform(-0.3, 0.3)) * every_s + every_s / 2, kind) for n, kind in enumerate(kinds[:count])
    ]


def _fault(rng: random.Random, at_s: float, kind: str) -> Fault:
    member = rng.choice(MEMBERS) if kind in ("kill", "stop", "clock", "full_disk", "no_watchlist") else ""
    if kind == "group_coordinator":
        member = rng.choice(("classify", "detect"))
    lasting = {
        "kill": rng.choice((0.0, 1.0, SESSION_S + 4)),
        "stop": rng.choice((2.0, SESSION_S + 4, SESSION_S + 8)),
        "delay": rng.uniform(4, 12),
        "drop": rng.uniform(2, SESSION_S + 4),
        "sink": rng.uniform(5, 20),
        "clock": rng.uniform(5, 20),
        "full_disk": rng.uniform(5, 15),
        "no_watchlist": rng.uniform(2, 8),
        "cut": 0.0,
    }.get(kind, rng.uniform(1, 6))
    shift_s = rng.choice((-30 * 86_400, -3600, 45, 7200, 400 * 86_400)) if kind == "clock" else 0
    return Fault(max(0.0, at_s), kind, member, rng.randrange(3), lasting, shift_s)
