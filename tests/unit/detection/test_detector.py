"""The detector: the same opinions give the same alerts, in any order, any batches, through any restart."""

from __future__ import annotations

import base64
import random
from collections.abc import Callable, Sequence

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monitor.detection.detector import Detector, EntityInfo, StateError
from monitor.detection.incidents import AlertSettings
from monitor.detection.settings import DetectionSettings
from monitor.detection.stored import read_cell
from monitor.records import (
    MAX_REACH,
    MAX_WEIGHT,
    Alert,
    Closed,
    EntityStep,
    Opinion,
    Watermark,
    cloud_event,
    decode_alert_event,
    decode_opinion_message,
    encode,
)

MINUTE_MS = 60_000
START_MS = 1_772_323_200_000
ENTITIES = {"air": EntityInfo("Northwind Air", ("Northwind Air",), {"owner": "travel"}), "bank": EntityInfo("Öz Bank")}
LANGS = (("en", 2), ("es", 1), ("ja", 1))


def opinions(
    minutes: int, rise: tuple[int, int] | None, *, seed: int = 1, langs: Sequence[str] = ("en", "es")
) -> list[list[Opinion]]:
    """By minute: two entities in three languages, one in five negative; in the rise, four in five of one entity's."""
    rng = random.Random(seed)
    number = 0
    found: list[list[Opinion]] = []
    for minute in range(minutes):
        batch: list[Opinion] = []
        for entity in ENTITIES:
            for lang, weight in LANGS:
                event = rise is not None and entity == "air" and lang in langs and rise[0] <= minute < rise[1]
                for _ in range(weight * (2 if event else 1)):
                    if rng.random() > 0.6:
                        continue
                    number += 1
                    negative = rng.random() < (0.85 if event else 0.2)
                    vector = np.random.default_rng(number).normal(0, 30, 32)
                    if event and negative:
                        vector += np.random.default_rng(0).normal(0, 30, 32)
                    embedding = base64.b64encode(np.clip(np.rint(vector), -127, 127).astype(np.int8).tobytes()).decode()
                    text = (
                        f"stranded at gate {number} again" if event and negative else f"an ordinary day number {number}"
                    )
                    batch.append(
                        Opinion(
                            id=f"d{number}|{entity}", document_id=f"d{number}", entity=entity, lang=lang, text=text,
                            published_ms=START_MS + minute * MINUTE_MS + rng.randrange(MINUTE_MS),
                            sentiment=(0.9, 0.05, 0.05) if negative else (0.1, 0.7, 0.2), source="forum", author=f"a{number}",
                            embedding=embedding,
                        )
                    )  # fmt: skip
        found.append(batch)
    return found


def mark(
    minute: int, *, partition: int = 0, partitions: int = 1, idle: bool = False, still_idle: bool = False
) -> Watermark:
    return Watermark(
        topic="t", partition=partition, time_ms=START_MS + minute * MINUTE_MS, partitions=partitions,
        idle=idle or still_idle, still_idle=still_idle,
    )  # fmt: skip


def make(state: dict[bytes, bytes] | None = None) -> Detector:
    def confusion(_: str) -> np.ndarray | None:
        return None

    return Detector(DetectionSettings(), AlertSettings(), ENTITIES, confusion, state)


def run(detector: Detector, stream: list[list[Opinion]], first: int = 0) -> list[Alert]:
    alerts: list[Alert] = []
    for minute, batch in enumerate(stream, start=first):
        detector.observe([*batch, mark(minute + 1)])
        alerts += detector.advance()
    return alerts


@pytest.fixture(scope="module")
def stream() -> list[list[Opinion]]:
    return opinions(16 * 60, (10 * 60, 10 * 60 + 90))


@pytest.fixture(scope="module")
def expected(stream: list[list[Opinion]]) -> list[Alert]:
    return run(make(), stream)


@pytest.mark.parametrize(
    ("signal", "times", "share"), [("negative_volume", 3, 0.6), ("negative_share", 1, 0.95), ("volume", 6, 0.2)]
)
def test_the_onset_of_a_strong_rise_is_told_to_the_bucket_whatever_rose(signal: str, times: int, share: float) -> None:
    rng = random.Random(3)
    settings = DetectionSettings(signals=(signal,))
    detector = Detector(settings, AlertSettings(), {"air": EntityInfo("Northwind Air")}, lambda _: None)
    begins, alerts, number = 24 * 60, [], 0
    for minute in range(begins + 60):
        rising = minute >= begins
        for _ in range(sum(rng.random() < 0.5 for _ in range(6 * (times if rising else 1)))):
            number += 1
            negative = rng.random() < (share if rising else 0.2)
            detector.observe(
                [
                    Opinion(
                        id=f"d{number}|air", document_id=f"d{number}", entity="air", lang="en", text="a post",
                        published_ms=START_MS + minute * MINUTE_MS + rng.randrange(MINUTE_MS),
                        sentiment=(0.9, 0.05, 0.05) if negative else (0.1, 0.7, 0.2),
                    )
                ]
            )  # fmt: skip
        detector.observe([mark(minute + 1)])
        alerts += detector.advance()
    assert alerts[0].signal == signal
    assert abs(alerts[0].onset_ms - (START_MS + begins * MINUTE_MS)) <= MINUTE_MS


def test_a_rise_is_one_incident_with_its_languages_onset_and_evidence(expected: list[Alert]) -> None:
    assert {alert.entity for alert in expected} == {"air"}
    assert len({alert.incident for alert in expected}) == 1
    assert [expected[0].state, expected[-1].state] == ["firing", "resolved"]
    last = [alert for alert in expected if alert.state != "resolved"][-1]
    assert set(last.languages) == {"en", "es"}
    assert abs(expected[0].onset_ms - (START_MS + 600 * MINUTE_MS)) <= 5 * MINUTE_MS
    assert expected[0].at_ms - expected[0].onset_ms < 40 * MINUTE_MS
    told = {post.text: post.copies for post in last.evidence.posts}
    assert sum(copies for text, copies in told.items() if "stranded" in text) >= 0.8 * sum(told.values()) > 0
    assert "stranded" in last.evidence.terms
    assert last.evidence.observed > last.evidence.low > last.evidence.expected
    assert expected[0].labels == {"owner": "travel"}
    assert "Northwind Air" in expected[0].summary
    assert len({alert.id for alert in expected}) == len(expected)


def test_the_end_is_told_as_it_was_and_not_when_it_was_certain(expected: list[Alert]) -> None:
    ended = expected[-1]
    assert abs(ended.ended_ms - (START_MS + 690 * MINUTE_MS)) <= 15 * MINUTE_MS
    assert ended.ended_ms < ended.at_ms <= ended.ended_ms + 120 * MINUTE_MS


def test_quiet_days_are_quiet() -> None:
    detector = make()
    assert run(detector, opinions(24 * 60, None, seed=11)) == []
    used = detector.budget_use()
    # A day of one a day, but for the volume's first and a signal for which there are too few languages.
    assert (used.raised, used.entities) == (0, 2)
    assert 0.6 <= used.allowed <= 1.0


def weighted(stream: list[list[Opinion]], weight: Callable[[Opinion], float]) -> list[list[Opinion]]:
    return [[msgspec.structs.replace(one, weight=weight(one)) for one in batch] for batch in stream]


def test_a_sample_counts_for_what_it_stands_for_and_is_no_more_evidence(
    stream: list[list[Opinion]], expected: list[Alert]
) -> None:
    # English is a sample of a tenth: what is said of the rise is scaled up, and one post is no proof ten times over.
    alerts = run(make(), weighted(stream, lambda one: 10.0 if one.lang == "en" else 1.0))
    assert {alert.entity for alert in alerts} == {"air"}
    last, alike = (next(a for a in reversed(told) if a.state == "resolved").evidence for told in (alerts, expected))
    assert 5 * alike.documents < last.documents < 10 * alike.documents
    share = {share.name: share.share for share in last.languages}
    assert share["en"] > 0.85 > {share.name: share.share for share in alike.languages}["en"]
    # When it is raised; a later step has the evidence of more posts.
    assert alerts[0].evidence.log_evidence < 1.5 * expected[0].evidence.log_evidence


def test_order_within_the_lateness_and_batch_size_change_no_byte(
    stream: list[list[Opinion]], expected: list[Alert]
) -> None:
    rng = random.Random(5)
    detector, alerts = make(), []
    for first in range(0, len(stream), 2):  # two minutes at a time, shuffled, some of it after the watermark
        batch = [opinion for minute in stream[first : first + 2] for opinion in minute]
        rng.shuffle(batch)
        cut = rng.randrange(len(batch) + 1)
        detector.observe(batch[:cut])
        detector.observe([mark(first + 1)])
        alerts += detector.advance()
        detector.observe(batch[cut:])
        detector.observe([mark(first + 2)])
        alerts += detector.advance()
    assert [encode(cloud_event(alert)) for alert in alerts] == [encode(cloud_event(alert)) for alert in expected]


def test_a_backlog_in_one_piece_gives_the_same_alerts(stream: list[list[Opinion]], expected: list[Alert]) -> None:
    detector = make()
    detector.observe([opinion for minute in stream for opinion in minute])
    detector.observe([mark(len(stream))])
    assert [encode(alert) for alert in detector.advance()] == [encode(alert) for alert in expected]


SNAPSHOT = 560
"""Minute up to which the property tests below share one state: what is interesting comes after it."""


@pytest.fixture(scope="module")
def snapshot(stream: list[list[Opinion]]) -> dict[bytes, bytes]:
    detector = make()
    assert run(detector, stream[:SNAPSHOT]) == []
    return {key: value for key, value in detector.take_changes() if value is not None}


def restarted(detector: Detector, rows: dict[bytes, bytes]) -> Detector:
    """Another detector, from the state that this one leaves behind."""
    for key, value in detector.take_changes():
        if value is None:
            rows.pop(key, None)
        else:
            rows[key] = value
    return make(rows)


@settings(max_examples=5, deadline=None)
@given(st.integers(0, 2**32))
def test_batches_order_and_restarts_at_random_change_no_byte(
    stream: list[list[Opinion]], expected: list[Alert], snapshot: dict[bytes, bytes], seed: int
) -> None:
    rng = random.Random(seed)
    arrivals = sorted(
        (opinion.published_ms + rng.randrange(DetectionSettings().allowed_lateness_s * 1000), opinion.id, opinion)
        for minute in stream[SNAPSHOT:]
        for opinion in minute
    )
    rows = dict(snapshot)
    detector, alerts, batch = make(rows), list[Alert](), list[Opinion | Watermark]()
    minute = SNAPSHOT
    for at_ms, _, opinion in arrivals:
        while at_ms >= START_MS + (minute + 1) * MINUTE_MS:
            minute += 1
            batch.append(mark(minute))
        batch.append(opinion)
        if rng.random() < 0.05:
            detector.observe(batch)
            alerts += detector.advance()
            batch.clear()
            if rng.random() < 0.1:
                detector = restarted(detector, rows)
    detector.observe([*batch, mark(len(stream))])
    alerts += detector.advance()
    assert detector.stats.late == 0
    assert [encode(alert) for alert in alerts] == [encode(alert) for alert in expected]


def test_state_is_incremental_and_old_evidence_goes(stream: list[list[Opinion]]) -> None:
    detector = make()
    run(detector, stream[:600])
    whole = detector.take_changes()
    run(detector, stream[600:601], 600)
    assert len(detector.take_changes()) < len(whole) / 10
    run(detector, stream[601:], 601)
    assert any(value is None for _, value in detector.take_changes())


def test_repeats_and_late_ones_are_counted_and_not_judged(stream: list[list[Opinion]], expected: list[Alert]) -> None:
    detector, alerts = make(), []
    for minute, batch in enumerate(stream):
        detector.observe([*batch, *batch[:1], mark(minute + 1)])
        alerts += detector.advance()
        if minute > 10:
            detector.observe(stream[minute - 10][:1])
    assert detector.stats.duplicates == sum(bool(batch) for batch in stream)
    assert detector.stats.late == sum(bool(batch) for batch in stream[1:-10])
    assert [alert.id for alert in alerts] == [alert.id for alert in expected]


def test_nothing_closes_before_every_source_has_spoken_and_a_silent_one_comes_along_one_claim_behind() -> None:
    detector = make()

    def after(*marks: Watermark) -> int | None:
        detector.observe(marks)
        watermark_ms = detector.watermark_ms
        return None if watermark_ms is None else (watermark_ms - START_MS) // MINUTE_MS

    assert after(mark(500, partition=0, partitions=3), mark(400, partition=1, partitions=3)) is None
    # The first claim vouches for nothing: the check behind it may be older than what the others have said since.
    assert after(mark(1, partition=2, partitions=3, idle=True)) == 1
    assert after(mark(700, partition=0, partitions=3), mark(700, partition=1, partitions=3)) == 1
    assert after(mark(1, partition=2, partitions=3, still_idle=True)) == 500
    # Its reader died: however far the others come, nothing is closed over what it may hold.
    assert after(mark(900, partition=0, partitions=3), mark(900, partition=1, partitions=3)) == 500
    # A new reader begins anew: no claim of the old one is carried on.
    assert after(mark(1, partition=2, partitions=3, idle=True)) == 500
    assert after(mark(1, partition=2, partitions=3, still_idle=True)) == 900
    # It speaks again, of what happened meanwhile.
    assert after(mark(880, partition=2, partitions=3), mark(950, partition=0, partitions=3)) == 900
    assert after(mark(940, partition=2, partitions=3), mark(950, partition=1, partitions=3)) == 940
    # All are silent: everything was read, and the furthest counts.
    for _ in range(2):
        last = after(*(mark(900, partition=p, partitions=3, still_idle=True) for p in range(3)))
    assert last == 950


def test_an_opinion_late_in_its_own_partition_is_late_however_slowly_the_others_are_read() -> None:
    opinion = Opinion(
        id="d|air", document_id="d", entity="air", lang="en", text="x", published_ms=START_MS, sentiment=(1, 0, 0),
        clock_ms=START_MS + 10 * MINUTE_MS,
    )  # fmt: skip
    detector = make()
    detector.observe([mark(0, partition=1, partitions=2), opinion])
    assert (detector.stats.opinions, detector.stats.late) == (0, 1)
    in_time = msgspec.structs.replace(opinion, clock_ms=START_MS + 2 * MINUTE_MS)
    detector.observe([in_time])
    assert (detector.stats.opinions, detector.stats.late) == (1, 1)


def test_a_new_watchlist_forgets_and_goes_on(stream: list[list[Opinion]]) -> None:
    detector = make()
    run(detector, stream[:300])
    detector.set_entities({"bank": ENTITIES["bank"]})
    run(detector, stream[300:400], 300)
    gone = {key for key, value in detector.take_changes() if value is None}
    assert any(key.startswith(b"series|air|") for key in gone)
    assert all(view.entity == "bank" for view in detector.views())


@given(st.lists(st.integers(0, 4_102_444_800_000), min_size=1, max_size=20))
def test_any_times_are_taken(times: list[int]) -> None:
    detector = make()
    for n, time_ms in enumerate(times):
        detector.observe(
            [
                Opinion(
                    id=str(n),
                    document_id=str(n),
                    entity="air",
                    published_ms=time_ms,
                    lang="en",
                    sentiment=(0.8, 0.1, 0.1),
                )
            ]
        )
        detector.observe([Watermark(topic="t", partition=0, time_ms=time_ms, partitions=1)])
        detector.advance()
    restored = make({k: v for k, v in detector.take_changes() if v is not None})
    assert restored.closed_ms == detector.closed_ms
    assert restored.stats == detector.stats


def test_a_stream_that_is_a_sample_throughout_decides_as_its_posts_do(
    stream: list[list[Opinion]], expected: list[Alert]
) -> None:
    alerts = run(make(), weighted(stream, lambda one: 100.0))
    assert [(alert.state, alert.at_ms, alert.onset_ms) for alert in alerts] == [
        (alert.state, alert.at_ms, alert.onset_ms) for alert in expected
    ]


def test_one_heavy_post_is_no_rise(stream: list[list[Opinion]]) -> None:
    quiet = stream[:600]
    heavy = msgspec.structs.replace(quiet[500][0], weight=1000.0, sentiment=(1.0, 0.0, 0.0))
    assert run(make(), [[heavy, *batch[1:]] if minute == 500 else batch for minute, batch in enumerate(quiet)]) == []


@pytest.mark.parametrize("weight", [1, MAX_WEIGHT])
def test_what_a_source_claims_however_much_stops_no_detector(stream: list[list[Opinion]], weight: int) -> None:
    loud = [[msgspec.structs.replace(o, reach=MAX_REACH, weight=float(weight)) for o in batch] for batch in stream]
    detector = make()
    alerts = run(detector, loud)
    assert all(alert.evidence.reach == MAX_REACH for alert in alerts)
    assert alerts
    restored = make({key: value for key, value in detector.take_changes() if value is not None})
    assert restored.stats == detector.stats
    assert all(decode_alert_event(encode(cloud_event(alert))).data == alert for alert in alerts)


@pytest.mark.parametrize("claim", [{"weight": 0}, {"weight": -1}, {"weight": 1e300}, {"reach": -1}, {"reach": 2**60}])
def test_an_opinion_that_no_classifier_writes_is_none(claim: dict[str, float], stream: list[list[Opinion]]) -> None:
    written = msgspec.to_builtins(stream[0][0])
    assert decode_opinion_message(msgspec.json.encode(written)) == stream[0][0]
    with pytest.raises(msgspec.ValidationError, match=f"at `\\$.{next(iter(claim))}`"):
        decode_opinion_message(msgspec.json.encode(written | claim))


def test_evidence_tells_of_one_event_and_its_size(expected: list[Alert]) -> None:
    last = [alert for alert in expected if alert.state != "resolved"][-1].evidence
    assert last.one_event is not None
    assert last.one_event > 0.8
    assert last.effect == pytest.approx(last.observed - last.expected, abs=1e-3)
    assert last.effect_low < last.effect < last.effect_high
    end = expected[-1].evidence
    assert end.posts == ()
    assert end.documents >= last.documents


def test_the_end_of_watching_ends_an_incident(stream: list[list[Opinion]], snapshot: dict[bytes, bytes]) -> None:
    detector = make(dict(snapshot))
    assert [alert.state for alert in run(detector, stream[SNAPSHOT:660], SNAPSHOT)][:1] == ["firing"]
    detector.set_entities({"bank": ENTITIES["bank"]})
    assert [(alert.entity, alert.state) for alert in detector.advance()] == [("air", "resolved")]
    assert detector.open_incidents == []


def test_what_the_correlator_is_told_covers_every_bucket_once(
    stream: list[list[Opinion]], snapshot: dict[bytes, bytes]
) -> None:
    detector, messages = make(dict(snapshot)), []
    for minute, batch in enumerate(stream[SNAPSHOT:700], SNAPSHOT):
        detector.observe([*batch, mark(minute + 1)])
        messages += detector.report(detector.advance(), partition=2, partitions=3)
    closed = [message for message in messages if isinstance(message, Closed)]
    assert [message.closed_ms for message in closed] == sorted({message.closed_ms for message in closed})
    assert {(message.partition, message.partitions) for message in closed} == {(2, 3)}
    breadth = [row for message in closed for row in message.breadth]
    assert {row.known for row in breadth} == {2}
    assert max(row.rising for row in breadth) >= 1
    told = [place for place, message in enumerate(messages) if isinstance(message, EntityStep)]
    assert told
    assert all(messages[place + 1].closed_ms >= messages[place].alert.at_ms for place in told)  # type: ignore[union-attr]


def test_state_of_before_embeddings_is_read_and_of_another_version_refused(snapshot: dict[bytes, bytes]) -> None:
    older = {}
    for key, value in snapshot.items():
        if key.startswith(b"cell|"):
            row = msgspec.msgpack.decode(value)
            for sample in row["negative"]:
                sample.pop("embedding", None)
            older[key] = msgspec.msgpack.encode(row)
        else:
            older[key] = value
    assert make(older).closed_ms == make(dict(snapshot)).closed_ms
    newer = msgspec.msgpack.encode(msgspec.msgpack.decode(snapshot[b"progress"]) | {"version": 99})
    with pytest.raises(StateError, match="version 99"):
        make({**snapshot, b"progress": newer})


def test_cells_can_be_read_by_others_and_damage_is_told(stream: list[list[Opinion]]) -> None:
    detector = make()
    run(detector, stream[:30])
    rows = dict(detector.take_changes())
    counts: dict[str, float] = {}
    for key, value in rows.items():
        if value is not None and (cell := read_cell(key, value)) is not None:
            counts[cell[0]] = counts.get(cell[0], 0) + cell[2]["*"][0]
    assert sum(counts.values()) == sum(len(batch) for batch in stream[:30])
    with pytest.raises(StateError):
        make({b"progress": b"\xff\xff"})
