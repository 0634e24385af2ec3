"""What one input partition has finished, in order and without a gap: what may be written and committed; pure."""

from __future__ import annotations

from collections import deque
from typing import Generic, TypeVar

T = TypeVar("T")


class Work(Generic[T]):
    """One piece of work: the records up to (not including) offset `end`, and what came of them."""

    __slots__ = ("end", "memo", "outputs", "records", "size_bytes")

    def __init__(self, end: int, records: int, size_bytes: int, memo: str) -> None:
        self.end = end
        self.memo = memo
        self.records = records
        self.size_bytes = size_bytes
        self.outputs: list[T] | None = None


class Ledger(Generic[T]):
    """Work of one partition in the order it was taken, finished in any order, handed out in the first order.

    A commit covers `take()`'s outputs and its offset together, so a crash at any moment loses nothing: what was not
    handed out is read again.

    >>> ledger = Ledger[str](position=10)
    >>> first, second = ledger.begin(12, 2), ledger.begin(20, 8)
    >>> ledger.finish(second, ["b"])
    >>> ledger.take()
    ([], 10)
    >>> ledger.finish(first, ["a"])
    >>> ledger.take()
    (['a', 'b'], 20)
    """

    def __init__(self, position: int, memo: str = "") -> None:
        self.memo = memo
        """What is to be known beside the offset of the last `take`."""
        self._taken = position
        self._end = position
        self._pending: deque[Work[T]] = deque()

    @property
    def end(self) -> int:
        """The next offset to begin: every record before it is begun."""
        return self._end

    @property
    def records(self) -> int:
        """Records begun and not yet handed out by `take`."""
        return sum(work.records for work in self._pending)

    @property
    def size_bytes(self) -> int:
        """Size of those records."""
        return sum(work.size_bytes for work in self._pending)

    @property
    def ready(self) -> bool:
        """Whether `take` would move on."""
        return bool(self._pending) and self._pending[0].outputs is not None

    def begin(self, end: int, records: int, size_bytes: int = 0) -> Work[T]:
        """Take the work of `records` records, of this size, up to (not including) offset `end`.

        Raises:
            ValueError: `end` does not lie beyond what was begun already.
        """
        if end <= self._end:
            raise ValueError(f"offset {end} was begun already (at {self._end})")
        self._end = end
        work: Work[T] = Work(end, records, size_bytes, self.memo)
        self._pending.append(work)
        return work

    def finish(self, work: Work[T], outputs: list[T]) -> None:
        """Record what came of a piece of work."""
        work.outputs = outputs

    def take(self) -> tuple[list[T], int]:
        """The outputs of all work finished without a gap since the last call, and the offset they reach to."""
        outputs: list[T] = []
        while self._pending and self._pending[0].outputs is not None:
            work = self._pending.popleft()
            outputs.extend(work.outputs or ())
            self._taken = work.end
            self.memo = work.memo
        return outputs, self._taken
