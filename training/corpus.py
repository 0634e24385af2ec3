"""Text of many languages, with the language codes that the daemon uses: for the vocabulary, the gate and the benchmarks."""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

from training.errors import TrainingError

UNSPACED = frozenset({"zh", "ja", "th", "km", "lo", "my"})
"""Languages written without spaces between words: their words are met in the middle of a run of letters."""

ROMANISED_HINDI = "hi-Latn"

_HELD_OUT = frozenset({"dev", "val", "validation", "test"})


def language_code(code: str, text: str = "") -> str:
    """The short code that the daemon uses for a language, given a data set's own.

    >>> language_code("eng_Latn"), language_code("pt-BR"), language_code("arb_Arab"), language_code("hi", "kya baat hai")
    ('en', 'pt', 'ar', 'hi-Latn')
    """
    import langcodes  # comes with wordfreq

    lang = langcodes.Language.get(code.replace("_", "-"), normalize=True).language or "und"
    lang = {"arb": "ar", "pes": "fa", "cmn": "zh", "nb": "no"}.get(lang, lang)
    if lang == "hi" and text and not _has_devanagari(text):
        return ROMANISED_HINDI
    return lang


def _has_devanagari(text: str) -> bool:
    return any("\u0900" <= char <= "\u097f" for char in text)


def read_texts(data_dir: Path) -> dict[str, list[str]]:
    """All texts under a folder, by language.

    Reads every ``*/*.tsv`` with a header: one with a ``text`` column as labelled texts, one whose columns are
    language codes as parallel text. Validation and test splits are left alone, so that what is chosen by these texts can
    be measured on those.

    Raises:
        TrainingError: The folder holds no such file.
    """
    texts: defaultdict[str, list[str]] = defaultdict(list)
    for path in sorted(data_dir.glob("*/*.tsv")):
        if path.stem in _HELD_OUT:
            continue
        for lang, text in rows(path):
            texts[lang].append(text)
    if not texts:
        raise TrainingError("holds no */*.tsv with texts", where=str(data_dir), hint="point --data at the data folder")
    return dict(sorted(texts.items()))


def rows(path: Path) -> Iterator[tuple[str, str]]:
    """Language code and text of each cell of a TSV file with `language` and `text`, or with one column a language."""
    with path.open(encoding="utf-8", newline="") as file:
        reader = csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        header = next(reader, [])
        codes: dict[tuple[str, bool], str] = {}
        for row in reader:
            if len(row) != len(header):
                continue
            cells: Iterable[tuple[str, str]] = zip(header, row, strict=True)
            if "text" in header:
                cells = [(row[header.index("language")], row[header.index("text")])]
            for code, text in cells:
                key = (code, _has_devanagari(text))
                if key not in codes:
                    codes[key] = language_code(code, text)
                yield codes[key], text


def word_lists() -> dict[str, list[tuple[str, float]]]:
    """Words with their frequencies, by language, from the package ``wordfreq`` (Speer 2022)."""
    import wordfreq

    lists = {}
    for code in wordfreq.available_languages("small"):
        words = wordfreq.get_frequency_dict(code, wordlist="small")
        lists[language_code(code)] = sorted(words.items(), key=lambda item: (-item[1], item[0]))
    return lists
