"""The detector over a file instead of a stream: exactly the code of the daemon, row by row, and how well it did."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import chain, islice
from pathlib import Path
from typing import Literal

import numpy as np

from monitor.detection.bank import ROLLUP, SeriesBank
from monitor.detection.counts import Bools, Floats
from monitor.detection.settings import DetectionSettings
from monitor.errors import BabelwatchError

WATCHED = 1
"""Entities that share the budget in a backtest of a plain count series, unless told: it is all there is."""
SCORE_NATS = 5.0
"""Evidence that moves a score from 0.5, the bar, to 0.73: wide enough to rank strong alarms against each other."""
LEARNING_PART, LEARNING_ROWS = 0.15, 750
"""What the NAB score leaves out at the start of a series: this part of it, at most so many rows."""
FALSE_POSITIVE_COST = {"standard": 0.11, "low false positives": 0.22}
"""What a false positive costs in the NAB score against one for a missed window, by profile."""
Profile = Literal["standard", "low false positives"]
Window = tuple[int, int]
"""First and last event time of a labelled anomaly, ms."""


class BacktestError(BabelwatchError):
    """A file that cannot be backtested."""


@dataclass(frozen=True, slots=True)
class Scored:
    """One row of a count series and what the detector made of it, knowing nothing later.

    Attributes:
        timestamp: As in the file.
        time_ms: The same as event time.
        value: The count.
        score: 0 to 1, comparable between series: 0.5 is the bar that the budget sets. A lasting alarm scores 0: it is no news.
        alert: Whether an alarm begins here.
        expected: Expected count in this row.
        low: Lower end of what is normal.
        high: Upper end.
    """

    timestamp: str
    time_ms: int
    value: float
    score: float
    alert: bool
    expected: float = 0.0
    low: float = 0.0
    high: float = 0.0


@dataclass(frozen=True, slots=True)
class Quality:
    """How alerts compare with labelled windows.

    Attributes:
        windows: Labelled windows after the learning time.
        found: Windows with an alert in them.
        false_alarms: Alerts outside every window.
        days: Length of the series after the learning time.
        delays_h: From a found window's start to its first alert, hours.
        gain: Sum of the NAB score's parts by profile, before scaling.
    """

    windows: int
    found: int
    false_alarms: int
    days: float
    delays_h: tuple[float, ...] = ()
    gain: Mapping[str, float] = field(default_factory=dict)

    @property
    def precision(self) -> float:
        """Windows found over alarms that count, 0 to 1; 1 without any alert."""
        return self.found / max(self.found + self.false_alarms, 1) if self.found + self.false_alarms else 1.0

    @property
    def recall(self) -> float:
        """Windows found over windows, 0 to 1; 1 without any window."""
        return self.found / self.windows if self.windows else 1.0


def count_settings(settings: DetectionSettings, bucket_s: int, watched: int) -> tuple[DetectionSettings, list[str]]:
    """The settings and watchlist with which a plain count series is judged: its volume alone can rise."""
    return (
        settings.model_copy(update={"bucket_s": bucket_s, "signals": ("volume",)}),
        ["series", *(f"other {number}" for number in range(1, watched))],
    )


def read_counts(path: Path) -> Iterator[tuple[str, int, float]]:
    """Rows of a count series: the timestamp as written, its event time in ms, the value.

    Raises:
        BacktestError: The file has no `timestamp,value` header or no rows, or a row cannot be read or is not later than
            the one above.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            if not {"timestamp", "value"} <= set(reader.fieldnames or ()):
                raise BacktestError("no columns `timestamp` and `value`", where=str(path), hint="name them in row 1")
            before_ms: int | None = None
            for row in reader:
                where = f"{path}:{reader.line_num}"
                time_ms = _time_ms(row["timestamp"], where)
                if before_ms is not None and time_ms <= before_ms:
                    wrong = "the same time as" if time_ms == before_ms else "before the time of"
                    raise BacktestError(
                        f"{row['timestamp']} is {wrong} the row above", where=where, hint="sort by time, one row each"
                    )
                before_ms = time_ms
                yield row["timestamp"], time_ms, _count(row["value"], where)
    except OSError as error:
        raise BacktestError(f"cannot be read: {error.strerror}", where=str(path), hint="check the path") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise BacktestError(f"is not CSV in UTF-8: {error}", where=str(path)) from error
    if before_ms is None:
        raise BacktestError("holds no rows", where=str(path))


def score_counts(
    rows: Iterable[tuple[str, int, float]], settings: DetectionSettings, *, watched: int = WATCHED, band: bool = False
) -> Iterator[Scored]:
    """Score a count series causally: each row is given out before the next is read, but for the first three.

    Args:
        rows: As `read_counts` gives them.
        settings: The detector's; the bucket is as long as the file's usual step, and only the volume counts.
        watched: Entities that share the budget, this series among them.
        band: Whether to work out what would have been normal (slower).
    """
    iterator = iter(rows)
    head = list(islice(iterator, 3))
    bucket_s = _usual_step_s([time for _, time, _ in head])
    settings, entities = count_settings(settings, bucket_s, watched)
    bank = SeriesBank(settings, entities=entities)
    key, firing = (entities[0], ROLLUP), False
    for timestamp, time_ms, value in chain(head, iterator):
        bucket_ms = time_ms - time_ms % (bucket_s * 1000)
        # Empty buckets are not told to the bank: it counts them when the next document comes, as in the daemon.
        some = [key] if value > 0 else []
        counts = np.array([[0.0, value, 0.0]])[: len(some)]
        found = bank.update(bucket_ms, some, counts, np.zeros(len(some), np.int64))
        was, firing = firing, any(finding.active for finding in found)
        begins = firing and not was
        view = next(bank.views_of(key), None) if band else None
        per_bucket = bucket_s / 3600
        yield Scored(
            timestamp, time_ms, value, _score(bank, key, begins, firing, value), begins,
            *((view.expected * per_bucket, view.low * per_bucket, view.high * per_bucket) if view else ()),
        )  # fmt: skip


def backtest_counts(
    counts: Path, out: Path | None, settings: DetectionSettings, *, watched: int = WATCHED, band: bool = False
) -> list[Scored]:
    """Backtest a count series from a file, writing `timestamp,score,alert` row by row.

    Raises:
        BacktestError: The file cannot be read, or the scores not written.
    """
    rows = score_counts(read_counts(counts), settings, watched=watched, band=band)
    return list(rows if out is None else write_scores(rows, out))


def write_scores(scored: Iterable[Scored], out: Path) -> Iterator[Scored]:
    """Write each row as it comes, and pass it on.

    Raises:
        BacktestError: The file cannot be written.
    """
    try:
        with out.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["timestamp", "score", "alert"])
            for row in scored:
                writer.writerow([row.timestamp, f"{row.score:.6f}", int(row.alert)])
                yield row
    except OSError as error:
        raise BacktestError(f"cannot be written: {error.strerror}", where=str(out), hint="check the folder") from error


def read_labels(path: Path) -> dict[str, list[Window]]:
    """Labelled windows by series from a JSON file `{series: [[from, to], ...]}`.

    Raises:
        BacktestError: The file cannot be read or is not of that form.
    """
    try:
        labelled = json.loads(path.read_text(encoding="utf-8"))
        found = {
            str(series): [(_time_ms(start, str(path)), _time_ms(end, str(path))) for start, end in pairs]
            for series, pairs in labelled.items()
        }
    except OSError as error:
        raise BacktestError(f"cannot be read: {error.strerror}", where=str(path), hint="check the path") from error
    except (ValueError, TypeError, AttributeError) as error:
        raise BacktestError("not an object of lists of [from, to]", where=str(path)) from error
    for series, windows in found.items():
        for start, end in windows:
            if end < start:
                raise BacktestError(f"a window of {series} ends before it begins", where=str(path))
    return found


def windows_of(labels: Mapping[str, list[Window]], series: str) -> list[Window]:
    """The windows of one series, named as in the file, with or without its suffix or folder.

    Raises:
        BacktestError: It has none, not even an empty list.
    """
    for name, windows in labels.items():
        if series in (name, Path(name).name) or Path(name).stem == Path(series).stem:
            return windows
    raise BacktestError(f"no windows for {series}", where="--windows", hint="give an empty list if it has none")


def judge(scored: Sequence[Scored], windows: Sequence[Window]) -> Quality:
    """Compare alerts with labelled windows, by the rules of the Numenta Anomaly Benchmark (Lavin, Ahmad 2015, section II)."""
    times = np.array([row.time_ms for row in scored], np.int64)
    alerts: Bools = np.array([row.alert for row in scored], bool)
    learning = min(int(LEARNING_PART * len(times)), LEARNING_ROWS)
    alerts[:learning] = False
    spans = [(int(np.searchsorted(times, a)), int(np.searchsorted(times, b, "right")) - 1) for a, b in sorted(windows)]
    at = np.flatnonzero(alerts)
    outside = np.ones(len(at), bool)
    found, delays, gained = 0, [], 0.0
    for first, last in spans:
        inside = (at >= first) & (at <= last)
        outside &= ~inside
        if inside.any():
            hit = int(at[inside][0])
            found += 1
            delays.append(float(times[hit] - times[first]) / 3.6e6)
            gained += float(_sigmoid(-(last - hit + 1) / (last - first + 1)) / _sigmoid(-1.0))
        else:
            gained -= 1.0
    costs = sum(_false_positive(int(row), spans) for row in at[outside])
    return Quality(
        windows=len(spans),
        found=found,
        false_alarms=int(outside.sum()),
        days=float(times[-1] - times[learning]) / 8.64e7 if len(times) > learning else 0.0,
        delays_h=tuple(delays),
        gain={profile: gained + cost * costs for profile, cost in FALSE_POSITIVE_COST.items()},
    )


def nab_score(qualities: Sequence[Quality], profile: Profile = "standard") -> float:
    """NAB score over series: 0 for no detection at all, 100 for one at each window's left edge and none elsewhere."""
    windows = sum(quality.windows for quality in qualities)
    gained = sum(quality.gain[profile] for quality in qualities)
    return 100 * (gained + windows) / (2 * windows) if windows else 0.0


def _false_positive(row: int, spans: Sequence[Window]) -> float:
    past = [span for span in spans if span[1] < row]
    if not past:
        return -1.0
    first, last = past[-1]
    distance = (row - last) / max(last - first, 1)
    return float(_sigmoid(distance)) if distance <= 3 else -1.0


def _sigmoid(position: float) -> float:
    return float(2 / (1 + np.exp(5 * position)) - 1)


def _score(bank: SeriesBank, key: tuple[str, str], begins: bool, firing: bool, value: float) -> float:
    if (firing and not begins) or value <= 0:
        return 0.0
    score = float(1 / (1 + np.exp(-np.clip(bank.surprise(key, "volume"), -500, 500) / SCORE_NATS)))
    # Evidence past the bar that the rules of size hold back is no alert, and must not look like one.
    return max(score, 0.5) if begins else min(score, 0.499)


def _usual_step_s(times_ms: Sequence[int]) -> int:
    steps: Floats = np.diff(np.array(times_ms, np.float64)) / 1000
    positive = steps[steps > 0]
    return min(max(round(float(np.median(positive))), 1), 86_400) if len(positive) else 300


def _time_ms(text: str, where: str) -> int:
    try:
        if text.replace(".", "", 1).isdigit():
            return int(float(text) * (1 if float(text) > 1e11 else 1000))
        moment = datetime.fromisoformat(text.strip())
    except (ValueError, AttributeError, OverflowError) as error:
        raise BacktestError(f"{text!r} is no time", where=where, hint="use ISO 8601 or seconds since 1970") from error
    return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)


def _count(text: str, where: str) -> float:
    try:
        value = float(text)
    except (ValueError, TypeError) as error:
        raise BacktestError(f"{text!r} is no count", where=where) from error
    if not (np.isfinite(value) and value >= 0):
        raise BacktestError(
            f"{text!r} is no count", where=where,
            hint="counts are finite and not negative; leave out rows of which nothing is known",
        )  # fmt: skip
    return value
