"""Text of many languages for the choice of the vocabulary, the parity gate and the benchmarks."""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from export.checkpoint import ExportError

UNSPACED = frozenset({"zh", "ja", "th", "km", "lo", "my"})
"""Languages written without spaces between words: their words are met in the middle of a run of letters."""

ROMANISED_HINDI = "hi-Latn"

_HELD_OUT = frozenset({"dev", "val", "validation", "test"})


@dataclass(frozen=True)
class Example:
    """One labelled text of a data set."""

    lang: str
    text: str
    label: int


def language_code(code: str, text: str = "") -> str:
    """The short code that the daemon uses for a language, given a data set's own.

    >>> language_code("eng_Latn"), language_code("pt-BR"), language_code("arb_Arab"), language_code("hi", "kya baat hai")
    ('en', 'pt', 'ar', 'hi-Latn')
    """
    import langcodes  # comes with wordfreq, which only export needs

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
        ExportError: The folder holds no such file.
    """
    texts: defaultdict[str, list[str]] = defaultdict(list)
    for path in sorted(data_dir.glob("*/*.tsv")):
        if path.stem in _HELD_OUT:
            continue
        for lang, text in _rows(path):
            texts[lang].append(text)
    if not texts:
        raise ExportError("holds no */*.tsv with texts", where=str(data_dir), hint="point --data at the data folder")
    return dict(sorted(texts.items()))


def _rows(path: Path) -> Iterator[tuple[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        rows = csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        header = next(rows, [])
        codes: dict[tuple[str, bool], str] = {}
        for row in rows:
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


def read_examples(path: Path, labels: Sequence[str]) -> list[Example]:
    """A labelled data set: TSV with the columns ``language``, ``text`` and ``label`` or ``category``.

    Args:
        path: The file.
        labels: The head's labels; a label in the file is one of these words or its number.

    Raises:
        ExportError: No such file, a missing column or an unknown label, with its line.
    """
    numbers = {name: i for i, name in enumerate(labels)} | {str(i): i for i in range(len(labels))}
    try:
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
            fields = reader.fieldnames or []
            column = next((name for name in ("label", "category") if name in fields), "")
            if not column or "language" not in fields or "text" not in fields:
                raise ExportError(
                    "needs the tab-separated columns language, text and label",
                    where=str(path),
                    hint=f"it has {list(fields)}",
                )
            examples = []
            for row in reader:
                if row[column] not in numbers:
                    raise ExportError(
                        f"unknown label {row[column]!r}",
                        where=f"{path}:{reader.line_num}",
                        hint=f"known: {', '.join(labels)}",
                    )
                examples.append(Example(language_code(row["language"], row["text"]), row["text"], numbers[row[column]]))
    except OSError as error:
        raise ExportError(f"cannot be read: {error.strerror}", where=str(path)) from None
    if not examples:
        raise ExportError("holds no examples", where=str(path))
    return examples


def word_lists() -> dict[str, list[tuple[str, float]]]:
    """Words with their frequencies, by language, from the package ``wordfreq`` (Speer 2022)."""
    import wordfreq

    lists = {}
    for code in wordfreq.available_languages("small"):
        words = wordfreq.get_frequency_dict(code, wordlist="small")
        lists[language_code(code)] = sorted(words.items(), key=lambda item: (-item[1], item[0]))
    return lists
