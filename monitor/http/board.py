"""What is known of the stream, in bounded memory and from the topics alone: so any replica's page shows the same."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt
import structlog

from monitor.detection.bank import ROLLUP, SeriesBank
from monitor.detection.counts import StateError
from monitor.detection.quantify import Correction, correction
from monitor.detection.settings import DetectionSettings
from monitor.detection.stored import read_cell, read_progress, read_series
from monitor.http.rings import Ring, Table
from monitor.records import Action, Alert, Pulse

log = structlog.get_logger("monitor.board")

MAX_INCIDENTS, MAX_STEPS = 200, 100
"""Incidents kept, and steps of one; the first step stays, since it tells how it began."""

MAX_ACTIONS = 500

LOOKED_UP = 60
"""Baselines looked up at once: 0.3 ms each, on the loop that also keeps the group's membership. A baseline moves
slowly, so the others may wait for the next time."""

FORGET_S = 3600.0
"""A process that was silent for so long is not shown any more."""


class Board:
    """Fed by the topics, read by `monitor.http.showing`.

    Args:
        settings: The detector's: the length of a bucket, and what its baselines are read with.
        confusion: The classifier's confusion for a language, or None when it is unknown.
    """

    def __init__(
        self,
        settings: DetectionSettings | None = None,
        confusion: Callable[[str], npt.NDArray[np.float64] | None] = lambda _: None,
    ) -> None:
        self.settings = settings or DetectionSettings()
        self.entities: dict[str, tuple[str, dict[str, str]]] = {}
        """(name, labels) by id, of the watchlist in force."""
        self.incidents: OrderedDict[str, list[Alert]] = OrderedDict()
        """Alerts in order, by incident; the newest incident last."""
        self.mutes: dict[str, Action] = {}
        """The newest mute or unmute by entity."""
        self.actions: OrderedDict[str, Action] = OrderedDict()
        self.pulses: dict[str, Pulse] = {}
        self.erased: set[str] = set()
        """Hashes of documents that may not be shown any more."""
        self.closed_ms = 0
        """Event time: the end of the last closed bucket."""
        self._confusion = confusion
        self.acts: Counter[str] = Counter()
        """How much was ever done about an entity and its incidents."""
        self._about: dict[str, list[Action]] = {}
        self._rings: dict[str, dict[str, Ring]] = {}
        self._corrections: dict[str, Correction] = {}
        self._bank = SeriesBank(self.settings, entities=[], confusion=confusion)
        self._rows: dict[tuple[str, str], bytes] = {}
        self._stale: OrderedDict[tuple[str, str], None] = OrderedDict()
        self._expected: dict[tuple[str, str], float] = {}
        self._listeners: set[Callable[[], None]] = set()

    # --- in -------------------------------------------------------------------------------------------------------

    def watch(self, entities: Mapping[str, tuple[str, Mapping[str, str]]]) -> None:
        """The watchlist in force: (name, labels) by id."""
        self.entities = {entity: (name, dict(labels)) for entity, (name, labels) in entities.items()}
        self._bank.set_entities(list(entities))
        for gone in self._rings.keys() - entities.keys():
            del self._rings[gone]
        self._expected = {key: share for key, share in self._expected.items() if key[0] in entities}
        self._rows = {key: row for key, row in self._rows.items() if key[0] in entities}
        self._stale = OrderedDict((key, None) for key in self._stale if key[0] in entities)

    def on_state(self, key: bytes, value: bytes | None) -> None:
        """A row of the detect role's state.

        Raises:
            ValueError: the row is damaged.
        """
        if value is None:
            return  # what the detector forgets is still a part of the picture
        if (cell := read_cell(key, value)) is not None:
            self.on_counts(*cell)
        elif (series := read_series(key)) is not None:
            if series[0] in self.entities:
                self._rows[series] = value
        elif (closed_ms := read_progress(key, value)) is not None:
            self.closed_ms = max(self.closed_ms, closed_ms)

    def on_counts(self, entity: str, bucket_ms: int, counts: Mapping[str, tuple[int, float]]) -> None:
        """One entity's bucket: (documents, negatives as classified) by language."""
        if entity not in self.entities:
            return
        rings = self._rings.setdefault(entity, {})
        for lang, (documents, negatives) in counts.items():
            if lang == ROLLUP:
                continue
            correct = self._correction(lang)
            corrected = (negatives - correct.false_rate * documents) / correct.youden
            ring = rings.setdefault(lang, Ring())
            ring.put(bucket_ms // self.bucket_ms, documents, corrected, documents / correct.youden**2)

    def on_alert(self, alert: Alert) -> None:
        """A step of an incident; one with an id that is known takes the other's place."""
        steps = self.incidents.setdefault(alert.incident, [])
        for place, step in enumerate(steps):
            if step.id == alert.id:
                steps[place] = alert
                return
        steps.append(alert)
        steps.sort(key=lambda step: step.sequence)
        if len(steps) > MAX_STEPS:
            del steps[1]
        self.incidents.move_to_end(alert.incident)
        while len(self.incidents) > MAX_INCIDENTS:
            self.incidents.popitem(last=False)

    def on_action(self, action: Action) -> None:
        """Something that a person did; a repeat is dropped."""
        if action.id in self.actions:
            return
        self.actions[action.id] = action
        self.acts[action.entity] += 1
        if action.incident:
            self._about.setdefault(action.incident, []).append(action)
        if len(self.actions) > MAX_ACTIONS:
            _, oldest = self.actions.popitem(last=False)
            if (about := self._about.get(oldest.incident)) is not None:
                about.remove(oldest)
                if not about:
                    del self._about[oldest.incident]
        if action.kind in ("mute", "unmute"):
            before = self.mutes.get(action.entity)
            if before is None or before.at_ms <= action.at_ms:
                self.mutes[action.entity] = action
        if action.kind == "erase":
            self.erased.update(action.changes)

    def on_pulse(self, pulse: Pulse) -> None:
        """A process told how it does; one that stopped as it should is forgotten."""
        before = self.pulses.get(pulse.instance)
        if before is None or before.at_ms <= pulse.at_ms:
            self.pulses[pulse.instance] = pulse
        for instance, known in list(self.pulses.items()):
            if known.stopped or known.at_ms < pulse.at_ms - FORGET_S * 1000:
                del self.pulses[instance]

    def changed(self) -> None:
        """Tell the open pages."""
        for listener in list(self._listeners):
            listener()

    def subscribe(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Call `listener` at every change; returns the way to stop that."""
        self._listeners.add(listener)
        return lambda: self._listeners.discard(listener)

    # --- out ------------------------------------------------------------------------------------------------------

    @property
    def bucket_ms(self) -> int:
        """Length of a bucket."""
        return self.settings.bucket_s * 1000

    def languages(self, entity: str) -> list[str]:
        """Languages in which the entity was met lately."""
        return sorted(self._rings.get(entity, ()))

    def window(self, entity: str, lang: str, first: int, end: int) -> Table:
        """float32 [end - first, 3]: documents, corrected negatives and inflation of these buckets; `*` adds languages up."""
        rings = self._rings.get(entity, {})
        if lang != ROLLUP:
            return rings.get(lang, Ring()).window(first, end)
        return sum((ring.window(first, end) for ring in rings.values()), np.zeros((max(0, end - first), 3), np.float32))

    def about(self, incident: str) -> list[Action]:
        """What people did about an incident, in order."""
        return self._about.get(incident, [])

    def muted(self, entity: str, now_ms: int) -> Action | None:
        """The mute in force, if there is one."""
        action = self.mutes.get(entity)
        return action if action is not None and action.kind == "mute" and action.until_ms > now_ms else None

    def expected(self, entity: str, lang: str) -> float | None:
        """The negative share that the baseline expects, 0 to 1."""
        return self._expected.get((entity, lang))

    def look_up(self) -> None:
        """Bring the expected shares up to date, the longest waiting first."""
        if self._rows:
            rows, self._rows = self._rows, {}
            try:
                self._bank.restore(rows)
            except StateError as error:
                log.warning("board.state_unreadable", reason=str(error))
            for key in rows:
                self._stale[key] = None
        for _ in range(min(LOOKED_UP, len(self._stale))):
            key, _ = self._stale.popitem(last=False)
            for view in self._bank.views_of(key):
                if view.signal == "negative_share":
                    self._expected[key] = min(max(view.expected, 0.0), 1.0)

    def _correction(self, lang: str) -> Correction:
        known = self._corrections.get(lang)
        if known is None:
            known = self._corrections[lang] = correction(self._confusion(lang))
        return known
