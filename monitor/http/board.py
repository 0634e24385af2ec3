"""What the status page shows, in bounded memory: recent buckets per series, incidents with their steps, the pipeline."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec

from monitor.records import Alert

MAX_POINTS = 240
"""Buckets kept per series: four hours of minutes, drawn as a sparkline."""

MAX_INCIDENTS = 200


class Point(NamedTuple):
    """One series in one bucket."""

    bucket_ms: int
    documents: int
    negatives: float


class Board:
    """Fed by the roles and the alerts topic; read by the API. Any replica can fill one from the topics."""

    def __init__(self) -> None:
        self.entities: dict[str, str] = {}
        """Names by id, of the watchlist in force."""
        self._points: dict[tuple[str, str], deque[Point]] = {}
        self._incidents: OrderedDict[str, list[Alert]] = OrderedDict()
        self._expected: dict[tuple[str, str], tuple[float, float, float, float]] = {}
        self._listeners: set[Callable[[], None]] = set()
        self.pipeline: Callable[[], dict[str, Any]] = dict
        """Asks the process how it does: rates, lag, queue, model."""

    def on_point(self, entity: str, lang: str, point: Point) -> None:
        """A bucket of a series; what came last of one bucket stands, and older buckets are not touched again."""
        points = self._points.setdefault((entity, lang), deque(maxlen=MAX_POINTS))
        if points and point.bucket_ms == points[-1].bucket_ms:
            points[-1] = point
        elif not points or point.bucket_ms > points[-1].bucket_ms:
            points.append(point)

    def on_expected(self, entity: str, lang: str, observed: float, expected: float, low: float, high: float) -> None:
        """What the detector makes of a series' negative share now."""
        self._expected[entity, lang] = (observed, expected, low, high)

    def on_alert(self, alert: Alert) -> None:
        """A step of an incident; a repeat is dropped."""
        steps = self._incidents.setdefault(alert.incident, [])
        if all(step.id != alert.id for step in steps):
            steps.append(alert)
        self._incidents.move_to_end(alert.incident)
        while len(self._incidents) > MAX_INCIDENTS:
            self._incidents.popitem(last=False)

    def changed(self) -> None:
        """Tell the open pages."""
        for listener in list(self._listeners):
            listener()

    def subscribe(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Call `listener` at every change; returns the way to stop that."""
        self._listeners.add(listener)
        return lambda: self._listeners.discard(listener)

    def snapshot(self) -> dict[str, Any]:
        """Everything the page shows, as JSON values."""
        return {
            "entities": [self._entity(entity, name) for entity, name in sorted(self.entities.items())],
            "incidents": [self._incident(steps) for steps in reversed(self._incidents.values())],
            "pipeline": self.pipeline(),
        }

    def _entity(self, entity: str, name: str) -> dict[str, Any]:
        languages = sorted(lang for known, lang in self._points if known == entity and lang != "*")
        return {
            "id": entity,
            "name": name,
            "open": [
                i
                for i, steps in self._incidents.items()
                if steps[-1].entity == entity and steps[-1].state != "resolved"
            ],
            "series": {lang: self._series(entity, lang) for lang in ["*", *languages]},
        }

    def _series(self, entity: str, lang: str) -> dict[str, Any]:
        points = self._points.get((entity, lang), deque())
        observed, expected, low, high = self._expected.get((entity, lang), (None, None, None, None))
        return {
            "points": [list(point) for point in points],
            "observed": observed,
            "expected": expected,
            "low": low,
            "high": high,
        }

    def _incident(self, steps: list[Alert]) -> dict[str, Any]:
        told = next((step for step in reversed(steps) if step.state != "resolved"), steps[-1])
        return {
            **msgspec.to_builtins(told),
            "state": steps[-1].state,
            "ended_ms": steps[-1].ended_ms,
            "steps": [
                {"state": s.state, "at_ms": s.at_ms, "summary": s.summary, "severity": s.severity} for s in steps
            ],
        }
