"""Labelled data sets, as the gate and `evaluate` read them: whatever the file's kind and its columns are called."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from export.errors import ExportError
from training.corpus import language_code
from training.data.mapping import load_mapping, map_rows
from training.data.readers import read_rows
from training.errors import TrainingError

_TEXT = ("text", "sentence", "content", "tweet", "review", "body", "comment", "document")
_LABEL = ("label", "category", "sentiment", "topic", "class", "polarity", "target")
_LANGUAGE = ("language", "lang", "locale")
"""Names that a column is looked for by, in this order, whatever the case."""
_SHORT = {"neg": "negative", "neu": "neutral", "pos": "positive", "mixed": "neutral"}
"""What data sets write for a label beside its name and its number."""
_SHOWN = 5
"""Rows that an error names."""


@dataclass(frozen=True)
class Example:
    """One labelled text of a data set."""

    lang: str
    text: str
    label: int


@dataclass(frozen=True)
class Columns:
    """How a data set is to be read; what is empty is found by the usual names."""

    text: str = ""
    label: str = ""
    language: str = ""
    lang: str = ""
    """The language of all texts, instead of a column."""
    labels: Mapping[str, str] = field(default_factory=dict)
    """Label in the file to label of the head; to an empty string: the row is left out."""
    mapping: str = ""
    """A mapping file of training (or the name of one that comes along) instead of all the above."""


def read_examples(path: Path, labels: Sequence[str], columns: Columns | None = None) -> list[Example]:
    """A labelled data set: TSV, CSV, JSON Lines or Parquet.

    Args:
        path: The file.
        labels: The head's labels; a label in the file is one of these words in any case, its number, or a short form.
        columns: Where the columns or labels are called otherwise.

    Raises:
        ExportError: No such file, a missing column or an unknown label, with its row.
    """
    columns = columns or Columns()
    try:
        rows = list(read_rows(path))
        if columns.mapping:
            mapping = load_mapping(columns.mapping, Path())
            mapped = map_rows(rows, mapping, tuple(labels), path.stem, str(path))
            return [Example(found.lang, found.text, found.label) for found in mapped.examples]
    except TrainingError as error:
        raise ExportError(error.what, where=error.where, hint=error.hint) from None
    if not rows:
        raise ExportError("holds no examples", where=str(path))
    names = list(rows[0][1])
    text, label = (
        _column(columns.text, _TEXT, names, "text", path),
        _column(columns.label, _LABEL, names, "label", path),
    )
    language = "" if columns.lang else _column(columns.language, _LANGUAGE, names, "language", path)
    numbers = _numbers(labels, columns.labels, path)
    examples, wrong = [], []
    for number, row in rows:
        found = numbers.get(row[label].strip().casefold())
        if found is None:
            wrong.append(f"row {number}: {row[label]!r}")
        elif found >= 0 and row[text].strip():
            examples.append(Example(columns.lang or language_code(row[language], row[text]), row[text], found))
    if wrong:
        more = f" and {len(wrong) - _SHOWN} more" if len(wrong) > _SHOWN else ""
        raise ExportError(
            f"unknown labels in {label!r}: {'; '.join(wrong[:_SHOWN])}{more}",
            where=str(path),
            hint=f"known: {', '.join(labels)}; name others with --map THERE=HERE",
        )
    if not examples:
        raise ExportError("holds no examples", where=str(path))
    return examples


def _column(wanted: str, usual: Sequence[str], names: Sequence[str], what: str, path: Path) -> str:
    folded = {name.strip().casefold(): name for name in names}
    for name in (wanted,) if wanted else usual:
        if name.casefold() in folded:
            return folded[name.casefold()]
    missing = repr(wanted) if wanted else f"for the {what} ({', '.join(usual)})"
    hint = f"it has {', '.join(names)}; name it with --{what}" + (" or --lang CODE" if what == "language" else "")
    raise ExportError(f"has no column {missing}", where=str(path), hint=hint)


def _numbers(labels: Sequence[str], named: Mapping[str, str], path: Path) -> dict[str, int]:
    """Place of each label by what the file may call it, folded; -1 for one that is left out."""
    places = {label.casefold(): i for i, label in enumerate(labels)}
    known = {str(i): i for i in range(len(labels))} | places
    known |= {short: places[long] for short, long in _SHORT.items() if long in places and short not in known}
    for there, here in named.items():
        if here and here.casefold() not in places:
            raise ExportError(
                f"the head has no label {here!r}", where=f"--map {there}={here}", hint=f"it has {', '.join(labels)}"
            )
        known[there.casefold()] = places[here.casefold()] if here else -1
    return known
