"""`babelwatch notify test`: one sample to one sink, without Kafka."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from monitor.errors import ConfigError
from monitor.sinks import make_sink
from monitor.sinks.base import Delivered, Retry
from monitor.sinks.hours import Calendar
from monitor.sinks.samples import INCIDENT, samples
from monitor.sinks.settings import AlertmanagerSettings, SinkSettings

SAMPLE_HOLD_S = 300.0
"""Alertmanager forgets the sample by itself after this."""


@dataclass(frozen=True, slots=True)
class Trial:
    """What came of a sample."""

    delivered: bool
    lines: tuple[str, ...]
    """For the terminal."""


async def send_sample(sinks: Sequence[SinkSettings], name: str, state: str) -> Trial:
    """Send the sample in one of its states to the sink of this name.

    Raises:
        ConfigError: no such sink or state, or its settings cannot be used.
    """
    settings = next((sink for sink in sinks if sink.name == name), None)
    if settings is None:
        known = ", ".join(sink.name for sink in sinks) or "none"
        raise ConfigError(f"no sink is called {name!r}", where="sinks", hint=f"configured: {known}")
    now_s = time.time()
    alert = next((sample for sample in samples(int(now_s * 1000) - 600_000) if sample.state == state), None)
    if alert is None:
        raise ConfigError(f"{state!r} is no state", where="--state", hint="firing, escalated or resolved")
    if isinstance(settings, AlertmanagerSettings):
        settings = settings.model_copy(update={"hold_s": SAMPLE_HOLD_S})
    # Each sample has an id of its own, or a receiver that knows repeats would drop the second one.
    alert = msgspec.structs.replace(alert, id=f"{alert.id}-{int(now_s * 1000)}", sequence=int(now_s))
    sink = make_sink(settings)
    begun = time.monotonic()
    try:
        outcome = await sink.deliver(alert, key=alert.id)
    finally:
        await sink.close()
    took = f"{time.monotonic() - begun:.1f} s"
    if not isinstance(outcome, Delivered):
        hint = "it would be tried again" if isinstance(outcome, Retry) else "an alert would be dead-lettered"
        return Trial(False, (f"{name} ({settings.type}): not delivered after {took}: {outcome.reason} ({hint})",))
    lines = [f"{name} ({settings.type}): delivered in {took}"]
    if settings.keeps_state and state != "resolved":
        lines.append(
            f"it holds the incident {INCIDENT} now; end it with: babelwatch notify test {name} --state resolved"
        )
    if Calendar(settings.quiet, "", settings.time_zone).quiet(int(now_s * 1000)):
        lines.append(
            "its quiet hours are now: an alert would be held, unless it is " + ", ".join(settings.quiet_passes)
        )
    return Trial(True, tuple(lines))
