"""Named checks behind /healthz (is it alive?) and /readyz (does it do its work?)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Check:
    """What one check found."""

    ok: bool
    detail: str = ""


@dataclass
class Health:
    """The checks of a process; each is a function that looks and returns at once."""

    alive: dict[str, Callable[[], Check]] = field(default_factory=dict)
    ready: dict[str, Callable[[], Check]] = field(default_factory=dict)


def report(checks: dict[str, Callable[[], Check]]) -> tuple[bool, dict[str, dict[str, object]]]:
    """Run checks; returns whether all are well, and what each found.

    >>> report({"model": lambda: Check(False, "loading")})
    (False, {'model': {'ok': False, 'detail': 'loading'}})
    """
    found = {name: check() for name, check in checks.items()}
    return all(c.ok for c in found.values()), {name: {"ok": c.ok, "detail": c.detail} for name, c in found.items()}
