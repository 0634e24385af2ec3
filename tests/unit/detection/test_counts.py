"""Rows of series: found again, grown, removed, stored and restored."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitor.detection.counts import ROLLUP, Seen, SeriesTable, StateError

HOUR_MS = 3_600_000


def find(table: SeriesTable, *keys: tuple[str, str]) -> list[int]:
    return table.find(keys, bucket_ms=HOUR_MS, bucket_length_ms=60_000).tolist()


def test_a_language_brings_its_entitys_rollup_with_it():
    table = SeriesTable()
    (german,) = find(table, ("a", "de"))
    rollup = table.slot(("a", ROLLUP))
    assert rollup is not None
    assert table.rollup[german] == rollup == table.rollup[rollup]
    find(table, ("a", "fr"), ("a", "de"))
    assert table.rows["languages"][rollup] == 2


def test_a_series_keeps_its_row_when_the_table_grows():
    table = SeriesTable()
    (first,) = find(table, ("first", "de"))
    table.rows["mass"][first] = 7.0
    find(table, *((f"e{number}", "de") for number in range(5_000)))
    assert find(table, ("first", "de")) == [first]
    assert table.rows["mass"][first] == 7.0
    assert len(table) == 10_002


def test_a_removed_row_is_used_again_and_clean():
    table = SeriesTable()
    (slot,) = find(table, ("a", "de"))
    table.rows["mass"][slot] = 7.0
    table.remove([("a", "de"), ("a", ROLLUP)])
    slots = find(table, ("b", "de"), ("b", ROLLUP))
    assert slot in slots
    assert not table.rows["mass"][slots].any()


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["de", "fr", "th"])), unique=True, min_size=1))
def test_stored_rows_come_back_as_they_were_wherever_they_land(keys: list[tuple[str, str]]):
    table = SeriesTable()
    for number, slot in enumerate(find(table, *keys)):
        table.rows["mass"][slot] = number + 0.5
    stored = table.pack(table.sorted_slots())
    other = SeriesTable()
    find(other, ("z", "xx"))
    other.unpack(dict(reversed(stored.items())))
    assert {key: value for key, value in other.pack(other.sorted_slots()).items() if key[0] != "z"} == stored


@pytest.mark.parametrize("damage", [lambda b: b[:-1], lambda b: b"\x00\x63" + b[2:], lambda _: b""])
def test_damaged_or_foreign_state_is_refused_by_name(damage):
    table = SeriesTable()
    find(table, ("acme", "de"))
    stored = table.pack(table.sorted_slots())
    with pytest.raises(StateError, match="acme/de"):
        SeriesTable().unpack({("acme", "de"): damage(stored["acme", "de"])})


@given(st.permutations(range(12)), st.lists(st.floats(0, 1e6), min_size=12, max_size=12))
def test_a_rollup_does_not_depend_on_the_order_of_its_languages(order: list[int], values: list[float]):
    parents = np.array([0, 0, 0, 7, 7, 7, 7, 9, 9, 9, 9, 9])
    column = np.array(values)
    seen = Seen(*(column * factor for factor in np.linspace(0.1, 1.0, 10)))
    rollups, straight = seen.sum_by(parents)
    shuffled = np.array(order)
    again, mixed = seen.take(shuffled).sum_by(parents[shuffled])
    assert rollups.tolist() == again.tolist() == [0, 7, 9]
    assert straight.expected.tobytes() == mixed.expected.tobytes()
