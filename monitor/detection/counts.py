"""The series as one table of fixed-size rows: what is kept of each, which row is whose, and how a row is stored."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

from monitor.detection import migrations
from monitor.errors import BabelwatchError

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Rows = npt.NDArray[np.void]
"""An array of `ROW`."""
SeriesKey = tuple[str, str]
"""(entity, language)."""

ROLLUP = "*"
"""The language of the series over all of an entity's languages."""
SIGNALS = ("negative_share", "negative_volume", "sentiment", "language_spread", "volume")
"""Those watched by default first, and the rollup's own behind what all series have: what is not watched is cut off."""
SHARE, NEGATIVE_VOLUME, SENTIMENT, SPREAD, VOLUME = range(len(SIGNALS))
SHARES = (SHARE, SENTIMENT, SPREAD)
"""Signals that are means over documents, not amounts."""
EFFECTS = 4
"""Sizes of change that evidence is kept for, per signal, from the least worth an alarm upwards."""

WINDOW = np.dtype([
    ("documents", "f4"),
    ("negatives", "f4"),  # as classified
    ("corrected", "f4"),  # negatives after the correction for confusion; for `sentiment`, positives less negatives
    ("corrected_expected", "f4"),
    ("documents_expected", "f4"),
    ("negatives_expected", "f4"),  # as classified, from the expected volume
    ("negatives_expected_mix", "f4"),  # as classified, among the documents that came
])  # fmt: skip
"""Sums since a candidate onset."""
WINDOW_FIELDS = WINDOW.names or ()

NOISE = np.dtype([
    ("residual", "f8"),  # smoothed observed minus expected
    ("poisson", "f8"),  # its variance if counts were independent
    ("clumped", "f8"),  # what each unit of over-dispersion adds to its variance
    ("excess", "f8"),  # discounted sum of variance beyond independence
    ("weight", "f8"),  # discounted sum of `clumped`
])  # fmt: skip
"""The over-dispersion of a signal at the scale of half an hour, by moments."""

ROW = np.dtype([
    ("at", "i8"),  # start of the last bucket seen, ms
    ("born", "i8"),  # start of the first bucket, ms
    ("languages", "i8"),  # of the entity; kept on its rollup only
    ("mass", "f8"),  # discounted documents: what the budget is shared by
    ("level", "f8", 2),  # discounted documents and season-weighted buckets: their ratio is documents per bucket
    # discounted: negatives as classified, documents, negatives corrected, positives as classified, positives less
    # negatives corrected
    ("share", "f8", 5),
    ("volume_noise", NOISE),
    ("share_noise", NOISE),
    ("held", "f4", 5),  # of the same, not yet learned, while evidence of a rise builds up
    ("hour", "f4", (24, 2)),  # volume by hour of the day: seen and expected, in effective documents
    ("day", "f4", (7, 2)),  # volume by day of the week
    ("share_hour", "f4", (24, 2)),  # negatives by hour of the day
    ("evidence", "f4", (len(SIGNALS), EFFECTS)),  # stakes times likelihood ratios, days of budget time
    ("climb", "f4", (len(SIGNALS), EFFECTS)),  # log-likelihood ratio since the candidate onset
    ("onset", "i8", (len(SIGNALS), EFFECTS)),  # candidate onsets, ms
    ("window", WINDOW, (len(SIGNALS), EFFECTS)),
    ("alarm", "i1", len(SIGNALS)),  # 0, or 1 + the effect the alarm was raised for
    ("raised", "i8", len(SIGNALS)),  # bucket of the alarm, and once it is over the bucket of its end, ms
    ("descent", "f4", len(SIGNALS)),  # evidence that the alarm is over
    ("ebb", "f4"),  # evidence that a burst of negatives is over
    ("purse", "f4", len(SIGNALS)),  # budget time not yet staked, in days; of shares only
], align=True)  # fmt: skip
"""Everything kept of one series; a kilobyte and a half, whatever its age and volume."""

_RAW = np.dtype(("V", ROW.itemsize))
ENTITY = np.dtype([(name, ROW[name]) for name in ("at", "languages", "mass", "share", "alarm", "raised")])
"""The fields of a rollup that its languages look at."""
GRAIN = 2.0**-20
"""Per-language contributions to a rollup are rounded to this, so that their sum does not depend on their order."""
STATE_VERSION = 4
_HEADER = STATE_VERSION.to_bytes(2, "big")


def window_sums(rows: Rows, watched: int) -> npt.NDArray[np.float32]:
    """The windows of the first so many signals as numbers: float32 [n, watched * effects * fields], a view of `rows`.

    They lie side by side, and all in one go are several times faster than field by field.
    """
    a_signal = EFFECTS * len(WINDOW_FIELDS)
    numbers: npt.NDArray[np.float32] = rows["window"].view(np.float32).reshape(len(rows), len(SIGNALS) * a_signal)
    return numbers[:, : watched * a_signal]


class StateError(BabelwatchError):
    """Stored detector state cannot be read."""


class SeriesTable:
    """Rows by series, grown as series appear; a removed row is reused.

    A language's row knows its entity's rollup, which is made with it.
    """

    def __init__(self) -> None:
        self.rows: Rows = np.zeros(1024, ROW)
        self.rollup: Ints = np.zeros(1024, np.int64)
        """[capacity] the row of the entity's rollup; a rollup's own row is its own."""
        self.lang: Ints = np.zeros(1024, np.int64)
        """[capacity] the language of each row, as an index into `langs`."""
        self.langs: list[str] = []
        self.keys: dict[int, SeriesKey] = {}
        self._slots: dict[SeriesKey, int] = {}
        self._codes: dict[str, int] = {}
        self._free: list[int] = []
        self._rollups: Ints | None = None
        self._buffer = np.zeros(0, _RAW)

    def __len__(self) -> int:
        return len(self._slots)

    def find(self, keys: Sequence[SeriesKey], *, bucket_ms: int, bucket_length_ms: int) -> Ints:
        """Row numbers of these series, int64 [keys]; a series not met before begins with this bucket."""
        slots = self._slots
        found = [slots.get(key, -1) for key in keys]
        for position, key in enumerate(keys):
            if found[position] < 0:
                found[position] = self._create(key, bucket_ms, bucket_length_ms)
        return np.array(found, np.int64)

    def rollups(self) -> Ints:
        """Row numbers of the rollups over all languages, in no order."""
        if self._rollups is None:
            self._rollups = np.array([slot for (_, lang), slot in self._slots.items() if lang == ROLLUP], np.int64)
        return self._rollups

    def take(self, slots: Ints) -> Rows:
        """A copy of these rows, in one buffer that the next call uses again: fresh memory costs more than the copy."""
        if len(self._buffer) < len(slots):
            self._buffer = np.zeros(len(slots), _RAW)
        part = self._buffer[: len(slots)]
        np.take(self.rows.view(_RAW), slots, out=part, mode="clip")
        return part.view(ROW)

    def put(self, slots: Ints, rows: Rows) -> None:
        """Put rows back that `take` gave."""
        # As raw bytes: numpy copies a structure field by field, which is twenty times slower.
        self.rows.view(_RAW)[slots] = rows.view(_RAW)

    def take_entity(self, slots: Ints) -> Rows:
        """What is asked of the rollups of these rows, an array of `ENTITY`."""
        parents = self.rollup[slots]
        found = np.empty(len(slots), ENTITY)
        for name in ENTITY.names or ():
            found[name] = self.rows[name][parents]
        return found

    def slot(self, key: SeriesKey) -> int | None:
        """The row number of one series, or None."""
        return self._slots.get(key)

    def sorted_slots(self) -> list[int]:
        """Row numbers in the order of their keys: the only order that does not depend on history."""
        return [self._slots[key] for key in sorted(self._slots)]

    def remove(self, keys: Iterable[SeriesKey]) -> list[int]:
        """Forget these series; returns the row numbers that became free."""
        freed = []
        for key in keys:
            slot = self._slots.pop(key)
            del self.keys[slot]
            self.rows[slot] = np.zeros((), ROW)
            freed.append(slot)
        self._free.extend(freed)
        self._rollups = None
        return freed

    def pack(self, slots: Iterable[int]) -> dict[SeriesKey, bytes]:
        """The stored form of rows: two bytes of version and the row, little-endian."""
        return {self.keys[slot]: _HEADER + self.rows[slot].tobytes() for slot in slots}

    def unpack(self, states: Mapping[SeriesKey, bytes]) -> None:
        """Put stored rows back, over what is there.

        Raises:
            StateError: A row is damaged or of a version this code does not read.
        """
        for (entity, lang), state in sorted(states.items()):
            where = f"series {entity}/{lang}"
            state = migrations.upgrade(state, ROW)
            if state[:2] != _HEADER:
                raise StateError(
                    f"stored state has version {int.from_bytes(state[:2], 'big')}, this version reads {STATE_VERSION}",
                    where=where,
                    hint="run the version that wrote it, or delete the state to start the baselines anew",
                )
            if len(state) != len(_HEADER) + ROW.itemsize:
                raise StateError("stored state is damaged", where=where, hint="delete it to start the baseline anew")
            row = np.frombuffer(state, ROW, offset=len(_HEADER))[0]
            slot = self._place((entity, lang))  # first: it may grow the table
            self.rows[slot] = row
        self._recount({entity for entity, _ in states})

    def _recount(self, entities: set[str]) -> None:
        languages = dict.fromkeys(entities, 0)
        for entity, lang in self._slots:
            if lang != ROLLUP and entity in languages:
                languages[entity] += 1
        for entity, count in languages.items():
            self.rows["languages"][self._slots[entity, ROLLUP]] = count

    def _create(self, key: SeriesKey, bucket_ms: int, bucket_length_ms: int) -> int:
        entity, lang = key
        known = self._slots.get(key)
        if known is not None:
            return known
        if lang != ROLLUP:
            parent = self._create((entity, ROLLUP), bucket_ms, bucket_length_ms)
            self.rows["languages"][parent] += 1
        slot = self._place(key)
        row = np.zeros((), ROW)
        row["at"], row["born"] = bucket_ms - bucket_length_ms, bucket_ms
        self.rows[slot] = row
        return slot

    def _place(self, key: SeriesKey) -> int:
        slot = self._slots.get(key)
        if slot is not None:
            return slot
        entity, lang = key
        parent = None if lang == ROLLUP else self._place((entity, ROLLUP))
        slot = self._free.pop() if self._free else len(self._slots)
        if slot >= len(self.rows):
            # np.zeros takes no memory until a row is written, so doubling costs address space only.
            grown = np.zeros(2 * len(self.rows), ROW)
            grown[: len(self.rows)] = self.rows
            self.rows = grown
            self.rollup = np.concatenate([self.rollup, np.zeros_like(self.rollup)])
            self.lang = np.concatenate([self.lang, np.zeros_like(self.lang)])
        self._slots[key] = slot
        self._rollups = None if parent is None else self._rollups
        self.keys[slot] = key
        self.rollup[slot] = slot if parent is None else parent
        if lang not in self._codes:
            self._codes[lang] = len(self.langs)
            self.langs.append(lang)
        self.lang[slot] = self._codes[lang]
        return slot


BESIDE = ("documents", "negatives", "corrected", "corrected_expected", "negatives_expected_mix")
"""Fields of a window that are added up over the languages that do not dominate; their ratios, by effect, come before them."""


@dataclass(slots=True)
class Seen:
    """One bucket's counts and what was expected of them, float64 [n] or [n, k]; all sums, so that languages add up.

    Attributes:
        documents: All of them.
        negatives: As classified.
        worth: Documents, with reposts counted for less.
        squares: Sum of the squared weights of the documents; their number where they have none.
        corrected: Negatives, corrected for confusion.
        positives: As classified.
        sentiment: Positives less negatives, corrected for confusion.
        false_rate: Documents x false positive rate.
        youden: Documents x what one true point moves the predicted share.
        expected: Expected negatives, as classified.
        doubt: Standard error of `expected`.
        corrected_expected: Expected negatives, corrected.
        positives_expected: Expected positives, as classified.
        positives_doubt: Standard error of `positives_expected`.
        sentiment_expected: Expected positives less negatives, corrected.
        direct: Documents without a language.
        beside: [n, len(BESIDE)], what languages that do not dominate their entity say; 0 for one that does.
    """

    documents: Floats
    negatives: Floats
    worth: Floats
    squares: Floats
    corrected: Floats
    positives: Floats
    sentiment: Floats
    false_rate: Floats
    youden: Floats
    expected: Floats
    doubt: Floats
    corrected_expected: Floats
    positives_expected: Floats
    positives_doubt: Floats
    sentiment_expected: Floats
    direct: Floats
    beside: Floats

    @property
    def unit(self) -> Floats:
        """How many documents as they came are behind each that is counted, 1 without weights: times a count, what it is worth as
        evidence (Kish, Survey Sampling, 1965, section 11.7)."""
        return np.divide(self.documents, self.squares, out=np.ones_like(self.documents), where=self.squares > 0)

    def take(self, part: Ints) -> Seen:
        """A copy of these rows."""
        return Seen(*(getattr(self, field.name)[part] for field in fields(self)))

    def put(self, part: Ints, chunk: Seen) -> None:
        """Put rows back that `take` gave."""
        for field in fields(self):
            getattr(self, field.name)[part] = getattr(chunk, field.name)

    def sum_by(self, parents: Ints) -> tuple[Ints, Seen]:
        """Sums per entity: the rollups' rows int64 [m] and their counts."""
        rollups, where = np.unique(parents, return_inverse=True)
        sums = []
        for field in fields(self):
            values = np.round(getattr(self, field.name) / GRAIN) * GRAIN
            if values.ndim == 1:
                sums.append(np.bincount(where, values, minlength=len(rollups)).astype(np.float64))
                continue
            total = np.zeros((len(rollups), values.shape[1]))
            np.add.at(total, where, values)
            sums.append(total)
        return rollups, Seen(*sums)
