"""What the metrics say at a scrape about the process as it is then: lag, readiness, open incidents, shares, the clock."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from itertools import product
from typing import get_args

from monitor.config import Config
from monitor.detection.detector import Detector, Recent
from monitor.documents.parse import Reason as RefusedBecause
from monitor.inference.engine import Reason as FailedBecause
from monitor.metrics import Metrics, Sample
from monitor.records import ActionKind, AlertState, Severity
from monitor.roles.notify import NotifyProcessor
from monitor.roles.stream import StreamRole
from monitor.watch import WatchlistKeeper

OWNER = "owner"
"""The label of the watchlist that names whom an entity belongs to; the one that metrics carry."""


def provide_process(metrics: Metrics, roles: Mapping[str, StreamRole], watchlist: WatchlistKeeper) -> None:
    """Register what every process tells: its roles, its clock, what is watched.

    Args:
        metrics: Where to.
        roles: Those of the process; may still be filled.
        watchlist: Asked at each scrape for the one in force.
    """
    provide = metrics.derived.provide
    provide("babelwatch_lag_records", lambda: [((r.name, str(p)), lag) for r in roles.values() for p, lag in r.lags()])
    provide(
        "babelwatch_backlog_records",
        lambda: [((r.name, str(p)), n) for r in roles.values() for p, n in r.positions().items()],
    )
    provide("babelwatch_held_partitions", lambda: [((), r.waiting) for r in roles.values() if r.name == "classify"])
    provide("babelwatch_role_ready", lambda: [((role.name,), float(role.ready)) for role in roles.values()])
    provide("babelwatch_held_alerts", lambda: _held(roles))
    provide("babelwatch_tasks", lambda: [((), len(asyncio.all_tasks()))])
    provide("babelwatch_clock_seconds", lambda: [((), time.time())])
    provide(
        "babelwatch_entity_info",
        lambda: [
            ((entity.id, entity.name, entity.labels.get(OWNER, "")), 1)
            for entity in watchlist.current.entities.values()
        ],
    )


def provide_opinion(
    metrics: Metrics, detectors: Callable[[], Iterable[tuple[str, Detector]]], watchlist: WatchlistKeeper
) -> None:
    """Register what a process with detectors tells of the entities.

    Args:
        metrics: Where to.
        detectors: Those at work, each with the partition it is for.
        watchlist: Asked at each scrape for the one in force.
    """
    provide = metrics.derived.provide

    def recent(value: Callable[[Recent], float]) -> Callable[[], list[Sample]]:
        return lambda: [
            ((row.entity, row.lang), value(row)) for _, detector in detectors() for row in detector.recent()
        ]

    def expected() -> list[Sample]:
        return [
            ((view.entity, view.lang), view.expected)
            for _, detector in detectors()
            for view in detector.views()
            if view.signal == "negative_share"
        ]

    def open_incidents() -> list[Sample]:
        found = [incident for _, detector in detectors() for incident in detector.open_incidents]
        counts = Counter((i.entity, i.severity) for i in found if i.state == "firing")
        if not any(True for _ in detectors()):
            return []
        # Zeros too: an incident's beginning and end are then changes of a value, not of what exists.
        watched = [(entity, severity) for entity in watchlist.current.entities for severity in get_args(Severity)]
        return [(key, counts[key]) for key in dict.fromkeys([*watched, *counts])]

    provide("babelwatch_series", lambda: [((p,), len(d)) for p, d in detectors()])
    provide("babelwatch_watermark_seconds", lambda: [((p,), d.closed_ms / 1000) for p, d in detectors()])
    provide("babelwatch_open_incidents", open_incidents)
    provide("babelwatch_negative_share_ratio", recent(lambda row: row.share))
    provide("babelwatch_negative_share_low_ratio", recent(lambda row: row.low))
    provide("babelwatch_negative_share_high_ratio", recent(lambda row: row.high))
    provide("babelwatch_recent_documents", recent(lambda row: row.documents))
    provide("babelwatch_expected_negative_share_ratio", expected)


def begin_alerts_at_zero(metrics: Metrics, entities: Iterable[str]) -> None:
    """The same for the alerts of each watched entity."""
    for labels in product(entities, get_args(AlertState), get_args(Severity)):
        metrics.alerts.labels(*labels)


def begin_at_zero(metrics: Metrics, config: Config, roles: Collection[str]) -> None:
    """Expose counters before they first count: `increase` does not see a series that is born with a 1.

    Args:
        metrics: Where they are.
        config: Names the sinks.
        roles: Of this process: classify, detect, notify.
    """
    metrics.budget.set(config.detection.false_alarms_per_day)
    for kind in get_args(ActionKind):
        metrics.actions.labels(kind)
    for status in ("401", "403", "429"):
        metrics.http_refused.labels(status)
    for result in ("ok", "failed"):
        metrics.watchlist_reloads.labels(result)
    if "classify" in roles:
        for result in ("opinion", "unmatched", "duplicate", "rejected", "failed"):
            metrics.documents.labels(result)
        for refused in RefusedBecause:
            metrics.dead_letters.labels("classify", str(refused))
        for failed in get_args(FailedBecause):
            metrics.model_errors.labels(failed)
            metrics.dead_letters.labels("classify", f"model_{failed}")
        for reason in ("model_crash", "not_preparable"):
            metrics.dead_letters.labels("classify", reason)
    if "detect" in roles:
        metrics.dead_letters.labels("detect", "not_an_opinion")
        metrics.dead_letters.labels("correlate", "not_a_step")
    for role in ("classify", "detect", "correlate", *(f"notify.{sink.name}" for sink in config.sinks)):
        if role.partition(".")[0].replace("correlate", "detect") in roles:
            for counter in (metrics.commits, metrics.outputs, metrics.rebalances, metrics.paused, metrics.expired):
                counter.labels(role)
    if "notify" in roles:
        for sink in config.sinks:
            metrics.sink_failing.labels(sink.name).set(0)
            for reason in ("muted", "acknowledged", "quiet", "digest", "daily"):
                metrics.withheld.labels(sink.name, reason)
            for result in ("delivered", "retry", "rejected", "skipped"):
                metrics.deliveries.labels(sink.name, result)
        for reason in ("not_an_alert", "sink_rejected"):
            metrics.dead_letters.labels("notify", reason)


def _held(roles: Mapping[str, StreamRole]) -> list[Sample]:
    """Alerts held back, of each sink that this process serves."""
    return [
        ((name.removeprefix("notify."),), sum(p.held for p in role.processors() if isinstance(p, NotifyProcessor)))
        for name, role in roles.items()
        if name.startswith("notify.")
    ]
