"""What the API says: its answers as records; the OpenAPI document is made from these."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from monitor.records import Action, Evidence, IncidentKind, Pulse, Record, Severity

Timestamp = Annotated[int, msgspec.Meta(ge=0, description="Milliseconds since 1970-01-01 UTC.")]
Ratio = Annotated[float, msgspec.Meta(ge=0, le=1)]


class View(Record, frozen=True, omit_defaults=False):
    """Base of the answers: every field is always there."""


class Now(View, frozen=True):
    """One series over the last hour of event time."""

    lang: str
    """ISO 639 code; `*` for all languages together."""
    documents: int
    share: Ratio | None
    """Negative share, corrected for the classifier's known confusion; null when there was no document."""
    low: Ratio | None
    """The share's 95 % interval, low end."""
    high: Ratio | None
    expected: Ratio | None
    """The share that the baseline expects; null while nothing is known."""


class Spark(View, frozen=True):
    """The last hours of a series in a few steps, oldest first."""

    documents: tuple[int, ...]
    share: tuple[Ratio | None, ...]


class EntityView(View, frozen=True):
    """A watched entity as it is now."""

    id: str
    name: str
    labels: dict[str, str]
    now: Now
    spark: Spark
    languages: tuple[Now, ...]
    """Those with documents in the last hours, the most spoken first."""
    incidents: tuple[str, ...]
    """Incidents that are open."""
    muted_until_ms: Timestamp
    """0 when it is not muted; of the wall clock."""
    muted_by: str


class LanguageDetail(View, frozen=True):
    """One language of an entity."""

    now: Now
    spark: Spark


class EntityDetail(View, frozen=True):
    """An entity with every language's course."""

    entity: EntityView
    languages: tuple[LanguageDetail, ...]
    incidents: tuple[IncidentBrief, ...]
    """All that are known, the newest first."""
    actions: tuple[Action, ...]


class Point(View, frozen=True):
    """One bucket of a series."""

    bucket_ms: Timestamp
    documents: int
    negatives: float
    """Corrected for the classifier's known confusion."""


class Series(View, frozen=True):
    """The buckets of one entity in one language that hold documents, oldest first."""

    entity: str
    lang: str
    bucket_s: int
    points: tuple[Point, ...]


class Step(View, frozen=True):
    """One alert in the life of an incident."""

    id: str
    state: Literal["firing", "escalated", "resolved"]
    severity: Severity
    at_ms: Timestamp
    summary: str
    languages: tuple[str, ...]


class IncidentBrief(View, frozen=True):
    """An incident in a list."""

    id: str
    entity: str
    entity_name: str
    signal: str
    state: Literal["firing", "escalated", "resolved"]
    severity: Severity
    onset_ms: Timestamp
    at_ms: Timestamp
    """Of the last alert."""
    ended_ms: Timestamp
    """0 while it lasts."""
    languages: tuple[str, ...]
    summary: str
    observed: float
    expected: float
    unit: Literal["share", "documents/h", "mean", "topic"]
    topic: str
    """Of a shift of topics: the one on the rise."""
    documents: int
    kind: IncidentKind
    entities: tuple[str, ...]
    """Every entity of the incident, the one with the largest part first."""
    merged_into: str
    """The incident that this one turned out to be part of; empty when it stands for itself."""
    acknowledged_by: str
    false_alarm_by: str
    revision: int
    """Grows with every step and action, so that a reader knows when to look again."""


class IncidentDetail(View, frozen=True):
    """An incident with all there is to know."""

    incident: IncidentBrief
    labels: dict[str, str]
    description: str
    """The whole explanation as plain text."""
    evidence: Evidence
    """Of the last alert that carried any: posts are masked."""
    steps: tuple[Step, ...]
    actions: tuple[Action, ...]
    """What people did about it and, while it lasted, about its entity."""
    course: Series
    """The entity's buckets, as far back as they are kept."""


class Process(View, frozen=True):
    """One process of Babelwatch."""

    pulse: Pulse
    silent_s: float
    """How long ago it last told of itself."""
    alive: bool


class Pipeline(View, frozen=True):
    """How all processes do, together."""

    processes: tuple[Process, ...]
    documents_per_s: float
    lag: dict[str, int]
    """Records behind, by role."""
    problems: tuple[str, ...]
    """What a person should look at; empty when all is well."""


class Status(View, frozen=True):
    """Everything the first screen shows."""

    at_ms: Timestamp
    """Event time: the end of the last closed bucket; 0 before the first."""
    entities: tuple[EntityView, ...]
    incidents: tuple[IncidentBrief, ...]
    """Open ones first, then the newest."""
    pipeline: Pipeline
    actions: tuple[Action, ...]
    """The newest, newest first."""
    spark_s: int
    """Seconds that one step of a spark line stands for."""


class Session(View, frozen=True):
    """Who is asking."""

    name: str
    role: Literal["viewer", "operator", "metrics"]
    how: Literal["open", "token", "session", "proxy"]


class Problem(View, frozen=True):
    """Why a request was refused."""

    error: str
