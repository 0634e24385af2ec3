"""Parallel sentences, pairs of them, and how well an encoder finds a sentence's translation."""

from __future__ import annotations

import csv
import random
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from training.corpus import language_code
from training.errors import TrainingError

Group = Mapping[str, str]
"""One sentence, by language."""

_HELD_OUT = frozenset({"dev", "val", "validation", "test"})


def read_groups(path: Path, languages: Sequence[str] = ()) -> list[dict[str, str]]:
    """Parallel sentences of a TSV file.

    Args:
        path: Either one column a language, or the columns ``language``, ``index_id`` and ``text``, where the same index is
            the same sentence.
        languages: Take these only; none named: all.

    Raises:
        TrainingError: It is not there, or holds no parallel sentences.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
            header = next(rows, [])
            groups: defaultdict[str, dict[str, str]] = defaultdict(dict)
            if {"language", "index_id", "text"} <= set(header):
                columns = [header.index(name) for name in ("language", "index_id", "text")]
                codes: dict[str, str] = {}
                for row in rows:
                    lang, index, text = (row[i] for i in columns)
                    groups[index][codes.setdefault(lang, language_code(lang, text))] = text
            else:
                langs = [language_code(code) for code in header]
                for number, row in enumerate(rows):
                    groups[str(number)] = dict(zip(langs, row, strict=True))
    except OSError as error:
        raise TrainingError(f"cannot be read: {error.strerror}", where=str(path)) from None
    except (ValueError, IndexError):
        raise TrainingError(
            "a row has another number of cells than the header", where=str(path), hint="a tab inside a cell?"
        ) from None
    found = [
        {lang: text for lang, text in group.items() if text.strip() and (not languages or lang in languages)}
        for group in groups.values()
    ]
    found = [group for group in found if len(group) > 1]
    if not found:
        raise TrainingError(
            "holds no sentence in two languages",
            where=str(path),
            hint="one column a language, or the columns language, index_id and text",
        )
    return found


def draw_pairs(groups: Sequence[Group], rng: random.Random) -> list[tuple[int, str, str]]:
    """One epoch: for every sentence in every language, a partner in another language of its group.

    Returns:
        Place of the group, and two languages.
    """
    found = []
    for place, group in enumerate(groups):
        langs = sorted(group)
        for lang in langs:
            other = rng.choice([candidate for candidate in langs if candidate != lang])
            found.append((place, lang, other))
    return found


def retrieval(vectors: Mapping[str, NDArray[np.float32]], pivot: str) -> dict[str, float]:
    """Share of sentences whose nearest neighbour among the other language's is their translation; both ways, averaged.

    Args:
        vectors: By language, unit vectors of the same sentences in order; *Shape:* ``[sentences, hidden]``.
        pivot: The language that all others are looked up against.
    """
    found = {}
    for lang in sorted(vectors):
        if lang == pivot:
            continue
        near = vectors[pivot] @ vectors[lang].T
        own = np.arange(len(near))
        found[lang] = float((np.mean(near.argmax(axis=1) == own) + np.mean(near.argmax(axis=0) == own)) / 2)
    return found
