"""What one sink is told, and when: routes, repeats, mutes, acknowledgements, quiet hours, digests; pure.

The outbox has a row for each incident that the sink is told of, and one for each entity with a summary to come. Rows
are written to a compacted topic in the commit that moves the offset, so what is held survives a crash: an alert is
always behind the committed offset, or in a row, or delivered. Time is the wall clock that people live by, and an
argument.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import msgspec

from monitor.detection.erasing import erase_from_alert
from monitor.records import SEVERITIES, Alert, AlertState, Evidence, Record, Severity
from monitor.sinks.actions import Actions
from monitor.sinks.base import Digest, digest_key, routes
from monitor.sinks.hours import Calendar
from monitor.sinks.settings import BaseSinkSettings, TextSinkSettings

CLOSED_KEPT_MS = 7 * 86_400_000
"""So long after its end an alert of an incident is known for a repeat: as long as Kafka keeps records by default."""

OPEN_KEPT_MS = 90 * 86_400_000
"""An incident that nobody ends (its detector's state was deleted) is forgotten after so long."""

Withheld = Literal["repeat", "route", "acknowledged", "muted", "quiet", "digest", "daily"]
"""Why an alert is not delivered as it comes."""


class Held(Record, frozen=True):
    """An alert that waits."""

    alert: Alert
    place: int
    """Its offset on the alerts topic."""
    since_ms: int


class Row(Record, frozen=True):
    """What the sink knows of one incident, and what waits for it."""

    sequence: int = -1
    """Of the newest alert taken, whatever became of it."""
    state: AlertState | None = None
    """The last step that the sink was told."""
    severity: Severity = "info"
    """As it was told last."""
    at_ms: int = 0
    """When it was told last, or when the row began."""
    held: tuple[Held, ...] = ()
    last: Alert | None = None
    """What it was told last, if that is to be repeated."""
    told: tuple[Severity, ...] = ()
    """Severities under which it was told since the incident began, or began again."""

    @property
    def known(self) -> bool:
        """The sink has it as an open incident."""
        return self.state not in (None, "resolved")


class Day(Record, frozen=True):
    """What will be in an entity's next summary: the newest alert of each incident."""

    since_ms: int
    items: tuple[Held, ...]


@dataclass(frozen=True, slots=True)
class Single:
    """One alert to deliver."""

    alert: Alert
    key: str
    """The alert's id; a repeat of one that was told has a key of its own."""
    again: tuple[Severity, ...] = ()
    """Of a repeat: the severities under which the incident was told."""


Notice = Single | Digest
"""What is to be delivered next."""


class Outbox:
    """One sink's view of one alerts partition.

    Args:
        settings: The sink's.
        actions: What people did; may change at any time.
        rows: Of the outbox before this one, by key.
        digests: Whether the sink can tell several alerts as one.
    """

    def __init__(
        self,
        settings: BaseSinkSettings,
        actions: Actions,
        rows: Mapping[str, bytes] | None = None,
        *,
        digests: bool = False,
    ) -> None:
        self._settings = settings
        self._actions = actions
        self._text = settings if digests and isinstance(settings, TextSinkSettings) else None
        self._digest_ms = self._text.digest_s * 1000 if self._text else 0.0
        self._calendar = Calendar(settings.quiet, self._text.daily_at if self._text else "", settings.time_zone)
        self._rows: dict[str, Row] = {}
        self._days: dict[str, Day] = {}
        self._changed: set[str] = set()
        for key, value in (rows or {}).items():
            kind, _, name = key.partition("|")
            if kind == "incident":
                self._rows[name] = msgspec.json.decode(value, type=Row)
            else:
                self._days[name] = msgspec.json.decode(value, type=Day)

    # --- what comes ---------------------------------------------------------------------------------------------------

    def take(self, alert: Alert, place: int, now_ms: int) -> Withheld | None:
        """Take the next alert of the partition; returns why it is not to be delivered now, None when it is."""
        row = self._rows.get(alert.incident, Row(at_ms=now_ms))
        if alert.sequence <= row.sequence:
            return "repeat"
        heard_of = row.known or bool(row.held) or self._noted(alert)
        if not routes(self._settings, alert) and not (alert.state == "resolved" and heard_of):
            return "route"
        item = Held(alert=alert, place=place, since_ms=now_ms)
        self._note(item)
        row = msgspec.structs.replace(row, sequence=alert.sequence)
        if self._text is not None and self._text.daily_only:
            self._put(alert.incident, row)
            return "daily"
        if self._is_update(alert, row):
            self._put(alert.incident, row)
            return "acknowledged"
        muted = self._muted(alert, now_ms)
        # The end makes the steps before it old; a mute ends with the incident as it then is.
        held = (item,) if muted or alert.state == "resolved" else (*row.held, item)
        if muted and alert.state == "resolved" and not row.known:
            held = ()
        self._put(alert.incident, msgspec.structs.replace(row, held=held))
        return self._barred(alert, now_ms) or (None if self._gathered(now_ms) else "digest")

    def take_again(self, alert: Alert, place: int, now_ms: int) -> Withheld | None:
        """Take an alert that this sink refused before, unless a later step of its incident came meanwhile."""
        row = self._rows.get(alert.incident, Row(at_ms=now_ms))
        if alert.sequence < row.sequence or any(item.alert.sequence == alert.sequence for item in row.held):
            return "repeat"
        item = Held(alert=alert, place=place, since_ms=now_ms)
        if self._text is not None and self._text.daily_only:
            self._note(item)
            return "daily"
        self._put(alert.incident, msgspec.structs.replace(row, sequence=alert.sequence, held=(*row.held, item)))
        return self._barred(alert, now_ms) or (None if self._gathered(now_ms) else "digest")

    def _noted(self, alert: Alert) -> bool:
        return any(
            item.alert.incident == alert.incident
            for entity in _entities(alert)
            if entity in self._days
            for item in self._days[entity].items
        )

    def _note(self, item: Held) -> None:
        """Remember for the summaries, without the posts: they are lists, and wait for a day."""
        if self._text is None or not self._text.daily_at:
            return
        for entity in _entities(item.alert):
            day = self._days.get(entity, Day(since_ms=item.since_ms, items=()))
            items = {known.alert.incident: known for known in day.items}
            # The end of an incident carries little evidence: the summary shows the most that was seen.
            before = items.get(item.alert.incident, item)
            shown = max(before.alert.evidence, item.alert.evidence, key=lambda evidence: evidence.documents)
            bare = msgspec.structs.replace(item.alert, description="", evidence=_bare(shown))
            items[item.alert.incident] = msgspec.structs.replace(item, alert=bare)
            self._set_day(entity, msgspec.structs.replace(day, items=tuple(items.values())))

    def _is_update(self, alert: Alert, row: Row) -> bool:
        """A further step of an incident that someone looks after, no worse than what the sink was told."""
        return (
            alert.state == "escalated"
            and row.known
            and SEVERITIES.index(alert.severity) <= SEVERITIES.index(row.severity)
            and self._actions.acknowledged(alert.incident)
        )

    # --- what goes ----------------------------------------------------------------------------------------------------

    def next(self, now_ms: int) -> Notice | None:
        """What is to be delivered at this time, None when nothing is; to be asked anew before every attempt."""
        self._drop_acknowledged()
        for entity, day in self._days.items():
            if self._calendar.summary_due(day.since_ms, now_ms) and not self._actions.muted(entity, now_ms):
                alerts = tuple(item.alert for item in day.items)
                return Digest("daily", alerts, digest_key(f"daily {entity} {day.since_ms}", alerts), entity)
        free = self._free(now_ms) if self._gathered(now_ms) else []
        newest = {item.alert.incident: item.alert for item in free}
        if len(newest) > 1 and self._digest_ms:
            return Digest("burst", tuple(newest.values()), digest_key("burst", tuple(newest.values())))
        if free:
            return Single(free[0].alert, free[0].alert.id)
        return self._repeat(now_ms)

    def done(self, notice: Notice, now_ms: int, *, delivered: bool) -> list[Held]:
        """Record what became of a notice; returns what it told (for dead letters: where it came from)."""
        if isinstance(notice, Single):
            return self._told(notice.alert, now_ms, delivered=delivered)
        if notice.kind == "burst":
            return [item for alert in notice.alerts for item in self._told(alert, now_ms, delivered=delivered)]
        entity = notice.about
        items = self._days[entity].items
        # What is still open is in the next summary too, until it ends.
        still = tuple(i for i in items if i.alert.state != "resolved" and i.alert.incident in self._rows)
        self._set_day(entity, Day(since_ms=now_ms, items=still) if still else None)
        return list(items)

    def erase(self) -> None:
        """Take erased posts out of what waits or is repeated."""
        gone = self._actions.erased
        for incident, row in self._rows.items() if gone else ():
            held = tuple(
                item if (left := erase_from_alert(item.alert, gone)) is item.alert
                else msgspec.structs.replace(item, alert=left)
                for item in row.held
            )  # fmt: skip
            last = erase_from_alert(row.last, gone) if row.last is not None else None
            if last is not row.last or any(a is not b for a, b in zip(held, row.held, strict=True)):
                self._put(incident, msgspec.structs.replace(row, held=held, last=last))

    def changes(self) -> list[tuple[str, bytes | None]]:
        """Rows that changed since the last call: key and value, None for those that are gone."""
        found: list[tuple[str, bytes | None]] = []
        for key in sorted(self._changed):
            kind, _, name = key.partition("|")
            row: Row | Day | None = self._rows.get(name) if kind == "incident" else self._days.get(name)
            found.append((key, msgspec.json.encode(row) if row is not None else None))
        self._changed.clear()
        return found

    @property
    def held(self) -> int:
        """Alerts that wait."""
        return sum(len(row.held) for row in self._rows.values())

    def expire(self, now_ms: int) -> None:
        """Forget incidents that are long over, and those that nobody will end."""
        for incident, row in list(self._rows.items()):
            kept_ms = OPEN_KEPT_MS if row.known else CLOSED_KEPT_MS
            if not row.held and row.at_ms < now_ms - kept_ms:
                del self._rows[incident]
                self._changed.add(f"incident|{incident}")

    # --- the rules ----------------------------------------------------------------------------------------------------

    def _muted(self, alert: Alert, now_ms: int) -> bool:
        """An incident of several entities is muted when all of them are."""
        return all(self._actions.muted(entity, now_ms) for entity in _entities(alert))

    def _barred(self, alert: Alert, now_ms: int) -> Literal["muted", "quiet"] | None:
        if self._muted(alert, now_ms):
            return "muted"
        return "quiet" if alert.severity not in self._settings.quiet_passes and self._calendar.quiet(now_ms) else None

    def _free(self, now_ms: int) -> list[Held]:
        """Alerts that are not barred, in the order of the partition.

        An incident is barred as a whole, by its newest step: when a warning that is held turns critical, both go.
        """
        rows = [row for row in self._rows.values() if row.held and not self._barred(row.held[-1].alert, now_ms)]
        return sorted((item for row in rows for item in row.held), key=lambda item: item.place)

    def _gathered(self, now_ms: int) -> bool:
        """Whether the first of a burst has waited for the others."""
        if not self._digest_ms:
            return True
        oldest_ms = min((item.since_ms for item in self._free(now_ms)), default=now_ms)
        return now_ms - oldest_ms >= self._digest_ms

    def _drop_acknowledged(self) -> None:
        for incident, row in self._rows.items():
            held = tuple(item for item in row.held if not self._is_update(item.alert, row))
            if len(held) != len(row.held):
                self._put(incident, msgspec.structs.replace(row, held=held))

    def _repeat(self, now_ms: int) -> Single | None:
        """An open incident that it is time to tell again."""
        if not self._settings.repeat_s:
            return None
        for incident, row in self._rows.items():
            alert = row.last
            if alert is None or not row.known or row.held or now_ms - row.at_ms < self._settings.repeat_s * 1000:
                continue
            if self._settings.keeps_state or not (self._actions.acknowledged(incident) or self._barred(alert, now_ms)):
                return Single(alert, f"{alert.id}-{row.at_ms}", row.told)
        return None

    # --- rows ---------------------------------------------------------------------------------------------------------

    def _told(self, alert: Alert, now_ms: int, *, delivered: bool) -> list[Held]:
        row = self._rows[alert.incident]
        told = [item for item in row.held if item.alert.sequence <= alert.sequence]
        row = msgspec.structs.replace(row, held=row.held[len(told) :], at_ms=now_ms)
        if delivered:
            over = alert.state == "resolved"
            row = msgspec.structs.replace(
                row,
                state=alert.state,
                severity=alert.severity,
                last=alert if self._settings.repeat_s and not over else None,
                told=() if over else tuple(dict.fromkeys((*row.told, alert.severity))),
            )
        self._put(alert.incident, row)
        return told

    def _put(self, incident: str, row: Row) -> None:
        self._rows[incident] = row
        self._changed.add(f"incident|{incident}")

    def _set_day(self, entity: str, day: Day | None) -> None:
        if day is None:
            del self._days[entity]
        else:
            self._days[entity] = day
        self._changed.add(f"day|{entity}")


def _bare(evidence: Evidence) -> Evidence:
    return msgspec.structs.replace(evidence, posts=(), first_post=None)


def _entities(alert: Alert) -> tuple[str, ...]:
    return alert.entities or (alert.entity,)
