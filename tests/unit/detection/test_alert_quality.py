"""The sample day, as a classifier that is wrong one time in eight sees it: one right incident for each planted event.

`benchmarks/alert_quality.py` asks the same of the real model on real posts.
"""

from __future__ import annotations

import random
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from monitor.detection.correlate import Correlator, Watched
from monitor.detection.detector import Detector, EntityInfo
from monitor.detection.incidents import AlertSettings
from monitor.detection.settings import DetectionSettings
from monitor.records import Alert, Opinion, Watermark
from monitor.watchlist import load_watchlist
from tests.support.scripts import script

EXAMPLES = Path(__file__).parents[3] / "examples"
BUCKET_S = 300
WRONG = 0.125
CONFUSION = np.full((3, 3), WRONG / 2) + np.eye(3) * (1 - 1.5 * WRONG)
MOODS = ("negative", "neutral", "positive")


@pytest.fixture(scope="module")
def day() -> tuple[Any, list[Alert]]:
    stream = script("examples", "generate_stream").generate(7)
    rng = random.Random(1)
    buckets: defaultdict[int, list[Opinion | Watermark]] = defaultdict(list)
    for post in stream.posts:
        if not post.entity:
            continue
        mood = (
            MOODS.index(post.mood)
            if rng.random() >= WRONG
            else rng.choice([m for m in range(3) if MOODS[m] != post.mood])
        )
        sentiment = tuple(0.8 if place == mood else 0.1 for place in range(3))
        buckets[post.published_ms // (BUCKET_S * 1000)].append(
            Opinion(
                id=f"{post.id}|{post.entity}", document_id=post.id, entity=post.entity, published_ms=post.published_ms,
                lang=post.language, sentiment=sentiment, text=post.text, source=post.record["source"],  # type: ignore[arg-type]
                author=post.record["author"], url=post.record["url"], repost_of=post.repost_of,
            )
        )  # fmt: skip
    watched = load_watchlist(EXAMPLES / "watchlist.toml").entities
    detector = Detector(
        DetectionSettings(bucket_s=BUCKET_S), AlertSettings(confirm_s=0),
        {entity.id: EntityInfo(entity.name, entity.names) for entity in watched.values()}, lambda _: CONFUSION,
    )  # fmt: skip
    correlator = Correlator(AlertSettings(), {entity.id: Watched(entity.name, {}) for entity in watched.values()})
    alerts: list[Alert] = []
    for bucket in range(min(buckets), max(buckets) + 3):
        time_ms = (bucket + 1) * BUCKET_S * 1000
        detector.observe([*buckets[bucket], Watermark(topic="t", partition=0, partitions=1, time_ms=time_ms)])
        alerts += correlator.take(detector.report(detector.advance(), partition=0, partitions=1))
    return stream, alerts


def test_each_event_is_one_incident_and_nothing_else_is(day: tuple[Any, list[Alert]]) -> None:
    stream, alerts = day
    planted = {event["entity"] for event in stream.expected["events"] if event["kind"] == "negative"}
    assert {alert.entity for alert in alerts} == planted
    assert len({alert.incident for alert in alerts}) == len(planted)


def test_languages_onset_and_posts_are_those_of_the_event(day: tuple[Any, list[Alert]]) -> None:
    stream, alerts = day
    for event in stream.expected["events"]:
        told = [alert for alert in alerts if alert.entity == event["entity"] and alert.state != "resolved"]
        if event["kind"] == "harmless":
            assert told == []
            continue
        last, ids = told[-1], set(event["document_ids"])
        assert set(last.languages) <= set(event["languages"]), event["id"]
        assert len(last.languages) >= min(4, len(event["languages"])), event["id"]
        posts = [post.document_id for alert in told for post in alert.evidence.posts]
        assert sum(post in ids for post in posts) >= 0.8 * len(posts), event["id"]
        assert len({post.url for post in last.evidence.posts}) == len(last.evidence.posts)
    sharp = next(event for event in stream.expected["events"] if event["id"] == "outage")
    first = next(alert for alert in alerts if alert.entity == sharp["entity"])
    assert abs(first.onset_ms - sharp["start_ms"]) <= BUCKET_S * 1000
