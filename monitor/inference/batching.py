"""Which documents the model takes next: micro-batches by length, under a token budget, without starvation."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

T = TypeVar("T")
R = TypeVar("R")
E = TypeVar("E", bound=Exception)


@dataclass(frozen=True)
class Grid:
    """The finite set of batch shapes that the model ever sees.

    ONNX Runtime keeps memory for each new shape, so an open set of shapes is a leak. Rows are 1, 2, 3, 4, 6, 8, 12 ...
    (a power of two, or one and a half), so that halving a batch stays on the grid and a batch of waiting documents
    never needs empty rows. Lengths grow by a fixed fraction, which bounds the padding.

    Args:
        lengths: Tokens per row, ascending; the last is the longest text there can be.
        budget_tokens: Rows times length never exceeds this, except for one row alone.
    """

    lengths: tuple[int, ...]
    budget_tokens: int

    @classmethod
    def up_to(cls, max_length: int, *, budget_tokens: int, steps_per_octave: int, multiple: int) -> Grid:
        """A grid whose lengths are multiples of `multiple`, about `steps_per_octave` between a length and its double.

        >>> Grid.up_to(40, budget_tokens=128, steps_per_octave=4, multiple=4).lengths
        (4, 8, 12, 16, 20, 24, 28, 32, 40)
        """
        lengths, length = [], 0
        while length < max_length:
            octave = 1 << max(length, 1).bit_length() - 1
            length = min(length + max(multiple, octave // steps_per_octave), max_length)
            lengths.append(length)
        return cls(tuple(lengths), budget_tokens)

    def length_for(self, tokens: int) -> int:
        """The shortest length that holds a text of so many tokens."""
        return self.lengths[bisect_left(self.lengths, tokens)]

    def rows_within(self, length: int, available: int) -> int:
        """The most rows of this length that fit the budget, are on the grid and can be filled; at least 1."""
        return _rows_at_most(max(1, min(available, self.budget_tokens // length)))

    def rows_for(self, documents: int) -> int:
        """The fewest rows on the grid that hold so many documents."""
        rows = _rows_at_most(documents)
        return rows if rows == documents else _ROWS[bisect_right(_ROWS, rows)]


_ROWS = (1, *sorted([1 << n for n in range(1, 17)] + [3 << n for n in range(16)]))


def _rows_at_most(available: int) -> int:
    return _ROWS[bisect_right(_ROWS, available) - 1]


@dataclass(frozen=True, slots=True)
class Batch(Generic[T]):
    """Documents for one run of the model; all of them are padded to `length` tokens."""

    items: list[T]
    length: int
    tokens: int
    """Of the texts, without padding."""
    waited_s: float
    """How long the oldest of them waited."""


class _Waiting(NamedTuple, Generic[T]):
    item: T
    tokens: int
    added_s: float


class Batcher(Generic[T]):
    """Documents that wait, by length; it owns no thread, no clock and no model.

    It is work-conserving: `next` gives a batch whenever anything waits. It prefers the batch that fills most of the
    budget; once a document has waited `starvation_s`, the longest waiting one goes first. A document is always
    padded to the length of its own tokens, whatever shares its batch.

    Args:
        grid: The shapes to use.
        starvation_s: After this long a document is no longer passed over.
        capacity: The most documents to hold.

    >>> batcher = Batcher[str](Grid((4, 8), budget_tokens=16), starvation_s=1.0, capacity=10)
    >>> for text, tokens in [("a", 3), ("b", 7), ("c", 4)]:
    ...     batcher.add(text, tokens, now=0.0)
    >>> batcher.next(now=0.5)
    Batch(items=['a', 'c'], length=4, tokens=7, waited_s=0.5)
    """

    def __init__(self, grid: Grid, *, starvation_s: float, capacity: int) -> None:
        self._grid = grid
        self._starvation_s = starvation_s
        self._capacity = capacity
        self._buckets: dict[int, deque[_Waiting[T]]] = {length: deque() for length in grid.lengths}
        self._depth = 0
        self._tokens = 0

    @property
    def depth(self) -> int:
        """Documents that wait."""
        return self._depth

    @property
    def tokens(self) -> int:
        """Tokens that wait, without padding."""
        return self._tokens

    def add(self, item: T, tokens: int, now: float) -> None:
        """Let a document wait.

        Args:
            item: Anything.
            tokens: Its length, at most the grid's last.
            now: In seconds; never less than before.

        Raises:
            OverflowError: `capacity` documents wait already.
        """
        if self._depth >= self._capacity:
            raise OverflowError(f"{self._capacity} documents wait already")
        self._buckets[self._grid.length_for(tokens)].append(_Waiting(item, tokens, now))
        self._depth += 1
        self._tokens += tokens

    def next(self, now: float) -> Batch[T] | None:
        """Take the next batch, or None when nothing waits.

        Args:
            now: In seconds.
        """
        if not self._depth:
            return None
        length = self._choose(now)
        bucket = self._buckets[length]
        taken = [bucket.popleft() for _ in range(self._grid.rows_within(length, len(bucket)))]
        tokens = sum(waiting.tokens for waiting in taken)
        self._depth -= len(taken)
        self._tokens -= tokens
        return Batch([waiting.item for waiting in taken], length, tokens, now - taken[0].added_s)

    def _choose(self, now: float) -> int:
        filled = [length for length, bucket in self._buckets.items() if bucket]
        oldest = min(filled, key=self._oldest_s)
        if now - self._oldest_s(oldest) >= self._starvation_s:
            return oldest
        return max(filled, key=lambda length: (self._fill(length), -self._oldest_s(length)))

    def _oldest_s(self, length: int) -> float:
        return self._buckets[length][0].added_s

    def _fill(self, length: int) -> int:
        return length * self._grid.rows_within(length, len(self._buckets[length]))


def isolate(run: Callable[[Sequence[T]], Sequence[R]], items: Sequence[T], error: type[E]) -> list[R | E]:
    """Run a batch; when it fails, halve it until the items at fault stand alone with their errors.

    One bad item among n costs about 2 log2(n) runs more.

    Args:
        run: One result for each item, in order, or an exception for all of them.
        items: The batch, not empty.
        error: The exception that may be an item's fault; any other goes through.

    Returns:
        For each item its result or its error.

    >>> isolate(lambda xs: [1 / x for x in xs], [1, 2, 0, 4], ZeroDivisionError)
    [1.0, 0.5, ZeroDivisionError('division by zero'), 0.25]
    """
    try:
        return [*run(items)]
    except error as failure:
        if len(items) == 1:
            return [failure]
    half = len(items) // 2
    return [*isolate(run, items[:half], error), *isolate(run, items[half:], error)]
