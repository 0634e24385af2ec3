"""What is kept of one entity in one bucket: exact counts, and a bounded sample of posts; the same in any order of arrival."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from heapq import nsmallest

import msgspec

from monitor.records import SENTIMENTS, Opinion, Post

SAMPLED_NEGATIVE, SAMPLED_OTHER = 20, 6
"""Posts kept per entity and bucket. Evidence shows ten, chosen for coverage; the others are the background against which
terms stand out. Six hours of minutes of a busy entity are then under 10 MB."""

MAX_SOURCES = 50
"""Sources counted per entity and bucket once it is closed; the rest is a long tail that no alert names."""


class Sample(msgspec.Struct, frozen=True, omit_defaults=True):
    """One opinion as evidence."""

    rank: int
    """A hash of its id: the lowest ranks are kept, a uniform sample that does not depend on the order of arrival."""
    document_id: str
    text: str
    lang: str
    published_ms: int
    sentiment: int
    """0 negative, 1 neutral, 2 positive."""
    source: str = ""
    url: str = ""
    topic: str = ""
    fingerprint: str = ""
    negative: float = 0.0
    """Probability of negative, to two decimals: a model says the same of a text in another batch to six or so, and what is
    shown as evidence must not hang on the seventh."""

    def post(self, copies: int = 1) -> Post:
        """As it is shown."""
        return Post(
            document_id=self.document_id, text=self.text, lang=self.lang, published_ms=self.published_ms,
            sentiment=SENTIMENTS[self.sentiment], source=self.source, url=self.url, copies=copies,
        )  # fmt: skip


def hash64(text: str) -> int:
    """A stable 63-bit hash: Python's own differs from process to process."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


class Cell(msgspec.Struct):
    """One entity in one bucket."""

    counts: dict[str, list[int]] = msgspec.field(default_factory=dict)
    """By language: negative, neutral, positive, reposts among them."""
    sources: dict[str, int] = msgspec.field(default_factory=dict)
    """Negative opinions by source."""
    topics: dict[str, int] = msgspec.field(default_factory=dict)
    """Negative opinions by topic."""
    authors: set[int] = msgspec.field(default_factory=set)
    """Hashes of the authors of negative opinions, for distinct voices; the lowest `MAX_SOURCES` once closed."""
    reach: int = 0
    negative: list[Sample] = msgspec.field(default_factory=list)
    other: list[Sample] = msgspec.field(default_factory=list)
    ids: set[int] = msgspec.field(default_factory=set)
    """Hashes of the opinions counted; emptied when the bucket closes, since what comes later is late anyway."""

    def add(self, opinion: Opinion) -> bool:
        """Count an opinion; False when it was counted before."""
        identity = hash64(opinion.id)
        if identity in self.ids:
            return False
        self.ids.add(identity)
        sentiment = opinion.sentiment.index(max(opinion.sentiment))
        row = self.counts.setdefault(opinion.lang, [0, 0, 0, 0])
        row[sentiment] += 1
        row[3] += bool(opinion.repost_of)
        sample = Sample(
            rank=identity, document_id=opinion.document_id, text=opinion.text, lang=opinion.lang,
            published_ms=opinion.published_ms, sentiment=sentiment, source=opinion.source, url=opinion.url,
            topic=opinion.topic, fingerprint=opinion.fingerprint, negative=round(opinion.sentiment[0], 2),
        )  # fmt: skip
        if sentiment == 0:
            self.reach += opinion.reach
            if opinion.source:
                self.sources[opinion.source] = self.sources.get(opinion.source, 0) + 1
            if opinion.topic:
                self.topics[opinion.topic] = self.topics.get(opinion.topic, 0) + 1
            if opinion.author:
                self.authors.add(hash64(opinion.author))
            _keep(self.negative, sample, SAMPLED_NEGATIVE)
        else:
            _keep(self.other, sample, SAMPLED_OTHER)
        return True

    def close(self) -> None:
        """Nothing more will come: keep what evidence needs, in an order of its own."""
        self.ids.clear()
        self.sources = dict(sorted(self.sources.items(), key=lambda item: (-item[1], item[0]))[:MAX_SOURCES])
        self.authors = set(nsmallest(MAX_SOURCES, self.authors))
        self.negative.sort(key=lambda sample: sample.rank)
        self.other.sort(key=lambda sample: sample.rank)

    @property
    def documents(self) -> int:
        """Opinions counted."""
        return sum(sum(row[:3]) for row in self.counts.values())


def _keep(samples: list[Sample], sample: Sample, most: int) -> None:
    """Keep the lowest ranks; the list is unordered until the cell closes."""
    if len(samples) < most:
        samples.append(sample)
        return
    highest = max(range(most), key=lambda place: samples[place].rank)
    if sample.rank < samples[highest].rank:
        samples[highest] = sample


def posts(cells: Iterable[Cell]) -> Iterator[Sample]:
    """All samples of some cells."""
    for cell in cells:
        yield from cell.negative
        yield from cell.other
