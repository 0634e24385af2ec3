"""Wires broker, roles, HTTP and signals together: the only place that knows all of them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Coroutine, Sequence
from enum import StrEnum
from functools import partial
from importlib.metadata import version
from typing import Any

import numpy as np
import numpy.typing as npt
import structlog
from aiokafka import AIOKafkaProducer

from monitor.broker import client
from monitor.broker.committed import last_committed
from monitor.broker.embedded import EmbeddedBroker
from monitor.broker.reading import end_of
from monitor.broker.settings import KafkaSettings, TopicSettings, topic_configs
from monitor.config import Config
from monitor.detection.correlate import Correlator, Watched
from monitor.detection.detector import Detector, EntityInfo
from monitor.documents.entities import Matcher
from monitor.documents.language import LanguageIdentifier
from monitor.documents.parse import Parser
from monitor.documents.prepare import Preparer
from monitor.errors import ConfigError
from monitor.gauges import begin_alerts_at_zero, begin_at_zero, provide_opinion, provide_process
from monitor.http.board import Board
from monitor.http.desk import Desk
from monitor.http.health import Check, Health
from monitor.http.server import Site, serve
from monitor.inference.bundle import Bundle
from monitor.inference.classifier import BatchReport, Classifier
from monitor.inference.engine import Engine
from monitor.inference.probe import deadly
from monitor.metrics import Metrics
from monitor.records import Alert, Pulse
from monitor.roles.alignment import Alignment
from monitor.roles.classify import ClassifyProcessor
from monitor.roles.correlate import CorrelateProcessor
from monitor.roles.detect import DetectProcessor, check_partitions
from monitor.roles.feeds import ActionFeed, WatchlistFeed
from monitor.roles.follow import follow
from monitor.roles.notify import NotifyProcessor, read_rows
from monitor.roles.pulse import Pulses, beat
from monitor.roles.stream import StreamRole
from monitor.settings import secret
from monitor.sinks import make_sink
from monitor.watch import WatchlistKeeper
from monitor.watchlist import Watchlist

log = structlog.get_logger("monitor.app")

STALLED_S = 30.0
"""A poll loop that has not turned for so long is stuck (a client that silently stopped): /healthz says so, and the
orchestrator restarts us. A turn takes 0.1 s; a rebalance may hold one for some seconds."""


class Role(StrEnum):
    """What this process does."""

    ALL = "all"
    CLASSIFY = "classify"
    DETECT = "detect"
    NOTIFY = "notify"


class App:
    """One process of Babelwatch.

    Args:
        config: What to do.
        role: Which part of it.
        metrics: Where to count; its own by default.

    Raises:
        BabelwatchError: the configuration does not fit the role, or its files cannot be used.
    """

    def __init__(self, config: Config, role: Role = Role.ALL, metrics: Metrics | None = None) -> None:
        if config.kafka.embedded and role is not Role.ALL:
            raise ConfigError(
                "the embedded broker lives inside one process, so that process needs all roles",
                where="kafka.bootstrap_servers",
                hint="name a Kafka, or run without --role",
            )
        names = [sink.name for sink in config.sinks]
        if doubled := [name for name, count in Counter(names).items() if count > 1]:
            raise ConfigError(f"the name {doubled[0]!r} is used twice", where="sinks", hint="names are unique")
        self.config = config
        self.role = role
        self.metrics = metrics or Metrics()
        self.kafka: KafkaSettings = config.kafka
        self.board = Board(config.detection, self._confusion)
        self.desk = Desk(
            config.topics, self.board, on_action=lambda action: self.metrics.actions.labels(action.kind).inc()
        )
        self.url = ""
        self.partitions: dict[str, int] = {}
        # The embedded broker forgets everything: there a change is made in the file.
        self.watchlist = WatchlistKeeper(config.watchlist, self.metrics, in_file=config.kafka.embedded)
        self._bundle = Bundle.load(config.inference.bundle)
        self._roles: dict[str, StreamRole] = {}
        self._feed: ActionFeed | None = None
        self._stopping = asyncio.Event()
        self._starting = "connecting to the broker"
        self._started_at = time.monotonic()
        self.health = Health(
            alive={"loops": self._loops_turn}, ready={"start": self._has_started, "roles": self._roles_ready}
        )
        self._pulses = Pulses(
            role=role, version=version("babelwatch"), bundle=self._bundle.manifest.name, metrics=self.metrics,
            roles=self._roles, watchlist=self.watchlist, waiting=self._waiting, stopping=self._stopping,
        )  # fmt: skip
        self._declare_metrics()

    # --- life -----------------------------------------------------------------------------------------------------

    async def run(self) -> int:
        """Work until told to stop; returns the exit code."""
        self._listen_to_signals()
        client.hush_orphans(asyncio.get_running_loop())
        async with contextlib.AsyncExitStack() as stack:
            if self.config.http.enabled:
                site = Site(self.metrics, self.health, self.board, self.desk, self.watchlist)
                self.url, metrics_url = await stack.enter_async_context(serve(self.config.http, site))
                log.info("http.listening", url=self.url, metrics=metrics_url)
            if self.config.kafka.embedded:
                broker = await stack.enter_async_context(EmbeddedBroker())
                self.kafka = self.config.kafka.model_copy(update={"bootstrap_servers": broker.address})
            try:
                return await self._work(stack)
            except asyncio.CancelledError:
                if self._stopping.is_set():
                    return 0
                raise

    def stop(self) -> None:
        """Finish what is in flight, then end."""
        self._stopping.set()

    async def _work(self, stack: contextlib.AsyncExitStack) -> int:
        topics = self.config.topics
        names = [getattr(topics, field) for field in TopicSettings.model_fields]
        configs = topic_configs(topics, self.config.retention)
        # Alerts are few, and one partition keeps the order of all of them: one digest, not one for each partition.
        partitions = self.partitions = await client.patiently(
            "looking up the topics",
            lambda: client.ensure_topics(
                self.kafka,
                names,
                configs=configs,
                single=[topics.incidents, topics.alerts, topics.pulse, topics.watchlist],
                like={topics.state: topics.opinions, topics.notify: topics.alerts},
            ),
            stopping=self._stopping,
        )
        check_partitions(partitions, topics)
        transactions = await client.patiently(
            "asking for transactions", lambda: client.has_transactions(self.kafka), stopping=self._stopping
        )
        log.info(
            "delivery.mode", mode="exactly once" if transactions else "at least once, with deterministic ids",
            bundle=self._bundle.version, watchlist=self.watchlist.current.version,
        )  # fmt: skip
        changes = WatchlistFeed(self.kafka, topics.watchlist, partitions[topics.watchlist], self.watchlist)
        await client.patiently("reading the watchlist's changes", changes.restore, stopping=self._stopping)
        await self._make_roles(stack, partitions, transactions)
        drain_s = self.config.service.shutdown_timeout_s
        jobs: list[Coroutine[Any, Any, None]] = [
            role.run(self._stopping, drain_s=drain_s) for role in self._roles.values()
        ]
        jobs += [self.watchlist.follow(self._stopping), changes.run(self._stopping)]
        if self._feed is not None:
            jobs.append(self._feed.run(self._stopping))
        producer = client.producer(self.kafka)
        await client.patiently(
            "starting the producer", lambda: client.begin(producer, self.kafka), stopping=self._stopping
        )
        stack.push_async_callback(client.stop, producer)
        self.desk.producer = producer
        if (role := self._roles.get("classify")) is not None:
            jobs.append(self._align(role, producer).run(self._stopping))
        jobs.append(beat(self._pulses.look, producer, topics.pulse, self._stopping, self._on_pulse))
        if self.config.http.enabled and self.config.http.page:
            jobs.append(
                follow(
                    self.board, kafka=self.kafka, topics=topics, partitions=partitions, transactions=transactions,
                    stopping=self._stopping,
                )
            )  # fmt: skip
        self._starting = ""
        tasks = [asyncio.create_task(job) for job in jobs]
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
        failed = [task for task in done if not task.cancelled() and task.exception() is not None]
        if failed:
            log.error("process.failing", exc_info=failed[0].exception())
        self._stopping.set()
        await asyncio.gather(*tasks, return_exceptions=True)
        log.info("process.stopped", clean=not failed)
        return 1 if failed else 0

    async def _make_roles(
        self, stack: contextlib.AsyncExitStack, partitions: dict[str, int], transactions: bool
    ) -> None:
        wanted = self._wanted()
        if Role.CLASSIFY in wanted:
            self._starting = "loading the model"
            await self._make_classify(stack, partitions, transactions)
        if Role.DETECT in wanted:
            self._make_detect(partitions, transactions)
        if Role.NOTIFY in wanted:
            await self._make_notify(stack, transactions)
        self.watchlist.listen(self._take_watchlist)

    def _wanted(self) -> set[Role]:
        """The roles of this process."""
        return {Role.CLASSIFY, Role.DETECT, Role.NOTIFY} if self.role is Role.ALL else {self.role}

    async def _make_classify(
        self, stack: contextlib.AsyncExitStack, partitions: dict[str, int], transactions: bool
    ) -> None:
        config = self.config
        engine = await asyncio.to_thread(Engine, self._bundle, config.inference)
        stack.callback(engine.close)
        await asyncio.to_thread(engine.warm_up)
        self.metrics.model_concurrency.labels(engine.device).set(engine.concurrency)
        classifier = await stack.enter_async_context(Classifier(engine, config.inference, on_batch=self._on_batch))
        self.metrics.derived.provide("babelwatch_model_queue_documents", lambda: [((), classifier.pending)])
        identifier = await asyncio.to_thread(LanguageIdentifier)
        key = secret(config.service.author_salt, config.service.author_salt_file).encode()
        preparer = Preparer(Parser(config.documents), Matcher(self.watchlist.current), identifier, key)

        def rematch(watchlist: Watchlist) -> None:
            preparer.matcher = Matcher(watchlist)

        self.watchlist.listen(rematch)
        role = self._role("classify", config.topics.documents, transactions)
        role.new_processor = lambda partition: ClassifyProcessor(
            partition, kafka=self.kafka, topics=config.topics, document_partitions=partitions[config.topics.documents],
            opinion_partitions=partitions[config.topics.opinions], preparer=preparer,
            classifier=classifier, closed_at=config.detection.closed_at,
            deadly=partial(deadly, config.inference), metrics=self.metrics,
        )  # fmt: skip

    def _align(self, role: StreamRole, producer: AIOKafkaProducer) -> Alignment:
        partitions = range(self.partitions[role.topic])
        alignment = Alignment(
            # What is ahead of the slowest partition then costs a detector no more than what it keeps to explain by.
            int(self.config.alerts.evidence_hours * 3_600_000),
            lambda: last_committed(producer.client, role.group, role.topic, partitions),
            role.end,
        )
        role.held = lambda: alignment.held
        return alignment

    def _make_detect(self, partitions: dict[str, int], transactions: bool) -> None:
        config = self.config

        def new_detector(state: dict[bytes, bytes]) -> Detector:
            return Detector(config.detection, config.alerts, self._entities(), self._confusion, state)

        role = self._role("detect", config.topics.opinions, transactions)
        role.new_processor = lambda partition: DetectProcessor(
            partition, partitions=partitions[config.topics.opinions], kafka=self.kafka, topics=config.topics,
            transactions=transactions, metrics=self.metrics, new_detector=new_detector,
        )  # fmt: skip

        def new_correlator(state: dict[bytes, bytes]) -> Correlator:
            return Correlator(config.alerts, self._watched(), state)

        # Beside detect: it costs next to nothing, and whoever runs detectors wants to be told once.
        joining = self._role("correlate", config.topics.incidents, transactions)
        joining.new_processor = lambda partition: CorrelateProcessor(
            partition, kafka=self.kafka, topics=config.topics, transactions=transactions, metrics=self.metrics,
            new_correlator=new_correlator, on_alerts=self._on_alerts,
        )  # fmt: skip

    async def _make_notify(self, stack: contextlib.AsyncExitStack, transactions: bool) -> None:
        topics = self.config.topics
        feed = self._feed = ActionFeed(self.kafka, topics.audit, self.partitions[topics.audit])
        for settings in self.config.sinks:
            sink = make_sink(settings)
            stack.push_async_callback(sink.close)
            role = self._role(f"notify.{settings.name}", topics.alerts, transactions)
            role.new_processor = lambda partition, sink=sink, settings=settings: NotifyProcessor(  # type: ignore[misc]
                partition, sink, settings, topics=topics, feed=feed, metrics=self.metrics, stopping=self._stopping,
                rows=lambda: read_rows(self.kafka, topics, partition, settings.name, transactions=transactions),
                newest=lambda: end_of(self.kafka, partition, read_committed=True),
                rng=random.Random(),
            )  # fmt: skip

    def _role(self, name: str, topic: str, transactions: bool) -> StreamRole:
        role = StreamRole(name, topic, settings=self.kafka, transactions=transactions, metrics=self.metrics)
        self._roles[name] = role
        return role

    def _listen_to_signals(self) -> None:
        loop = asyncio.get_running_loop()

        def on_stop(number: int) -> None:
            if self._stopping.is_set():
                # The second one means now: what is not committed is read again.
                os._exit(128 + number)
            log.info("process.stopping", signal=signal.Signals(number).name)
            self._stopping.set()

        with contextlib.suppress(NotImplementedError, RuntimeError):  # not in the main thread: tests
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(number, on_stop, int(number))
            loop.add_signal_handler(signal.SIGHUP, self.watchlist.reload)

    @property
    def abandoned(self) -> int:
        """Records that the roles had taken and could not finish in time; a thread may still be at them."""
        return sum(role.abandoned for role in self._roles.values())

    # --- watchlist, bundle, views -----------------------------------------------------------------------------------

    def _entities(self) -> dict[str, EntityInfo]:
        watched = self.watchlist.current.entities.values()
        return {entity.id: EntityInfo(entity.name, entity.names, dict(entity.labels)) for entity in watched}

    def _watched(self) -> dict[str, Watched]:
        watched = self.watchlist.current.entities.values()
        return {entity.id: Watched(entity.name, dict(entity.labels)) for entity in watched}

    def _take_watchlist(self, watchlist: Watchlist) -> None:
        self.board.watch({entity.id: (entity.name, entity.labels) for entity in watchlist.entities.values()})
        if Role.DETECT in self._wanted():
            begin_alerts_at_zero(self.metrics, watchlist.entities)
        for role in self._roles.values():
            for processor in role.processors():
                if isinstance(processor, DetectProcessor):
                    processor.entities = self._entities()
                elif isinstance(processor, CorrelateProcessor):
                    processor.entities = self._watched()
        self.board.changed()

    def _confusion(self, lang: str) -> npt.NDArray[np.float64] | None:
        known = self._bundle.manifest.calibration.get("sentiment", {})
        entry = known.get(lang) or known.get("*")
        return np.array(entry.confusion, np.float64) if entry is not None else None

    def _on_batch(self, report: BatchReport) -> None:
        self.metrics.batch_documents.observe(report.documents)
        self.metrics.model_seconds.observe(report.run_s)
        self.metrics.batch_tokens.labels("real").inc(report.tokens)
        self.metrics.batch_tokens.labels("padding").inc(report.padded_tokens - report.tokens)

    def _on_alerts(self, alerts: Sequence[Alert]) -> None:
        for alert in alerts:
            log.info(
                "alert.raised", incident=alert.incident, entity=alert.entity, state=alert.state, severity=alert.severity,
                languages=alert.languages, kind=alert.kind, entities=len(alert.entities) or 1,
            )  # fmt: skip

    def _on_pulse(self, pulse: Pulse) -> None:
        self.board.on_pulse(pulse)
        self.board.changed()

    # --- health and metrics -----------------------------------------------------------------------------------------

    @property
    def ready(self) -> bool:
        """Every role assigned and restored, the model warm."""
        return all(check().ok for check in self.health.ready.values())

    def _waiting(self) -> str:
        return "; ".join(found.detail for check in self.health.ready.values() if not (found := check()).ok)

    def lag(self) -> int:
        """Records not yet worked off, over all roles."""
        return sum(behind for role in self._roles.values() for _, behind in role.lags())

    def documents_done(self) -> int:
        """Documents whose outcome is known."""
        counted = self.metrics.documents.collect()
        return int(sum(s.value for family in counted for s in family.samples if s.name.endswith("_total")))

    def dead_letters(self) -> Counter[str]:
        """Dead letters by reason."""
        found: Counter[str] = Counter()
        for family in self.metrics.dead_letters.collect():
            for sample in family.samples:
                if sample.name.endswith("_total") and sample.value:
                    found[sample.labels["reason"]] += int(sample.value)
        return found

    def _loops_turn(self) -> Check:
        now = time.monotonic()
        stuck = [role.name for role in self._roles.values() if role.started and now - role.beat_at > STALLED_S]
        return Check(not stuck, f"no turn for {STALLED_S:.0f} s: {', '.join(stuck)}" if stuck else "")

    def _has_started(self) -> Check:
        return Check(not self._starting, self._starting)

    def _roles_ready(self) -> Check:
        waiting = [role.name for role in self._roles.values() if not role.ready]
        return Check(
            not waiting and not self._starting, f"not assigned or restoring: {', '.join(waiting)}" if waiting else ""
        )

    def _declare_metrics(self) -> None:
        self.metrics.build.labels(version("babelwatch"), self._bundle.version).set(1)
        begin_at_zero(self.metrics, self.config, self._wanted())
        provide_process(self.metrics, self._roles, self.watchlist)
        provide_opinion(self.metrics, self._working_detectors, self.watchlist)

    def _working_detectors(self) -> list[tuple[str, Detector]]:
        """Of the partitions that are ours now and restored, each with the partition's number."""
        role = self._roles.get("detect")
        mine = [p for p in (role.processors() if role else []) if isinstance(p, DetectProcessor)]
        return [(str(p.partition.partition), p.detector) for p in sorted(mine, key=lambda p: p.partition) if p.detector]
