"""Labelled data sets, as the gate and `evaluate` read them."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from export.checkpoint import ExportError
from training.corpus import language_code


@dataclass(frozen=True)
class Example:
    """One labelled text of a data set."""

    lang: str
    text: str
    label: int


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
