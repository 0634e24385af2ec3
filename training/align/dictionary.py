"""Bilingual dictionaries of FreeDict, as Debian packages them, and code-switching by them."""

from __future__ import annotations

import gzip
import random
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from training.align.translate import _codes
from training.errors import TrainingError

FOLDER = Path("/usr/share/dictd")
"""Where the packages `dict-freedict-*` put their files."""

Dictionary = Mapping[str, Sequence[str]]
"""Words in lower case to their translations, the first the commonest."""

_ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
_MAX_WORDS = 2
"""Longer translations explain a word rather than put another in its place."""
_ASIDE = re.compile(r"<[^>]*>|\[[^\]]*\]|\([^)]*\)|\{[^}]*\}|„[^“]*“|\"[^\"]*\"")
_NUMBERED = re.compile(r"^\d+\.\s*")
_WORD = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*")


def load_dictionary(source: str, target: str, folder: Path = FOLDER) -> dict[str, list[str]]:
    """The dictionary from one language into another.

    Args:
        source: A language, as the daemon codes it.
        target: Another.
        folder: Holds ``freedict-XXX-YYY.index`` and ``.dict.dz`` (dictd's format: an index of headword, offset and length in
            digits of base 64, and the entries in one gzip file).

    Raises:
        TrainingError: It is not installed or damaged.
    """
    name = f"freedict-{_codes(source)[0]}-{_codes(target)[0]}"
    index, entries = folder / f"{name}.index", folder / f"{name}.dict.dz"
    if not index.exists() or not entries.exists():
        raise TrainingError("is not installed", where=name, hint=f"apt-get install dict-{name}")
    try:
        content = gzip.decompress(entries.read_bytes())
        found: defaultdict[str, list[str]] = defaultdict(list)
        for line in index.read_text(encoding="utf-8").splitlines():
            word, offset, length = line.split("\t")[:3]
            if word.startswith("00") or " " in word:
                continue
            start = _number(offset)
            for translation in _translations(content[start : start + _number(length)].decode("utf-8")):
                if translation not in found[word.casefold()]:
                    found[word.casefold()].append(translation)
    except (OSError, ValueError, EOFError) as error:
        raise TrainingError(f"is damaged: {error}", where=str(index), hint="install the package again") from None
    return {word: translations for word, translations in found.items() if translations}


def _number(digits: str) -> int:
    """
    >>> _number("BGy")
    4530
    """
    value = 0
    for digit in digits:
        value = value * 64 + _ALPHABET.index(digit)
    return value


def _translations(entry: str) -> list[str]:
    """The words of an entry: its lines after the headword that are not indented, without remarks."""
    found = []
    for line in entry.splitlines()[1:]:
        if not line.strip() or line[0].isspace():
            continue
        for part in re.split(r"[,;]", _NUMBERED.sub("", _ASIDE.sub("", line))):
            words = " ".join(part.split())
            if words and len(words.split()) <= _MAX_WORDS and any(char.isalpha() for char in words):
                found.append(words)
    return found


def switch(text: str, dictionaries: Sequence[Dictionary], share: float, rng: random.Random) -> str:
    """Put translations in the place of some words (Qin et al. 2020, "CoSDA-ML", section 3.2).

    Args:
        text: Any; what is no word (links, handles, tags) stays.
        dictionaries: One is drawn for each word.
        share: Of the words that are replaced where a dictionary has them, 0 to 1.
        rng: Draws.
    """

    def replaced(match: re.Match[str]) -> str:
        word = match.group()
        before = text[match.start() - 1] if match.start() else " "
        if before in "@#/.:&" or rng.random() >= share:
            return word
        known = rng.choice(dictionaries).get(word.casefold())
        if not known:
            return word
        # The first are the commonest: half of the draws are the first, a quarter the second ...
        place = min(int(rng.expovariate(0.7)), len(known) - 1)
        return _cased(known[place], word)

    return _WORD.sub(replaced, text)


def _cased(translation: str, word: str) -> str:
    if word.isupper() and len(word) > 1:
        return translation.upper()
    return translation[:1].upper() + translation[1:] if word[:1].isupper() else translation
