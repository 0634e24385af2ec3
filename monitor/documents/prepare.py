"""A batch of records -> documents ready for the model: parsed, matched, identified, masked, with repeats marked; pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import msgspec

from monitor.documents.duplicates import Duplicates, Kind, Verdict
from monitor.documents.entities import Matcher
from monitor.documents.language import LanguageIdentifier
from monitor.documents.masking import author_hash, mask, mask_url
from monitor.documents.parse import Parser, Rejected
from monitor.records import Document, Origin


class Raw(NamedTuple):
    """A record as it came from Kafka."""

    value: bytes | None
    origin: Origin
    timestamp_ms: int


class Prepared(NamedTuple):
    """A document that names a watched entity."""

    document: Document
    """Its `text` is masked, its `author` hashed, its `url` bare: nothing personal is left in it."""
    entities: tuple[str, ...]
    verdict: Verdict


class Refused(NamedTuple):
    """A record that is no document."""

    raw: Raw
    rejected: Rejected


@dataclass(slots=True)
class Batch:
    """What became of a batch of records."""

    prepared: list[Prepared] = field(default_factory=list)
    refused: list[Refused] = field(default_factory=list)
    times_ms: list[int] = field(default_factory=list)
    """Publication times of all documents, in order."""
    unmatched: int = 0
    duplicates: int = 0


class Preparer:
    """Prepares batches; shared by all partitions (the window of repeats is the partition's own, and passed in).

    Args:
        parser: By the configured mapping.
        matcher: Of the watchlist in force; replaced when it changes.
        author_key: Keys the hash that stands for an author.
    """

    def __init__(self, parser: Parser, matcher: Matcher, identifier: LanguageIdentifier, author_key: bytes) -> None:
        self.parser = parser
        self.matcher = matcher
        self._identifier = identifier
        self._author_key = author_key

    def prepare(self, records: Sequence[Raw], duplicates: Duplicates) -> Batch:
        """Prepare a batch; `duplicates` moves on by it."""
        batch = Batch()
        documents: list[Document] = []
        for raw in records:
            parsed = self.parser.parse(raw.value, raw.origin, raw.timestamp_ms)
            if isinstance(parsed, Rejected):
                batch.refused.append(Refused(raw, parsed))
            else:
                documents.append(parsed)
        batch.times_ms = [document.published_ms for document in documents]
        matcher = self.matcher
        named: list[tuple[Document, tuple[str, ...], Verdict]] = []
        for document, entities in zip(documents, matcher.match([d.text for d in documents]), strict=True):
            if not entities:
                batch.unmatched += 1
                continue
            verdict = duplicates.check(document.id, document.text, document.published_ms, document.origin.offset)
            if verdict.kind is Kind.DUPLICATE:
                batch.duplicates += 1
                continue
            named.append((document, entities, verdict))
        langs = self._identifier.identify([d.text for d, _, _ in named], [d.lang for d, _, _ in named])
        for (document, entities, verdict), lang in zip(named, langs, strict=True):
            batch.prepared.append(Prepared(self._clean(document, lang, matcher), entities, verdict))
        return batch

    def _clean(self, document: Document, lang: str, matcher: Matcher) -> Document:
        return msgspec.structs.replace(
            document,
            lang=lang,
            text=mask(document.text, matcher.handles),
            author=author_hash(document.author, self._author_key),
            url=mask_url(document.url),
        )
