"""Rows of series: found again, grown, removed, stored and restored."""

from dataclasses import fields

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitor.detection import migrations
from monitor.detection.counts import NEGATIVE_VOLUME, ROLLUP, ROW, SIGNALS, VOLUME, Seen, SeriesTable, StateError

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
    factors = np.linspace(0.1, 1.0, len(fields(Seen)))
    seen = Seen(*(column * factor for factor in factors[:-1]), beside=np.outer(column, factors))
    rollups, straight = seen.sum_by(parents)
    shuffled = np.array(order)
    again, mixed = seen.take(shuffled).sum_by(parents[shuffled])
    assert rollups.tolist() == again.tolist() == [0, 7, 9]
    assert straight.expected.tobytes() == mixed.expected.tobytes()
    assert straight.beside.tobytes() == mixed.beside.tobytes()


def test_rows_of_version_1_are_read_and_keep_what_they_knew():
    old = np.zeros(1, migrations.V1)[0]
    old["born"], old["mass"], old["share"], old["held"] = 5, 7.0, (20.0, 100.0, 15.0), (1.0, 5.0, 1.0)
    old["alarm"], old["raised"], old["evidence"][2] = (0, 3, 1), (0, 60_000, 1), 4.0
    old["hour"][3], old["window"]["documents"][1] = (5.0, 6.0), 9.0
    table = SeriesTable()
    table.unpack({("acme", "de"): b"\x00\x01" + old.tobytes()})
    row = table.rows[table.slot(("acme", "de"))]
    assert row["share"].tolist() == [20.0, 100.0, 15.0, 32.0, 19.0]
    assert row["alarm"].tolist() == [0, 3, 0, 0, 1]
    assert row["raised"][1] == 60_000
    assert row["hour"][3].tolist() == [5.0, 6.0]
    assert (row["evidence"][VOLUME] == 1.0).all()  # a quarter for each size of change
    assert (row["window"]["documents"][NEGATIVE_VOLUME] == 9.0).all()
    again = SeriesTable()
    again.unpack(table.pack(table.sorted_slots()))
    assert again.pack(again.sorted_slots()) == table.pack(table.sorted_slots())


@pytest.mark.parametrize("version", [2, 3])
def test_rows_of_versions_2_and_3_are_read(version: int):
    old = np.zeros(1, migrations.version_3(ROW))[0]
    old["mass"], old["alarm"], old["ebb"] = 7.0, (0, 3, 0, 0, 1), 0.5 if version == 3 else np.nan
    old["evidence"] = 4.0
    table = SeriesTable()
    table.unpack({("acme", "de"): version.to_bytes(2, "big") + old.tobytes()})
    row = table.rows[table.slot(("acme", "de"))]
    # Version 2 had unused bytes where 3 has the ebb.
    assert (row["mass"], row["alarm"].tolist(), row["ebb"]) == (7.0, [0, 3, 0, 0, 1], 0.5 if version == 3 else 0.0)
    assert row["evidence"].sum(1) == pytest.approx([4.0] * len(SIGNALS)), "weights of the sizes sum to 1"
    assert not row["purse"].any()
