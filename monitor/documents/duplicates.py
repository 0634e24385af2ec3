"""Repeats within a window: the same document again, and other documents with (nearly) the same text."""

from __future__ import annotations

import hashlib
import re
from collections import OrderedDict
from enum import Enum, auto
from typing import NamedTuple

from monitor.documents.folding import fold

WINDOW_DOCUMENTS = 50_000
"""Documents of one partition that are remembered: about 15 MB, and hours of a busy stream."""

WINDOW_MS = 24 * 3_600_000
"""Event time after which the same text is news again: people say "good morning" every day."""

MIN_REPOST_CHARS = 24
"""Shorter texts ("so bad!!") are written anew by different people; they repeat nobody."""

_SHELL = re.compile(
    r"https?://\S*|www\.\S+|^\s*(?:rt|repost|qt)\b[\s:]*|(?:^|\s)(?:via|cc|h/t)\s+@\w+|[@]\w+:?|&\w+;", re.IGNORECASE
)
_NOT_WORD = re.compile(r"[\W_]+")
_CUT = re.compile(r"(?:…|\.\.\.)\s*(?:https?://\S*)?\s*$")


class Kind(Enum):
    """What a document is beside those before it."""

    NEW = auto()
    DUPLICATE = auto()
    REPOST = auto()


class Verdict(NamedTuple):
    """What a document repeats."""

    kind: Kind
    of: str
    """Id of the first document with this id or text; empty when new."""
    fingerprint: str
    """Of the text: 64 bits in hex, equal for reposts of one text."""


def core(text: str) -> str:
    """What is left of a text without its shell: repost marks, addresses, handles, punctuation, emoji, case and spaces.

    >>> core("RT @ann: Skyharrow lost my bag!!! 😡 https://t.example/1") == core("Skyharrow lost my bag… via @bob")
    True
    """
    return _NOT_WORD.sub("", fold(_SHELL.sub(" ", text)))


def fingerprint(text: str) -> str:
    """64 bits of the text's core; texts too short to repeat anybody keep their own punctuation in it."""
    reduced = core(text)
    return hashlib.blake2b((reduced or text).encode("utf-8", "replace"), digest_size=8).hexdigest()


class Duplicates:
    """The documents of one partition seen lately. A pure function of the last documents: reading them again rebuilds it.

    A cut repost ("the first words…") is recognised by a fingerprint of the first `PREFIX_CHARS` characters of the core.
    """

    PREFIX_CHARS = 48
    """Twice `MIN_REPOST_CHARS`: two people do not begin with the same 48 letters by chance."""

    def __init__(self, window_documents: int = WINDOW_DOCUMENTS, window_ms: int = WINDOW_MS) -> None:
        self._window_documents = window_documents
        self._window_ms = window_ms
        self._ids: OrderedDict[str, int] = OrderedDict()  # id -> published_ms
        self._texts: OrderedDict[str, tuple[str, int]] = OrderedDict()  # fingerprint -> (first id, published_ms)
        self._prefixes: OrderedDict[str, tuple[str, int]] = OrderedDict()

    def check(self, identity: str, text: str, published_ms: int) -> Verdict:
        """Judge the next document and remember it."""
        mark = fingerprint(text)
        if identity in self._ids:
            return Verdict(Kind.DUPLICATE, identity, mark)
        self._ids[identity] = published_ms
        self._trim(self._ids)
        reduced = core(text)
        if len(reduced) < MIN_REPOST_CHARS:
            return Verdict(Kind.NEW, "", mark)
        prefix = reduced[: self.PREFIX_CHARS] if len(reduced) >= self.PREFIX_CHARS else ""
        first = self._lately(self._texts.get(mark), published_ms)
        if first is None and prefix and _CUT.search(text):
            first = self._lately(self._prefixes.get(prefix), published_ms)
        if first is not None:
            return Verdict(Kind.REPOST, first, mark)
        self._texts[mark] = (identity, published_ms)
        self._trim(self._texts)
        if prefix:
            self._prefixes[prefix] = (identity, published_ms)
            self._trim(self._prefixes)
        return Verdict(Kind.NEW, "", mark)

    def _lately(self, seen: tuple[str, int] | None, published_ms: int) -> str | None:
        return seen[0] if seen is not None and abs(published_ms - seen[1]) <= self._window_ms else None

    def _trim(self, table: OrderedDict[str, object] | OrderedDict[str, int] | OrderedDict[str, tuple[str, int]]) -> None:
        if len(table) > self._window_documents:
            table.popitem(last=False)
