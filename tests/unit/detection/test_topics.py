"""A topic that takes a larger part of what is said of a name than it usually does."""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np
import pytest

from monitor.detection.detector import Detector, EntityInfo
from monitor.detection.incidents import AlertSettings
from monitor.detection.settings import DetectionSettings
from monitor.records import Alert, Opinion, Watermark

BUCKET_MS, DAY = 300_000, 288
TOPICS = ("business", "health", "sports")
SETTINGS = DetectionSettings(
    bucket_s=300, false_alarms_per_day=0.1, signals=("negative_share", "negative_volume", "sentiment", "topic_shift")
)
ONSET = DAY + 120


def opinions(buckets: int, health: Callable[[int], float], seed: int = 1) -> list[list[Opinion]]:
    """By bucket: about four opinions in the usual mood, of which so many are about health and most others about business."""
    rng, found, number = random.Random(seed), [], 0
    for bucket in range(buckets):
        batch = []
        for _ in range(rng.randrange(2, 7)):
            number += 1
            about = rng.random() < health(bucket)
            topic = "health" if about else rng.choices(TOPICS, (8, 0, 2))[0]
            text = f"{'allergic rash' if about else 'ordinary day'} number {number}"
            mood = (0.9, 0.05, 0.05) if rng.random() < 0.25 else (0.1, 0.7, 0.2)
            batch.append(
                Opinion(
                    id=f"d{number}|snack", document_id=f"d{number}", entity="snack", lang="en", text=text, sentiment=mood, topic=topic,
                    published_ms=bucket * BUCKET_MS + rng.randrange(BUCKET_MS),
                )
            )  # fmt: skip
        found.append(batch)
    return found


def make(state: dict[bytes, bytes] | None = None) -> Detector:
    return Detector(SETTINGS, AlertSettings(), {"snack": EntityInfo("Biskavo")}, lambda _lang: None, state)


def run(detector: Detector, stream: list[list[Opinion]], first: int = 0) -> list[Alert]:
    alerts: list[Alert] = []
    for bucket, batch in enumerate(stream, start=first):
        mark = Watermark(topic="t", partition=0, partitions=1, time_ms=(bucket + 1) * BUCKET_MS)
        detector.observe([*batch, mark])
        alerts += detector.advance()
    return alerts


@pytest.fixture(scope="module")
def stream() -> list[list[Opinion]]:
    return opinions(ONSET + 120, lambda bucket: 0.6 if ONSET <= bucket < ONSET + 48 else 0.1)


@pytest.fixture(scope="module")
def alerts(stream: list[list[Opinion]]) -> list[Alert]:
    return run(make(), stream)


def test_the_rise_of_one_topic_is_one_incident_that_is_information(alerts: list[Alert]) -> None:
    assert [alert.state for alert in alerts] == ["firing", "resolved"]
    first, shown = alerts[0], alerts[0].evidence
    assert (first.signal, first.severity, shown.unit, shown.topic) == ("topic_shift", "info", "topic", "health")
    assert abs(first.onset_ms - ONSET * BUCKET_MS) <= 4 * BUCKET_MS
    assert shown.expected == pytest.approx(0.1, abs=0.04)
    assert shown.observed > 0.4
    assert shown.low < shown.observed < shown.high
    assert "about health, usually" in first.summary
    assert {post.text.partition(" number")[0] for post in shown.posts} == {"allergic rash"}
    assert {"allergic", "rash"} <= set(shown.terms)
    assert shown.topics[0].name == "health"


def test_ordinary_days_shift_nothing() -> None:
    detector = make()
    assert run(detector, opinions(2 * DAY, lambda _: 0.1, seed=2)) == []
    # The topics' part of the budget is spent too: two days of a tenth.
    assert detector.budget_use().allowed == pytest.approx(0.2, rel=0.35)


def test_a_restart_changes_nothing(stream: list[list[Opinion]], alerts: list[Alert]) -> None:
    cut = ONSET + 5
    before = make()
    head = run(before, stream[:cut])
    state = {key: value for key, value in before.take_changes() if value is not None}
    assert any(key.startswith(b"topic|snack|health") for key in state)
    assert [alert.id for alert in head + run(make(state), stream[cut:], cut)] == [alert.id for alert in alerts]


def test_who_is_no_longer_watched_has_no_topics() -> None:
    detector = make()
    run(detector, opinions(3, lambda _: 0.1))
    detector.take_changes()
    detector.set_entities({"other": EntityInfo("Other")})
    gone = {key for key, value in detector.take_changes() if value is None}
    assert b"topic|snack|business" in gone
    assert np.all([key.split(b"|")[1] == b"snack" for key in gone])
