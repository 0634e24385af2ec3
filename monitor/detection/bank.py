"""All watched series as arrays: one bucket of counts in, the signals in alarm out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from monitor.detection import baseline, budget, decide, evidence, findings
from monitor.detection.counts import ROLLUP, SIGNALS, Bools, Floats, Ints, Rows, Seen, SeriesKey, SeriesTable
from monitor.detection.findings import Finding, SeriesView
from monitor.detection.quantify import Correction, correction
from monitor.detection.settings import DetectionSettings

__all__ = ["ROLLUP", "Finding", "SeriesBank", "SeriesKey", "SeriesView"]

CHUNK_ROWS = 2048
"""Rows worked on at once: two megabytes of state, which stays in the processor's cache."""
DAY_MS = baseline.DAY_MS
SHARE_MARGIN = 0.25
"""Part of the minimal effect that still counts as no change: moods wander by a point or so and nobody cares."""
SHARE_DOUBT, VOLUME_DOUBT = 0.5, 0.5
"""Standard errors of what is expected that still count as no change. More would cost delay at every rise; what is left of
the doubt is covered by `budget.SAFETY`."""
EFFECT_DOUBTS = 2.0
"""Standard errors of the expected share that a size of change must have to be looked for: in the first hours of a name only
large changes are, else the baseline's own error is an alarm."""
HELD_EVIDENCE = 1.5
"""From so much evidence (nats) on, what a share shows is held back from its baseline: a rise that builds up over an hour
would else be learned before it is noticed. When the evidence falls again, what was held is learned after all, so that a
quiet series learns everything, only later."""
COUNT_LIMIT = 1e12
"""More documents than this in a bucket are taken for this many: no stream has them, and their squares stay exact enough."""
HELD_MS = 3 * 3_600_000
"""But not longer than this: a baseline that was learned wrong must be able to mend itself."""
SHARE_KNOWN = 50.0
"""Documents that a share's baseline must have seen: before, its prior speaks louder than itself, and any name that is
disliked from its first day would be an alarm."""
SHARE_KNOWN_MS = 3_600_000
"""And the time that it must have seen: documents of the same minutes resemble each other, be they ever so many."""
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
        self._parts = budget.signal_parts(settings)
        self._raised = 0
        self._spent_days = 0.0

    def __len__(self) -> int:
        """Number of series, rollups included."""
        return len(self._table)

    def update(
        self, bucket_ms: int, rows: Sequence[SeriesKey], counts: Floats, reposts: npt.NDArray[np.int64]
    ) -> list[Finding]:
        """Take one closed bucket of the series that have documents in it, and let time pass for all others.

        Buckets come in order of time, each once. Rows name languages, each series once a bucket: the rollup `*` is
        made here, so that it can be compared language by language. Only counts that have no language are given as `*`.

        Args:
            bucket_ms: Start of the bucket, a multiple of the bucket length.
            rows: (entity, language) of each row.
            counts: float64 [rows, 3], documents by most probable sentiment (hard labels, which is what the confusion
                describes; fractional where documents carry sampling weights), reposts included.
            reposts: int64 [rows], how many of the row's documents repeat an earlier text.

        Returns:
            The signals in alarm, and those that have just stopped, ordered by entity, language and signal.
        """
        counts = np.minimum(np.asarray(counts, np.float64).reshape(-1, 3), COUNT_LIMIT)
        reposts = np.asarray(reposts, np.float64)
        watched = [entity in self._entities for entity, _ in rows]
        if not all(watched):
            rows = [key for key, keep in zip(rows, watched, strict=True) if keep]
            counts, reposts = counts[watched], reposts[watched]
        slots = self._table.find(rows, bucket_ms=bucket_ms, bucket_length_ms=self._length_ms)
        silent = np.array(sorted(self._active.difference(slots.tolist())), np.int64)
        slots = np.concatenate([slots, silent])
        seen = self._seen(
            slots,
            np.concatenate([counts, np.zeros((len(silent), 3))]),
            np.concatenate([reposts, np.zeros(len(silent))]),
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
        known = rows["share"][slots, 1] >= SHARE_KNOWN
        rising = (rows["climb"][slots, 0] > HELD_EVIDENCE).any(1) | (rows["alarm"][slots, 0] > 0)
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
            share = baseline.expect_share(row, clock, correct.observed_share(prior), prior, np.array([correct.youden]))
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

    def _seen(self, slots: Ints, counts: Floats, reposts: Floats) -> Seen:
        total = counts.sum(1)
        codes: dict[str, int] = {}
        keys = self._table.keys
        which = [codes.setdefault(keys[slot][1], len(codes)) for slot in slots.tolist()]
        table = [self._correction(lang) for lang in codes]
        weights = np.array([item.weights for item in table]).reshape(-1, 3)[which]
        false_rate = np.array([item.false_rate for item in table], np.float64)[which]
        youden = np.array([item.youden for item in table], np.float64)[which]
        worth = 1 - (1 - REPOST_WORTH) * np.minimum(reposts, total) / np.maximum(total, 1e-12)
        zeros = np.zeros_like(total)
        return Seen(
            total, counts[:, 0].copy(), worth * total, (counts * weights).sum(1), false_rate * total, youden * total,
            zeros, zeros.copy(), zeros.copy(), np.where(self._table.rollup[slots] == slots, total, 0.0),
        )  # fmt: skip

    def _advance(self, bucket_ms: int, slots: Ints, seen: Seen, *, is_rollup: bool) -> list[Finding]:
        """Predict, weigh, decide, learn: one bucket for up to `CHUNK_ROWS` series of one kind."""
        rows = self._table.take(slots)
        parents = rows if is_rollup else self._table.take_entity(slots)
        clock = baseline.Clock.at(bucket_ms, self._length_ms, rows["at"])
        volume = baseline.expect_volume(rows, clock)
        share = self._expect_share(rows, parents, clock, seen, is_rollup)
        steps, quiet_steps = self._ratios(rows, clock, volume, share, seen)
        spent = self._spend(rows, parents, clock, is_rollup)

        _extend_windows(rows, volume, share, clock.gap)
        evidence.accumulate(rows, steps, quiet_steps, clock.gap, spent, spent, bucket_ms)
        _add_to_windows(rows, volume, share, seen)

        before = rows["alarm"] > 0
        raised = decide.raise_alarms(rows, spent, self._parts, self._bar_days, share.correlation, self._settings, clock)
        ended = decide.end_alarms(rows, before, steps, quiet_steps, clock, seen.documents, self._settings)
        found = self._describe(slots, rows, bucket_ms, seen, share, volume, spent, ended)
        self._learn(rows, parents, clock, volume, share, seen)
        self._close(slots, rows, before, raised, ended)
        return found

    def _expect_share(
        self, rows: Rows, parents: Rows, clock: baseline.Clock, seen: Seen, is_rollup: bool
    ) -> baseline.Share:
        count = np.maximum(seen.documents, 1e-12)
        youden = np.where(seen.documents > 0, seen.youden / count, 1.0)
        false_rate = np.where(is_rollup, 0.0, seen.false_rate / count)
        prior = baseline.entity_share(parents)
        own = baseline.expect_share(rows, clock, false_rate + (1.0 if is_rollup else youden) * prior, prior, youden)
        if not is_rollup:
            seen.expected = seen.documents * own.mean
            seen.doubt = seen.documents * own.doubt
            seen.corrected_expected = seen.documents * own.true
            return own
        # What each language should have shown, not the mean over all: a louder language is no change of mood.
        seen.expected = seen.expected + seen.direct * own.mean
        seen.doubt = seen.doubt + seen.direct * own.doubt
        seen.corrected_expected = seen.corrected_expected + seen.direct * own.true
        some = seen.documents > 0
        mean = np.clip(np.where(some, seen.expected / count, own.mean), 0.005, 0.95)
        true = np.where(some, seen.corrected_expected / count, own.true)
        return baseline.Share(mean, np.where(some, seen.doubt / count, own.doubt), own.correlation, true)

    def _ratios(
        self, rows: Rows, clock: baseline.Clock, volume: baseline.Volume, share: baseline.Share, seen: Seen
    ) -> tuple[Floats, Floats]:
        """Log-likelihood ratios of this bucket and of each empty one before: float64 [n, signals, effects] twice."""
        worth = seen.worth / np.maximum(seen.documents, 1e-12)
        youden = np.where(seen.documents > 0, seen.youden / np.maximum(seen.documents, 1e-12), 1.0)
        step = self._settings.minimal_effect * youden
        null = np.clip(share.mean + SHARE_DOUBT * share.doubt + SHARE_MARGIN * step, 0.005, 0.97)
        effects = step[:, None] * evidence.SHARE_STEPS
        shape = (len(rows), len(SIGNALS), evidence.RATIOS.size)
        steps, quiet = np.zeros(shape), np.zeros(shape)
        steps[:, 0] = evidence.share_ratio(seen.negatives, seen.documents, null, effects, share.correlation, worth)
        # Nothing is unusual in what is not known, and no change is seen that is smaller than the doubt.
        young = clock.bucket_ms - rows["born"] < SHARE_KNOWN_MS
        unknown = ((rows["share"][:, 1] < SHARE_KNOWN) | young)[:, None] | (
            effects < EFFECT_DOUBTS * share.doubt[:, None]
        )
        steps[:, 0] = np.where(unknown, 0.0, steps[:, 0])
        # A day must have been seen before "more than usual" means anything.
        known = clock.bucket_ms - rows["born"] >= DAY_MS
        negative_doubt = np.hypot(volume.doubt, share.doubt / share.mean)
        for signal, counts, mean, quiet_mean, doubt in (
            (1, seen.negatives, volume.mean * share.mean, volume.gap_mean * share.mean, negative_doubt),
            (2, seen.documents, volume.mean, volume.gap_mean, volume.doubt),
        ):
            if not self._parts[signal]:
                continue
            steps[:, signal] = known[:, None] * evidence.volume_ratio(
                counts, mean * (1 + VOLUME_DOUBT * doubt), volume.dispersion, worth
            )
            quiet[:, signal] = known[:, None] * evidence.volume_ratio(
                np.zeros_like(counts), quiet_mean * (1 + VOLUME_DOUBT * doubt), volume.dispersion, worth
            )
        return steps, quiet

    def _spend(self, rows: Rows, parents: Rows, clock: baseline.Clock, is_rollup: bool) -> Floats:
        """Budget time that each signal is given for one bucket: float64 [n, signals], in days."""
        languages = parents["languages"].astype(np.float64)
        if is_rollup:
            part = budget.rollup_parts(languages)
        else:
            mass = rows["mass"] * 0.5 ** (np.maximum(clock.bucket_ms - rows["at"], 0) / self._half_life_ms)
            entity_mass = parents["mass"] * 0.5 ** (np.maximum(clock.bucket_ms - parents["at"], 0) / self._half_life_ms)
            part = budget.language_parts(mass, entity_mass, np.maximum(languages, 1.0))
        days: Floats = (self._length_ms / DAY_MS) * part[:, None] * self._parts
        self._spent_days += float((days.sum(1) * clock.elapsed).sum())
        young = clock.bucket_ms - rows["born"] < DAY_MS
        days[young, 1:] = 0.0
        return days

    def _describe(
        self, slots: Ints, rows: Rows, bucket_ms: int, seen: Seen, share: baseline.Share, volume: baseline.Volume,
        spent: Floats, ended: Bools,
    ) -> list[Finding]:  # fmt: skip
        found: list[Finding] = []
        alarms = np.argwhere(rows["alarm"] > 0)
        if not len(alarms):
            return found
        total = evidence.total_evidence(rows)
        for position, signal in alarms:
            mean_documents = seen.documents[position]
            worth = float(seen.youden[position] / mean_documents) if mean_documents > 0 else 1.0
            clumps = volume.dispersion[position] * volume.mean[position]
            inflation = 1 + float(share.correlation[position] * mean_documents if signal == 0 else clumps)
            unit = max(float(spent[position, signal]), 1e-12)
            found.append(
                findings.finding(
                    self._table.keys[int(slots[position])], rows[position], int(signal), bucket_ms=bucket_ms,
                    length_ms=self._length_ms, youden=max(worth, 0.05), inflation=inflation,
                    log_evidence=float(np.log(max(total[position, signal], 1e-300) / unit)),
                    threshold=float(np.log(self._bar_days / unit)), active=not ended[position, signal],
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
        climb, onset = rows["climb"][:, 0], rows["onset"][:, 0]
        rising = (climb > HELD_EVIDENCE) & (clock.bucket_ms - onset < HELD_MS)
        suspect: Bools = rising.any(1) & (rows["share"][:, 1] >= SHARE_KNOWN)
        baseline.learn_share(
            rows, clock, share, seen.negatives, seen.corrected, seen.documents, frozen, suspect, self._half_life_ms
        )
        rows["at"] = np.maximum(rows["at"], clock.bucket_ms)

    def _close(self, slots: Ints, rows: Rows, before: Bools, raised: Bools, ended: Bools) -> None:
        if before.any() or raised.any():
            evidence.clear(rows, ended)
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


def _extend_windows(rows: Rows, volume: baseline.Volume, share: baseline.Share, gap: Floats) -> None:
    """Add what the empty buckets should have shown to the windows."""
    quiet = np.flatnonzero(gap > 0)
    if len(quiet):
        window = rows["window"]
        documents = (gap * volume.gap_mean)[quiet, None, None]
        window["documents_expected"][quiet] += documents
        window["negatives_expected"][quiet] += documents * share.mean[quiet, None, None]


def _add_to_windows(rows: Rows, volume: baseline.Volume, share: baseline.Share, seen: Seen) -> None:
    window = rows["window"]
    for name, values in (
        ("documents", seen.documents),
        ("negatives", seen.negatives),
        ("corrected", seen.corrected),
        ("corrected_expected", seen.corrected_expected),
        ("documents_expected", volume.mean),
        ("negatives_expected", volume.mean * share.mean),
        ("negatives_expected_mix", seen.documents * share.mean),
    ):
        window[name] += values[:, None, None]
