"""Traffic with known events in it: real posts in eight languages, planted multi-language stories, opinions of the real model.

The posts are classified once and kept beside the benchmark's results (`--cache`), since the model is what costs; traffic is
then drawn from them as often as wanted.
"""

from __future__ import annotations

import asyncio
import base64
import csv
import random
import sys
import tomllib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from monitor.documents.masking import mask
from monitor.inference.bundle import Bundle
from monitor.inference.classifier import Classifier
from monitor.inference.engine import Engine
from monitor.inference.results import Failure
from monitor.inference.settings import InferenceSettings
from monitor.records import Opinion

ROOT = Path(__file__).resolve().parent.parent
MINUTE_MS = 60_000
START_MS = 1_772_409_600_000
"""2 March 2026, 00:00 UTC."""
REAL_PER_LANGUAGE, STORY_PER_LANGUAGE = 800, 120
STRANDED = ("en", "es", "de", "ar", "ja")
"""Languages of the sample stream's own story that are taken too."""
MOODS = ("negative", "neutral", "positive")


class Known(msgspec.Struct, frozen=True):
    """One text, what is true of it, and what the model says of it."""

    text: str
    lang: str
    label: int
    """0 negative, 1 neutral, 2 positive."""
    story: str
    """Empty for an ordinary post."""
    sentiment: tuple[float, float, float] = (0.0, 0.0, 0.0)
    topic: str = ""
    embedding: str = ""
    bundle: str = ""


@dataclass(frozen=True, slots=True)
class Part:
    """One language's part in an event."""

    lang: str
    start_min: int
    minutes: int
    posts: int


@dataclass(frozen=True, slots=True)
class Event:
    """A story about some entities."""

    story: str
    entities: tuple[str, ...]
    parts: tuple[Part, ...]

    @property
    def start_ms(self) -> int:
        """When its first language begins."""
        return START_MS + min(part.start_min for part in self.parts) * MINUTE_MS


def ordinary(data: Path, per_language: int, rng: random.Random) -> list[Known]:
    """Real posts of UMSAB's training split, as many of each label and language."""
    found: dict[tuple[str, int], list[str]] = defaultdict(list)
    with (data / "umsab" / "train.tsv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE):
            found[row["language"], int(row["label"])].append(row["text"])
    return [
        Known(mask(text), lang, label, "")
        for (lang, label), texts in sorted(found.items())
        for text in rng.sample(texts, min(len(texts), per_language // 3))
    ]


def stories(per_language: int, rng: random.Random) -> list[Known]:
    """Posts of every planted story in each of its languages."""
    sys.path.insert(0, str(ROOT / "examples"))
    from sentences import Writer

    told: dict[tuple[str, str], str] = {}
    for path in sorted((ROOT / "benchmarks" / "events").glob("*.toml")):
        for lang, patterns in tomllib.loads(path.read_text(encoding="utf-8")).items():
            told[path.stem, lang] = patterns
    names = {"recall": "Biskavo", "leak": "Orvane Bank", "tunnel": "Azura Transit", "fire": "Zelvaro"}
    found: list[Known] = []
    seen: set[str] = set()
    for story, lang in [*told, *(("stranded", lang) for lang in STRANDED)]:
        patterns = tomllib.loads((ROOT / "examples" / "texts" / f"{lang}.toml").read_text(encoding="utf-8"))
        if story != "stranded":
            patterns[story] = {"negative": told[story, lang]}
        writer = Writer(lang, patterns, {story: [names.get(story, "Skyharrow")]}, rng)
        for _ in range(per_language):
            title, text = writer.write(story, "negative", story)
            whole = mask(f"{title}\n{text}" if title else text)
            if whole not in seen:
                seen.add(whole)
                found.append(Known(whole, lang, 0, story))
    return found


def classify(texts: Sequence[Known], bundle: Path) -> list[Known]:
    """Ask the model; texts that it cannot classify are left out."""

    async def run() -> list[Known]:
        settings = InferenceSettings(bundle=bundle)
        engine = Engine(Bundle.load(bundle), settings)
        try:
            async with Classifier(engine, settings) as classifier:
                said = await classifier.classify([t.text for t in texts], [t.lang for t in texts])
        finally:
            engine.close()
        return [
            msgspec.structs.replace(
                known, sentiment=one.sentiment, topic=one.topic, bundle=one.bundle,
                embedding=base64.b64encode(one.embedding or b"").decode(),
            )
            for known, one in zip(texts, said, strict=True)
            if not isinstance(one, Failure)
        ]  # fmt: skip

    return asyncio.run(run())


def pool(data: Path, bundle: Path, cache: Path) -> list[Known]:
    """All texts with the model's word on them; from the cache when it was made by this bundle."""
    version = Bundle.load(bundle).version
    path = cache / f"opinions-{version}.jsonl"
    if path.exists():
        return [msgspec.json.decode(line, type=Known) for line in path.read_bytes().splitlines()]
    rng = random.Random(1)
    known = classify([*ordinary(data, REAL_PER_LANGUAGE, rng), *stories(STORY_PER_LANGUAGE, rng)], bundle)
    cache.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"\n".join(msgspec.json.encode(one) for one in known))
    return known


@dataclass(slots=True)
class Traffic:
    """Opinions in order of publication, and which documents belong to which story."""

    opinions: list[Opinion]
    story_of: dict[str, str]


class Mixer:
    """Draws traffic from classified texts.

    Args:
        known: As `pool` gives them.
        rng: The draw.
    """

    def __init__(self, known: Sequence[Known], rng: random.Random) -> None:
        self._rng = rng
        self._ordinary: dict[tuple[str, int], list[Known]] = defaultdict(list)
        self._stories: dict[tuple[str, str], list[Known]] = defaultdict(list)
        for one in known:
            if one.story:
                self._stories[one.story, one.lang].append(one)
            else:
                self._ordinary[one.lang, one.label].append(one)
        self.languages = sorted({lang for lang, _ in self._ordinary})
        self._number = 0

    def mix(
        self, hours: int, rates: Mapping[str, float], events: Sequence[Event], *, negative: float = 0.22,
        bursts: Mapping[str, tuple[int, int, float]] | None = None,
    ) -> Traffic:  # fmt: skip
        """Hours of traffic.

        Args:
            hours: Length.
            rates: By entity, ordinary posts an hour over all languages.
            events: What happens.
            negative: Share of ordinary posts that are truly negative; neutral ones are half.
            bursts: By entity (start minute, minutes, factor): so many times the volume, in the usual mood.
        """
        rng = self._rng
        traffic = Traffic([], {})
        for entity, per_hour in rates.items():
            for minute in range(hours * 60):
                start, length, factor = (bursts or {}).get(entity, (0, 0, 1.0))
                rate = per_hour / 60 * (factor if start <= minute < start + length else 1.0)
                for _ in range(_poisson(rate, rng)):
                    mood = rng.choices((0, 1, 2), (negative, 0.5, 0.5 - negative))[0]
                    known = rng.choice(self._ordinary[rng.choice(self.languages), mood])
                    traffic.opinions.append(self._opinion(known, entity, minute))
        for event in events:
            for part in event.parts:
                texts = rng.sample(self._stories[event.story, part.lang], part.posts)
                for number, known in enumerate(texts):
                    minute = part.start_min + int(rng.betavariate(1.3, 1.8) * part.minutes)
                    opinion = self._opinion(known, event.entities[number % len(event.entities)], minute)
                    traffic.opinions.append(opinion)
                    traffic.story_of[opinion.document_id] = event.story
        traffic.opinions.sort(key=lambda opinion: (opinion.published_ms, opinion.id))
        return traffic

    def _opinion(self, known: Known, entity: str, minute: int) -> Opinion:
        rng = self._rng
        self._number += 1
        identity = f"d{self._number}"
        source = rng.choices(("chirp", "plaza", "forum", "reviews"), (6, 3, 2, 1))[0]
        return Opinion(
            id=f"{identity}|{entity}", document_id=identity, entity=entity, lang=known.lang, text=known.text,
            published_ms=START_MS + minute * MINUTE_MS + rng.randrange(MINUTE_MS), sentiment=known.sentiment,
            topic=known.topic, embedding=known.embedding, bundle=known.bundle, source=source,
            author=f"a{rng.randrange(3000)}", url=f"https://{source}.example/{identity}", reach=rng.randrange(1000),
        )  # fmt: skip


def _poisson(mean: float, rng: random.Random) -> int:
    count, time = 0, rng.expovariate(1.0)
    while time < mean:
        count, time = count + 1, time + rng.expovariate(1.0)
    return count
