"""Which watched entities a text names: one Aho-Corasick automaton over folded text, with the rules of each script."""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Sequence
from enum import Enum, auto
from typing import NamedTuple

from ahocorasick_rs import AhoCorasick, Implementation, MatchKind

from monitor.documents.folding import fold
from monitor.watchlist import Watchlist


class _Kind(Enum):
    ALIAS = auto()
    EXCLUDE = auto()
    CONTEXT = auto()


class _Use(NamedTuple):
    kind: _Kind
    entity: int


# Scripts written without spaces between words: nothing can be said of the neighbours of a match.
_UNSPACED = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u2e80-\u303f\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]"
)
_HANGUL = re.compile("[\uac00-\ud7a3]")
_ARABIC = re.compile("[\u0600-\u06ff]")

# Words that Arabic writes onto the front of the next one: and, so, with, to, like, the, and their combinations.
_ARABIC_CLITICS = frozenset(
    ["و", "ف", "ب", "ل", "ك", "ال", "وال", "فال", "بال", "كال", "لل", "ولل", "وب", "ول", "فب", "فل"]
)
# Particles that Korean writes onto the end of a name: topic, subject, object, with, from, to, also, only, ...
_KOREAN_PARTICLES = re.compile(
    "(?:은|는|이|가|을|를|의|에|에서|에게|께|도|와|과|랑|이랑|로|으로|만|까지|부터|처럼|보다|이나|나|라고|이라고|한테|측|씨|님|네|야|아|라|이라|인|입니다|이다|요|이요|조차|마저|뿐|들|들이)+"
)


class Matcher:
    """Finds the entities of a watchlist in texts.

    Args:
        watchlist: What to look for.

    >>> from monitor.watchlist import Entity, Watchlist
    >>> air = Entity(id="air", name="Northwind Air", aliases={"*": ["Northwind Air"]}, exclude=["Northwind Airfield"])
    >>> Matcher(Watchlist((air,))).match(["Stuck with #NorthwindAir again", "Northwind Airfield reopens"])
    [('air',), ()]
    """

    def __init__(self, watchlist: Watchlist) -> None:
        self.version = watchlist.version
        self._ids = list(watchlist.entities)
        self._needs_context = [bool(entity.context) for entity in watchlist.entities.values()]
        uses: dict[str, set[_Use]] = defaultdict(set)
        self.handles: frozenset[str] = frozenset(
            fold(name) for entity in watchlist.entities.values() for name in entity.names if name.startswith("@")
        )
        """Folded @handles that are aliases: public names, which masking leaves alone."""
        for place, entity in enumerate(watchlist.entities.values()):
            for name in entity.names:
                folded = fold(name)
                uses[folded].add(_Use(_Kind.ALIAS, place))
                # "#NorthwindAir", "@northwindair", "northwindair"
                uses[folded.replace(" ", "")].add(_Use(_Kind.ALIAS, place))
            for kind, phrases in ((_Kind.EXCLUDE, entity.exclude), (_Kind.CONTEXT, entity.context)):
                for phrase in phrases:
                    uses[fold(phrase)].add(_Use(kind, place))
        uses.pop("", None)
        self._patterns = list(uses)
        self._uses = [tuple(uses[pattern]) for pattern in self._patterns]
        # The contiguous NFA builds for 10,000 names in milliseconds; the DFA is hardly faster on short texts.
        self._automaton = (
            AhoCorasick(self._patterns, MatchKind.Standard, implementation=Implementation.ContiguousNFA)
            if self._patterns
            else None
        )

    def match(self, texts: Sequence[str]) -> list[tuple[str, ...]]:
        """The ids of the entities that each text names, in the order of the watchlist."""
        return [self._match_folded(fold(text)) for text in texts]

    def _match_folded(self, text: str) -> tuple[str, ...]:
        if self._automaton is None:
            return ()
        found = self._automaton.find_matches_as_indexes(text, overlapping=True)
        if not found:
            return ()
        aliases: dict[int, list[tuple[int, int]]] = defaultdict(list)
        excluded: dict[int, list[tuple[int, int]]] = defaultdict(list)
        in_context: set[int] = set()
        for pattern, start, end in found:
            if not _is_word(text, start, end):
                continue
            for kind, entity in self._uses[pattern]:
                if kind is _Kind.ALIAS:
                    aliases[entity].append((start, end))
                elif kind is _Kind.EXCLUDE:
                    excluded[entity].append((start, end))
                else:
                    in_context.add(entity)
        return tuple(
            self._ids[entity]
            for entity in sorted(aliases)
            if (not self._needs_context[entity] or entity in in_context)
            and any(not _overlaps(span, excluded[entity]) for span in aliases[entity])
        )


def _overlaps(span: tuple[int, int], others: list[tuple[int, int]]) -> bool:
    return any(start < span[1] and span[0] < end for start, end in others)


def _is_word(text: str, start: int, end: int) -> bool:
    """Whether a match stands as a word by the rules of its script."""
    return _ends_before(text, start) and _ends_after(text, end)


def _ends_before(text: str, start: int) -> bool:
    if start == 0 or not _joined(text[start - 1], text[start]):
        return True
    if _ARABIC.match(text[start]):
        begin = start
        while begin > 0 and _ARABIC.match(text[begin - 1]):
            begin -= 1
        return text[begin:start] in _ARABIC_CLITICS
    return False


def _ends_after(text: str, end: int) -> bool:
    if end == len(text) or not _joined(text[end - 1], text[end]):
        return True
    if _HANGUL.match(text[end]):
        stop = end
        while stop < len(text) and _HANGUL.match(text[stop]):
            stop += 1
        return _KOREAN_PARTICLES.fullmatch(text, end, stop) is not None
    return False


def _joined(left: str, right: str) -> bool:
    """Whether two neighbouring characters can be parts of one word: letters of one spaced script, or digits."""
    if not (_wordish(left) and _wordish(right)) or _UNSPACED.match(left) or _UNSPACED.match(right):
        return False
    if left.isdigit() or right.isdigit():
        return left.isdigit() and right.isdigit()
    return _script(left) == _script(right)


def _wordish(ch: str) -> bool:
    return ch.isalnum() or unicodedata.category(ch)[0] == "M"


def _script(ch: str) -> str:
    """The first word of a character's Unicode name: LATIN, CYRILLIC, ARABIC, DEVANAGARI, HANGUL ..."""
    return unicodedata.name(ch, "").split(" ", 1)[0]
