"""What a sink is: takes one message at a time and says what became of it; and the pure decisions around that."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable
from urllib.parse import quote

from monitor.records import Alert, Severity
from monitor.sinks.settings import BaseSinkSettings


def incident_link(page: str, incident: str) -> str:
    """Where the status page shows an incident; empty without a page.

    >>> incident_link("https://watch.example/", "acme-1")
    'https://watch.example/#/incident/acme-1'
    """
    return f"{page.rstrip('/')}/#/incident/{quote(incident, safe='')}" if page else ""


@dataclass(frozen=True, slots=True)
class Delivered:
    """The sink has the message."""


@dataclass(frozen=True, slots=True)
class Retry:
    """Not now: the sink is down, slow or busy."""

    reason: str
    after_s: float | None = None
    """The pause that the sink asked for."""


@dataclass(frozen=True, slots=True)
class Rejected:
    """Never: the sink understood and refused; a dead letter keeps the alert."""

    reason: str


Outcome = Delivered | Retry | Rejected


@dataclass(frozen=True, slots=True)
class Digest:
    """Several alerts told as one."""

    kind: Literal["burst", "daily"]
    """A burst, or what one entity had since the last summary."""
    alerts: tuple[Alert, ...]
    """The newest of each incident, in the order in which the incidents began."""
    key: str
    """The idempotency key."""
    about: str = ""
    """The entity of a daily summary."""


class Sink(Protocol):
    """Somewhere alerts go."""

    name: str

    async def deliver(self, alert: Alert, *, key: str, again: Sequence[Severity] = ()) -> Outcome:
        """Attempt once; never raises for what the other side does, and never blocks the event loop.

        Args:
            alert: What to tell.
            key: The idempotency key: the same for every attempt of one alert.
            again: When it is repeated because the incident is still open: the severities under which it was told.
        """

    async def close(self) -> None:
        """Give connections back."""


@runtime_checkable
class DigestSink(Protocol):
    """A sink that writes for people and can tell several alerts as one."""

    async def deliver_digest(self, digest: Digest) -> Outcome:
        """Attempt once, as `Sink.deliver`."""


def routes(settings: BaseSinkSettings, alert: Alert) -> bool:
    """Whether a sink wants an alert; an incident of several entities goes wherever that of any of them would."""
    if settings.entities and not {alert.entity, *alert.entities} & set(settings.entities):
        return False
    if settings.signals and alert.signal not in settings.signals:
        return False
    if not any(_has_labels(labels, settings) for labels in (alert.labels, *alert.entity_labels)):
        return False
    if settings.severities and alert.severity not in settings.severities:
        return False
    return not settings.languages or bool(set(settings.languages) & set(alert.languages))


def _has_labels(labels: Mapping[str, str], settings: BaseSinkSettings) -> bool:
    return all(
        labels.get(name) in ((wanted,) if isinstance(wanted, str) else wanted)
        for name, wanted in settings.labels.items()
    )


def retry_delay(attempt: int, settings: BaseSinkSettings, rng: random.Random, *, after_s: float | None) -> float:
    """Seconds until the next attempt: exponential with full jitter, never sooner than the sink asked.

    Args:
        attempt: Failed attempts before this one, from 0.
        settings: The bounds.
        rng: The source of jitter.
        after_s: What the sink asked for (`Retry-After`).
    """
    ceiling = min(settings.retry_last_s, settings.retry_first_s * 2.0 ** min(attempt, 30))
    return max(rng.uniform(ceiling / 2, ceiling), min(after_s or 0.0, 3600.0))


def digest_key(kind: str, alerts: Sequence[Alert]) -> str:
    """The idempotency key of a digest: the same alerts give the same one."""
    text = "|".join((kind, *(alert.id for alert in alerts)))
    return f"digest-{hashlib.blake2b(text.encode(), digest_size=12).hexdigest()}"
