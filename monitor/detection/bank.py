"""All watched series as arrays: one bucket of counts in, the signals in alarm out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from monitor.detection import baseline, budget, decide, evidence, findings, weigh
from monitor.detection.counts import (
    BESIDE,
    EFFECTS,
    NEGATIVE_VOLUME,
    ROLLUP,
    SHARE,
    SHARES,
    SIGNALS,
    SPREAD,
    VOLUME,
    Bools,
    Floats,
    Ints,
    Rows,
    Seen,
    SeriesKey,
    SeriesTable,
)  # fmt: skip
from monitor.detection.findings import Finding, SeriesView
from monitor.detection.quantify import Correction, correction
from monitor.detection.settings import DetectionSettings

__all__ = ["ROLLUP", "Finding", "SeriesBank", "SeriesKey", "SeriesView"]

CHUNK_ROWS = 2048
"""Rows worked on at once: two megabytes of state, which stays in the processor's cache."""
DAY_MS = baseline.DAY_MS
HELD_EVIDENCE = 1.5
"""From so much evidence (nats) on, what a share shows is held back from its baseline: a rise that builds up over an hour
would else be learned before it is noticed. When the evidence falls again, what was held is learned after all, so that a
quiet series learns everything, only later."""
SPREAD_LANGUAGES = 3
"""An entity with fewer languages has none beside the main one that could share a rise."""
COUNT_LIMIT = 1e12
"""More documents than this in a bucket are taken for this many: no stream has them, and their squares stay exact enough."""
HELD_MS = 3 * 3_600_000
"""But not longer than this: a baseline that was learned wrong must be able to mend itself."""
RISING_EVIDENCE = 1.0
"""From so much evidence (nats) on an entity counts as rising, when it is asked whether many are at once. On simulated quiet traffic
11 to 19 % of them do at any time; it takes a third of the time that 3 nats would, and many weak signs are a strong one."""
REPOST_WORTH = 0.25
"""A repost is this much of a document as evidence: it is agreement, but not an independent observation."""


class SeriesBank:
    """The state of every series (entity x language, and `*` over an entity's languages) and its evidence.

    Args:
        settings: The detector's options.
        entities: The watched entity ids over the whole deployment: the budget is shared over them, and a series of
            another entity is ignored. The same list everywhere, so that decisions do not depend on partitions.
        confusion: By language, the classifier's known confusion: float64 [3 true, 3 predicted], rows summing to 1,
            in the order of `records.SENTIMENTS`; None when unknown (taken as without error).
    """

    def __init__(
        self,
        settings: DetectionSettings,
        *,
        entities: Sequence[str],
        confusion: Callable[[str], Floats | None] = lambda _lang: None,
    ) -> None:
        self._settings = settings
        self._length_ms = settings.bucket_s * 1000
        self._half_life_ms = settings.half_life_days * DAY_MS
        self._confusion = confusion
        self._corrections: dict[str, Correction] = {}
        self._table = SeriesTable()
        self._touched: list[Ints] = []
        self._active: set[int] = set()
        self._entities = frozenset(entities)
        parts = budget.signal_parts(settings)
        self._parts = {True: parts, False: budget.without(parts, SPREAD)}
        """By whether a series is a rollup: how its signals share the budget."""
        self._watched = {kind: int(np.flatnonzero(parts).max(initial=0)) + 1 for kind, parts in self._parts.items()}
        self._raised = 0
        self._spent_days = 0.0

    def __len__(self) -> int:
        """Number of series, rollups included."""
        return len(self._table)

    def update(
        self,
        bucket_ms: int,
        rows: Sequence[SeriesKey],
        counts: Floats,
        reposts: Floats | Ints,
        squares: Floats | None = None,
    ) -> list[Finding]:
        """Take one closed bucket of the series that have documents in it, and let time pass for all others.

        Buckets come in order of time, each once. Rows name languages, each series once a bucket: the rollup `*` is
        made here, so that it can be compared language by language. Only counts that have no language are given as `*`.

        Args:
            bucket_ms: Start of the bucket, a multiple of the bucket length.
            rows: (entity, language) of each row.
            counts: float64 [rows, 3], documents by most probable sentiment (hard labels, which is what the confusion
                describes; sums of weights where documents carry any), reposts included.
            reposts: [rows], how many of the row's documents repeat an earlier text.
            squares: float64 [rows], the sum of the squared weights of the row's documents. None: all weigh 1.

        Returns:
            The signals in alarm, and those that have just stopped, ordered by entity, language and signal.
        """
        counts = np.minimum(np.asarray(counts, np.float64).reshape(-1, 3), COUNT_LIMIT)
        total = counts.sum(1)
        part = np.asarray(reposts, np.float64) / np.maximum(total, 1e-12)
        worth = 1 - (1 - REPOST_WORTH) * np.minimum(part, 1.0)
        squares = total if squares is None else np.asarray(squares, np.float64)
        watched = [entity in self._entities for entity, _ in rows]
        if not all(watched):
            rows = [key for key, keep in zip(rows, watched, strict=True) if keep]
            counts, worth, squares = counts[watched], worth[watched], squares[watched]
        slots = self._table.find(rows, bucket_ms=bucket_ms, bucket_length_ms=self._length_ms)
        silent = np.array(sorted(self._active.difference(slots.tolist())) if self._active else [], np.int64)
        slots = np.concatenate([slots, silent])
        seen = self._seen(
            slots,
            np.concatenate([counts, np.zeros((len(silent), 3))]),
            np.concatenate([worth, np.ones(len(silent))]),
            np.concatenate([squares, np.zeros(len(silent))]),
        )
        found: list[Finding] = []
        parents = self._table.rollup[slots]
        for part in _chunks(np.flatnonzero(parents != slots)):
            chunk = seen.take(part)
            found += self._advance(bucket_ms, slots[part], chunk, is_rollup=False)
            seen.put(part, chunk)
        rollups, summed = seen.sum_by(parents)
        for part in _chunks(np.arange(len(rollups))):
            found += self._advance(bucket_ms, rollups[part], summed.take(part), is_rollup=True)
        return sorted(found, key=lambda finding: (finding.entity, finding.lang, SIGNALS.index(finding.signal)))

    def changed(self) -> dict[SeriesKey, bytes]:
        """The state of each series that was touched since the last call (or since `restore`)."""
        touched = np.unique(np.concatenate(self._touched)).tolist() if self._touched else []
        self._touched = []
        return self._table.pack(slot for slot in touched if slot in self._table.keys)

    def dump(self) -> dict[SeriesKey, bytes]:
        """The state of every series."""
        return self._table.pack(self._table.sorted_slots())

    def restore(self, states: Mapping[SeriesKey, bytes]) -> None:
        """Put back series as `changed` or `dump` gave them; series that are not watched are left out.

        Raises:
            StateError: A state is damaged or of an unknown version.
        """
        watched = {key: state for key, state in states.items() if key[0] in self._entities}
        self._table.unpack(watched)
        for key in watched:
            slot = self._table.slot(key)
            if slot is not None and self._table.rows["alarm"][slot].any():
                self._active.add(slot)

    def drop(self, entities: Sequence[str]) -> list[SeriesKey]:
        """Forget all series of these entities: another partition's owner goes on with them.

        Returns:
            The series that were forgotten.
        """
        chosen = frozenset(entities)
        gone = sorted(key for key in self._table.keys.values() if key[0] in chosen)
        self._active.difference_update(self._table.remove(gone))
        return gone

    def set_entities(self, entities: Sequence[str]) -> list[SeriesKey]:
        """Watch these entities from the next bucket on, and share the budget anew.

        Returns:
            The series that no longer exist, so that their stored state can be deleted.
        """
        self._entities = frozenset(entities)
        return self.drop([entity for entity, _ in self._table.keys.values() if entity not in self._entities])

    def breadth(self) -> tuple[int, int]:
        """Entities whose share is known, and those of them whose negative share shows some rise, in alarm or not.

        Each entity is as its own last document left it: how many share a partition must make no difference.
        """
        slots, rows = self._table.rollups(), self._table.rows
        known = rows["share"][slots, 1] >= weigh.SHARE_KNOWN
        rising = (rows["climb"][slots, 0] > RISING_EVIDENCE).any(1) | (rows["alarm"][slots, 0] > 0)
        return int(known.sum()), int((known & rising).sum())

    def set_confusion(self, confusion: Callable[[str], Floats | None]) -> None:
        """Use another bundle's confusion from the next bucket on."""
        self._confusion = confusion
        self._corrections.clear()

    def budget_use(self) -> budget.BudgetUse:
        """How much of the false-alarm budget the series here were given, and the alarms they raised."""
        return budget.BudgetUse(
            self._settings.false_alarms_per_day,
            len(self._entities),
            self._raised,
            self._spent_days / self._bar_days * budget.SAFETY,
        )

    def views(self) -> Iterator[SeriesView]:
        """What every series' enabled signals were lately, and the band in which they would be normal."""
        for slot in self._table.sorted_slots():
            yield from self.views_of(self._table.keys[slot])

    def views_of(self, key: SeriesKey) -> Iterator[SeriesView]:
        """The same of one series; nothing when there is no such series."""
        slot = self._table.slot(key)
        if slot is not None:
            row = self._table.rows[slot : slot + 1].copy()
            clock = baseline.Clock.at(int(row["at"][0]), self._length_ms, row["at"])
            correct = self._correction(key[1])
            prior = baseline.entity_share(self._table.rows[self._table.rollup[[slot]]])
            volume = baseline.expect_volume(row, clock)
            share = baseline.expect_share(
                row, clock, correct.observed_share(prior), prior, np.array([correct.youden]), np.ones(1)
            )
            yield from findings.views(key, row, clock, volume, share, correct, self._settings.signals)

    def surprise(self, key: SeriesKey, signal: str) -> float:
        """How the evidence of one series' signal compares with its bar: the logarithm of their ratio, 0 at the bar."""
        slot = self._table.slot(key)
        if slot is None:
            return -np.inf
        total = evidence.total_evidence(self._table.rows[slot : slot + 1])[0, SIGNALS.index(signal)]
        return float(np.log(max(total, 1e-300) / self._bar_days))

    @property
    def _bar_days(self) -> float:
        return budget.bar_days(self._settings, len(self._entities))

    def _correction(self, lang: str) -> Correction:
        known = self._corrections.get(lang)
        if known is None:
            known = self._corrections[lang] = correction(None if lang == ROLLUP else self._confusion(lang))
        return known

    def _seen(self, slots: Ints, counts: Floats, worth: Floats, squares: Floats) -> Seen:
        total = counts.sum(1)
        which = self._table.lang[slots]
        table = [self._correction(lang) for lang in self._table.langs]
        weights = np.array([item.weights for item in table]).reshape(-1, 3)[which]
        sentiment = np.array([item.sentiment for item in table]).reshape(-1, 3)[which]
        false_rate = np.array([item.false_rate for item in table], np.float64)[which]
        youden = np.array([item.youden for item in table], np.float64)[which]
        zeros = np.zeros_like(total)
        return Seen(
            documents=total, negatives=counts[:, 0].copy(), worth=worth * total, squares=squares,
            corrected=_weighed(counts, weights), positives=counts[:, 2].copy(),
            sentiment=_weighed(counts, sentiment), false_rate=false_rate * total, youden=youden * total,
            expected=zeros, doubt=zeros.copy(), corrected_expected=zeros.copy(),
            positives_expected=zeros.copy(), positives_doubt=zeros.copy(), sentiment_expected=zeros.copy(),
            direct=np.where(self._table.rollup[slots] == slots, total, 0.0),
            beside=np.zeros((len(total), EFFECTS + len(BESIDE))),
        )  # fmt: skip

    def _advance(self, bucket_ms: int, slots: Ints, seen: Seen, *, is_rollup: bool) -> list[Finding]:
        """Predict, weigh, decide, learn: one bucket for up to `CHUNK_ROWS` series of one kind."""
        rows = self._table.take(slots)
        parents = rows if is_rollup else self._table.take_entity(slots)
        clock = baseline.Clock.at(bucket_ms, self._length_ms, rows["at"])
        volume = baseline.expect_volume(rows, clock)
        share = self._expect_share(rows, parents, clock, seen, is_rollup)
        parts, watched = self._parts[is_rollup], self._watched[is_rollup]
        steps, quiet_steps, weights = weigh.ratios(
            rows,
            clock,
            volume,
            share,
            seen,
            parts,
            watched,
            self._settings.minimal_effect,
            self._half_life_ms,
        )
        spent, of_entity = self._spend(rows, parents, clock, is_rollup)
        if not is_rollup and self._parts[True][SPREAD]:
            weigh.tell_beside(seen, share, steps, of_entity)

        weigh.extend_windows(rows, volume, share, clock.gap, watched)
        total = evidence.accumulate(rows, steps, quiet_steps, clock.gap, spent, weights, bucket_ms)
        weigh.add_to_windows(rows, volume, share, seen, parts, watched)

        before = rows["alarm"] > 0
        raised = decide.raise_alarms(
            rows, total, spent, self._bar_days, share.correlation, seen.unit, self._settings, clock
        )
        ended = decide.end_alarms(rows, parents, before, steps, quiet_steps, clock, volume, share, seen, self._settings)
        found = self._describe(slots, rows, bucket_ms, seen, share, volume, spent, ended)
        self._learn(rows, parents, clock, volume, share, seen)
        self._close(bucket_ms, slots, rows, before, raised, ended)
        return found

    def _expect_share(
        self, rows: Rows, parents: Rows, clock: baseline.Clock, seen: Seen, is_rollup: bool
    ) -> baseline.Share:
        count = np.maximum(seen.documents, 1e-12)
        youden = np.where(seen.documents > 0, seen.youden / count, 1.0)
        false_rate = np.where(is_rollup, 0.0, seen.false_rate / count)
        prior = baseline.entity_share(parents)
        expected = false_rate + (1.0 if is_rollup else youden) * prior
        own = baseline.expect_share(rows, clock, expected, prior, youden, seen.unit)
        if not is_rollup:
            seen.expected = seen.documents * own.mean
            seen.doubt = seen.documents * own.doubt
            seen.corrected_expected = seen.documents * own.true
            seen.positives_expected = seen.documents * own.positive
            seen.positives_doubt = seen.documents * own.positive_doubt
            seen.sentiment_expected = seen.documents * own.sentiment
            return own
        # What each language should have shown, not the mean over all: a louder language is no change of mood.
        seen.expected = seen.expected + seen.direct * own.mean
        seen.doubt = seen.doubt + seen.direct * own.doubt
        seen.corrected_expected = seen.corrected_expected + seen.direct * own.true
        seen.positives_expected = seen.positives_expected + seen.direct * own.positive
        seen.positives_doubt = seen.positives_doubt + seen.direct * own.positive_doubt
        seen.sentiment_expected = seen.sentiment_expected + seen.direct * own.sentiment
        some = seen.documents > 0

        def mean(sums: Floats, alone: Floats) -> Floats:
            return np.where(some, sums / count, alone)

        return baseline.Share(
            np.clip(mean(seen.expected, own.mean), 0.005, 0.95), mean(seen.doubt, own.doubt), own.correlation,
            mean(seen.corrected_expected, own.true), np.clip(mean(seen.positives_expected, own.positive), 0.005, 0.97),
            mean(seen.positives_doubt, own.positive_doubt), mean(seen.sentiment_expected, own.sentiment),
        )  # fmt: skip

    def _spend(self, rows: Rows, parents: Rows, clock: baseline.Clock, is_rollup: bool) -> tuple[Floats, Floats]:
        """Budget time that each watched signal is given for one bucket, in days, and each series' part of its entity.

        Returns:
            float64 [n, watched], and float64 [n] of discounted documents, 1 for a rollup.
        """
        languages = parents["languages"].astype(np.float64)
        of_entity = np.ones(len(rows))
        if is_rollup:
            part = budget.rollup_parts(languages)
        else:
            mass = rows["mass"] * 0.5 ** (np.maximum(clock.bucket_ms - rows["at"], 0) / self._half_life_ms)
            entity_mass = parents["mass"] * 0.5 ** (np.maximum(clock.bucket_ms - parents["at"], 0) / self._half_life_ms)
            part = budget.language_parts(mass, entity_mass, np.maximum(languages, 1.0))
            of_entity = mass / np.maximum(entity_mass, 1e-9)
        parts = self._parts[is_rollup][: self._watched[is_rollup]]
        days: Floats = (self._length_ms / DAY_MS) * part[:, None] * parts
        self._spent_days += float((days.sum(1) * clock.elapsed).sum())
        if is_rollup and self._watched[True] > SPREAD:
            days[languages < SPREAD_LANGUAGES, SPREAD] = 0.0
        young = clock.bucket_ms - rows["born"] < DAY_MS
        for signal in (NEGATIVE_VOLUME, VOLUME):
            if signal < days.shape[1]:
                days[young, signal] = 0.0
        return days, of_entity

    def _describe(
        self, slots: Ints, rows: Rows, bucket_ms: int, seen: Seen, share: baseline.Share, volume: baseline.Volume,
        spent: Floats, ended: Bools,
    ) -> list[Finding]:  # fmt: skip
        found: list[Finding] = []
        alarms = np.argwhere(rows["alarm"] > 0)
        if not len(alarms):
            return found
        total, units = evidence.total_evidence(rows), seen.unit
        for position, signal in alarms:
            documents = seen.documents[position]
            youden = float(seen.youden[position] / documents) if documents > 0 else 1.0
            worth = float(seen.worth[position] / documents * units[position]) if documents > 0 else 1.0
            clumps = volume.dispersion[position] * volume.mean[position]
            alike = share.correlation[position] * documents * units[position]
            given = max(float(spent[position, signal]) if signal < spent.shape[1] else 0.0, 1e-12)
            found.append(
                findings.finding(
                    self._table.keys[int(slots[position])], rows[position], int(signal), bucket_ms=bucket_ms,
                    length_ms=self._length_ms, youden=max(youden, 0.05),
                    inflation=(1 + float(alike if signal in SHARES else clumps)) / max(worth, 1e-9),
                    log_evidence=float(np.log(max(total[position, signal], 1e-300) / given)),
                    threshold=float(np.log(self._bar_days / given)), active=not ended[position, signal],
                )
            )  # fmt: skip
        return found

    def _learn(
        self, rows: Rows, parents: Rows, clock: baseline.Clock, volume: baseline.Volume, share: baseline.Share,
        seen: Seen,
    ) -> None:  # fmt: skip
        frozen: Bools = np.any(rows["alarm"] > 0, axis=1) | np.any(parents["alarm"] > 0, axis=1)
        rows["mass"] = rows["mass"] * 0.5 ** (clock.elapsed * self._length_ms / self._half_life_ms) + seen.documents
        baseline.learn_volume(rows, clock, volume, seen.documents, frozen, self._half_life_ms)
        climb, onset = rows["climb"][:, SHARE], rows["onset"][:, SHARE]
        rising = (climb > HELD_EVIDENCE) & (clock.bucket_ms - onset < HELD_MS)
        suspect: Bools = rising.any(1) & (rows["share"][:, 1] >= weigh.SHARE_KNOWN)
        baseline.learn_share(rows, clock, share, seen, frozen, suspect, self._half_life_ms)
        rows["at"] = np.maximum(rows["at"], clock.bucket_ms)

    def _close(self, bucket_ms: int, slots: Ints, rows: Rows, before: Bools, raised: Bools, ended: Bools) -> None:
        if before.any() or raised.any():
            evidence.clear(rows, ended)
            rows["raised"][ended] = bucket_ms
            rows["alarm"] = np.where(ended, 0, rows["alarm"])
            active = (rows["alarm"] > 0).any(1)
            self._active.update(slots[active].tolist())
            self._active.difference_update(slots[~active].tolist())
            self._raised += int(raised.sum())
        self._table.put(slots, rows)
        self._touched.append(slots)


def _chunks(positions: Ints) -> Iterator[Ints]:
    for start in range(0, len(positions), CHUNK_ROWS):
        yield positions[start : start + CHUNK_ROWS]


def _weighed(counts: Floats, weights: Floats) -> Floats:
    # Term by term: the order of a sum must not depend on how many series are worked on at once.
    total: Floats = counts[:, 0] * weights[:, 0] + counts[:, 1] * weights[:, 1] + counts[:, 2] * weights[:, 2]
    return total
