"""The life of an incident: findings of several languages and signals of one entity become one, step by step; pure."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

import msgspec
from pydantic import Field

from monitor.detection.bank import ROLLUP, Finding
from monitor.detection.findings import HOUR_MS
from monitor.records import SEVERITIES, UNDETERMINED, Severity
from monitor.settings import Settings

NO_BAD_NEWS = ("volume", "topic_shift")
"""Signals that are information by themselves."""


class AlertSettings(Settings):
    """How alarms become incidents, and what is told of them."""

    confirm_s: int = Field(
        60, ge=0, le=86_400, description="A rise is pending for so long before it fires, in seconds of event time."
    )
    resolve_after_s: int = Field(
        900, ge=0, le=604_800, description="An incident is resolved when nothing was in alarm for so long, in seconds."
    )
    reopen_s: int = Field(
        3600, ge=0, le=604_800, description="A rise so soon after the end re-opens the same incident, in seconds."
    )
    update_s: int = Field(
        600, ge=0, le=86_400, description="Least time between two messages of one incident while it lasts, in seconds."
    )
    critical_effect: float = Field(
        0.3, gt=0, le=1, description="A negative share this many points (0 to 1) over the expected is critical."
    )
    critical_ratio: float = Field(5.0, gt=1, description="So many times the expected negative posts are critical.")
    critical_languages: int = Field(3, ge=1, description="A rise in so many languages is critical.")
    critical_reach: int = Field(
        1_000_000, ge=0, description="A rise whose negative posts reached so many people is critical; 0 for never."
    )
    critical_speed: float = Field(
        200.0, ge=0, description="So many negative posts an hour beyond the usual are critical; 0 for never."
    )
    join_s: int = Field(
        3600,
        ge=0,
        le=86_400,
        description="Incidents of different entities are one when they begin within so long of each other and tell the same "
        "story, or when many entities rise at once, in seconds.",
    )
    common_part: float = Field(
        0.5,
        gt=0,
        le=1,
        description="Many at once: this part of all entities, and more than chance explains. One incident then tells of all.",
    )
    evidence_hours: float = Field(
        6.0,
        gt=0,
        le=168,
        description="How long posts and counts are kept in memory for explanations, in hours; and how far a documents partition is "
        "read ahead of the slowest (an hour at least), since that is kept too.",
    )
    posts: int = Field(10, ge=0, le=50, description="Representative posts in an alert.")


class Incident(msgspec.Struct):
    """One open (or just ended) incident."""

    id: str
    entity: str
    signal: str
    """Of the finding that opened it."""
    onset_ms: int
    since_ms: int
    """Bucket at which it became pending."""
    state: Literal["pending", "firing", "resolved"] = "pending"
    severity: Severity = "info"
    languages: list[str] = msgspec.field(default_factory=list)
    told_ms: int = 0
    """Event time of the last alert."""
    active_ms: int = 0
    """Last bucket with a finding in alarm."""
    ended_ms: int = 0
    """Estimated end of the rise; 0 while it lasts."""
    sequence: int = 0
    """Alerts sent so far."""


@dataclass(frozen=True, slots=True)
class Step:
    """A change in an incident's life that people are told of."""

    incident: Incident
    state: Literal["firing", "escalated", "resolved"]
    finding: Finding | None
    """The strongest finding at this bucket; None at the end."""


class IncidentBook:
    """The incidents of one partition's entities.

    Args:
        settings: Patience, hysteresis and what counts as severe.
        bucket_ms: Length of a bucket.
    """

    def __init__(self, settings: AlertSettings, bucket_ms: int) -> None:
        self._settings = settings
        self._bucket_ms = bucket_ms
        self.incidents: dict[str, Incident] = {}
        """The newest incident of each entity."""

    @property
    def open(self) -> list[Incident]:
        """Pending and firing incidents, by entity."""
        return [incident for _, incident in sorted(self.incidents.items()) if incident.state != "resolved"]

    def update(
        self, bucket_ms: int, findings: Sequence[Finding], reach: Callable[[str, int], int] = lambda _entity, _since: 0
    ) -> list[Step]:
        """Take the findings of one closed bucket; returns what people are told, ordered by entity.

        Args:
            bucket_ms: Start of the bucket.
            findings: Of all series.
            reach: Of an entity's negative posts since an event time.
        """
        by_entity: dict[str, list[Finding]] = {}
        for finding in findings:
            if finding.active:
                by_entity.setdefault(finding.entity, []).append(finding)
        steps: list[Step] = []
        for entity in sorted(by_entity.keys() | {incident.entity for incident in self.open}):
            step = self._advance(entity, bucket_ms, by_entity.get(entity, []), reach)
            if step is not None:
                steps.append(step)
        return steps

    def end(self, entity: str, now_ms: int) -> Step | None:
        """End an entity's incident at once, since it is no longer watched; what people are told, if they know of it."""
        incident = self.incidents.get(entity)
        if incident is None or incident.state == "resolved" or not incident.sequence:
            return None
        incident.state, incident.ended_ms = "resolved", now_ms
        return self._tell(incident, "resolved", now_ms, None)

    def forget(self, bucket_ms: int) -> list[str]:
        """Drop incidents that are too long over to be re-opened; returns their entities."""
        limit = bucket_ms - self._settings.reopen_s * 1000
        gone = [
            entity
            for entity, incident in self.incidents.items()
            if incident.state == "resolved" and incident.active_ms + self._bucket_ms < limit
        ]
        for entity in gone:
            del self.incidents[entity]
        return sorted(gone)

    def _advance(
        self, entity: str, bucket_ms: int, active: list[Finding], reach: Callable[[str, int], int]
    ) -> Step | None:
        incident = self.incidents.get(entity)
        now_ms = bucket_ms + self._bucket_ms
        if not active:
            return self._quiet(incident, now_ms) if incident is not None else None
        main = strongest(active)
        if incident is None or incident.state == "resolved":
            incident = self._begin(incident, entity, bucket_ms, main)
        incident.active_ms = bucket_ms
        severity = self._severity(active, now_ms, reach(entity, incident.onset_ms))
        languages = _languages(active)
        if incident.state == "pending":
            incident.severity = worst(incident.severity, severity)
            incident.languages = _union(incident.languages, languages)
            if now_ms - incident.since_ms - self._bucket_ms < self._settings.confirm_s * 1000:
                return None
            incident.state = "firing"
            return self._tell(incident, "firing", now_ms, main)
        worse = worst(incident.severity, severity) != incident.severity
        joined = set(languages) - set(incident.languages)
        if (worse or joined) and now_ms - incident.told_ms >= self._settings.update_s * 1000:
            incident.severity = worst(incident.severity, severity)
            incident.languages = _union(incident.languages, languages)
            return self._tell(incident, "escalated", now_ms, main)
        return None

    def _begin(self, before: Incident | None, entity: str, bucket_ms: int, main: Finding) -> Incident:
        if before is not None and bucket_ms - before.active_ms - self._bucket_ms <= self._settings.reopen_s * 1000:
            before.state, before.since_ms, before.ended_ms = "pending", bucket_ms, 0
            return before
        incident = Incident(
            id=incident_id(entity, main.signal, main.onset_ms),
            entity=entity,
            signal=main.signal,
            onset_ms=main.onset_ms,
            since_ms=bucket_ms,
        )
        self.incidents[entity] = incident
        return incident

    def _quiet(self, incident: Incident, now_ms: int) -> Step | None:
        if incident.state == "resolved":
            return None
        quiet_ms = now_ms - incident.active_ms - self._bucket_ms
        if incident.state == "pending":
            # It was never told; a re-opened one goes back to where it was.
            if quiet_ms >= self._settings.confirm_s * 1000:
                if incident.sequence:
                    incident.state, incident.ended_ms = "resolved", incident.active_ms + self._bucket_ms
                else:
                    del self.incidents[incident.entity]
            return None
        if quiet_ms < self._settings.resolve_after_s * 1000:
            return None
        incident.state = "resolved"
        incident.ended_ms = incident.active_ms + self._bucket_ms
        return self._tell(incident, "resolved", now_ms, None)

    def _tell(
        self, incident: Incident, state: Literal["firing", "escalated", "resolved"], now_ms: int, main: Finding | None
    ) -> Step:
        incident.told_ms = now_ms
        incident.sequence += 1
        return Step(incident, state, main)

    def _severity(self, active: list[Finding], now_ms: int, reach: int) -> Severity:
        """By size, reach, speed and breadth; more or other talk alone is information.

        Args:
            active: Findings in alarm.
            now_ms: End of the bucket.
            reach: Of the negative posts since the onset.
        """
        settings = self._settings
        active = [finding for finding in active if finding.signal not in NO_BAD_NEWS]
        if not active:
            return "info"
        large = any(
            finding.effect >= (settings.critical_effect if finding.unit == "share" else settings.critical_ratio)
            for finding in active
        )
        wide = len(_languages(active)) >= settings.critical_languages
        far = 0 < settings.critical_reach <= reach
        fast = 0 < settings.critical_speed <= max(_speed(finding, now_ms) for finding in active)
        return "critical" if large or wide or far or fast else "warning"


def strongest(active: Sequence[Finding]) -> Finding:
    """The finding that stands for an incident: the negative share before volumes, then the strongest evidence."""
    order = {"negative_share": 0, "negative_volume": 1, "volume": 4, "topic_shift": 5}
    return min(active, key=lambda f: (order.get(f.signal, 3), f.lang != ROLLUP, -f.log_evidence, f.lang))


def incident_id(entity: str, signal: str, onset_ms: int) -> str:
    """Deterministic, readable, and unique: entity, onset to the minute, and a hash of what it is.

    >>> incident_id("air", "negative_share", 1772352000000)
    'air-20260301T0800-f9a9'
    """
    digest = hashlib.blake2b(f"{entity}|{signal}|{onset_ms}".encode(), digest_size=2).hexdigest()
    return f"{entity}-{datetime.fromtimestamp(onset_ms / 1000, UTC):%Y%m%dT%H%M}-{digest}"


def alert_id(incident: str, signal: str, onset_ms: int, state: str, sequence: int) -> str:
    """Deterministic from what the alert says; 128 bits in hex."""
    return hashlib.blake2b(f"{incident}|{signal}|{onset_ms}|{state}|{sequence}".encode(), digest_size=16).hexdigest()


def _speed(finding: Finding, now_ms: int) -> float:
    """Negative posts an hour since the onset, beyond the usual."""
    hours = max(now_ms - finding.onset_ms, HOUR_MS / 4) / HOUR_MS
    if finding.unit == "share":
        return (finding.negatives - finding.expected * finding.documents) / hours
    return finding.observed - finding.expected if finding.signal == "negative_volume" else 0.0


def _languages(active: Iterable[Finding]) -> list[str]:
    return sorted({finding.lang for finding in active} - {ROLLUP, UNDETERMINED})


def _union(left: Iterable[str], right: Iterable[str]) -> list[str]:
    return sorted({*left, *right})


def worst(*severities: Severity) -> Severity:
    """The worst of these."""
    return max(severities, key=SEVERITIES.index)
