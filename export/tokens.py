"""Is the shipped tokenizer the training's? Both read the same lines of every script, and fuzzed Unicode."""

from __future__ import annotations

import random
import sys
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import islice

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from export.errors import ExportError

LINES = 100_000
"""Lines of real text that an export compares, from all languages in turn."""
FUZZED = 5000
"""Made-up texts that an export compares: half a second."""
_BATCH = 4096
_SHOWN_CHARS = 60


@dataclass(frozen=True)
class Checked:
    """What was compared."""

    lines: int
    fuzzed: int
    scripts: dict[str, int]
    """Real lines by the script of most of their letters, as Unicode names it."""
    identical: int
    """Real lines with the same pieces; the others hold a piece that the cut took away, and are spelt with others."""


def verify(
    training: Tokenizer,
    shipped: Tokenizer,
    kept: NDArray[np.int64],
    texts: Mapping[str, Sequence[str]],
    *,
    limit: int = LINES,
    seed: int = 0,
) -> Checked:
    """Compare two tokenizers piece by piece.

    Where all pieces of a text are kept, the ids must be the same (renumbered); where one is not, the text must come out
    whole, with nothing unknown that was known before.

    Args:
        training: The one that the checkpoint was trained with.
        shipped: The one that goes into the bundle; neither is to cut texts.
        kept: For each id of the shipped one, the id in the training's; *Shape:* ``[pieces]``.
        texts: Lines by language.
        limit: Lines to compare at most.
        seed: Of the fuzzed texts.

    Raises:
        ExportError: A text is read otherwise; it is shown.
    """
    comparison = _Comparison(training, shipped, kept)
    scripts: Counter[str] = Counter()
    lines = list(islice(_in_turn(texts), limit))
    for line in lines:
        scripts[script(line)] += 1
    identical = comparison.run(lines)
    comparison.run(fuzzed(FUZZED, seed))
    return Checked(len(lines), FUZZED, dict(sorted(scripts.items(), key=lambda item: (-item[1], item[0]))), identical)


class _Comparison:
    def __init__(self, training: Tokenizer, shipped: Tokenizer, kept: NDArray[np.int64]) -> None:
        self._training, self._shipped, self._kept = training, shipped, kept
        self._is_kept = np.zeros(max(training.get_vocab_size(), int(kept.max()) + 1), dtype=bool)
        self._is_kept[kept] = True
        self._unknown = training.token_to_id("<unk>")

    def run(self, texts: Iterable[str]) -> int:
        """How many texts have the same pieces.

        Raises:
            ExportError: One is read wrongly.
        """
        identical = 0
        stream = iter(texts)
        while batch := list(islice(stream, _BATCH)):
            before = self._training.encode_batch_fast(batch)
            after = self._shipped.encode_batch_fast(batch)
            for text, old, new in zip(batch, before, after, strict=True):
                renumbered = self._kept[np.asarray(new.ids, dtype=np.int64)].tolist()
                if renumbered == old.ids:
                    identical += 1
                elif self._is_kept[np.asarray(old.ids, dtype=np.int64)].all():
                    raise self._refusal(text, "has other ids")
                elif old.ids.count(self._unknown) < renumbered.count(self._unknown):
                    raise self._refusal(text, "has more unknown pieces")
                elif self._unknown not in old.ids and "".join(old.tokens) != "".join(new.tokens):
                    raise self._refusal(text, "does not come out whole")
        return identical

    def _refusal(self, text: str, what: str) -> ExportError:
        shown = text if len(text) <= _SHOWN_CHARS else text[:_SHOWN_CHARS] + "…"
        return ExportError(
            f"{shown!r} {what} under the shipped tokenizer", where="tokenizer.json", hint="no bundle was written"
        )


def _in_turn(texts: Mapping[str, Sequence[str]]) -> Iterator[str]:
    """One line of each language, then the next: a limit cuts all languages alike."""
    longest = max(map(len, texts.values()), default=0)
    for place in range(longest):
        for lang in sorted(texts):
            if place < len(texts[lang]):
                yield texts[lang][place]


def script(text: str) -> str:
    """The script that most of a text's letters are of, by the first word of their Unicode names.

    >>> script("Привет, world и всё"), script("… 12 !"), script("日本語のテキスト")
    ('CYRILLIC', 'NONE', 'KATAKANA')
    """
    found = Counter(_script_of(char) for char in text if char.isalpha())
    return found.most_common(1)[0][0] if found else "NONE"


@cache
def _script_of(char: str) -> str:
    return unicodedata.name(char, "UNNAMED").partition(" ")[0].partition("-")[0]


_BLOCKS = tuple(range(low, high) for low, high in (
    (0x20, 0x7F), (0xA0, 0x250), (0x300, 0x370), (0x370, 0x530), (0x590, 0x700), (0x900, 0x0E00), (0x0E00, 0x1000),
    (0x1000, 0x1200), (0x1780, 0x1800), (0x2000, 0x2070), (0x20A0, 0x20D0), (0x2100, 0x2190), (0x3000, 0x3100),
    (0x4E00, 0xA000), (0xAC00, 0xD7A4), (0xFB00, 0xFE10), (0xFE20, 0xFFF0), (0x1D400, 0x1D800), (0x1F300, 0x1FB00),
    (0x20000, 0x20100),
))  # fmt: skip
"""Blocks where normalisers and segmenters have their corners: combining marks, joiners, full width, symbols, astral planes."""
_ALL = range(sys.maxunicode + 1)
_SEPARATORS = (
    " ",
    "  ",
    "",
    "\t",
    "\n",
    "\u00a0",
    "\u200b",
    "\u200d",
    "\ufe0f",
    "\u2581",
    "\u3000",
    "<s>",
    "</s>",
    "\u0000",
)


def fuzzed(count: int, seed: int) -> Iterator[str]:
    """Made-up texts of any code point but surrogates, most of them mixed from a few blocks; the same for the same seed."""
    rng = random.Random(seed)
    for _ in range(count):
        parts = []
        for _ in range(rng.randrange(6)):
            block = rng.choice(_BLOCKS) if rng.random() < 0.9 else _ALL
            points = [rng.choice(block) for _ in range(rng.randrange(1, 12))]
            parts.append("".join(chr(point) for point in points if not 0xD800 <= point < 0xE000))
            parts.append(rng.choice(_SEPARATORS))
        yield "".join(parts)
