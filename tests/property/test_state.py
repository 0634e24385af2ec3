"""The detector's position and state, kept in one commit: a crash at any moment changes nothing that comes out."""

from __future__ import annotations

import random

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from monitor.detection.detector import Detector, EntityInfo
from monitor.detection.incidents import AlertSettings
from monitor.detection.settings import DetectionSettings
from monitor.records import Alert, Opinion, Watermark, cloud_event, encode

MINUTE_MS = 60_000
START_MS = 1_772_323_200_000
MINUTES = 260


def topic() -> list[Opinion | Watermark]:
    """Opinions about two entities with a rise in each, and watermarks, as they lie in one partition."""
    rng = random.Random(5)
    messages: list[Opinion | Watermark] = []
    for minute in range(MINUTES):
        for number in range(6):
            entity = rng.choice(("acme", "globex"))
            rising = 180 <= minute < 215 if entity == "acme" else 190 <= minute < 230
            negative = rng.random() < (0.9 if rising else 0.1)
            identity = f"d{minute}-{number}"
            messages.append(
                Opinion(
                    id=f"{identity}|{entity}", document_id=identity, entity=entity, lang=rng.choice(("en", "tr")),
                    published_ms=START_MS + minute * MINUTE_MS + rng.randrange(MINUTE_MS), text=f"{entity} {identity}",
                    sentiment=(0.9, 0.05, 0.05) if negative else (0.05, 0.05, 0.9), source="forum", author=identity,
                )
            )  # fmt: skip
        time_ms = START_MS + minute * MINUTE_MS
        messages.append(Watermark(topic="t", partition=0, time_ms=time_ms, partitions=1))
    messages.append(Watermark(topic="t", partition=0, time_ms=START_MS + 400 * MINUTE_MS, partitions=1))
    return messages


TOPIC = topic()


def detector(state: dict[bytes, bytes]) -> Detector:
    entities = {name: EntityInfo(name.title()) for name in ("acme", "globex")}
    settings = DetectionSettings(false_alarms_per_day=100)
    return Detector(settings, AlertSettings(), entities, lambda lang: None, state)


def values(alerts: list[Alert]) -> list[bytes]:
    return [encode(cloud_event(alert)) for alert in alerts]


def undisturbed() -> list[bytes]:
    whole = detector({})
    whole.observe(TOPIC)
    return values(whole.advance())


EXPECTED = undisturbed()


class StateMachine(RuleBasedStateMachine):
    """Against one run over everything at once."""

    def __init__(self) -> None:
        super().__init__()
        # What is committed.
        self.rows: dict[bytes, bytes] = {}
        self.position = 0
        self.alerts: list[bytes] = []
        self.crash()

    @rule()
    def crash(self) -> None:
        self.detector = detector(dict(self.rows))
        self.read = self.position
        self.changes: list[tuple[bytes, bytes | None]] = []
        self.raised: list[bytes] = []

    @rule(count=st.integers(1, 400))
    def work(self, count: int) -> None:
        chunk = TOPIC[self.read : self.read + count]
        self.detector.observe(chunk)
        self.raised += values(self.detector.advance())
        self.changes += self.detector.take_changes()
        self.read += len(chunk)

    @rule()
    def commit(self) -> None:
        for key, value in self.changes:
            if value is None:
                self.rows.pop(key, None)
            else:
                self.rows[key] = value
        self.alerts += self.raised
        self.position = self.read
        self.changes, self.raised = [], []

    @invariant()
    def committed_alerts_are_the_first_of_the_expected(self) -> None:
        assert self.alerts == EXPECTED[: len(self.alerts)]

    def teardown(self) -> None:
        self.crash()
        self.work(len(TOPIC))
        self.commit()
        assert self.alerts == EXPECTED


def test_something_is_expected() -> None:
    assert len(EXPECTED) >= 4


TestState = StateMachine.TestCase
TestState.settings = settings(max_examples=8, stateful_step_count=10)
