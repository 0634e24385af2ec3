"""Near-duplicates: texts of one language whose character 4-grams overlap (MinHash with bands, every pair then checked)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

_GRAM = 4
_BANDS, _ROWS = 16, 4
"""A pair of similarity 0.8 meets in some band with probability 1-(1-0.8^4)^16 = 0.9998 (Leskovec et al., Mining of Massive
Datasets, section 3.4), one of 0.3 with 0.12, and is then counted out by the check."""
_SHORT = 24
"""Below so many characters one other word makes another text: only equal ones are duplicates."""
_PRIME = (1 << 31) - 1


def near_duplicates(essences: Sequence[str], langs: Sequence[str], similarity: float) -> list[int]:
    """For each text the first text that it repeats, or its own place.

    Args:
        essences: As `clean.essence` gives them.
        langs: Their languages: only texts of one language are compared.
        similarity: Jaccard similarity of the sets of 4-grams from which two are one.

    Returns:
        Places; ``found[i] <= i``.
    """
    first: dict[tuple[str, str], int] = {}
    found = [
        first.setdefault((lang, text), place) if text else place
        for place, (lang, text) in enumerate(zip(langs, essences, strict=True))
    ]
    long = [place for place, text in enumerate(essences) if len(text) >= _SHORT and found[place] == place]
    grams = {place: _grams(essences[place]) for place in long}
    for left, right in _candidates(long, grams, langs):
        a, b = grams[left], grams[right]
        shared = len(np.intersect1d(a, b, assume_unique=True))
        if shared >= similarity * (len(a) + len(b) - shared):
            left, right = _root(found, left), _root(found, right)
            found[max(left, right)] = min(left, right)
    return [_root(found, place) for place in range(len(found))]


def _root(found: list[int], place: int) -> int:
    while found[place] != place:
        place = found[place]
    return place


def _grams(text: str) -> NDArray[np.int64]:
    data = text.encode("utf-32-le")
    return np.unique(np.array([crc32(data[at : at + 4 * _GRAM]) for at in range(0, len(data) - 4 * _GRAM + 1, 4)], dtype=np.int64))  # fmt: skip


def _candidates(
    places: Sequence[int], grams: dict[int, NDArray[np.int64]], langs: Sequence[str]
) -> Iterator[tuple[int, int]]:
    rng = np.random.default_rng(0)  # of the hash functions: any will do, the same each time
    scale = rng.integers(1, _PRIME, _BANDS * _ROWS, dtype=np.int64)
    shift = rng.integers(0, _PRIME, _BANDS * _ROWS, dtype=np.int64)
    buckets: dict[tuple[str, int, bytes], int] = {}
    seen: set[tuple[int, int]] = set()
    for place in places:
        hashes = ((grams[place][:, None] % _PRIME) * scale + shift) % _PRIME
        bands = hashes.min(axis=0).reshape(_BANDS, _ROWS)
        for band in range(_BANDS):
            other = buckets.setdefault((langs[place], band, bands[band].tobytes()), place)
            if other != place and (other, place) not in seen:
                seen.add((other, place))
                yield other, place
