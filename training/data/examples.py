"""The labelled text, and the prepared data of a run as files."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import msgspec


class Example(msgspec.Struct, frozen=True):
    """One labelled text."""

    head: str
    label: int
    """Place among the head's labels."""
    lang: str
    """Short code as the daemon's (`training.corpus.language_code`)."""
    text: str
    source: str
    row: int
    """Line in the source's file, for people; the header is line 1."""
    group: str = ""
    """Texts of one group (the same sentence in other languages) are in one split together."""


class Dataset(msgspec.Struct, frozen=True):
    """All examples of a run."""

    train: list[Example]
    validation: list[Example]
    """Of languages left out of training too."""
    test: list[Example]

    def save(self, folder: Path) -> None:
        """One JSON Lines file per split."""
        for split in self.__struct_fields__:
            write_examples(folder / f"{split}.jsonl", getattr(self, split))

    @classmethod
    def load(cls, folder: Path) -> Dataset:
        """What `save` wrote."""
        return cls(*(read_examples(folder / f"{split}.jsonl") for split in cls.__struct_fields__))


def write_examples(path: Path, examples: Iterable[Example]) -> None:
    """Write JSON Lines."""
    encoder = msgspec.json.Encoder()
    path.write_bytes(b"".join(encoder.encode(example) + b"\n" for example in examples))


def read_examples(path: Path) -> list[Example]:
    """Read JSON Lines."""
    decoder = msgspec.json.Decoder(Example)
    return [decoder.decode(line) for line in path.read_bytes().splitlines()]
