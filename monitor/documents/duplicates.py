"""Repeats within a window: the same document again, and other documents with (nearly) the same text."""

from __future__ import annotations

import hashlib
import re
from collections import OrderedDict
from enum import Enum, auto
from typing import NamedTuple

from monitor.documents.folding import fold

WINDOW_RECORDS = 20_000
"""Records of one partition within which repeats are recognised: about 10 MB, and read again in two seconds at a restart.
The window is counted in offsets, so that what is remembered depends on the records alone, not on when we started."""

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
    """Id of the last document before it with this id or text; empty when new. Not of the first: that may lie outside the
    window, where a process that was restarted has not looked."""
    fingerprint: str
    """Of the text: 64 bits in hex, equal for reposts of one text."""


def core(text: str) -> str:
    """What is left of a text without its shell: repost marks, addresses, handles, punctuation, emoji, case and spaces.

    >>> core("RT @ann: Skyharrow lost my bag!!! 😡 https://t.example/1") == core("Skyharrow lost my bag… via @bob")
    True
    """
    return _NOT_WORD.sub("", fold(_SHELL.sub(" ", text)))


class _Seen(NamedTuple):
    """The last sight of an id or a text."""

    identity: str
    published_ms: int
    offset: int


class Duplicates:
    """The documents of one partition seen lately. A pure function of the last documents: reading them again rebuilds it.

    A cut repost ("the first words…") is recognised by a fingerprint of the first `PREFIX_CHARS` characters of the core.
    """

    PREFIX_CHARS = 48
    """Twice `MIN_REPOST_CHARS`: two people do not begin with the same 48 letters by chance."""

    def __init__(self, window_records: int = WINDOW_RECORDS, window_ms: int = WINDOW_MS) -> None:
        self._window_records = window_records
        self._window_ms = window_ms
        self._ids: OrderedDict[str, _Seen] = OrderedDict()
        self._texts: OrderedDict[str, _Seen] = OrderedDict()
        self._prefixes: OrderedDict[str, _Seen] = OrderedDict()

    def check(self, identity: str, text: str, published_ms: int, offset: int) -> Verdict:
        """Judge the next document and remember it; offsets only grow."""
        for table in (self._ids, self._texts, self._prefixes):
            while table and next(iter(table.values())).offset < offset - self._window_records:
                table.popitem(last=False)
        reduced = core(text)
        mark = hashlib.blake2b((reduced or text).encode("utf-8", "replace"), digest_size=8).hexdigest()
        known = self._ids.get(identity)
        _renew(self._ids, identity, _Seen(identity, published_ms, offset))
        before = self._before(reduced, mark, text, _Seen(identity, published_ms, offset))
        if known is not None:
            return Verdict(Kind.DUPLICATE, identity, mark)
        return Verdict(Kind.REPOST, before, mark) if before is not None else Verdict(Kind.NEW, "", mark)

    def _before(self, reduced: str, mark: str, text: str, now: _Seen) -> str | None:
        """The last document with this text, which is remembered as seen again; None when there is none."""
        if len(reduced) < MIN_REPOST_CHARS:
            return None
        prefix = reduced[: self.PREFIX_CHARS] if len(reduced) >= self.PREFIX_CHARS else ""
        before = self._lately(self._texts.get(mark), now.published_ms)
        if before is None and _CUT.search(text):
            before = self._lately(self._prefixes.get(prefix or reduced), now.published_ms)
        _renew(self._texts, mark, now)
        if prefix:
            _renew(self._prefixes, prefix, now)
        return before

    def _lately(self, seen: _Seen | None, published_ms: int) -> str | None:
        return seen.identity if seen is not None and abs(published_ms - seen.published_ms) <= self._window_ms else None


def _renew(table: OrderedDict[str, _Seen], key: str, seen: _Seen) -> None:
    """Each sight counts from its own place: what is remembered depends on the window alone, not on what was before it."""
    table[key] = seen
    table.move_to_end(key)
