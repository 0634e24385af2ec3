"""Tells every few seconds how this process does, so that any replica's page shows all of them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time
from collections.abc import Callable, Mapping

import structlog
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError
from prometheus_client.metrics import MetricWrapperBase

from monitor.metrics import Metrics
from monitor.records import Pulse, encode
from monitor.roles.stream import StreamRole
from monitor.waiting import told_within
from monitor.watch import WatchlistKeeper

log = structlog.get_logger("monitor.pulse")

EVERY_S = 5.0
"""Often enough to see that a process is gone before the group has noticed; a record of half a kilobyte each time."""

LAST_WORD_S = 2.0
"""The last pulse must not hold up the end of the process."""


class Pulses:
    """Takes this process's pulse.

    Args:
        role: What the process does: all, classify, detect or notify.
        version: Of Babelwatch.
        bundle: Name of the model bundle.
        metrics: Where the process counts.
        roles: Its stream roles by name, once they are made.
        watchlist: The watchlist in force.
        waiting: What the process waits for; empty when it is ready.
        stopping: Whether this may be the last one.
    """

    def __init__(
        self, *, role: str, version: str, bundle: str, metrics: Metrics, roles: Mapping[str, StreamRole],
        watchlist: WatchlistKeeper, waiting: Callable[[], str], stopping: asyncio.Event,
    ) -> None:  # fmt: skip
        self.instance = f"{socket.gethostname()}/{os.getpid()}"
        self._role, self._version, self._bundle = role, version, bundle
        self._metrics = metrics
        self._roles = roles
        self._watchlist = watchlist
        self._waiting = waiting
        self._stopping = stopping
        self._began = self._at = time.monotonic()
        self._documents = self._runs = self._run_s = 0.0
        self._model_s = 0.0

    def look(self) -> Pulse:
        """How the process does now; rates are since the last look."""
        now, metrics = time.monotonic(), self._metrics
        documents = _sum(metrics.documents, "_total")
        runs, run_s = _sum(metrics.model_seconds, "_count"), _sum(metrics.model_seconds, "_sum")
        rate = (documents - self._documents) / max(now - self._at, 0.001)
        if runs > self._runs:
            self._model_s = (run_s - self._run_s) / (runs - self._runs)
        self._at, self._documents, self._runs, self._run_s = now, documents, runs, run_s
        restores = _sum(metrics.restore_seconds, "_count")
        waiting = self._waiting()
        failing = {s.labels["sink"]: s.value for family in metrics.sink_failing.collect() for s in family.samples}
        return Pulse(
            instance=self.instance,
            at_ms=int(time.time() * 1000),
            role=self._role,
            version=self._version,
            bundle=self._bundle,
            up_s=round(now - self._began, 1),
            ready=not waiting,
            waiting=waiting,
            documents=int(documents),
            documents_per_s=round(rate, 2),
            refused=int(_sum(metrics.dead_letters, "_total")),
            queue=int(metrics.derived.total("babelwatch_model_queue_documents")),
            model_s=round(self._model_s, 5),
            lag={name: sum(behind for _, behind in role.lags()) for name, role in self._roles.items()},
            backlog={name: sum(role.positions().values()) for name, role in self._roles.items()},
            restore_s=round(_sum(metrics.restore_seconds, "_sum") / restores, 3) if restores else 0.0,
            failing={sink: round(seconds, 1) for sink, seconds in failing.items() if seconds > 0},
            watchlist=self._watchlist.current.version,
            watchlist_error=self._watchlist.error,
            stopped=self._stopping.is_set(),
        )


def _sum(metric: MetricWrapperBase, suffix: str) -> float:
    return sum(s.value for family in metric.collect() for s in family.samples if s.name.endswith(suffix))


async def beat(
    look: Callable[[], Pulse], producer: AIOKafkaProducer, topic: str, stopping: asyncio.Event, on_pulse: Callable[[Pulse], None]
) -> None:  # fmt: skip
    """Send a pulse now and every few seconds until `stopping`, and a last one then.

    Args:
        look: Makes the pulse; its `stopped` says whether this is the last.
        producer: Started, and stopped by its owner.
        topic: Where to.
        stopping: Ends it.
        on_pulse: Told of each: this process's own page needs no broker for it.
    """
    while not stopping.is_set():
        await _send(look(), producer, topic, on_pulse)
        await told_within(stopping, EVERY_S)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(LAST_WORD_S):
            await _send(look(), producer, topic, on_pulse)


async def _send(pulse: Pulse, producer: AIOKafkaProducer, topic: str, on_pulse: Callable[[Pulse], None]) -> None:
    on_pulse(pulse)
    try:
        await producer.send(topic, encode(pulse), key=pulse.instance.encode())
    except KafkaError as error:
        log.debug("pulse.lost", reason=str(error))
