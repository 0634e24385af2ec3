"""The records that pass between the roles, and nothing else: their fields, their JSON, their schemas.

Every value on a topic is one of these records as UTF-8 JSON. Readers ignore unknown fields; a field is added, never
re-used. Times are integer milliseconds since 1970-01-01 UTC and are always *event* time unless the name says otherwise.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Literal

import msgspec

SCHEMA_VERSION = 1

Sentiment = Literal["negative", "neutral", "positive"]
SENTIMENTS: tuple[Sentiment, ...] = ("negative", "neutral", "positive")

WEIGHT_GRAIN, MAX_WEIGHT = 16, 65_536
"""Sampling weights are kept in sixteenths up to this: then sums of some thousand of them, and of their squares, are exact, and do
not depend on the order in which documents come."""
MAX_REACH = 2**53
"""Sums of reach stop here, where readers of JSON lose the last digit; a state must not be stopped by what a source claims."""

UNDETERMINED = "und"
"""The language of a text that is too short or too mixed to tell (ISO 639-2)."""


class Record(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """Base of all records: immutable, keyword-only, defaults left out of the JSON."""


class Origin(Record, frozen=True):
    """Where on Kafka a record came from; unique, so it can stand in for a missing id."""

    topic: str
    partition: int
    offset: int


class Document(Record, frozen=True):
    """One post or article after parsing, inside the process only: its text is not masked yet."""

    id: str
    text: str
    """What is classified: `text`, or `title` and `body` joined; 1 to `max_text_chars` characters."""
    published_ms: int
    origin: Origin
    lang: str = UNDETERMINED
    """ISO 639-1 code where one exists, else 639-3; `und` when unknown."""
    source: str = ""
    author: str = ""
    url: str = ""
    reach: int = 0
    """How many people the source says it reached; 0 when unknown."""
    weight: float = 1.0
    """How many documents it stands for, where the source gives a sample: 100 in one of a hundredth."""


class Opinion(Record, frozen=True, tag="opinion", tag_field="kind"):
    """What one document says about one entity. Key on the topic: `entity`."""

    id: str
    """Deterministic: `<document id>|<entity>`; the same document always gives the same id."""
    document_id: str
    entity: str
    published_ms: int
    lang: str
    sentiment: tuple[float, float, float]
    """Calibrated probabilities of negative, neutral, positive; they sum to 1."""
    topic: str = ""
    """The most probable news topic, or empty when the bundle has no such head."""
    text: str = ""
    """The masked text, shortened for evidence."""
    source: str = ""
    author: str = ""
    """A keyed hash of the author, never the name: enough to count distinct voices."""
    url: str = ""
    reach: Annotated[int, msgspec.Meta(ge=0, le=MAX_REACH)] = 0
    fingerprint: str = ""
    """Of the folded text; equal for reposts of one text."""
    repost_of: str = ""
    """The id of the last document before it with this text, when this one repeats it."""
    embedding: str = ""
    """The pooled encoder state as base64 of int8, for comparing texts across languages; may be absent."""
    bundle: str = ""
    """Version of the bundle that made the probabilities."""
    origin: Origin | None = None
    clock_ms: int = 0
    """How far the event time of its partition had come when the document was read: what is older than this by more than
    the allowed lateness is late, whatever the other partitions do. 0 when unknown."""
    weight: Annotated[float, msgspec.Meta(ge=1 / WEIGHT_GRAIN, le=MAX_WEIGHT)] = 1.0
    """How many documents it stands for, where the source gives a sample, in sixteenths."""


class Watermark(Record, frozen=True, tag="watermark", tag_field="kind"):
    """A promise on the opinions topic: this source partition has no earlier documents to come.

    Every classify role sends one to each opinions partition as its input moves on, so that a detector may close a
    bucket although nobody mentioned the entity. Key: `watermark|<topic>|<partition>`.
    """

    topic: str
    partition: int
    time_ms: int
    """0 when the partition never held a document."""
    partitions: int = 0
    """Partitions of the source topic: until each has spoken, nothing is closed."""
    idle: bool = False
    """The partition is read to its end and has been silent for a while."""
    still_idle: bool = False
    """It has said so before, and was found at its end once more after that was written: so it holds nothing older than
    what the other sources had said by then."""


class Erasure(Record, frozen=True, tag="erasure", tag_field="kind"):
    """An order on the opinions and incidents topics: forget what these documents and authors said. In every partition.

    It stands in the stream like an opinion, so the detectors carry it out at the same place in every replay, and their
    state is written anew in the commit that moves past it. Counts stay: they name nobody.
    """

    documents: frozenset[str] = frozenset()
    """Hashes of document ids, as `monitor.privacy.document_hash` makes them."""
    authors: frozenset[str] = frozenset()
    """Keyed hashes of authors, as opinions carry them."""


OpinionMessage = Opinion | Watermark | Erasure
"""What a reader of the opinions topic meets."""


class Post(Record, frozen=True):
    """A masked text shown as evidence."""

    document_id: str
    text: str
    lang: str
    published_ms: int
    sentiment: Sentiment
    source: str = ""
    url: str = ""
    copies: int = 1
    """How many near-identical posts this one stands for."""


class Share(Record, frozen=True):
    """One language's, source's or topic's part in a rise."""

    name: str
    count: int
    share: float
    """Of the rise over what was expected, 0 to 1."""


class Evidence(Record, frozen=True):
    """Why an alert was raised: complete enough to act on without another query."""

    observed: float
    """The signal in the window: a share of negatives or of one topic (0 to 1), documents per hour, or a mean sentiment
    (-1 to 1), as `unit` says."""
    expected: float
    low: float
    """The observed value's interval, low end (95 %)."""
    high: float
    unit: Literal["share", "documents/h", "mean", "topic"]
    documents: int
    """Documents in the window since onset."""
    negatives: float
    """Negative documents in the window, corrected for the classifier's known confusion."""
    log_evidence: float = 0.0
    """Natural logarithm of the sequential evidence against "nothing changed"."""
    languages: tuple[Share, ...] = ()
    sources: tuple[Share, ...] = ()
    topics: tuple[Share, ...] = ()
    terms: tuple[str, ...] = ()
    posts: tuple[Post, ...] = ()
    first_post: Post | None = None
    reposts: int = 0
    authors: int = 0
    reach: int = 0
    effect: float = 0.0
    """`observed - expected` for a share or a mean (points); `observed / expected` for a volume (a factor)."""
    effect_low: float = 0.0
    """The effect's interval, low end (95 %)."""
    effect_high: float = 0.0
    one_event: float | None = None
    """Probability that the negative posts tell of one event; absent where the opinions carry no embeddings."""
    entities: tuple[Share, ...] = ()
    """Each entity's part in the rise, in an incident of several."""
    topic: str = ""
    """Of a shift of topics: the one on the rise; `negatives` are then documents about it, and posts are of it."""
    centroid: str = ""
    """What the posts say beside what is usually said, as base64 of int8 in the encoder's space: close for one story in any
    language; empty without embeddings."""


AlertState = Literal["firing", "escalated", "resolved"]
IncidentKind = Literal["entity", "story", "common"]
"""One entity; several entities with the same story; many entities at once, which points to a source or the classifier."""
Severity = Literal["info", "warning", "critical"]
SEVERITIES: tuple[Severity, ...] = ("info", "warning", "critical")
"""From the mildest to the worst."""


class Alert(Record, frozen=True):
    """One step in the life of one incident. Key on the topic: `incident`.

    `id` is deterministic from (entity, signal, onset, state), so a repeat is recognised by anyone who reads the topic.
    """

    id: str
    incident: str
    entity: str
    entity_name: str
    signal: str
    state: AlertState
    severity: Severity
    onset_ms: int
    """Estimated start of the change."""
    at_ms: int
    """Event time of the decision: the end of the bucket that brought it."""
    languages: tuple[str, ...]
    summary: str
    """One line for a phone."""
    description: str
    """The whole explanation as plain text."""
    evidence: Evidence
    labels: dict[str, str] = {}
    """The entity's routing labels from the watchlist."""
    ended_ms: int = 0
    """Estimated end of the change, which is certain only some time later; 0 while it lasts."""
    sequence: int = 0
    """Position of this alert in its incident's life, from 0."""
    kind: IncidentKind = "entity"
    entities: tuple[str, ...] = ()
    """Every entity of the incident, the one with the largest part in the rise first; empty when it is `entity` alone."""
    entity_labels: tuple[dict[str, str], ...] = ()
    """The routing labels of each of `entities`, in their order."""
    merged_into: str = ""
    """The incident that this one, told before, turned out to be part of; it is told there from now on."""


class EntityStep(Record, frozen=True, tag="step", tag_field="kind"):
    """A step in the incident of one entity, as its detector sees it. Key on the incidents topic: `entity`.

    The correlate role joins such incidents, where they are one, before anyone is told.
    """

    alert: Alert


class Breadth(Record, frozen=True):
    """How many of a partition's entities are rising."""

    at_ms: int
    known: int
    """Entities with traffic lately and a baseline."""
    rising: int
    """Those of them whose negative share shows some rise, in alarm or not."""


class Closed(Record, frozen=True, tag="closed", tag_field="kind"):
    """A promise on the incidents topic: this partition of opinions has no earlier step to come. Key: `closed|<partition>`."""

    partition: int
    partitions: int
    """Partitions of the opinions topic: until each has spoken, nothing is told."""
    closed_ms: int
    breadth: tuple[Breadth, ...] = ()
    """Where it changed since the last promise, in order of time."""


StepMessage = EntityStep | Closed | Erasure
"""What a reader of the incidents topic meets."""


class DeadLetter(Record, frozen=True):
    """A record that could not be used, with the reason. Key: the key of the original."""

    reason: str
    """One word from a fixed list: it is a metric's label too."""
    detail: str
    origin: Origin
    role: str
    value: str = ""
    """The original value as text, shortened where it is very long; base64 when `encoding` says so."""
    encoding: Literal["utf-8", "base64"] = "utf-8"
    truncated: bool = False
    sink: str = ""
    """Of an alert that a sink refused: which one."""


ActionKind = Literal["acknowledge", "mute", "unmute", "false_alarm", "watchlist", "erase"]


class Action(Record, frozen=True):
    """Something a person did about an incident, an entity or the watchlist. Key on the audit topic: `entity`, or `*`.

    The audit topic holds every action, the review topic the false alarms. Times are of the wall clock, because people
    act in it: the notify role reads actions (a muted entity is not told of), and detection never does, so that a replay
    of the stream gives the same alerts whatever anyone did meanwhile.
    """

    id: str
    """Unique; a repeat of an action has the same id."""
    kind: ActionKind
    who: str
    """The name of the token or the user that the proxy vouches for."""
    at_ms: int
    entity: str = ""
    """What it is about; with `incident`, the entity of that incident."""
    incident: str = ""
    """With acknowledge and false_alarm."""
    until_ms: int = 0
    """With mute: when it ends. A later mute or unmute of the same entity replaces it."""
    note: str = ""
    changes: tuple[str, ...] = ()
    """With watchlist: `+id`, `~id` or `-id` of entities added, changed and removed, `=id` of one that is as the file has it
    again. With erase: hashes of what went."""
    version: str = ""
    """With watchlist: the version that came of it."""


class WatchedEntity(Record, frozen=True):
    """What is watched of an entity: see the watchlist file."""

    name: str
    aliases: dict[str, tuple[str, ...]]
    exclude: tuple[str, ...] = ()
    context: tuple[str, ...] = ()
    labels: dict[str, str] = {}


class WatchlistChange(Record, frozen=True):
    """An entity as someone changed it on the status page. Key on the watchlist topic: `entity`; a deleted key takes it back.

    Every process lays it over its watchlist file, for as long as the file's own entry is the one that was replaced: whoever
    changes that entry in the file afterwards has the last word.
    """

    entity: str
    who: str
    at_ms: int
    """The wall clock's."""
    over: str = ""
    """Digest of the file's entry that it replaces; empty where the file has none."""
    definition: WatchedEntity | None = None
    """None: it is watched no longer."""


class Pulse(Record, frozen=True):
    """How one process does, told every few seconds, so that any replica's page shows all. Key: `instance`.

    Times are of the wall clock.
    """

    instance: str
    """Host and process number."""
    at_ms: int
    role: str
    """all, classify, detect or notify."""
    version: str = ""
    bundle: str = ""
    """Name of the model bundle in use."""
    up_s: float = 0.0
    ready: bool = False
    waiting: str = ""
    """What it waits for while it is not ready."""
    documents: int = 0
    """Documents whose outcome is known, since the start."""
    documents_per_s: float = 0.0
    """Of the last seconds."""
    refused: int = 0
    """Dead letters since the start."""
    queue: int = 0
    """Documents waiting for the model."""
    model_s: float = 0.0
    """Mean duration of a run of the model, over the last seconds in which it ran."""
    lag: dict[str, int] = {}
    """By role: records behind the end of the partitions that this process holds."""
    backlog: dict[str, int] = {}
    """By role: records taken and not yet committed."""
    restore_s: float = 0.0
    """Mean duration of bringing back the state of one partition."""
    failing: dict[str, float] = {}
    """By sink: for how many seconds it has been refusing."""
    watchlist: str = ""
    """Version of the watchlist in force."""
    watchlist_error: str = ""
    """Why the newest watchlist file is not."""
    stopped: bool = False
    """The last pulse of a process that ended as it should."""


class AlertEvent(Record, frozen=True, omit_defaults=False):
    """The value on the alerts topic: the alert as a CloudEvents 1.0 JSON event in structured mode."""

    id: str
    source: str
    subject: str
    time: datetime
    data: Alert
    specversion: Literal["1.0"] = "1.0"
    type: Literal["io.babelwatch.alert.v1"] = "io.babelwatch.alert.v1"
    datacontenttype: Literal["application/json"] = "application/json"


def cloud_event(alert: Alert) -> AlertEvent:
    """Wrap an alert in its envelope; `time` is the event time of the decision."""
    return AlertEvent(
        id=alert.id,
        source=f"/babelwatch/{alert.entity}",
        subject=alert.incident,
        time=datetime.fromtimestamp(alert.at_ms / 1000, UTC),
        data=alert,
    )


def encode(record: Record) -> bytes:
    """The record as it stands on a topic.

    >>> encode(Watermark(topic="t", partition=0, time_ms=5))
    b'{"kind":"watermark","topic":"t","partition":0,"time_ms":5}'
    """
    return _ENCODER.encode(record)


_ENCODER = msgspec.json.Encoder(order="deterministic")
decode_opinion_message = msgspec.json.Decoder(OpinionMessage).decode
decode_step_message = msgspec.json.Decoder(StepMessage).decode
decode_alert_event = msgspec.json.Decoder(AlertEvent).decode
decode_action = msgspec.json.Decoder(Action).decode
decode_watchlist_change = msgspec.json.Decoder(WatchlistChange).decode
decode_pulse = msgspec.json.Decoder(Pulse).decode
decode_deadletter = msgspec.json.Decoder(DeadLetter).decode
