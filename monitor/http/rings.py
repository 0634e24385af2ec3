"""The last hours of a series in fixed memory: one slot per bucket, filled in any order."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

SLOTS = 360
"""Buckets kept: six hours of minutes, as long as the detect role keeps its evidence by default."""

Table = npt.NDArray[np.float32]


class Ring:
    """Documents, corrected negatives and the inflation of their variance, by bucket number; about 4 kB."""

    __slots__ = ("_newest", "_table")

    def __init__(self) -> None:
        self._newest = -1
        self._table: Table = np.zeros((SLOTS, 3), np.float32)

    def put(self, bucket: int, documents: float, negatives: float, inflation: float) -> None:
        """Set one bucket; what is older than the ring is long is left out.

        >>> ring = Ring()
        >>> ring.put(7, 3, 1, 3); ring.put(5, 9, 0, 9); ring.put(7, 4, 1, 4)
        >>> ring.window(5, 8)[:, 0].tolist()
        [9.0, 0.0, 4.0]
        """
        if self._newest < 0:
            self._newest = bucket
        elif bucket > self._newest:
            passed = range(self._newest + 1, bucket + 1)
            self._table[[b % SLOTS for b in passed] if len(passed) < SLOTS else slice(None)] = 0
            self._newest = bucket
        elif bucket <= self._newest - SLOTS:
            return
        self._table[bucket % SLOTS] = documents, negatives, inflation

    def window(self, first: int, end: int) -> Table:
        """float32 [end - first, 3]: the buckets from `first` up to (not including) `end`, zeros where nothing is known."""
        found: Table = np.zeros((max(0, end - first), 3), np.float32)
        start, stop = max(first, self._newest - SLOTS + 1, 0), min(end, self._newest + 1)
        if start < stop:
            found[start - first : stop - first] = self._table[np.arange(start, stop) % SLOTS]
        return found
