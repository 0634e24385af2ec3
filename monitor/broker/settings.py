"""How to reach Kafka, and the names of the topics."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, SecretStr, model_validator

from monitor.settings import Settings, secret

EMBEDDED = "embedded"
"""Instead of an address: start the bundled broker (Tansu, in memory) as a child process on loopback."""


class TopicSettings(Settings):
    """Names of the topics; missing ones are created."""

    documents: str = Field("babelwatch.documents", description="Documents in: the user's own JSON.")
    opinions: str = Field("babelwatch.opinions", description="One opinion per document and entity, keyed by entity.")
    incidents: str = Field(
        "babelwatch.incidents",
        description="Steps in the incidents of single entities, before those that belong together are joined; one partition.",
    )
    alerts: str = Field("babelwatch.alerts", description="Alerts out, as CloudEvents, keyed by incident.")
    deadletter: str = Field("babelwatch.deadletter", description="Records that could not be used, with the reason.")
    review: str = Field("babelwatch.review", description="Incidents that people marked as false alarms.")
    audit: str = Field("babelwatch.audit", description="Everything that people did: who, what, when; keyed by entity.")
    watchlist: str = Field(
        "babelwatch.watchlist",
        description="What people changed in the watchlist on the status page, compacted, keyed by entity; one partition.",
    )
    pulse: str = Field("babelwatch.pulse", description="How each process does, every few seconds; for the status page.")
    state: str = Field("babelwatch.state", description="State of the detect role, compacted.")
    notify: str = Field(
        "babelwatch.notify", description="State of the notify role, compacted: what sinks were told, what is held."
    )


class RetentionSettings(Settings):
    """How long Babelwatch's topics keep their records, set when it creates them; existing topics stay as they are."""

    opinions_days: float = Field(7.0, gt=0, le=3650, description="Opinions: masked texts, hashed authors.")
    alerts_days: float = Field(30.0, gt=0, le=3650, description="Alerts, with their masked posts.")
    deadletter_days: float = Field(
        7.0, gt=0, le=3650, description="Records that could not be used, as they came: they are not masked."
    )
    actions_days: float = Field(400.0, gt=0, le=3650, description="The audit and review topics: who did what.")


DAY_MS = 86_400_000

PULSE_MS = 3_600_000

STATE_TOPIC = {
    "cleanup.policy": "compact",
    # Only closed segments are compacted: with Kafka's own 1 GiB a restart would read every version of every row of it.
    "segment.bytes": str(64 << 20),
    "segment.ms": str(3_600_000),
    "min.cleanable.dirty.ratio": "0.3",
    # KIP-354: what was replaced or deleted is physically gone within a day, whatever the traffic.
    "max.compaction.lag.ms": str(DAY_MS),
}
"""State of a role, or of the watchlist: the newest row of each key is all that is ever read."""

BY_BROKER_CLOCK = {"message.timestamp.type": "LogAppendTime"}
"""For the topics that Babelwatch writes: with a wrong clock on our side the broker would refuse the records (the future) or
delete them at once (the past). Nothing reads these timestamps."""


def topic_configs(topics: TopicSettings, retention: RetentionSettings) -> dict[str, dict[str, str]]:
    """Kafka's settings of the topics that Babelwatch creates, by topic.

    A segment is closed after a day at most, because Kafka deletes and compacts closed segments only: a record is gone
    within its retention and a day more.
    """
    kept_ms = {
        topics.opinions: retention.opinions_days * DAY_MS,
        topics.incidents: retention.alerts_days * DAY_MS,
        topics.alerts: retention.alerts_days * DAY_MS,
        topics.deadletter: retention.deadletter_days * DAY_MS,
        topics.audit: retention.actions_days * DAY_MS,
        topics.review: retention.actions_days * DAY_MS,
        topics.pulse: PULSE_MS,
    }
    deleted = {
        topic: {"cleanup.policy": "delete", "retention.ms": f"{ms:.0f}", "segment.ms": f"{min(ms, DAY_MS):.0f}"}
        for topic, ms in kept_ms.items()
    }
    configs = {**deleted, topics.state: STATE_TOPIC, topics.notify: STATE_TOPIC, topics.watchlist: STATE_TOPIC}
    return {topic: {**config, **BY_BROKER_CLOCK} for topic, config in configs.items()}


class KafkaSettings(Settings):
    """The connection, the security of it, and the delivery policy."""

    bootstrap_servers: str = Field(
        EMBEDDED,
        description='Comma-separated host:port list, or "embedded" for the bundled in-memory broker (demo and tests).',
    )
    client_id: str = Field("babelwatch", description="Name of this client in the broker's logs and quotas.")
    group_prefix: str = Field(
        "babelwatch", description="Consumer groups are named <prefix>.classify, .detect, .correlate, .notify.<sink>."
    )
    instance_id: str = Field(
        "",
        description="Static group membership: a stable name per replica (the pod's name) avoids a rebalance at restart.",
    )
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = Field(
        "PLAINTEXT", description="As the broker's listener has it."
    )
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = Field("PLAIN", description="With SASL only.")
    username: str = Field("", description="With SASL only.")
    password: SecretStr = Field(SecretStr(""), description="With SASL only; better from `password_file`.")
    password_file: Path | None = Field(None, description="File holding the password (a mounted secret).")
    ca_file: Path | None = Field(None, description="Certificate authority of the broker; the system's when unset.")
    cert_file: Path | None = Field(None, description="Client certificate (PEM), for mutual TLS.")
    key_file: Path | None = Field(None, description="Key of the client certificate (PEM).")
    transactions: Literal["auto", "on", "off"] = Field(
        "auto",
        description="Exactly once through Kafka transactions. auto: asks the broker at start; off: at least once, with "
        "deterministic ids.",
    )
    commit_interval_s: float = Field(
        0.5, gt=0, le=60, description="How often outputs and offsets are committed: latency against load on the broker."
    )
    session_timeout_s: float = Field(
        30.0, ge=6, le=300, description="A member silent for so long is dropped from the group."
    )
    poll_records: int = Field(2000, ge=1, le=100_000, description="Most records taken from the client at once.")
    backlog_records: int = Field(
        8000,
        ge=10,
        description="Records held per partition before it is paused; it resumes at half of this. Bounds memory.",
    )
    backlog_mib: int = Field(
        64,
        ge=1,
        description="Size in MiB of the records that one role holds, shared by its partitions, before they are paused. "
        "Bounds memory when documents are large.",
    )
    partitions: int = Field(4, ge=1, le=1000, description="Partitions of topics that Babelwatch creates.")
    replication_factor: int = Field(-1, description="Of topics that Babelwatch creates; -1: the broker's default.")

    @model_validator(mode="after")
    def _sasl_needs_a_user(self) -> Self:
        if self.security_protocol.startswith("SASL") and not self.username:
            raise ValueError("SASL needs kafka.username (and kafka.password or kafka.password_file)")
        if (self.cert_file is None) != (self.key_file is None):
            raise ValueError("kafka.cert_file and kafka.key_file go together")
        return self

    @property
    def embedded(self) -> bool:
        """Whether the bundled broker is wanted."""
        return self.bootstrap_servers == EMBEDDED

    def secret(self) -> str:
        """The password, from its file when one is named."""
        return secret(self.password, self.password_file)
