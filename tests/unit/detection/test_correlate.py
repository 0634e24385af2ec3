"""Incidents of several entities: joined by story and by breadth, told once, the same however the steps arrive."""

from __future__ import annotations

import base64
import random
from collections.abc import Sequence

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monitor.detection.correlate import Correlator, Watched
from monitor.detection.groups import is_common
from monitor.detection.incidents import AlertSettings
from monitor.records import Alert, Breadth, Closed, EntityStep, Evidence, Post, Share, encode

MINUTE_MS = 60_000
ENTITIES = {name: Watched(name.title(), {"owner": name}) for name in "abcdefghijkl"}


def centroid(story: int) -> str:
    vector = np.random.default_rng(story).normal(0, 1, 64)
    return base64.b64encode(np.rint(90 * vector / np.linalg.norm(vector)).astype(np.int8).tobytes()).decode()


def step(
    entity: str, minute: int, *, state: str = "firing", story: int = 0, onset: int | None = None, sequence: int = 0
) -> Alert:
    onset_ms = (minute - 5 if onset is None else onset) * MINUTE_MS
    post = Post(
        document_id=f"{entity}{minute}", text=f"{entity} fails", lang="en", published_ms=onset_ms, sentiment="negative"
    )
    shown = Evidence(
        observed=0.6, expected=0.2, low=0.5, high=0.7, unit="share", documents=50, negatives=30.0, effect=0.4,
        effect_low=0.3, effect_high=0.5, languages=(Share(name="en", count=30, share=1.0),), terms=("fails", entity),
        posts=(post,), first_post=post, centroid=centroid(story) if story else "",
    )  # fmt: skip
    return Alert(
        id=f"{entity}-{onset_ms}-{sequence}-{state}", incident=f"{entity}-{onset_ms}", entity=entity,
        entity_name=entity.title(), signal="negative_share", state=state, severity="warning", onset_ms=onset_ms,  # type: ignore[arg-type]
        at_ms=minute * MINUTE_MS, languages=("en",), summary=f"{entity}", description="", evidence=shown,
        labels={"owner": entity}, ended_ms=minute * MINUTE_MS if state == "resolved" else 0, sequence=sequence,
    )  # fmt: skip


def closed(minute: int, *, known: int = 12, rising: int = 1, partition: int = 0, partitions: int = 1) -> Closed:
    at_ms = minute * MINUTE_MS
    return Closed(
        partition=partition, partitions=partitions, closed_ms=at_ms,
        breadth=(Breadth(at_ms=at_ms, known=known, rising=rising),),
    )  # fmt: skip


def make(state: dict[bytes, bytes] | None = None) -> Correlator:
    return Correlator(AlertSettings(), ENTITIES, state)


def life(steps: Sequence[Alert], minutes: int = 300, *, rising: dict[int, int] | None = None) -> list[Alert]:
    correlator, told = make(), []
    now_rising = 1
    for minute in range(minutes):
        now_rising = (rising or {}).get(minute, now_rising)
        mine: list[EntityStep | Closed] = [
            EntityStep(alert=alert) for alert in steps if alert.at_ms == minute * MINUTE_MS
        ]
        told += correlator.take([*mine, closed(minute, rising=now_rising)])
    return told


def test_an_incident_of_one_entity_passes_as_its_detector_told_it() -> None:
    steps = [
        step("a", 10),
        step("a", 30, state="escalated", onset=5, sequence=1),
        step("a", 60, state="resolved", onset=5, sequence=2),
    ]
    assert life(steps) == steps


def test_one_story_about_two_names_is_one_incident() -> None:
    told = life([
        step("a", 10, story=1), step("b", 20, story=1), step("a", 60, state="resolved", onset=5, story=1, sequence=1),
        step("b", 80, state="resolved", onset=15, story=1, sequence=1),
    ])  # fmt: skip
    assert [(alert.state, alert.kind, alert.at_ms // MINUTE_MS) for alert in told] == [
        ("firing", "entity", 10), ("escalated", "story", 20), ("resolved", "story", 80),
    ]  # fmt: skip
    assert len({alert.incident for alert in told}) == 1
    assert [alert.sequence for alert in told] == [0, 1, 2]
    assert set(told[1].entities) == {"a", "b"}
    assert {labels["owner"] for labels in told[1].entity_labels} == {"a", "b"}
    assert told[1].evidence.documents == 100
    assert {post.document_id for post in told[1].evidence.posts} == {"a10", "b20"}
    assert sum(share.share for share in told[1].evidence.entities) == pytest.approx(1.0)
    assert "A, B" in told[1].summary
    assert {alert.entity for alert in told} == {"a"}, "what sinks label the incident by never changes"


def test_one_name_in_alarm_is_told_whole_whatever_else_is_astir() -> None:
    steps = [
        step("a", 10),
        step("a", 30, state="escalated", onset=5, sequence=1),
        step("a", 60, state="resolved", onset=5, sequence=2),
    ]
    assert life(steps, rising={0: 12}) == steps


def test_another_story_or_another_time_is_another_incident() -> None:
    assert len({alert.incident for alert in life([step("a", 10, story=1), step("b", 12, story=2)])}) == 2
    late = [step("a", 10, story=1), step("b", 120, story=1)]
    assert len({alert.incident for alert in life(late)}) == 2


def test_two_incidents_are_joined_when_their_posts_tell_the_same_only_later() -> None:
    told = life([
        step("a", 10), step("b", 11), step("a", 20, state="escalated", onset=5, sequence=1, story=1),
        step("b", 21, state="escalated", onset=6, sequence=1, story=1),
        step("a", 80, state="resolved", onset=5, story=1, sequence=2), step("b", 90, state="resolved", onset=6, story=1, sequence=2),
    ])  # fmt: skip
    whole = told[0].incident
    gone = next(alert for alert in told if alert.merged_into)
    assert (gone.entity, gone.merged_into) == ("b", whole)
    assert {alert.incident for alert in told if alert.at_ms > gone.at_ms} == {whole}
    assert (told[-1].state, told[-1].kind, set(told[-1].entities)) == ("resolved", "story", {"a", "b"})


def test_less_likeness_is_enough_for_rises_of_the_same_minute() -> None:
    one, other = (np.frombuffer(base64.b64decode(centroid(n)), np.int8).astype(float) for n in (1, 2))
    mixed = 0.45 * one + (1 - 0.45**2) ** 0.5 * (other - one * (one @ other) / (one @ one))
    alike = base64.b64encode(np.rint(mixed).astype(np.int8).tobytes()).decode()

    def ids(onset: int) -> set[str]:
        late = step("b", onset + 5, onset=onset, story=1)
        late = msgspec.structs.replace(late, evidence=msgspec.structs.replace(late.evidence, centroid=alike))
        return {alert.incident for alert in life([step("a", 10, onset=5, story=1), late])}

    assert len(ids(6)) == 1
    assert len(ids(60)) == 2


def test_who_rises_weakly_and_late_is_still_part_of_what_all_do() -> None:
    told = life([step(name, 10 + 40 * n, story=n + 1) for n, name in enumerate("abcdef")], rising={8: 11})
    assert len({alert.incident for alert in told}) == 1
    # Once it is over for the others, it is an incident of its own.
    steps = [step(name, 10 + 40 * n, story=n + 1) for n, name in enumerate("abc")] + [step("d", 250, story=9)]
    assert len({alert.incident for alert in life(steps, rising={8: 11, 200: 1})}) == 2


def test_the_same_documents_are_the_same_story_without_embeddings() -> None:
    posts = tuple(
        Post(document_id=f"d{n}", text="x", lang="en", published_ms=0, sentiment="negative") for n in range(4)
    )
    both = [
        msgspec.structs.replace(one, evidence=msgspec.structs.replace(one.evidence, posts=posts))
        for one in (step("a", 10), step("b", 11))
    ]
    assert len({alert.incident for alert in life(both)}) == 1


def test_a_rise_over_all_names_is_one_incident_and_told_a_few_times_only() -> None:
    steps = [step(name, 10 + 3 * n, story=n + 1) for n, name in enumerate(ENTITIES)]
    steps += [
        step(name, 150 + n, state="resolved", onset=5 + 3 * n, sequence=1, story=n + 1)
        for n, name in enumerate(ENTITIES)
    ]
    told = life(steps, rising={9: 10, 150: 0})
    assert len({alert.incident for alert in told}) == 1
    assert [told[0].state, told[-1].state] == ["firing", "resolved"]
    assert {alert.kind for alert in told[1:]} == {"common"}
    assert len(told) <= 6
    assert len(told[-1].entities) == 12
    assert "names at once" in told[-2].summary


def test_incidents_told_before_it_was_clear_are_closed_with_a_word_where_to_look() -> None:
    steps = [step(name, 10 + n, story=n + 1) for n, name in enumerate("abc")] + [step("d", 40, story=9)]
    told = life(steps, 60, rising={30: 10})
    firing = [alert for alert in told if alert.state == "firing"]
    assert len(firing) == 3
    whole = told[-1]
    assert whole.kind == "common"
    gone = [alert for alert in told if alert.merged_into]
    assert {alert.merged_into for alert in gone} == {whole.incident}
    assert {alert.state for alert in gone} == {"resolved"}
    assert {alert.incident for alert in gone} | {whole.incident} == {alert.incident for alert in firing}


@pytest.mark.parametrize(
    ("known", "rising", "common"),
    [
        (4, 4, False),
        (6, 4, False),
        (6, 6, False),
        (12, 4, False),
        (12, 11, True),
        (100, 30, False),
        (100, 55, True),
        (0, 0, False),
    ],
)
def test_many_at_once_is_more_than_chance(known: int, rising: int, common: bool) -> None:
    assert is_common(known, rising, 0.5) is common


def _stream() -> list[Alert]:
    steps = []
    for n, name in enumerate(ENTITIES):
        begin = 10 + 7 * n
        steps += [
            step(name, begin, story=1 + n // 3), step(name, begin + 20, state="escalated", onset=begin - 5, sequence=1),
            step(name, begin + 90, state="resolved", onset=begin - 5, sequence=2),
        ]  # fmt: skip
    return steps


def _run(partitions: int, rng: random.Random, *, restarts: bool) -> list[bytes]:
    """The same steps through so many partitions, in any interleaving that keeps each partition's order."""
    queues: list[list[EntityStep | Closed]] = [[] for _ in range(partitions)]
    for minute in range(0, 260, 3):
        for number in range(partitions):
            mine = [s for s in _stream() if (minute - 3) * MINUTE_MS < s.at_ms <= minute * MINUTE_MS]
            queues[number] += [
                EntityStep(alert=s) for s in mine if "abcdefghijkl".index(s.entity) % partitions == number
            ]
            known = sum("abcdefghijkl".index(name) % partitions == number for name in ENTITIES)
            breadth = tuple(
                Breadth(at_ms=m * MINUTE_MS, known=known, rising=known if 80 <= m < 100 else 0)
                for m in range(minute - 2, minute + 1)
            )
            queues[number].append(
                Closed(partition=number, partitions=partitions, closed_ms=minute * MINUTE_MS, breadth=breadth)
            )
    correlator, rows, told = make(), dict[bytes, bytes](), []
    while any(queues):
        batch: list[EntityStep | Closed] = []
        for _ in range(rng.randrange(1, 12)):
            left = [queue for queue in queues if queue]
            if left:
                batch.append(rng.choice(left).pop(0))
        told += correlator.take(batch)
        if restarts:
            for key, value in correlator.take_changes():
                if value is None:
                    rows.pop(key, None)
                else:
                    rows[key] = value
            if rng.random() < 0.2:
                correlator = make(rows)
                told += correlator.take(batch)  # a repeat, as a broker without transactions gives it
    return [encode(alert) for alert in told]


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 5))
def test_partitions_batches_repeats_and_restarts_change_no_byte(seed: int, partitions: int) -> None:
    expected = _run(1, random.Random(0), restarts=False)
    assert expected
    assert _run(partitions, random.Random(seed), restarts=True) == expected


def test_nothing_is_told_before_every_partition_has_closed_that_far() -> None:
    correlator = make()
    assert correlator.take([EntityStep(alert=step("a", 10)), closed(20, partitions=2)]) == []
    assert [a.entity for a in correlator.take([closed(15, partition=1, partitions=2)])] == ["a"]


def test_what_is_over_is_forgotten() -> None:
    correlator, rows = make(), dict[bytes, bytes | None]()
    for minute in range(0, 400, 10):
        mine = [s for s in _stream() if (minute - 10) * MINUTE_MS < s.at_ms <= minute * MINUTE_MS]
        correlator.take([*(EntityStep(alert=s) for s in mine), closed(minute)])
        rows.update(correlator.take_changes())
    correlator.take(
        [
            EntityStep(alert=step("a", 900)),
            EntityStep(alert=step("a", 901, state="resolved", onset=895, sequence=1)),
            closed(2000),
        ]
    )
    rows.update(correlator.take_changes())
    assert [key for key, value in rows.items() if value is not None and b"group" in key] == [
        b"correlate|group|a-53700000"
    ]


def test_restarts_leave_the_same_alerts_and_the_same_state() -> None:
    """One name has two incidents in one story, the later of which sorts first; the detector says again how things stand."""
    steps = [
        step("b", 10, story=1, onset=9),
        step("a", 11, story=1, onset=9),
        step("b", 12, story=1, onset=9, state="resolved", sequence=1),
        msgspec.structs.replace(step("b", 13, story=1, onset=8), signal="volume"),
        step("b", 40, story=1, onset=8, state="resolved", sequence=1),
        step("a", 41, story=1, onset=9, state="resolved", sequence=1),
    ]

    def run(restarts: bool) -> tuple[list[Alert], dict[bytes, bytes]]:
        correlator, told, rows, before = make(), list[Alert](), dict[bytes, bytes](), 0
        for minute in range(60):
            rising = 1 if 10 <= minute < 40 else 0
            known = () if rising == before and not restarts else closed(minute, rising=rising).breadth
            before = rising
            mine = [EntityStep(alert=s) for s in steps if s.at_ms == minute * MINUTE_MS]
            told += correlator.take([*mine, msgspec.structs.replace(closed(minute), breadth=known)])
            for key, value in correlator.take_changes():
                rows.pop(key, None)
                if value is not None:
                    rows[key] = value
            if restarts:
                correlator = make(dict(rows))
        return told, rows

    assert run(restarts=True) == run(restarts=False)


def test_state_of_another_version_is_refused() -> None:
    with pytest.raises(ValueError, match="version 99"):
        make({b"correlate|progress": b"\x81\xa7version\x63"})
