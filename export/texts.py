"""The texts that an export is made and checked with: from the run that trained the checkpoint, and from a data folder."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np

from export.corpus import Example, read_examples
from export.errors import ExportError
from export.parity import Sample
from monitor.inference.bundle import Head
from training import corpus
from training.data.examples import Dataset

_Item = TypeVar("_Item")

_LABELLED_TEXTS = 400
"""Per head and language in the gate: enough to see a fall of a few tenths over some languages, and minutes on two cores."""
_UNLABELLED_TEXTS = 40
"""Per language in the gate: 47 languages of them take about a minute on two cores."""


@dataclass(frozen=True)
class Texts:
    """By language or by head; any part may be empty, and what rests on it is then not done."""

    lines: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """By language: for the vocabulary, the tokenizer, the gate and the benchmark."""
    words: Mapping[str, Sequence[tuple[str, float]]] = field(default_factory=dict)
    """By language, with frequencies: for the vocabulary."""
    examples: Mapping[str, Sequence[Example]] = field(default_factory=dict)
    """By head: labelled validation texts for the gate."""

    @property
    def languages(self) -> tuple[str, ...]:
        """All of them, in order."""
        return tuple(sorted(set(self.lines) | set(self.words)))

    def samples(self) -> list[Sample]:
        """What the parity gate compares: labelled texts by head and language, then some of each language without."""
        found = []
        for head, examples in self.examples.items():
            for lang in sorted({example.lang for example in examples}):
                chosen = _spread([example for example in examples if example.lang == lang], _LABELLED_TEXTS)
                labels = np.array([example.label for example in chosen], dtype=np.int64)
                found.append(Sample(lang, [example.text for example in chosen], head, labels))
        for lang, lines in sorted(self.lines.items()):
            found.append(Sample(lang, list(_spread(lines, _UNLABELLED_TEXTS))))
        return found


def gather(run: Path, heads: Sequence[Head], data: Path | None = None) -> Texts:
    """Texts of a training run, and of a data folder beside it.

    Args:
        run: A run's folder (its ``data/`` is read), or a checkpoint alone.
        heads: Of the checkpoint.
        data: Holds ``*/*.tsv`` for lines, and ``*/val.tsv`` and ``*/dev.tsv`` for labelled texts of heads that the run
            has none for.

    Raises:
        ExportError: The data folder is not there or holds nothing.
    """
    lines: defaultdict[str, list[str]] = defaultdict(list)
    examples: defaultdict[str, list[Example]] = defaultdict(list)
    prepared = next((folder / "data" for folder in (run, run.parent) if (folder / "data").is_dir()), None)
    if prepared is not None and (prepared / "validation.jsonl").exists():
        trained = Dataset.load(prepared)
        for example in trained.train:
            lines[example.lang].append(example.text)
        for example in trained.validation:
            examples[example.head].append(Example(example.lang, example.text, example.label))
    if data is not None:
        if not data.is_dir():
            raise ExportError("no such folder", where=str(data), hint="point --data at the data folder")
        for lang, found in corpus.read_texts(data).items():
            lines[lang] += found
        for name, labelled in _labelled(data, heads).items():
            if name not in examples:
                examples[name] = labelled
    known = {head.name for head in heads}
    return Texts(
        lines={lang: list(dict.fromkeys(found)) for lang, found in sorted(lines.items())},
        words=corpus.word_lists(),
        examples={name: found for name, found in sorted(examples.items()) if name in known},
    )


def _labelled(data: Path, heads: Sequence[Head]) -> dict[str, list[Example]]:
    found: defaultdict[str, list[Example]] = defaultdict(list)
    for path in sorted([*data.glob("*/val.tsv"), *data.glob("*/dev.tsv")]):
        for head in heads:
            try:
                found[head.name] += read_examples(path, head.labels)
            except ExportError:
                continue  # labels of another head
            break
    return found


def _spread(items: Sequence[_Item], count: int) -> Sequence[_Item]:
    """At most so many, evenly from all of them."""
    return items if len(items) <= count else [items[i * len(items) // count] for i in range(count)]
