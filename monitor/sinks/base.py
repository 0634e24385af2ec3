"""What a sink is: takes one alert at a time and says what became of it; and the pure decisions around that."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from pydantic import Field, HttpUrl, SecretStr

from monitor.records import Alert, Severity
from monitor.settings import Settings


@dataclass(frozen=True, slots=True)
class Delivered:
    """The sink has the alert."""


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


class Sink(Protocol):
    """Somewhere alerts go."""

    name: str

    async def deliver(self, alert: Alert, *, key: str) -> Outcome:
        """Attempt once; never raises for what the other side does.

        Args:
            alert: What to tell.
            key: The idempotency key: the same for every attempt of one alert.
        """

    async def close(self) -> None:
        """Give connections back."""


class BaseSinkSettings(Settings):
    """What every sink has: a name, a route, and patience."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]{0,40}$", description="Unique; part of its consumer group's name.")
    labels: Mapping[str, str] = Field(
        default_factory=dict, description="Only alerts whose entity carries all of these labels; empty: all."
    )
    severities: tuple[Severity, ...] = Field((), description="Only these severities; empty: all.")
    languages: tuple[str, ...] = Field((), description="Only alerts in at least one of these languages; empty: all.")
    retry_first_s: float = Field(1.0, gt=0, le=3600, description="First pause between attempts, in seconds.")
    retry_last_s: float = Field(60.0, gt=0, le=3600, description="Longest pause between attempts, in seconds.")
    give_up_s: float = Field(
        86_400.0, gt=0, description="An alert that could not be delivered for so long is dead-lettered, in seconds."
    )
    timeout_s: float = Field(10.0, gt=0, le=300, description="One attempt may take so long, in seconds.")


class AlertmanagerSettings(BaseSinkSettings):
    """Prometheus Alertmanager, API v2."""

    type: Literal["alertmanager"] = "alertmanager"
    urls: tuple[HttpUrl, ...] = Field(min_length=1, description="Base addresses of the cluster's members; all get all.")
    hold_s: float = Field(
        86_400.0, gt=0, description="Alertmanager ends an alert by itself after this, should no end ever reach it."
    )
    token: SecretStr = Field(SecretStr(""), description="Bearer token; better from `token_file`.")
    token_file: Path | None = Field(None, description="File holding the bearer token.")
    status_url: str = Field("", description="Address of the status page, linked from each alert.")


class WebhookSettings(BaseSinkSettings):
    """Any HTTP endpoint: a CloudEvents 1.0 JSON event for each alert, signed."""

    type: Literal["webhook"] = "webhook"
    url: HttpUrl = Field(description="Where to POST.")
    secret: SecretStr = Field(SecretStr(""), description="Key of the HMAC signature; better from `secret_file`.")
    secret_file: Path | None = Field(None, description="File holding the key of the signature.")
    headers: Mapping[str, str] = Field(default_factory=dict, description="Sent with each request.")


class StdoutSettings(BaseSinkSettings):
    """Standard output, for trying things out and for log collectors."""

    type: Literal["stdout"] = "stdout"
    format: Literal["text", "json"] = Field("text", description="The description for people, or the CloudEvent.")


SinkSettings = AlertmanagerSettings | WebhookSettings | StdoutSettings


def routes(settings: BaseSinkSettings, alert: Alert) -> bool:
    """Whether a sink wants an alert; the end of an incident goes wherever its beginning went.

    Severity and languages only grow during an incident, so an end is never routed away from a sink that was told.
    """
    if any(alert.labels.get(name) != value for name, value in settings.labels.items()):
        return False
    if settings.severities and alert.severity not in settings.severities:
        return False
    return not settings.languages or bool(set(settings.languages) & set(alert.languages))


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
