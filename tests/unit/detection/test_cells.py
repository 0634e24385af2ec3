"""What is kept of an entity: found by time, forgotten in time, and small however long an incident lasts."""

from __future__ import annotations

from collections.abc import Sequence
from heapq import nsmallest

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from monitor.detection.cells import (
    MAX_IDS,
    MAX_SOURCES,
    THINNED_NEGATIVE,
    THINNED_OTHER,
    Cell,
    CellStore,
    hash64,
)
from monitor.records import Opinion

MINUTE_MS = 60_000


def fill(cell: Cell, negatives: int = 10, embedding: str = "") -> Cell:
    for n in range(negatives + 5):
        sentiment = (0.8, 0.1, 0.1) if n < negatives else (0.1, 0.8, 0.1)
        cell.add(
            Opinion(id=f"o{n}", document_id=f"d{n}", entity="e", published_ms=n, lang="en", sentiment=sentiment, embedding=embedding)
        )  # fmt: skip
    cell.close()
    return cell


def store(entities: tuple[str, ...], minutes: int) -> CellStore:
    cells = CellStore()
    for entity in entities:
        for minute in reversed(range(minutes)):
            fill(cells.open(entity, minute * MINUTE_MS))
    return cells


def test_cells_are_found_by_entity_and_by_bucket_in_order() -> None:
    cells = store(("b", "a"), 5)
    assert [bucket for bucket, _ in cells.of("a", 3 * MINUTE_MS)] == [0, MINUTE_MS, 2 * MINUTE_MS]
    assert [entity for entity, _ in cells.at(MINUTE_MS)] == ["a", "b"]
    assert cells.buckets(MINUTE_MS, 3 * MINUTE_MS) == [MINUTE_MS, 2 * MINUTE_MS]
    assert cells.get("c", 0) is None
    assert len(list(cells)) == 10


def test_old_cells_go_and_those_of_an_incident_are_thinned() -> None:
    cells = store(("a", "b"), 10)
    gone, thinned = cells.expire(6 * MINUTE_MS, {"a": 2 * MINUTE_MS})
    assert {entity for entity, _ in gone} == {"a", "b"}
    assert len(gone) == 2 + 6
    assert sorted(thinned) == [("a", minute * MINUTE_MS) for minute in range(2, 6)]
    for bucket, cell in cells.of("a", 10 * MINUTE_MS):
        thin = bucket < 6 * MINUTE_MS
        assert (len(cell.negative) <= THINNED_NEGATIVE) is thin
        assert (len(cell.other) <= THINNED_OTHER) is thin
        assert cell.documents == 15, "the counts are whole"
    assert cells.expire(7 * MINUTE_MS, {"a": 2 * MINUTE_MS}) == ([("b", 6 * MINUTE_MS)], [("a", 6 * MINUTE_MS)])
    gone, _ = cells.expire(7 * MINUTE_MS, {})
    assert {entity for entity, _ in gone} == {"a"}, "the incident is over"
    assert len(gone) == 5


def test_an_embedding_that_cannot_be_read_is_none() -> None:
    assert {sample.embedding for sample in fill(Cell(), embedding="AQL+").negative} == {b"\x01\x02\xfe"}
    assert {sample.embedding for sample in fill(Cell(), embedding="not base64!").negative} == {b""}
    assert {sample.embedding for sample in fill(Cell(), embedding="AQL+").other} == {b""}, (
        "only what is shown as evidence"
    )


def test_a_cell_of_very_many_opinions_stays_one_record_and_counts_as_before() -> None:
    def say(number: int) -> Opinion:
        return Opinion(
            id=f"d{number}|a", document_id=f"d{number}", entity="a", lang="en", published_ms=1, text="bad",
            sentiment=(0.9, 0.05, 0.05), author=f"author {number}",
        )  # fmt: skip

    cell, count = Cell(), 30 * MAX_SOURCES
    assert all(cell.add(say(number)) for number in range(count))
    assert not any(cell.add(say(number)) for number in range(count))
    cell.ids |= {hash64(f"more {number}") for number in range(2 * MAX_IDS - 1 - count)}
    assert 700_000 < len(msgspec.msgpack.encode(cell)) < 900_000
    known = cell.ids | {hash64(say(count).id)}
    assert cell.add(say(count))
    assert cell.ids == set(nsmallest(MAX_IDS, known))
    assert cell.documents == count + 1
    cell.close()
    assert cell.authors == set(nsmallest(MAX_SOURCES, {hash64(f"author {number}") for number in range(count + 1)}))


@given(st.permutations(range(40)))
def test_sampling_weights_are_summed_exactly_in_any_order(order: list[int]) -> None:
    def filled(places: Sequence[int]) -> Cell:
        cell = Cell()
        for n in places:
            cell.add(
                Opinion(
                    id=f"o{n}", document_id=f"d{n}", entity="e", published_ms=n, lang="en", sentiment=(0.8, 0.1, 0.1), source="s",
                    reach=3, weight=(1.0, 100.0, 0.0625, 65_536.0)[n % 4], repost_of="d0" if n == 1 else "",
                )
            )  # fmt: skip
        cell.close()
        return cell

    straight, mixed = filled(range(40)), filled(order)
    assert straight == mixed
    total, squares = 10 * (1 + 100 + 0.0625 + 65_536), 10 * (1 + 100**2 + 0.0625**2 + 65_536**2)
    assert straight.counts["en"] == [total, 0, 0, 100, squares]
    assert straight.sources["s"] == total
