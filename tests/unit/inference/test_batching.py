"""Batching: nothing is lost or repeated, budgets hold, nobody starves, and a failing batch gives up only its culprit."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from monitor.inference.batching import Batcher, Grid, isolate

GRID = Grid.up_to(128, budget_tokens=512, steps_per_octave=2, multiple=8)

lengths = st.lists(st.integers(1, 128), min_size=1, max_size=120)


def drain(batcher: Batcher[int], now: float = 0.0) -> list[tuple[int, list[int]]]:
    found = []
    while (batch := batcher.next(now)) is not None:
        found.append((batch.length, list(batch.items)))
    return found


@given(lengths)
def test_every_document_is_in_one_batch_within_the_budget(tokens: list[int]) -> None:
    batcher: Batcher[int] = Batcher(GRID, starvation_s=1.0, capacity=1000)
    for item, count in enumerate(tokens):
        batcher.add(item, count, 0.0)
    assert batcher.depth == len(tokens)
    batches = drain(batcher)
    assert sorted(item for _, items in batches for item in items) == list(range(len(tokens)))
    for length, items in batches:
        assert length in GRID.lengths
        assert all(tokens[item] <= length for item in items)
        assert GRID.rows_for(len(items)) * length <= 512 or len(items) == 1
    assert batcher.depth == batcher.tokens == 0


@given(lengths)
def test_a_waiting_document_never_waits_while_the_model_is_idle(tokens: list[int]) -> None:
    batcher: Batcher[int] = Batcher(GRID, starvation_s=1.0, capacity=1000)
    for item, count in enumerate(tokens):
        batcher.add(item, count, 0.0)
        assert batcher.next(0.0) is not None


@given(st.lists(st.integers(1, 16), min_size=5, max_size=60))
def test_a_lone_long_document_is_served_once_it_starves(short: list[int]) -> None:
    batcher: Batcher[str] = Batcher(GRID, starvation_s=2.0, capacity=1000)
    batcher.add("long", 120, 0.0)
    for n, count in enumerate(short):
        batcher.add(f"short {n}", count, 2.5)
    batch = batcher.next(3.0)
    assert batch is not None
    assert "long" in batch.items


@given(st.lists(st.integers(1, 8), min_size=2, max_size=60))
def test_within_a_length_the_first_come_are_the_first_served(tokens: list[int]) -> None:
    batcher: Batcher[int] = Batcher(GRID, starvation_s=1.0, capacity=1000)
    for item, count in enumerate(tokens):
        batcher.add(item, count, float(item))
    served = [item for _, items in drain(batcher, 0.0) for item in items]
    assert served == sorted(served)


@given(st.sets(st.integers(0, 40)), st.integers(1, 40))
def test_halving_finds_exactly_the_bad_ones(bad: set[int], count: int) -> None:
    def run(items: list[int]) -> list[int]:  # type: ignore[type-arg]
        if set(items) & bad:
            raise ValueError("no")
        return [item * 2 for item in items]

    found = isolate(run, range(count), ValueError)  # type: ignore[arg-type]
    assert [isinstance(result, ValueError) for result in found] == [item in bad for item in range(count)]
    assert [result for result in found if not isinstance(result, ValueError)] == [
        i * 2 for i in range(count) if i not in bad
    ]
