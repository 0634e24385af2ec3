"""Which news topics an entity's documents are about, and whether one of them takes a larger part than usual; pure.

A topic's part of an entity's documents is a share like that of the negative ones, so the same bank watches it: a series is
(entity, topic) instead of (entity, language), and "negative" is "about this topic". As evidence compares predicted with
predicted counts, an error of the topic classifier raises no alarm.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from monitor.detection import budget
from monitor.detection.bank import SeriesBank
from monitor.detection.counts import ROLLUP, SeriesKey
from monitor.detection.findings import Finding
from monitor.detection.settings import DetectionSettings

TOPIC_SHIFT = "topic_shift"


class TopicBank:
    """The topics of all watched entities, and the evidence that one is on the rise.

    Args:
        settings: The detector's, with `topic_shift` among its signals.
        entities: As for `SeriesBank`.
    """

    def __init__(self, settings: DetectionSettings, entities: Sequence[str]) -> None:
        # The sum over all topics is all documents and never rises, so the rollup's part of the budget goes to the topics.
        part = budget.topic_part(settings) / (1 - budget.ROLLUP_PART)
        self._bank = SeriesBank(
            settings.model_copy(
                update={
                    "signals": ("negative_share",),
                    "false_alarms_per_day": part * settings.false_alarms_per_day,
                }
            ),
            entities=entities,
        )
        self._known: defaultdict[str, set[str]] = defaultdict(set)

    def update(
        self,
        bucket_ms: int,
        counts: Mapping[str, Mapping[str, float]],
        reposts: Mapping[str, float],
        squares: Mapping[str, float],
    ) -> list[Finding]:
        """Take one closed bucket.

        Args:
            bucket_ms: Start of the bucket.
            counts: By entity: documents by topic.
            reposts: By entity: the part of its documents that repeats an earlier text, 0 to 1.
            squares: By entity: the mean of squared over the mean of plain weights, 1 where all weigh 1.

        Returns:
            Topics whose part is above the usual, ordered by entity and topic; the series' language is `*`.
        """
        keys: list[SeriesKey] = []
        rows: list[tuple[float, float, float]] = []
        for entity, by_topic in sorted(counts.items()):
            everything = sum(by_topic.values())
            known = self._known[entity]
            known.update(by_topic)
            for topic in sorted(known):
                keys.append((entity, topic))
                rows.append((by_topic.get(topic, 0), everything - by_topic.get(topic, 0), 0))
        table = np.array(rows, np.float64).reshape(-1, 3)
        total, of = table.sum(1), [entity for entity, _ in keys]
        repeated, heavy = (total * np.array([part[entity] for entity in of]) for part in (reposts, squares))
        found = self._bank.update(bucket_ms, keys, table, repeated, heavy)
        return [
            replace(finding, signal=TOPIC_SHIFT, unit="topic", topic=finding.lang, lang=ROLLUP)
            for finding in found
            if finding.lang != ROLLUP
        ]

    def changed(self) -> dict[SeriesKey, bytes]:
        """As `SeriesBank.changed`, by (entity, topic)."""
        return self._bank.changed()

    def restore(self, states: Mapping[SeriesKey, bytes]) -> None:
        """As `SeriesBank.restore`."""
        self._bank.restore(states)
        for entity, topic in states:
            if topic != ROLLUP:
                self._known[entity].add(topic)

    def set_entities(self, entities: Sequence[str]) -> list[SeriesKey]:
        """As `SeriesBank.set_entities`."""
        gone = self._bank.set_entities(entities)
        for entity, _ in gone:
            self._known.pop(entity, None)
        return gone

    def budget_use(self) -> budget.BudgetUse:
        """As `SeriesBank.budget_use`."""
        return self._bank.budget_use()
