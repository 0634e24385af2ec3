"""What is kept of one entity in one bucket: exact counts, and a bounded sample of posts; the same in any order of arrival."""

from __future__ import annotations

import base64
import binascii
import hashlib
from bisect import bisect_left, insort
from collections.abc import Iterator, Mapping, Sequence
from heapq import nsmallest

import msgspec

from monitor.records import MAX_REACH, SENTIMENTS, Opinion, Post

SAMPLED_NEGATIVE, SAMPLED_OTHER = 20, 6
"""Posts kept per entity and bucket. Evidence shows ten, chosen for coverage; the others are the background against which
terms stand out. Six hours of minutes of a busy entity are then under 10 MB."""

THINNED_NEGATIVE, THINNED_OTHER = 3, 1
"""Posts kept of a bucket older than that which an incident still holds on to: one of two days costs no more than six hours."""

MAX_SOURCES = 50
"""Sources counted per entity and bucket once it is closed; the rest is a long tail that no alert names."""

MAX_IDS = 40_000
"""Ids known of an open cell, by which a repeat is found, at least; at twice as many the highest hashes go. The cell is one
record of state at each commit, and a broker takes one MiB: with all ids a partition would stand still at 110,000 opinions."""


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
    embedding: bytes = b""
    """int8 [hidden], of negative posts only: what was said, comparable between languages; empty when there is none."""
    author: str = ""
    """The author's keyed hash, for erasure."""

    def post(self, copies: int = 1) -> Post:
        """As it is shown."""
        return Post(
            document_id=self.document_id, text=self.text, lang=self.lang, published_ms=self.published_ms,
            sentiment=SENTIMENTS[self.sentiment], source=self.source, url=self.url, copies=copies,
        )  # fmt: skip


def hash64(text: str) -> int:
    """A stable 63-bit hash: Python's own differs from process to process."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def squares(row: Sequence[float]) -> float:
    """The sum of the squared weights behind a row of `Cell.counts`; where all weights are 1, their number."""
    return row[4] if len(row) > 4 else sum(row[:3])


class Cell(msgspec.Struct):
    """One entity in one bucket."""

    counts: dict[str, list[int | float]] = msgspec.field(default_factory=dict)
    """By language: negative, neutral, positive, reposts among them; and where documents carry weights, which the counts then
    are sums of, the sum of their squares."""
    sources: dict[str, int | float] = msgspec.field(default_factory=dict)
    """Negative opinions by source."""
    topics: dict[str, int | float] = msgspec.field(default_factory=dict)
    """Negative opinions by topic."""
    by_topic: dict[str, int | float] = msgspec.field(default_factory=dict)
    """All opinions by topic."""
    authors: set[int] = msgspec.field(default_factory=set)
    """Hashes of the authors of negative opinions, for distinct voices; the lowest `MAX_SOURCES` once closed."""
    reach: int = 0
    negative: list[Sample] = msgspec.field(default_factory=list)
    other: list[Sample] = msgspec.field(default_factory=list)
    ids: set[int] = msgspec.field(default_factory=set)
    """Hashes of the opinions counted, the lowest of them when they are very many; emptied when the bucket closes, since what
    comes later is late anyway."""

    def add(self, opinion: Opinion) -> bool:
        """Count an opinion; False when it was counted before."""
        identity = hash64(opinion.id)
        if identity in self.ids:
            return False
        self.ids.add(identity)
        if len(self.ids) >= 2 * MAX_IDS:
            self.ids = set(nsmallest(MAX_IDS, self.ids))
        sentiment = opinion.sentiment.index(max(opinion.sentiment))
        # Whole weights stay whole numbers: most streams have none but 1, and their state stays small.
        weight = int(opinion.weight) if opinion.weight.is_integer() else opinion.weight
        row = self.counts.setdefault(opinion.lang, [0, 0, 0, 0])
        if weight != 1 and len(row) == 4:
            row.append(squares(row))
        if len(row) > 4:
            row[4] += weight * weight
        row[sentiment] += weight
        row[3] += weight * bool(opinion.repost_of)
        if opinion.topic:
            self.by_topic[opinion.topic] = self.by_topic.get(opinion.topic, 0) + weight
        if sentiment == 0:
            self.reach = min(self.reach + round(opinion.reach * weight), MAX_REACH)
            if opinion.source:
                self.sources[opinion.source] = self.sources.get(opinion.source, 0) + weight
            if opinion.topic:
                self.topics[opinion.topic] = self.topics.get(opinion.topic, 0) + weight
            if opinion.author:
                self.authors.add(hash64(opinion.author))
                if len(self.authors) >= 20 * MAX_SOURCES:
                    self.authors = set(nsmallest(MAX_SOURCES, self.authors))
        _keep(self.negative if sentiment == 0 else self.other, opinion, identity, sentiment)
        return True

    def close(self) -> None:
        """Nothing more will come: keep what evidence needs, in an order of its own."""
        self.ids.clear()
        self.sources = dict(sorted(self.sources.items(), key=lambda item: (-item[1], item[0]))[:MAX_SOURCES])
        self.authors = set(nsmallest(MAX_SOURCES, self.authors))
        self.negative.sort(key=lambda sample: sample.rank)
        self.other.sort(key=lambda sample: sample.rank)

    def thin(self) -> bool:
        """Keep the counts and a few posts of a closed cell; False when nothing had to go."""
        if len(self.negative) <= THINNED_NEGATIVE and len(self.other) <= THINNED_OTHER:
            return False
        del self.negative[THINNED_NEGATIVE:], self.other[THINNED_OTHER:]
        return True

    @property
    def documents(self) -> float:
        """Opinions counted, by their weights."""
        return sum(sum(row[:3]) for row in self.counts.values())


class CellStore:
    """The cells of many entities, by entity and by bucket."""

    def __init__(self) -> None:
        self._by_entity: dict[str, dict[int, Cell]] = {}
        self._entities_in: dict[int, set[str]] = {}
        self._order: list[int] = []
        self._swept: tuple[int, dict[str, int]] = (0, {})

    def __iter__(self) -> Iterator[tuple[str, int, Cell]]:
        for entity, cells in self._by_entity.items():
            for bucket_ms, cell in cells.items():
                yield entity, bucket_ms, cell

    def get(self, entity: str, bucket_ms: int) -> Cell | None:
        """An entity's cell, if there is one."""
        return self._by_entity.get(entity, {}).get(bucket_ms)

    def put(self, entity: str, bucket_ms: int, cell: Cell) -> None:
        """Add a cell, or put another in its place."""
        self._by_entity.setdefault(entity, {})[bucket_ms] = cell
        if bucket_ms not in self._entities_in:
            self._entities_in[bucket_ms] = set()
            insort(self._order, bucket_ms)
        self._entities_in[bucket_ms].add(entity)

    def open(self, entity: str, bucket_ms: int) -> Cell:
        """An entity's cell, made when missing."""
        cell = self.get(entity, bucket_ms)
        if cell is None:
            cell = Cell()
            self.put(entity, bucket_ms, cell)
        return cell

    def of(self, entity: str, end_ms: int) -> list[tuple[int, Cell]]:
        """An entity's cells before `end_ms`, in order of time."""
        return sorted((item for item in self._by_entity.get(entity, {}).items() if item[0] < end_ms), key=_bucket)

    def at(self, bucket_ms: int) -> list[tuple[str, Cell]]:
        """The cells of a bucket, by entity."""
        return [(entity, self._by_entity[entity][bucket_ms]) for entity in sorted(self._entities_in.get(bucket_ms, ()))]

    def buckets(self, start_ms: int, end_ms: int) -> list[int]:
        """Buckets of this time that hold anything, in order."""
        return self._order[bisect_left(self._order, start_ms) : bisect_left(self._order, end_ms)]

    def expire(
        self, before_ms: int, held_since_ms: Mapping[str, int]
    ) -> tuple[list[tuple[str, int]], list[tuple[str, int]]]:
        """Forget cells before a time, and thin those that are still needed.

        Args:
            before_ms: Older cells are no longer needed,
            held_since_ms: but for those of these entities that are not older than this.

        Returns:
            The cells that are gone, and those that were thinned, as (entity, bucket).
        """
        gone, thinned = [], []
        # What was held before is looked at again only when what is held has changed.
        swept_ms = self._swept[0] if self._swept[1] == held_since_ms else 0
        self._swept = (before_ms, dict(held_since_ms))
        for bucket_ms in self.buckets(swept_ms, before_ms):
            for entity, cell in self.at(bucket_ms):
                if bucket_ms < held_since_ms.get(entity, before_ms):
                    self._remove(entity, bucket_ms)
                    gone.append((entity, bucket_ms))
                elif cell.thin():
                    thinned.append((entity, bucket_ms))
        return gone, thinned

    def drop(self, entity: str) -> list[int]:
        """Forget an entity; returns its buckets."""
        buckets = sorted(self._by_entity.get(entity, {}))
        for bucket_ms in buckets:
            self._remove(entity, bucket_ms)
        return buckets

    def _remove(self, entity: str, bucket_ms: int) -> None:
        del self._by_entity[entity][bucket_ms]
        if not self._by_entity[entity]:
            del self._by_entity[entity]
        self._entities_in[bucket_ms].discard(entity)
        if not self._entities_in[bucket_ms]:
            del self._entities_in[bucket_ms]
            del self._order[bisect_left(self._order, bucket_ms)]


def _bucket(item: tuple[int, Cell]) -> int:
    return item[0]


def _keep(samples: list[Sample], opinion: Opinion, identity: int, sentiment: int) -> None:
    """Keep the lowest ranks; the list is unordered until the cell closes."""
    most = SAMPLED_NEGATIVE if sentiment == 0 else SAMPLED_OTHER
    place = len(samples)
    if place == most:
        place = max(range(most), key=lambda n: samples[n].rank)
        if identity > samples[place].rank:
            return
    samples[place : place + 1] = [
        Sample(
            rank=identity, document_id=opinion.document_id, text=opinion.text, lang=opinion.lang,
            published_ms=opinion.published_ms, sentiment=sentiment, source=opinion.source, url=opinion.url,
            topic=opinion.topic, fingerprint=opinion.fingerprint, negative=round(opinion.sentiment[0], 2),
            embedding=_embedding(opinion) if sentiment == 0 else b"", author=opinion.author,
        )
    ]  # fmt: skip


def _embedding(opinion: Opinion) -> bytes:
    """The opinion's embedding; empty when it has none that can be read."""
    try:
        return base64.b64decode(opinion.embedding, validate=True)
    except (binascii.Error, ValueError):
        return b""
