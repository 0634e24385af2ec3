"""Are the alerts right? Stories planted in real posts, through the real model, the detector and the correlator.

Run: `BABELWATCH_DATA=... python benchmarks/alert_quality.py [--seeds 3] [--dense 4] [--cache DIR]`. Posts of UMSAB in eight languages are the
traffic of ten names; stories in four to six languages are planted, one of them about two names; one name's volume
multiplies in its usual mood. A second run turns the classifier: from one minute on it reads a quarter of all posts as
negative that are not, and that must be one incident about it, not one per name.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import msgspec
import numpy as np
from planted import MINUTE_MS, ROOT, START_MS, Event, Known, Mixer, Part, Traffic, pool

from monitor.detection.correlate import Correlator, Watched
from monitor.detection.detector import AlertSettings, Detector, EntityInfo
from monitor.detection.settings import DetectionSettings
from monitor.inference.bundle import Bundle
from monitor.records import Alert, Opinion, Watermark

NAMES = ("ash", "birch", "cedar", "elm", "fir", "hazel", "larch", "maple", "oak", "pine")
HOURS, POSTS_AN_HOUR = 41, 40
EVENTS = (
    Event("recall", ("ash",), tuple(Part(lang, 1500 + 12 * n, 120, 45) for n, lang in enumerate(("en", "fr", "it", "es", "de", "pt")))),
    Event("leak", ("birch",), tuple(Part(lang, 1680, 90, 45) for lang in ("en", "de", "pt", "ar", "fr"))),
    Event("fire", ("cedar",), tuple(Part(lang, 1860, 90, 45) for lang in ("en", "hi", "pt", "es", "it"))),
    Event("stranded", ("elm",), tuple(Part(lang, 2040, 90, 45) for lang in ("en", "es", "de", "ar"))),
    Event("tunnel", ("fir", "hazel"), tuple(Part(lang, 2220, 90, 80) for lang in ("fr", "es", "it", "en", "hi"))),
)  # fmt: skip
"""Three hours apart: five of ten names in one evening would be, by the rule for it, one rise of many."""
BURST = {"larch": (1600, 90, 6.0)}
"""A harmless one: six times the volume, in the usual mood."""
TURNED, TURNED_FROM_MIN = 0.25, 1900


@dataclass
class Result:
    """What became of one planted story."""

    story: str
    incidents: int
    """Told of, in all."""
    lasting: int
    """Of them, those that did not become part of another."""
    names_right: bool
    found: set[str] = field(default_factory=set)
    languages: set[str] = field(default_factory=set)
    onset_min: float | None = None
    """From the minute of the story's first post."""
    delay_min: float | None = None
    posts: int = 0
    right_posts: int = 0
    one_event: float | None = None


def watch(
    opinions: Sequence[Opinion],
    names: Sequence[str],
    confusion: Callable[[str], np.ndarray | None],
    partitions: int = 1,
) -> list[Alert]:
    """The alerts of some opinions, as the daemon gives them with so many partitions."""
    detection, settings = DetectionSettings(), AlertSettings()
    entities = {name: EntityInfo(name.title(), (name.title(),)) for name in names}
    detectors = [Detector(detection, settings, entities, confusion) for _ in range(partitions)]
    correlator = Correlator(settings, {name: Watched(name.title(), {}) for name in names})
    by_minute: defaultdict[int, list[Opinion]] = defaultdict(list)
    for opinion in opinions:
        by_minute[opinion.published_ms // MINUTE_MS].append(opinion)
    alerts: list[Alert] = []
    for minute in range(min(by_minute), max(by_minute) + 70):
        mark = Watermark(topic="t", partition=0, partitions=1, time_ms=(minute + 1) * MINUTE_MS)
        for number, detector in enumerate(detectors):
            mine = [o for o in by_minute[minute] if NAMES.index(o.entity) % partitions == number]
            detector.observe([*mine, mark])
            alerts += correlator.take(detector.report(detector.advance(), partition=number, partitions=partitions))
    return alerts


def judge(alerts: Sequence[Alert], traffic: Traffic, events: Sequence[Event]) -> tuple[list[Result], list[Alert]]:
    """Each planted story's result, and the alerts that belong to none."""
    results, spare = [], list(alerts)
    for event in events:
        names = set(event.entities)
        mine = [a for a in alerts if names & {a.entity, *a.entities} and a.at_ms >= event.start_ms]
        spare = [a for a in spare if a not in mine]
        incidents = {a.incident for a in mine}
        joined = {a.incident for a in mine if a.merged_into}
        result = Result(event.story, len(incidents), len(incidents - joined), False)
        results.append(result)
        told = [a for a in mine if a.state != "resolved"]
        if not told:
            continue
        last = told[-1]
        result.names_right = {last.entity, *last.entities} == names
        result.languages, result.found = {part.lang for part in event.parts}, set(last.languages)
        first_ms = min(o.published_ms for o in traffic.opinions if traffic.story_of.get(o.document_id) == event.story)
        result.onset_min = (told[0].onset_ms - first_ms // MINUTE_MS * MINUTE_MS) / MINUTE_MS
        result.delay_min = (told[0].at_ms - event.start_ms) / MINUTE_MS
        result.one_event = last.evidence.one_event
        for alert in told:
            result.posts += len(alert.evidence.posts)
            result.right_posts += sum(traffic.story_of.get(p.document_id) == event.story for p in alert.evidence.posts)
    return results, [alert for alert in spare if alert.state == "firing"]


def denser(event: Event, times: float) -> Event:
    """The same posts in a part of the time."""
    start = min(part.start_min for part in event.parts)
    parts = (
        replace(part, start_min=start + round((part.start_min - start) / times), minutes=round(part.minutes / times))
        for part in event.parts
    )
    return replace(event, parts=tuple(parts))


def turned(opinions: Sequence[Opinion], rng: random.Random) -> list[Opinion]:
    """The same, with a classifier that from one minute on reads a part of all posts as negative that are not."""
    from_ms = START_MS + TURNED_FROM_MIN * MINUTE_MS
    return [
        msgspec.structs.replace(opinion, sentiment=(0.9, 0.05, 0.05))
        if opinion.published_ms >= from_ms and rng.random() < TURNED
        else opinion
        for opinion in opinions
    ]


def confusions(bundle: Path) -> Callable[[str], np.ndarray | None]:
    """The bundle's confusion by language."""
    known = Bundle.load(bundle).manifest.calibration["sentiment"]

    def of(lang: str) -> np.ndarray | None:
        entry = known.get(lang) or known.get("*")
        return np.array(entry.confusion, np.float64) if entry is not None else None

    return of


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--dense", type=float, default=1.0, help="the stories' posts come so many times as fast")
    parser.add_argument("--verbose", action="store_true", help="print every alert's first line")
    parser.add_argument("--cache", type=Path, default=Path("runs/alert_quality"))
    parser.add_argument("--bundle", type=Path, default=ROOT / "bundles" / "default")
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("BABELWATCH_DATA", "data")))
    options = parser.parse_args()
    known: list[Known] = pool(options.data, options.bundle, options.cache)
    confusion = confusions(options.bundle)
    rates = dict.fromkeys(NAMES, float(POSTS_AN_HOUR))
    events = [denser(event, options.dense) for event in EVENTS]
    results: list[Result] = []
    false: list[Alert] = []
    print("seed story     incidents names languages         onset  told  story posts  one event")
    for seed in range(options.first, options.first + options.seeds):
        traffic = Mixer(known, random.Random(seed)).mix(HOURS, rates, events, bursts=BURST)
        alerts = watch(traffic.opinions, NAMES, confusion)
        found, spare = judge(alerts, traffic, events)
        results += found
        false += spare
        for r in found:
            onset, delay = (
                (f"{r.onset_min:+5.0f}", f"{r.delay_min:5.0f}") if r.onset_min is not None else ("    -", "    -")
            )
            wrong = (
                "right"
                if r.found == r.languages
                else f"-{sorted(r.languages - r.found)} +{sorted(r.found - r.languages)}"
            )
            print(f"{seed:4} {r.story:9} {r.incidents:9} {r.names_right!s:5} {wrong:17} {onset} {delay}  "
                  f"{r.right_posts:4} of {r.posts:3}  {r.one_event}", flush=True)  # fmt: skip
        if options.verbose:
            for alert in alerts:
                print("     ", (alert.at_ms - START_MS) // MINUTE_MS, alert.incident, alert.kind, alert.summary)
        print(f"{seed:4} {'false':9} {len(spare):9} {[(a.entity, a.signal) for a in spare]}", flush=True)
    print("\nall:", len(results), "stories")
    print("one incident:", sum(r.incidents == 1 for r in results), " in the end:", sum(r.lasting == 1 for r in results),
          " names right:", sum(r.names_right for r in results),
          " languages right:", sum(r.found == r.languages for r in results))  # fmt: skip
    onsets = [abs(r.onset_min) for r in results if r.onset_min is not None]
    print("onset off by minutes, median", statistics.median(onsets), "largest", max(onsets),
          " within one bucket:", sum(off <= 1 for off in onsets), "of", len(onsets))  # fmt: skip
    delays = [r.delay_min for r in results if r.delay_min is not None]
    print("told after minutes, median", statistics.median(delays), "from", min(delays), "to", max(delays))
    print(f"posts of the story: {sum(r.right_posts for r in results)} of {sum(r.posts for r in results)}")
    quiet = Mixer(known, random.Random(100)).mix(HOURS, rates, (), bursts=BURST)
    for partitions in (1, 4):
        alerts = watch(turned(quiet.opinions, random.Random(7)), NAMES, confusion, partitions)
        kinds = Counter((a.kind, a.state, bool(a.merged_into)) for a in alerts)
        print(
            f"\nclassifier turned, {partitions} partition(s): incidents told",
            len({a.incident for a in alerts}),
            dict(kinds),
        )
        for alert in alerts:
            print("  ", (alert.at_ms - START_MS) // MINUTE_MS - TURNED_FROM_MIN, "min:", alert.state, alert.summary)


if __name__ == "__main__":
    main()
