"""Every metric of the daemon, once: its name, its labels, what it means.

Names follow the Prometheus conventions: prefix `babelwatch_`, base units, `_total` for counters. Label values are
bounded: roles, fixed reasons, entities of the watchlist, ISO 639 codes, sinks of the configuration. What can be derived
at scrape time (lag, backlog, open incidents) is collected then, from callbacks, instead of being set all over the code.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.gc_collector import GCCollector
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

LATENCY_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
"""From one small batch on a GPU to a batch that waits for a broker's restart."""

BATCH_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)

Sample = tuple[tuple[str, ...], float]


class Derived(Collector):
    """Gauges computed when Prometheus asks, from callbacks registered by the running roles."""

    def __init__(self) -> None:
        self._families: dict[str, tuple[str, tuple[str, ...], list[Callable[[], Iterable[Sample]]]]] = {}

    def declare(self, name: str, documentation: str, labels: Sequence[str]) -> None:
        """Add a family; it is exposed (empty at first) from then on."""
        self._families[name] = (documentation, tuple(labels), [])

    def provide(self, name: str, samples: Callable[[], Iterable[Sample]]) -> None:
        """Register a source of (label values, value) for a declared family.

        Raises:
            KeyError: the family was not declared.
        """
        self._families[name][2].append(samples)

    def total(self, name: str) -> float:
        """The sum of a declared family's samples now.

        Raises:
            KeyError: the family was not declared.
        """
        return sum(value for source in self._families[name][2] for _, value in source())

    def families(self) -> Iterator[tuple[str, Metric, tuple[str, ...]]]:
        """(name, empty family, labels) of what was declared."""
        for name, (documentation, labels, _) in self._families.items():
            yield name, GaugeMetricFamily(name, documentation, labels=labels), labels

    def collect(self) -> Iterator[Metric]:
        """Called at each scrape, on the HTTP server's thread of control."""
        for name, (documentation, labels, sources) in self._families.items():
            family = GaugeMetricFamily(name, documentation, labels=labels)
            for source in sources:
                for values, value in list(source()):
                    family.add_metric(list(values), value)
            yield family


class Metrics:
    """All metrics of one process, in a registry of their own (never the global one: tests stay apart)."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        registry = registry or CollectorRegistry()
        self.registry = registry

        def counter(name: str, documentation: str, *labels: str) -> Counter:
            return Counter(f"babelwatch_{name}", documentation, labels, registry=registry)

        def histogram(
            name: str, documentation: str, *labels: str, buckets: Sequence[float] = LATENCY_BUCKETS_S
        ) -> Histogram:
            return Histogram(f"babelwatch_{name}", documentation, labels, buckets=buckets, registry=registry)

        def gauge(name: str, documentation: str, *labels: str) -> Gauge:
            return Gauge(f"babelwatch_{name}", documentation, labels, registry=registry)

        # classify
        self.documents = counter(
            "documents_total",
            "Documents taken from Kafka by what became of them: opinion, unmatched, duplicate, rejected, failed.",
            "result",
        )
        self.reposts = counter(
            "reposts_total", "Documents that repeat another one's text: counted, not classified again."
        )
        self.opinions = counter(
            "opinions_total", "Opinions by entity, language and sentiment.", "entity", "lang", "sentiment"
        )
        self.topics = counter("topics_total", "Opinions by entity and news topic.", "entity", "topic")
        self.dead_letters = counter("dead_letters_total", "Records that could not be used.", "role", "reason")
        self.batch_documents = histogram("batch_documents", "Documents in one run of the model.", buckets=BATCH_BUCKETS)
        self.batch_tokens = counter("model_tokens_total", "Tokens given to the model: kind real or padding.", "kind")
        self.model_seconds = histogram("model_seconds", "Duration of one run of the model.")
        self.model_errors = counter("model_errors_total", "Texts that the model could not judge, by kind.", "kind")
        self.model_concurrency = gauge(
            "model_concurrency",
            "Runs of the model that may go side by side: rate(babelwatch_model_seconds_sum) over this is how busy it is.",
            "device",
        )
        self.document_age = histogram(
            "document_age_seconds",
            "From the time a document was written to Kafka to its opinion being ready.",
            buckets=(0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800),
        )
        # watchlist
        self.watchlist_reloads = counter(
            "watchlist_reloads_total", "Reloads of the watchlist: result ok or failed.", "result"
        )
        self.watchlist_in_force = gauge(
            "watchlist_last_reload_success", "1 when the newest watchlist file is in force, 0 when it was refused."
        )
        self.watchlist_entities = gauge("watchlist_entities", "Entities on the watchlist in force.")
        # detect
        self.late = counter(
            "late_opinions_total", "Opinions that came after their bucket was closed: counted, not judged."
        )
        self.repeated = counter("repeated_opinions_total", "Opinions seen before (same id): left out.")
        self.alerts = counter(
            "alerts_total", "Alerts raised, by entity, state and severity.", "entity", "state", "severity"
        )
        self.incidents = counter("incidents_total", "Incidents that began to fire.")
        self.budget = gauge(
            "false_alarm_budget_per_day", "False alarms a day that the configuration accepts over all that is watched."
        )
        self.alarms = counter(
            "signal_alarms_total",
            "Alarms of single series and signals, right and false: an incident holds one or more.",
        )
        self.allowed = counter(
            "allowed_false_alarms_total",
            "False alarms that the budget has allowed in the event time so far: what incidents are to be compared with.",
        )
        self.restore_seconds = histogram("restore_seconds", "Duration of bringing back the state of one partition.")
        self.restored_records = counter("restored_records_total", "State records read while restoring.")
        # delivery
        self.commits = counter("commits_total", "Commits of outputs and offsets together.", "role")
        self.commit_seconds = histogram("commit_seconds", "Duration of one commit.", "role")
        self.outputs = counter("outputs_total", "Records written.", "role")
        self.rebalances = counter("rebalances_total", "Assignments received from the group.", "role")
        self.paused = counter(
            "pauses_total",
            "Times a partition was paused: it was full (back-pressure), or waits for a slower one.",
            "role",
        )
        self.expired = counter(
            "expired_records_total",
            "Records that the broker deleted (its retention) before the role had read them.",
            "role",
        )
        # notify
        self.deliveries = counter(
            "deliveries_total",
            "Attempts to deliver a message: result delivered, retry or rejected; and alerts skipped: not for this sink.",
            "sink",
            "result",
        )
        self.withheld = counter(
            "withheld_alerts_total",
            "Alerts not delivered as they came: reason muted, acknowledged, quiet, digest or daily.",
            "sink",
            "reason",
        )
        self.delivery_seconds = histogram("delivery_seconds", "Duration of one attempt to deliver.", "sink")
        self.sink_failing = gauge(
            "sink_failing_seconds", "How long the sink has been refusing; 0 when it works.", "sink"
        )
        # http
        self.actions = counter("actions_total", "What people did on the status page or by its API, by kind.", "kind")
        self.http_refused = counter(
            "http_refused_total", "Requests turned away, by status: 401, 403 or 429 (too many wrong tokens).", "status"
        )
        self.build = gauge(
            "build_info", "Version of Babelwatch and of the bundle in use; always 1.", "version", "bundle"
        )

        self.derived = Derived()
        for name, documentation, labels in (
            (
                "lag_records",
                "Records between the position of a role and the end of its partition.",
                ("role", "partition"),
            ),
            ("backlog_records", "Records taken and not yet committed.", ("role", "partition")),
            (
                "held_partitions",
                "Partitions of documents that wait, because a slower one is further behind than `alerts.evidence_hours`.",
                (),
            ),
            ("tasks", "Tasks alive on the event loop; growth without an end is a leak.", ()),
            ("model_queue_documents", "Documents waiting for the model.", ()),
            ("series", "Series followed by the detect role.", ("partition",)),
            ("role_ready", "1 when a role is assigned and restored, else 0.", ("role",)),
            ("clock_seconds", "This process's clock as Unix time: its skew is the distance to the scrape's time.", ()),
            (
                "entity_info",
                "Name and owner (the label `owner`) of a watched entity, to join to other metrics; always 1.",
                ("entity", "name", "owner"),
            ),
            ("open_incidents", "Incidents that are firing.", ("entity", "severity")),
            ("held_alerts", "Alerts that a sink holds back for now: quiet hours, digests, mutes.", ("sink",)),
            ("watermark_seconds", "Event time up to which buckets are closed, as Unix time.", ("partition",)),
            (
                "negative_share_ratio",
                "Negative share of the last hour of event time, corrected for the classifier's known confusion.",
                ("entity", "lang"),
            ),
            ("negative_share_low_ratio", "Low end (95 %) of the negative share.", ("entity", "lang")),
            ("negative_share_high_ratio", "High end (95 %) of the negative share.", ("entity", "lang")),
            ("expected_negative_share_ratio", "Negative share that the baseline expects.", ("entity", "lang")),
            ("recent_documents", "Opinions in the last hour of event time.", ("entity", "lang")),
        ):
            self.derived.declare(f"babelwatch_{name}", documentation, labels)
        registry.register(self.derived)
        self._own = [m for m in vars(self).values() if isinstance(m, Counter | Histogram | Gauge)]
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        GCCollector(registry=registry)

    def families(self) -> Iterator[tuple[str, Metric, tuple[str, ...]]]:
        """(exposed name, family, labels) of everything declared here, for the documentation and its test."""
        for metric in self._own:
            family = next(iter(metric.describe()))
            suffix = "_total" if family.type == "counter" else ""
            yield family.name + suffix, family, tuple(metric._labelnames)
        for name, family, labels in self.derived.families():
            yield name, family, labels
