"""Incidents of several entities become one: the same story about several names, or many names at once; pure.

A detector sees the entities of its partition only. Their incidents' steps, and how many of their entities are rising at
all, meet here: in order of event time, once every partition has closed that far. What comes out therefore depends on
nothing but the opinions: not on how many partitions or processes there are, nor on how fast any of them is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec

from monitor.detection import merging, wording
from monitor.detection.erasing import erase_from_alert
from monitor.detection.groups import Group, Member, is_common, sameness, trim
from monitor.detection.incidents import AlertSettings, alert_id, worst
from monitor.records import SEVERITIES, Alert, AlertState, Closed, EntityStep, Erasure, StepMessage

STATE_VERSION = 1
PREFIX = "correlate"

ALIKE, ALIKE_AT_ONCE = 0.65, 0.5
"""Likeness of two centroids from which two names have the same story, when they rose an hour (`join_s`) apart and when they rose at
the same moment. Measured on planted stories: the same one has 0.8 to 1 in the same languages and 0.6 to 0.9 in others; two
different ones have 0.2 to 0.6, and seldom begin within minutes of each other."""
GROWN = 2
"""A common incident is told again when it holds so many times the entities that it was told of: 5, 10, 20, not one by one."""


class _Progress(msgspec.Struct):
    version: int = STATE_VERSION
    closed_ms: dict[str, int] = msgspec.field(default_factory=dict)
    """By partition of the detect role: how far it has closed."""
    partitions: int = 0
    breadth: dict[str, list[tuple[int, int, int]]] = msgspec.field(default_factory=dict)
    """By partition: (event time, entities known, entities rising), in order of time."""
    done_ms: int = -1
    """Everything up to here was judged."""
    waiting: list[EntityStep] = msgspec.field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Watched:
    """What is known of a watched entity here."""

    name: str
    labels: Mapping[str, str]


class Correlator:
    """Joins the incidents of single entities.

    Args:
        settings: When incidents are one, and how often people are told.
        entities: What is watched, by id.
        state: Rows as `take_changes` gave them, to go on from.

    Raises:
        ValueError: the state cannot be read.
    """

    def __init__(
        self, settings: AlertSettings, entities: Mapping[str, Watched], state: Mapping[bytes, bytes] | None = None
    ) -> None:
        self._settings = settings
        self._entities = dict(entities)
        self._names = {entity: known.name for entity, known in entities.items()}
        self._groups: dict[str, Group] = {}
        self._home: dict[str, str] = {}
        self._progress = _Progress()
        self._touched: set[str] = set()
        self._gone: set[str] = set()
        for key, value in (state or {}).items():
            self._restore(key.decode(), value)

    def take(self, messages: Sequence[StepMessage]) -> list[Alert]:
        """Take what the detectors say; returns what people are told, in order of event time."""
        progress = self._progress
        waiting = {step.alert.id for step in progress.waiting}
        for message in messages:
            if isinstance(message, Closed):
                self._take_closed(message)
            elif isinstance(message, Erasure):
                self._erase(message)
            elif message.alert.at_ms > progress.done_ms and message.alert.id not in waiting:
                waiting.add(message.alert.id)
                progress.waiting.append(message)
        if not progress.partitions or len(progress.closed_ms) < progress.partitions:
            return []
        horizon_ms = min(progress.closed_ms.values())
        alerts: list[Alert] = []
        while (moment_ms := self._next_moment(horizon_ms)) is not None:
            due = sorted(
                (step.alert for step in progress.waiting if step.alert.at_ms == moment_ms),
                key=lambda alert: (alert.entity, alert.incident, alert.sequence),
            )
            progress.waiting = [step for step in progress.waiting if step.alert.at_ms != moment_ms]
            alerts += self._judge(moment_ms, due)
            progress.done_ms = moment_ms
        progress.done_ms = max(progress.done_ms, horizon_ms)
        self._breadth(progress.done_ms)
        return alerts

    def set_entities(self, entities: Mapping[str, Watched]) -> None:
        """Watch these entities from now on."""
        self._entities = dict(entities)
        self._names |= {entity: known.name for entity, known in entities.items()}

    @property
    def open_groups(self) -> list[Group]:
        """Incidents that last, by id."""
        return [group for _, group in sorted(self._groups.items()) if group.open]

    def take_changes(self) -> list[tuple[bytes, bytes | None]]:
        """The rows of state that changed since the last call, ordered by key; None for a row that is gone."""
        rows: dict[str, bytes | None] = {f"{PREFIX}|group|{key}": None for key in self._gone}
        rows |= {f"{PREFIX}|group|{key}": _pack(self._groups[key]) for key in self._touched if key in self._groups}
        rows[f"{PREFIX}|progress"] = _pack(self._progress)
        self._touched.clear()
        self._gone.clear()
        return sorted((key.encode(), value) for key, value in rows.items())

    # --- in order of event time -------------------------------------------------------------------------------------

    def _erase(self, order: Erasure) -> None:
        """Forget the posts of documents, in what waits and in the incidents that last."""
        for group in self._groups.values():
            for member in group.members.values():
                if (left := erase_from_alert(member.alert, order.documents)) is not member.alert:
                    member.alert = left
                    self._touched.add(group.id)
        self._progress.waiting = [
            EntityStep(alert=erase_from_alert(step.alert, order.documents)) for step in self._progress.waiting
        ]

    def _take_closed(self, message: Closed) -> None:
        progress = self._progress
        progress.partitions = max(progress.partitions, message.partitions)
        name = str(message.partition)
        progress.closed_ms[name] = max(progress.closed_ms.get(name, -1), message.closed_ms)
        known = progress.breadth.setdefault(name, [])
        for b in message.breadth:
            # A detector that was restarted says once more how things stand: that is no change.
            if not known or (b.at_ms > known[-1][0] and (b.known, b.rising) != known[-1][1:]):
                known.append((b.at_ms, b.known, b.rising))

    def _next_moment(self, horizon_ms: int) -> int | None:
        """The next event time at which something is to be judged or told."""
        settings, progress = self._settings, self._progress
        times = [step.alert.at_ms for step in progress.waiting]
        times += [
            max(group.told_ms + settings.update_s * 1000, progress.done_ms + 1)
            for group in self._groups.values()
            if group.owed
        ]
        moment_ms = min(times, default=horizon_ms + 1)
        return moment_ms if moment_ms <= horizon_ms else None

    def _breadth(self, moment_ms: int) -> tuple[int, int]:
        """Entities known and rising over all partitions, as of an event time."""
        known = rising = 0
        for partition, history in self._progress.breadth.items():
            passed = [row for row in history if row[0] <= moment_ms]
            if passed:
                known, rising = known + passed[-1][1], rising + passed[-1][2]
                # The last one stands until the next.
                self._progress.breadth[partition] = history[len(passed) - 1 :]
        return known, rising

    def _judge(self, moment_ms: int, steps: Sequence[Alert]) -> list[Alert]:
        common = is_common(*self._breadth(moment_ms), self._settings.common_part)
        alone: dict[str, Alert] = {}
        changed: set[str] = set()
        merged: list[tuple[Group, Group]] = []
        for step in steps:
            group = self._take_step(step, moment_ms, common=common)
            merged += self._reconsider(group, step)
            group = self._groups[self._home[step.incident]]
            changed.add(group.id)
            if len(group.members) == 1:
                alone[group.id] = step
        merged += self._merge_common(moment_ms) if common else []
        alerts = [self._farewell(group, into, moment_ms) for group, into in merged if group.sequence]
        owed = [group.id for group in self._groups.values() if group.owed]
        for key in sorted((changed | {*owed}) & self._groups.keys()):
            alert = self._tell(self._groups[key], alone.get(key), moment_ms)
            if alert is not None:
                alerts.append(alert)
        self._forget(moment_ms)
        return alerts

    # --- where a step belongs ---------------------------------------------------------------------------------------

    def _take_step(self, step: Alert, moment_ms: int, *, common: bool) -> Group:
        """Put a step into its incident, and return that.

        Args:
            step: As its detector tells it.
            moment_ms: Event time of the step.
            common: Whether many rise at once.
        """
        home = self._home.get(step.incident)
        group = self._groups.get(home) if home is not None else None
        if group is None:
            group = self._like(step) or self._wave(step, common=common)
            if group is None:
                group = Group(step.incident, step.entity, "entity", {}, moment_ms)
                self._groups[group.id] = group
            self._home[step.incident] = group.id
            group.members[step.incident] = Member(step, moment_ms)
            if len(group.members) > 1 and group.kind == "entity":
                group.kind = "story"
        member = group.members[step.incident]
        member.resolved = step.state == "resolved"
        # The end shows the whole course, which is what the merged end is made of; till then the newest rise.
        member.alert = step
        group.at_ms, group.ended_ms = moment_ms, 0
        if len(group.members) > 1:
            group.owed = True
            trim(group, self._settings.posts)
        self._touched.add(group.id)
        return group

    def _like(self, step: Alert, without: str = "") -> Group | None:
        """An open incident of another entity with the same story at about the same time.

        Args:
            step: Of the entity.
            without: The incident that it is in.
        """
        best: tuple[float, str] | None = None
        for group in self._groups.values():
            for member in group.members.values():
                if group.id == without or member.alert.entity == step.entity or not self._meets(group, step):
                    continue
                value = sameness(member.alert, step)
                apart = min(abs(step.onset_ms - member.alert.onset_ms) / max(self._settings.join_s * 1000, 1), 1.0)
                enough = ALIKE_AT_ONCE + (ALIKE - ALIKE_AT_ONCE) * apart
                if value >= enough and (best is None or (-value, group.id) < best):
                    best = (-value, group.id)
        return self._groups[best[1]] if best is not None else None

    def _wave(self, step: Alert, *, common: bool) -> Group | None:
        """The common incident that is under way, if this entity rose with it, or later and while many still rise."""
        join_ms = self._settings.join_s * 1000
        waves = [
            group
            for group in self._groups.values()
            if group.kind == "common"
            and (self._meets(group, step) or (common and group.open and step.onset_ms >= group.onset_ms - join_ms))
        ]
        return min(waves, key=lambda group: (group.onset_ms, group.id), default=None)

    def _reconsider(self, group: Group, step: Alert) -> list[tuple[Group, Group]]:
        """Join two incidents when what their posts say shows only now: in its first minutes a rise has few.

        Returns:
            The incident that is no more and the one that it became part of, if any.
        """
        other = self._like(step, group.id) if group.kind != "common" and step.state != "resolved" else None
        if other is None:
            return []
        whole, part = sorted((group, other), key=lambda g: (not g.sequence, g.kind == "entity", g.onset_ms, g.id))
        if whole.kind == "entity":
            whole.kind = "story"
        self._absorb(whole, part)
        return [(part, whole)]

    def _absorb(self, whole: Group, part: Group) -> None:
        """Make an incident part of another."""
        whole.members |= part.members
        self._home |= dict.fromkeys(part.members, whole.id)
        whole.severity = worst(whole.severity, part.severity)
        whole.owed = True
        del self._groups[part.id]
        self._gone.add(part.id)
        self._touched.discard(part.id)
        trim(whole, self._settings.posts)
        self._touched.add(whole.id)

    def _meets(self, group: Group, step: Alert) -> bool:
        return group.open and abs(step.onset_ms - group.onset_ms) <= self._settings.join_s * 1000

    def _merge_common(self, moment_ms: int) -> list[tuple[Group, Group]]:
        """Make one of the incidents that began together; returns those that are no more, and what they became part of."""
        join_ms = self._settings.join_s * 1000
        lasting = [g for g in self._groups.values() if g.open]
        latest_ms = max((g.onset_ms for g in lasting), default=0)
        # One after the other they are found out, the weakest hours later; what began long before all others is another story.
        since = [g for g in lasting if g.kind == "common" or latest_ms - g.onset_ms <= 2 * join_ms]
        if sum(len(group.members) for group in since) < 2:
            # One name in alarm is told as what it is, whatever else is astir.
            return []
        ordered = sorted(since, key=lambda g: (g.kind != "common", not g.sequence, g.onset_ms, g.id))
        whole, rest = ordered[0], ordered[1:]
        whole.kind = "common"
        for group in rest:
            self._absorb(whole, group)
        whole.owed = whole.owed or not whole.sequence
        self._touched.add(whole.id)
        return [(group, whole) for group in rest]

    # --- what people are told ---------------------------------------------------------------------------------------

    def _tell(self, group: Group, step: Alert | None, moment_ms: int) -> Alert | None:
        """What is to be told of an incident now, if anything."""
        if step is not None and len(group.members) == 1:
            # An incident of one entity is told as its detector tells it.
            group.told_ms, group.told_members, group.sequence = moment_ms, 1, max(group.sequence, step.sequence) + 1
            group.severity, group.languages = step.severity, list(step.languages)
            group.ended_ms = step.ended_ms
            self._touched.add(group.id)
            return step
        if not group.owed:
            return None
        if not group.open:
            group.ended_ms = max(member.alert.ended_ms for member in group.members.values())
            return self._compose(group, "resolved", moment_ms)
        if not group.sequence:
            return self._compose(group, "firing", moment_ms)
        if not self._is_news(group):
            group.owed = False
            return None
        if moment_ms - group.told_ms < self._settings.update_s * 1000:
            return None
        return self._compose(group, "escalated", moment_ms)

    def _is_news(self, group: Group) -> bool:
        members = list(group.members.values())
        severity = worst(*(member.alert.severity for member in members))
        if SEVERITIES.index(severity) > SEVERITIES.index(group.severity):
            return True
        if group.kind == "common":
            return len(members) >= GROWN * group.told_members
        languages = {lang for member in members for lang in member.alert.languages}
        return len(members) > group.told_members or not languages <= set(group.languages)

    def _compose(self, group: Group, state: AlertState, moment_ms: int) -> Alert:
        members = [member.alert for member in group.members.values()]
        alert = merging.merged(members, kind=group.kind, posts=self._settings.posts if state != "resolved" else 0)
        group.severity = worst(group.severity, *(member.severity for member in members))
        group.languages = sorted({*group.languages, *alert.languages})
        group.owed, group.told_ms, group.told_members = False, moment_ms, len(members)
        # Not by place: a state that was read back has its members in another order.
        first = min(
            group.members.values(), key=lambda m: (m.alert.entity != group.entity, m.joined_ms, m.alert.incident)
        ).alert
        sequence = group.sequence
        group.sequence += 1
        self._touched.add(group.id)
        known = self._entities.get(group.entity)
        return self._worded(
            msgspec.structs.replace(
                alert, id=alert_id(group.id, first.signal, group.onset_ms, state, sequence), incident=group.id,
                entity=group.entity, entity_name=known.name if known else first.entity_name, signal=first.signal, state=state,
                severity=group.severity, onset_ms=group.onset_ms, at_ms=moment_ms, ended_ms=group.ended_ms,
                labels=first.labels, sequence=sequence, kind=group.kind,
            )
        )  # fmt: skip

    def _farewell(self, group: Group, into: Group, moment_ms: int) -> Alert:
        """The last word on an incident that people know and that is told elsewhere from now on."""
        alert = self._compose(group, "resolved", moment_ms)
        self._touched.discard(group.id)
        return self._worded(msgspec.structs.replace(alert, ended_ms=moment_ms, merged_into=into.id))

    def _worded(self, alert: Alert) -> Alert:
        return wording.worded(alert, self._names)

    def _forget(self, moment_ms: int) -> None:
        """Drop what is too long over to be re-opened."""
        limit_ms = moment_ms - self._settings.reopen_s * 1000 - 1
        for key, group in list(self._groups.items()):
            if not group.open and not group.owed and group.at_ms < limit_ms:
                for incident in group.members:
                    self._home.pop(incident, None)
                del self._groups[key]
                self._gone.add(key)

    def _restore(self, key: str, value: bytes) -> None:
        kind = key.split("|")[1]
        if kind == "progress":
            self._progress = msgspec.msgpack.decode(value, type=_Progress)
            if self._progress.version != STATE_VERSION:
                raise ValueError(f"state version {self._progress.version}, this release reads {STATE_VERSION}")
        elif kind == "group":
            group = msgspec.msgpack.decode(value, type=Group)
            self._groups[group.id] = group
            self._home |= dict.fromkeys(group.members, group.id)


_pack = msgspec.msgpack.Encoder(order="sorted").encode


__all__ = ["Correlator", "Group", "Watched"]
