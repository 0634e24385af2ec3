"""What a sink is told and when: nothing lost, in order, held when it is not the time, and a crash changes nothing."""

from __future__ import annotations

from collections import defaultdict
from datetime import UTC, datetime
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from monitor.records import Action, Alert
from monitor.sinks.actions import Actions
from monitor.sinks.base import Digest
from monitor.sinks.outbox import CLOSED_KEPT_MS, Outbox, Single
from monitor.sinks.settings import AlertmanagerSettings, StdoutSettings, WebhookSettings
from tests.unit.sinks.test_sinks import alert

NOON = int(datetime(2026, 3, 3, 12, tzinfo=UTC).timestamp() * 1000)
NIGHT, MORNING = NOON + 11 * 3_600_000, NOON + 19 * 3_600_000
MINUTE = 60_000


def settings(**more: Any) -> StdoutSettings:
    return StdoutSettings(name="s", **more)


def step(incident: str, sequence: int, state: str = "", severity: str = "warning", **more: Any) -> Alert:
    state = state or ("firing" if sequence == 0 else "escalated")
    return alert(
        id=f"{incident}.{sequence}", incident=incident, sequence=sequence, state=state, severity=severity, **more
    )


class Told:
    """An outbox with a sink that takes everything, and a record of what it took."""

    def __init__(self, outbox: Outbox) -> None:
        self.outbox = outbox
        self.told: list[str] = []
        self.place = 0

    def send(self, item: Alert, now_ms: int) -> str | None:
        self.place += 1
        why = self.outbox.take(item, self.place, now_ms)
        self.flush(now_ms)
        return why

    def flush(self, now_ms: int) -> list[str]:
        before = len(self.told)
        while (notice := self.outbox.next(now_ms)) is not None:
            if isinstance(notice, Single):
                self.told.append(notice.alert.id)
            else:
                self.told.append(f"{notice.kind}:" + "+".join(a.id for a in notice.alerts))
            self.outbox.done(notice, now_ms, delivered=True)
        return self.told[before:]


def told(actions: Actions | None = None, **more: Any) -> Told:
    return Told(Outbox(settings(**more), actions or Actions(), digests=True))


def test_by_day_alerts_go_as_they_come_and_repeats_do_not() -> None:
    sink = told(quiet=("22:00-07:00",))
    assert sink.send(step("a", 0), NOON) is None
    assert sink.send(step("a", 0), NOON) == "repeat"
    assert sink.send(step("a", 1), NOON) is None
    assert sink.told == ["a.0", "a.1"]


def test_quiet_hours_hold_and_the_morning_tells_in_order() -> None:
    sink = told(quiet=("22:00-07:00",))
    for item in (step("a", 0), step("b", 0), step("a", 1), step("c", 0)):
        assert sink.send(item, NIGHT) == "quiet"
    assert sink.told == []
    assert sink.outbox.held == 4
    assert sink.flush(MORNING) == ["a.0", "b.0", "a.1", "c.0"]
    assert sink.outbox.held == 0


def test_critical_passes_quiet_hours_with_what_came_before_it() -> None:
    sink = told(quiet=("22:00-07:00",))
    sink.send(step("a", 0), NIGHT)
    sink.send(step("b", 0), NIGHT)
    assert sink.send(step("a", 1, severity="critical"), NIGHT) is None
    assert sink.told == ["a.0", "a.1"]
    assert sink.flush(MORNING) == ["b.0"]


def test_what_ended_while_it_was_held_is_told_once() -> None:
    sink = told(quiet=("22:00-07:00",))
    sink.send(step("known", 0), NOON)
    for item in (step("a", 0), step("a", 1), step("a", 2, "resolved"), step("known", 1, "resolved")):
        sink.send(item, NIGHT)
    assert sink.flush(MORNING) == ["a.2", "known.1"]


def test_a_muted_entity_is_not_told_of_until_its_time() -> None:
    actions = Actions()
    sink = told(actions)
    sink.send(step("a", 0), NOON)
    actions.take(Action(id="1", kind="mute", who="ann", at_ms=NOON, entity="acme", until_ms=NOON + 60 * MINUTE))
    later = NOON + MINUTE
    assert sink.send(step("a", 1), later) == "muted"
    assert sink.send(step("b", 0), later) == "muted"
    assert sink.send(step("b", 1, severity="critical"), later) == "muted"
    assert sink.send(step("over", 0), later) == "muted"
    assert sink.send(step("over", 1, "resolved"), later) == "muted"
    assert sink.send(step("other", 0, entity="globex"), later) is None
    assert sink.flush(NOON + 59 * MINUTE) == []
    # Open incidents as they are now; what came and went meanwhile is no news.
    assert sink.flush(NOON + 60 * MINUTE) == ["a.1", "b.1"]
    assert sink.told == ["a.0", "other.0", "a.1", "b.1"]


def test_the_end_of_what_was_told_is_told_after_the_mute() -> None:
    actions = Actions()
    sink = told(actions)
    sink.send(step("a", 0), NOON)
    actions.take(Action(id="1", kind="mute", who="ann", at_ms=NOON, entity="acme", until_ms=NOON + 60 * MINUTE))
    sink.send(step("a", 1, "resolved"), NOON + MINUTE)
    actions.take(Action(id="2", kind="unmute", who="ann", at_ms=NOON + 2 * MINUTE, entity="acme"))
    assert sink.flush(NOON + 2 * MINUTE) == ["a.1"]


def test_an_acknowledged_incident_brings_only_what_is_worse_and_its_end() -> None:
    actions = Actions()
    sink = told(actions)
    sink.send(step("a", 0), NOON)
    actions.take(Action(id="1", kind="acknowledge", who="ann", at_ms=NOON, entity="acme", incident="a"))
    assert sink.send(step("a", 1), NOON) == "acknowledged"
    assert sink.send(step("a", 2, severity="critical"), NOON) is None
    assert sink.send(step("a", 3, severity="critical"), NOON) == "acknowledged"
    assert sink.send(step("a", 4, "resolved"), NOON) is None
    assert sink.told == ["a.0", "a.2", "a.4"]


def test_an_update_that_was_held_goes_when_someone_acknowledges() -> None:
    actions = Actions()
    sink = told(actions, quiet=("22:00-07:00",))
    sink.send(step("a", 0), NOON)
    sink.send(step("a", 1), NIGHT)
    actions.take(Action(id="1", kind="false_alarm", who="ann", at_ms=NIGHT, entity="acme", incident="a"))
    assert sink.flush(MORNING) == []
    assert sink.outbox.held == 0


def test_open_incidents_are_repeated_until_someone_acknowledges() -> None:
    actions = Actions()
    sink = told(actions, repeat_s=1800, quiet=("22:00-07:00",))
    sink.send(step("a", 0), NOON)
    assert sink.flush(NOON + 29 * MINUTE) == []
    assert sink.flush(NOON + 30 * MINUTE) == ["a.0"]
    assert sink.flush(NIGHT) == []
    actions.take(Action(id="1", kind="acknowledge", who="ann", at_ms=NOON, entity="acme", incident="a"))
    assert sink.flush(MORNING) == []
    sink.send(step("a", 1, "resolved"), MORNING)
    assert sink.flush(MORNING + 99 * MINUTE) == []


def test_alertmanager_is_sent_open_incidents_again_whatever_people_do() -> None:
    actions = Actions()
    keeper = AlertmanagerSettings(name="s", urls=("http://a:1",), quiet=("22:00-07:00",))  # type: ignore[arg-type]
    sink = Told(Outbox(keeper, actions))
    sink.send(step("a", 0), NOON)
    for n, action in enumerate(("acknowledge", "mute")):
        actions.take(
            Action(
                id=str(n), kind=action, who="ann", at_ms=NOON, entity="acme", incident="a", until_ms=MORNING + MINUTE
            )  # type: ignore[arg-type]
        )
    assert sink.flush(NIGHT) == ["a.0"]
    again = sink.outbox.next(NIGHT + 5 * MINUTE)
    assert isinstance(again, Single)
    assert again.key != again.alert.id
    assert again.again == ("warning",)
    # The sink is down: the same attempt has the same key.
    assert sink.outbox.next(NIGHT + 6 * MINUTE) == again


def test_a_repeat_names_every_severity_that_was_told() -> None:
    keeper = AlertmanagerSettings(name="s", urls=("http://a:1",))  # type: ignore[arg-type]
    sink = Told(Outbox(keeper, Actions()))
    sink.send(step("a", 0), NOON)
    sink.send(step("a", 1, severity="critical"), NOON)
    again = sink.outbox.next(NOON + 5 * MINUTE)
    assert isinstance(again, Single)
    assert again.again == ("warning", "critical")


def test_a_burst_is_one_message_after_its_wait() -> None:
    sink = told(digest_s=60)
    assert sink.send(step("a", 0), NOON) == "digest"
    sink.send(step("b", 0), NOON + 20_000)
    sink.send(step("a", 1, severity="critical"), NOON + 40_000)
    assert sink.flush(NOON + 59_000) == []
    assert sink.flush(NOON + 60_000) == ["burst:a.1+b.0"]
    sink.send(step("c", 0), NOON + 70_000)
    assert sink.flush(NOON + 130_000) == ["c.0"]


def test_the_morning_after_a_bad_night_is_one_message() -> None:
    sink = told(digest_s=60, quiet=("22:00-07:00",))
    for name in "abc":
        sink.send(step(name, 0), NIGHT)
    assert sink.flush(MORNING) == ["burst:a.0+b.0+c.0"]


def test_each_entity_has_a_summary_a_day_and_open_incidents_stay_in_it() -> None:
    sink = told(daily_at="18:00")
    sink.send(step("a", 0), NOON)
    sink.send(step("a", 1, "resolved"), NOON)
    sink.send(step("b", 0), NOON)
    sink.send(step("g", 0, entity="globex"), NOON)
    assert sink.flush(NOON + 6 * 60 * MINUTE - 1) == []
    day = NOON + 6 * 60 * MINUTE
    assert sink.flush(day) == ["daily:a.1+b.0", "daily:g.0"]
    assert sink.flush(day + 60 * MINUTE) == []
    sink.send(step("b", 1, "resolved"), day + 60 * MINUTE)
    assert sink.flush(day + 24 * 60 * MINUTE) == ["daily:b.1", "daily:g.0"]


def test_an_incident_of_several_entities_is_muted_when_all_are_and_in_the_summary_of_each() -> None:
    actions = Actions()
    sink = told(actions, daily_at="18:00")
    for number, entity in enumerate(("acme", "globex")):
        why = sink.send(step(f"i{number}", 0, entities=("acme", "globex")), NOON)
        assert why is None
        actions.take(Action(id=entity, kind="mute", who="ann", at_ms=NOON, entity=entity, until_ms=NOON + 60 * MINUTE))
    assert sink.send(step("i2", 0, entities=("acme", "globex")), NOON) == "muted"
    assert sink.flush(NOON + 6 * 60 * MINUTE) == ["daily:i0.0+i1.0+i2.0", "daily:i0.0+i1.0+i2.0", "i2.0"]


def test_only_the_summary_when_that_is_wanted() -> None:
    sink = told(daily_at="18:00", daily_only=True, severities=("warning",))
    assert sink.send(step("a", 0), NOON) == "daily"
    assert sink.send(step("a", 1, severity="critical"), NOON) == "route"
    # Severity grew beyond the route; the end still belongs to what was noted.
    assert sink.send(step("a", 2, "resolved", severity="critical"), NOON) == "daily"
    assert sink.told == []
    assert sink.flush(NOON + 6 * 60 * MINUTE) == ["daily:a.2"]


def test_an_end_goes_wherever_its_beginning_went() -> None:
    sink = told(severities=("warning",))
    sink.send(step("a", 0), NOON)
    assert sink.send(step("a", 1, severity="critical"), NOON) == "route"
    sink.send(step("a", 2, "resolved", severity="critical"), NOON)
    assert sink.told == ["a.0", "a.2"]
    assert sink.send(step("never", 1, "resolved", severity="critical"), NOON) == "route"


def test_what_the_sink_refused_is_given_back_for_the_dead_letters() -> None:
    outbox = Outbox(settings(digest_s=60), Actions(), digests=True)
    for place, item in enumerate((step("a", 0), step("a", 1), step("b", 0))):
        outbox.take(item, place, NOON)
    notice = outbox.next(NOON + MINUTE)
    assert isinstance(notice, Digest)
    gone = outbox.done(notice, NOON, delivered=False)
    assert [(held.alert.id, held.place) for held in gone] == [("a.0", 0), ("a.1", 1), ("b.0", 2)]
    assert outbox.next(NOON + 2 * MINUTE) is None


def test_old_rows_go() -> None:
    sink = told()
    sink.send(step("a", 0), NOON)
    sink.send(step("a", 1, "resolved"), NOON)
    sink.send(step("b", 0), NOON)
    sink.outbox.changes()
    sink.outbox.expire(NOON + CLOSED_KEPT_MS + 1)
    assert sink.outbox.changes() == [("incident|a", None)]


def test_a_summary_holds_no_posts() -> None:
    sink = told(daily_at="18:00")
    item = step("a", 0)
    shown = msgspec.structs.replace(item.evidence, documents=50)
    sink.send(msgspec.structs.replace(item, description="said: secret words", evidence=shown), NOON)
    rows = dict(sink.outbox.changes())
    assert b"secret words" not in (rows["day|acme"] or b"")


class Machine:
    """A sink's receiver, an outbox that crashes, and rows that survive as far as they were committed."""

    def __init__(self, **more: Any) -> None:
        self.actions = Actions()
        self.settings = settings(**more)
        self.rows: dict[str, bytes] = {}
        self.outbox = Outbox(self.settings, self.actions, digests=True)
        self.committed = 0
        self.got: list[Alert] = []

    def work(self, log: list[Alert], now_ms: int, *, crash_after: int | None) -> None:
        """Take what is new, deliver, commit; or die after so many deliveries, with nothing committed."""
        delivered = 0
        for place in range(self.committed, len(log)):
            self.outbox.take(log[place], place, now_ms)
        while (notice := self.outbox.next(now_ms)) is not None:
            if crash_after is not None and delivered >= crash_after:
                break
            self.got += [notice.alert] if isinstance(notice, Single) else notice.alerts
            delivered += 1
            self.outbox.done(notice, now_ms, delivered=True)
        if crash_after is not None:
            self.outbox = Outbox(self.settings, self.actions, self.rows, digests=True)
            return
        for key, value in self.outbox.changes():
            self.rows.pop(key, None)
            if value is not None:
                self.rows[key] = value
        self.committed = len(log)


STEPS = st.lists(
    st.tuples(
        st.sampled_from("abc"), st.sampled_from(("warning", "warning", "critical")), st.integers(0, 9),
        st.one_of(st.none(), st.integers(0, 3)),
    ),
    max_size=25,
)  # fmt: skip


@given(STEPS, st.booleans(), st.sampled_from((0, 600)))
def test_through_crashes_every_open_incident_is_told_to_its_last_step_in_order(
    steps: list[tuple[str, str, int, int | None]], quiet: bool, digest_s: int
) -> None:
    machine = Machine(quiet=("22:00-07:00",) if quiet else (), digest_s=digest_s)
    log: list[Alert] = []
    sequence: defaultdict[str, int] = defaultdict(int)
    now = NOON
    worst: dict[str, str] = {}
    for incident, severity, minutes, crash in steps:
        now += minutes * 40 * MINUTE
        state = "firing" if sequence[incident] == 0 else ("resolved" if sequence[incident] % 4 == 3 else "escalated")
        worst[incident] = "critical" if "critical" in (severity, worst.get(incident)) else "warning"
        log.append(step(incident, sequence[incident], state, worst[incident]))
        sequence[incident] += 1
        if crash is not None:
            machine.work(log, now, crash_after=crash)
        machine.work(log, now, crash_after=None)
    for _ in range(3):  # a day later nothing is quiet or waiting any more
        now += 8 * 3_600_000
        machine.work(log, now, crash_after=None)
    last_of: dict[str, int] = {}
    for item in machine.got:
        last_of[item.incident] = item.sequence
    assert last_of == {incident: count - 1 for incident, count in sequence.items()}
    if not any(crash for *_, crash in steps):
        for incident in sequence:
            seen = [item.sequence for item in machine.got if item.incident == incident]
            assert seen == sorted(set(seen))


@given(st.permutations([("mute", 10, 500), ("mute", 20, 300), ("unmute", 30, 0), ("mute", 40, 900)]))
def test_the_later_action_wins_in_whatever_order_they_are_read(order: list[tuple[Any, int, int]]) -> None:
    actions = Actions()
    for kind, at_ms, until_ms in order:
        actions.take(Action(id=str(at_ms), kind=kind, who="ann", at_ms=at_ms, entity="e", until_ms=until_ms))
    assert actions.muted("e", 899)
    assert not actions.muted("e", 900)


def test_a_webhook_has_quiet_hours_too_and_no_digests() -> None:
    sink = Told(Outbox(WebhookSettings(name="s", url="http://a:1", quiet=("22:00-07:00",)), Actions()))  # type: ignore[arg-type]
    sink.send(step("a", 0), NIGHT)
    sink.send(step("b", 0), NIGHT)
    assert sink.flush(MORNING) == ["a.0", "b.0"]
