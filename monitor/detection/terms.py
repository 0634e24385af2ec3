"""The terms that set a window of posts apart: log-odds with an informative Dirichlet prior, in any script."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache

import stopwordsiso

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
_HANGUL = re.compile("[\uac00-\ud7a3]")
_KOREAN_PARTICLE = re.compile(
    "(?:에서는|에서도|으로는|이라고|까지|부터|에서|에게|한테|으로|이나|처럼|보다|라고|은|는|이|가|을|를|에|로|도|만|의|와|과|랑|요)$"
)
_HIRAGANA_TAIL = re.compile("(?<=[\u30a0-\u30ff\u3400-\u4dbf\u4e00-\u9fff])[\u3041-\u309f]+$")
_KANA = re.compile("[\u3040-\u30ff]")
_THAI = re.compile("[\u0e00-\u0e7f]")


def tokens(text: str, lang: str) -> set[str]:
    """The words of a text, folded, each once; scripts without spaces are cut into phrases, particles taken off.

    >>> sorted(tokens("Stranded AGAIN at the gate, https://x.example", "en"))
    ['again', 'at', 'gate', 'stranded', 'the']
    """
    return set(_words(text, lang))


def _words(text: str, lang: str) -> dict[str, str]:
    """The words of a text by their folded form, as they were written first."""
    plain = _NOT_TERM.sub(" ", text)
    found: dict[str, str] = {}
    for word in _WORD.findall(_UNSPACED_RUN.sub(" ", plain)):
        stem = _korean_stem(word) if _HANGUL.match(word) else word
        found.setdefault(fold(stem), stem)
    for run in _UNSPACED_RUN.findall(plain):
        for piece in _segmenter(_which(run, lang))(run):
            stem = _japanese_stem(piece)
            found.setdefault(fold(stem), stem)
    return {folded: word for folded, word in found.items() if len(folded) > 1}


def _korean_stem(word: str) -> str:
    """Without the particle at its end, when two syllables are left: "항공편이" and "항공편을" are one term."""
    stem = _KOREAN_PARTICLE.sub("", word)
    return stem if len(stem) >= 2 else word


def _japanese_stem(piece: str) -> str:
    """The phrase up to its last kanji or katakana, when two characters are left: "欠航で" and "欠航が" are one term."""
    if not _KANA.search(piece):
        return piece
    stem = _HIRAGANA_TAIL.sub("", piece)
    return stem if len(stem) >= 2 else piece


@cache
def _stop_words(lang: str) -> frozenset[str]:
    """Words that are never terms, folded; none where the language has no list (stopwords-iso)."""
    code = lang.partition("-")[0]
    return (
        frozenset(fold(word) for word in stopwordsiso.stopwords(code)) if stopwordsiso.has_lang(code) else frozenset()
    )


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
    section 3.5), over the number of posts that hold a term. Stop words carry no news and are left out.

    Each language is compared with itself: what is common in one stands out beside another.

    Args:
        window: (text, language) of each post.
        background: The same of posts from before.
        most: How many terms at most.
        without: Names that every post holds anyway.
    """
    banned = {word for name in without for word in (*tokens(name, ""), fold(name), fold(name).replace(" ", ""))}
    inside, outside = _by_language(window), _by_language(background)
    scored: dict[str, float] = {}
    for lang, posts in inside.items():
        stop_words = _stop_words(lang)
        for word, z in _log_odds(posts, outside.get(lang, [])).items():
            if word.lstrip("#") not in banned and word not in stop_words:
                scored[word] = max(z, scored.get(word, 0.0))
    best = sorted(scored, key=lambda word: (-scored[word], word))[:most]
    return tuple(_as_written(word, inside) for word in best)


def _as_written(folded: str, posts: Mapping[str, Sequence[Mapping[str, str]]]) -> str:
    """The form of a folded word that most posts have, in lower case."""
    forms = Counter(words[folded].lower() for some in posts.values() for words in some if folded in words)
    return min(forms, key=lambda form: (-forms[form], form))


def _by_language(posts: Iterable[tuple[str, str]]) -> dict[str, list[dict[str, str]]]:
    found: dict[str, list[dict[str, str]]] = {}
    for text, lang in posts:
        found.setdefault(lang, []).append(_words(text, lang))
    return found


def _log_odds(window: Sequence[Mapping[str, str]], background: Sequence[Mapping[str, str]]) -> dict[str, float]:
    """Standard deviations by which each term of the window stands out; only those that do."""
    inside = Counter(word for words in window for word in words)
    outside = Counter(word for words in background for word in words)
    prior = inside + outside
    if len(prior) < 2:
        return {}  # a single word has nothing to be compared with
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
