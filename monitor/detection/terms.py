"""The terms that set a window of posts apart: log-odds with an informative Dirichlet prior, in any script."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import cache

from monitor.documents.folding import fold

PRIOR_WORTH, PRIOR_PART = 50.0, 0.2
"""Words that the prior weighs, and the part of all words that it weighs at most: a term seen twice in a dozen posts does
not stand out by luck, and a language with few posts still has terms."""

MIN_Z = 1.5
"""Standard deviations by which a term must stand out."""

MIN_POSTS = 2

_NOT_TERM = re.compile(r"https?://\S+|www\.\S+|<\w+>|[@]\w+|&\w+;")
_WORD = re.compile(r"#?[^\W\d_][^\W_]*(?:['’][^\W\d_]+)?")
_UNSPACED_RUN = re.compile("[\u0e00-\u0e7f]+|[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff々ー]+")
_KANA = re.compile("[\u3040-\u30ff]")
_THAI = re.compile("[\u0e00-\u0e7f]")


def tokens(text: str, lang: str) -> set[str]:
    """The words of a text, each once; scripts without spaces are cut into phrases.

    >>> sorted(tokens("Stranded AGAIN at the gate, https://x.example", "en"))
    ['again', 'at', 'gate', 'stranded', 'the']
    """
    plain = _NOT_TERM.sub(" ", text)
    words = {fold(word) for word in _WORD.findall(_UNSPACED_RUN.sub(" ", plain))}
    for run in _UNSPACED_RUN.findall(plain):
        words.update(piece for piece in _segmenter(_which(run, lang))(run) if len(piece) > 1)
    return {word for word in words if len(word) > 1}


def _which(run: str, lang: str) -> str:
    if _THAI.match(run):
        return "th"
    return "ja" if lang == "ja" or _KANA.search(run) else "zh"


@cache
def _segmenter(lang: str) -> Callable[[str], list[str]]:
    import budoux

    load = {
        "th": budoux.load_default_thai_parser,
        "ja": budoux.load_default_japanese_parser,
        "zh": budoux.load_default_simplified_chinese_parser,
    }[lang]
    parse: Callable[[str], list[str]] = load().parse
    return parse


def distinctive(
    window: Sequence[tuple[str, str]],
    background: Iterable[tuple[str, str]],
    *,
    most: int,
    without: Iterable[str] = (),
) -> tuple[str, ...]:
    """The terms that posts of a window hold more often than the background does, the strongest first.

    Log-odds ratio with an informative Dirichlet prior and its variance (Monroe, Colaresi, Quinn 2008, "Fightin' Words",
    section 3.5), over the number of posts that hold a term.

    Each language is compared with itself: what is common in one stands out beside another.

    Args:
        window: (text, language) of each post.
        background: The same of posts from before; stop words are in both, and so cancel out.
        most: How many terms at most.
        without: Names that every post holds anyway.
    """
    banned = {word for name in without for word in (*tokens(name, ""), fold(name), fold(name).replace(" ", ""))}
    inside, outside = _by_language(window), _by_language(background)
    scored: dict[str, float] = {}
    for lang, posts in inside.items():
        for word, z in _log_odds(posts, outside.get(lang, [])).items():
            if word.lstrip("#") not in banned:
                scored[word] = max(z, scored.get(word, 0.0))
    return tuple(sorted(scored, key=lambda word: (-scored[word], word))[:most])


def _by_language(posts: Iterable[tuple[str, str]]) -> dict[str, list[set[str]]]:
    found: dict[str, list[set[str]]] = {}
    for text, lang in posts:
        found.setdefault(lang, []).append(tokens(text, lang))
    return found


def _log_odds(window: Sequence[set[str]], background: Sequence[set[str]]) -> dict[str, float]:
    """Standard deviations by which each term of the window stands out; only those that do."""
    inside = Counter(word for words in window for word in words)
    outside = Counter(word for words in background for word in words)
    prior = inside + outside
    total_in, total_out, total = sum(inside.values()), sum(outside.values()), sum(prior.values())
    worth = min(PRIOR_WORTH, PRIOR_PART * total)
    found = {}
    for word, count in inside.items():
        if count < min(MIN_POSTS, len(window)):
            continue
        weight = worth * prior[word] / total
        here = math.log((count + weight) / (total_in + worth - count - weight))
        there = math.log((outside[word] + weight) / (total_out + worth - outside[word] - weight))
        z = (here - there) / math.sqrt(1 / (count + weight) + 1 / (outside[word] + weight))
        if z >= MIN_Z:
            found[word] = z
    return found
