"""From what the board knows to what the API says; pure, time as an argument."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import numpy as np

from monitor.detection.bank import ROLLUP
from monitor.detection.erasing import erase_from_alert
from monitor.detection.quantify import share_interval
from monitor.http.board import Board
from monitor.http.rings import SLOTS, Table
from monitor.http.views import (
    EntityDetail,
    EntityView,
    IncidentBrief,
    IncidentDetail,
    LanguageDetail,
    Now,
    Pipeline,
    Point,
    Process,
    Series,
    Spark,
    Status,
    Step,
)
from monitor.records import SEVERITIES, Alert

SPARKS = 60
"""Steps of a spark line: what can be told apart at 400 px."""

RECENT_MS = 3_600_000

MAX_SHOWN = 50
"""Incidents and actions on the first screen."""

SILENT_S = 20.0
"""A process that has not told of itself for so long is not alive: four times the interval."""

SETTLED_MS = 30_000
"""A change of the watchlist is everywhere within a second, and is told with the next pulse."""

LAG_RECORDS, FAILING_S = 10_000, 60.0
"""From here on a person should look."""


def status(board: Board, now_ms: int) -> Status:
    """Everything the first screen shows."""
    board.look_up()
    return Status(
        at_ms=board.closed_ms,
        entities=tuple(entity(board, name, now_ms) for name in board.entities),
        incidents=tuple(incidents(board)[:MAX_SHOWN]),
        pipeline=pipeline(board, now_ms),
        actions=tuple(reversed(board.actions.values()))[:MAX_SHOWN],
        spark_s=board.settings.bucket_s * SLOTS // SPARKS,
    )


def entity(board: Board, name: str, now_ms: int) -> EntityView:
    """A watched entity as it is now.

    Raises:
        KeyError: it is not watched.
    """
    title, labels = board.entities[name]
    mute = board.muted(name, now_ms)
    languages = [_now(board, name, lang) for lang in board.languages(name)]
    return EntityView(
        id=name,
        name=title,
        labels=labels,
        now=_now(board, name, ROLLUP),
        spark=_spark(board, name, ROLLUP),
        languages=tuple(sorted(languages, key=lambda now: (-now.documents, now.lang))),
        incidents=tuple(
            i for i, steps in board.incidents.items() if steps[-1].state != "resolved" and name in _entities(steps[-1])
        ),
        muted_until_ms=mute.until_ms if mute else 0,
        muted_by=mute.who if mute else "",
    )


def entity_detail(board: Board, name: str, now_ms: int) -> EntityDetail:
    """An entity with every language's course.

    Raises:
        KeyError: it is not watched.
    """
    shown = entity(board, name, now_ms)
    return EntityDetail(
        entity=shown,
        languages=tuple(LanguageDetail(now=now, spark=_spark(board, name, now.lang)) for now in shown.languages),
        incidents=tuple(brief for brief in incidents(board) if name in brief.entities),
        actions=tuple(action for action in reversed(board.actions.values()) if action.entity == name),
    )


def series(board: Board, name: str, lang: str, since_ms: int = 0) -> Series:
    """The buckets of one entity in one language that hold documents, as far back as they are kept."""
    end = board.closed_ms // board.bucket_ms
    first = max(end - SLOTS, since_ms // board.bucket_ms)
    table = board.window(name, lang, first, end)
    points = tuple(
        Point(bucket_ms=(first + place) * board.bucket_ms, documents=int(row[0]), negatives=round(float(row[1]), 2))
        for place, row in enumerate(table)
        if row[0] > 0
    )
    return Series(entity=name, lang=lang, bucket_s=board.settings.bucket_s, points=points)


def incidents(board: Board) -> list[IncidentBrief]:
    """Open ones first, of those the worst, then the newest."""
    briefs = [_brief(board, incident, steps) for incident, steps in board.incidents.items()]

    def place(brief: IncidentBrief) -> tuple[bool, int, int, str]:
        over = brief.state == "resolved"
        return over, 0 if over else -SEVERITIES.index(brief.severity), -brief.at_ms, brief.id

    return sorted(briefs, key=place)


def incident(board: Board, name: str) -> IncidentDetail:
    """An incident with all there is to know.

    Raises:
        KeyError: it is not known (any more).
    """
    steps = board.incidents[name]
    told, last = erase_from_alert(_told(steps), board.erased), steps[-1]
    since_ms, until_ms = last.onset_ms, last.ended_ms or board.closed_ms
    nearby = [
        action
        for action in board.actions.values()
        if action.entity in _entities(last) and not action.incident and action.kind in ("mute", "unmute")
    ]
    return IncidentDetail(
        incident=_brief(board, name, steps),
        labels=dict(last.labels),
        description=told.description,
        evidence=told.evidence,
        steps=tuple(
            Step(id=s.id, state=s.state, severity=s.severity, at_ms=s.at_ms, summary=s.summary, languages=s.languages)
            for s in steps
        ),
        actions=tuple(sorted([*board.about(name), *nearby], key=lambda action: action.at_ms)),
        course=series(board, last.entity, ROLLUP, since_ms - max(until_ms - since_ms, RECENT_MS)),
    )


def pipeline(board: Board, now_ms: int) -> Pipeline:
    """How all processes do, together."""
    processes = []
    for pulse in sorted(board.pulses.values(), key=lambda pulse: (pulse.role, pulse.instance)):
        silent_s = max(0.0, (now_ms - pulse.at_ms) / 1000)
        processes.append(Process(pulse=pulse, silent_s=round(silent_s, 1), alive=silent_s < SILENT_S))
    lag: Counter[str] = Counter()
    for process in processes:
        if process.alive:
            lag.update(process.pulse.lag)
    return Pipeline(
        processes=tuple(processes),
        documents_per_s=round(sum(p.pulse.documents_per_s for p in processes if p.alive), 1),
        lag=dict(sorted(lag.items())),
        problems=(*_problems(processes, lag), *_two_watchlists(board, processes, now_ms)),
    )


def _problems(processes: Iterable[Process], lag: Counter[str]) -> Iterable[str]:
    alive: set[str] = set()
    for process in processes:
        pulse = process.pulse
        if not process.alive:
            yield f"{pulse.instance} ({pulse.role}) has been silent for {process.silent_s:.0f} s"
            continue
        alive |= {"classify", "detect", "notify"} if pulse.role == "all" else {pulse.role}
        if not pulse.ready:
            yield f"{pulse.instance} ({pulse.role}) is not ready: {pulse.waiting or 'starting'}"
        if pulse.watchlist_error:
            yield f"{pulse.instance} keeps an older watchlist: {pulse.watchlist_error.splitlines()[0]}"
        for sink, seconds in pulse.failing.items():
            if seconds >= FAILING_S:
                yield f"the sink {sink} has been refusing for {seconds / 60:.0f} min"
    for role, records in sorted(lag.items()):
        if records >= LAG_RECORDS:
            yield f"{role} is {records:,} records behind"
    for role in ("classify", "detect"):
        if alive and role not in alive:
            yield f"no process has the role {role}"


def _two_watchlists(board: Board, processes: Iterable[Process], now_ms: int) -> Iterable[str]:
    """Processes whose watchlist files differ, once a change that somebody made has had the time to reach them all."""
    if any(a.kind == "watchlist" and now_ms - a.at_ms < SETTLED_MS for a in board.actions.values()):
        return
    pulses = [process.pulse for process in processes if process.alive and process.pulse.watchlist]
    by_version: dict[str, list[str]] = {}
    for pulse in pulses:
        by_version.setdefault(pulse.watchlist, []).append(pulse.instance)
    if len(by_version) > 1:
        told = ", ".join(f"{version} ({', '.join(names)})" for version, names in sorted(by_version.items()))
        yield f"the processes go by different watchlists: {told}"


def _now(board: Board, name: str, lang: str) -> Now:
    end = board.closed_ms // board.bucket_ms
    sums = board.window(name, lang, end - max(1, RECENT_MS // board.bucket_ms), end).sum(0, dtype=np.float64)
    share, low, high = share_interval(*(float(v) for v in sums)) if sums[0] > 0 else (None, None, None)
    return Now(
        lang=lang, documents=int(sums[0]), share=_ratio(share), low=_ratio(low), high=_ratio(high),
        expected=_ratio(board.expected(name, lang)),
    )  # fmt: skip


def _spark(board: Board, name: str, lang: str) -> Spark:
    end = board.closed_ms // board.bucket_ms
    table: Table = board.window(name, lang, end - SLOTS, end).reshape(SPARKS, -1, 3).sum(1)
    shares = [float(row[1] / row[0]) if row[0] > 0 else None for row in table]
    return Spark(documents=tuple(int(row[0]) for row in table), share=tuple(_ratio(share) for share in shares))


def _ratio(share: float | None) -> float | None:
    return None if share is None else round(min(max(share, 0.0), 1.0), 3)


def _told(steps: list[Alert]) -> Alert:
    """The last alert that carries evidence: the end of an incident carries none."""
    return next((step for step in reversed(steps) if step.state != "resolved"), steps[-1])


def _entities(alert: Alert) -> tuple[str, ...]:
    return alert.entities or (alert.entity,)


def _brief(board: Board, name: str, steps: list[Alert]) -> IncidentBrief:
    told, last, actions = _told(steps), steps[-1], board.about(name)
    by = {action.kind: action.who for action in actions}
    return IncidentBrief(
        id=name, entity=last.entity, entity_name=last.entity_name, signal=last.signal, state=last.state,
        severity=last.severity, onset_ms=last.onset_ms, at_ms=last.at_ms, ended_ms=last.ended_ms,
        languages=told.languages, summary=told.summary, observed=told.evidence.observed,
        expected=told.evidence.expected,
        kind=last.kind, entities=_entities(last), merged_into=last.merged_into, unit=told.evidence.unit, topic=told.evidence.topic, documents=told.evidence.documents,
        acknowledged_by=by.get("acknowledge", ""), false_alarm_by=by.get("false_alarm", ""),
        revision=len(steps) + sum(board.acts[entity] for entity in _entities(last)) + len(board.erased),
    )  # fmt: skip
