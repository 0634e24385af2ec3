"""Repeats: reposts are recognised, chance resemblance is not, and re-reading the window rebuilds it."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from monitor.documents.duplicates import Duplicates, Kind

STORY = "Northwind Air left two hundred passengers on the floor of the airport overnight"


def kinds(*texts: str) -> list[Kind]:
    duplicates = Duplicates()
    return [duplicates.check(f"d{n}", text, 1000 * n, n).kind for n, text in enumerate(texts)]


def test_reposts_in_their_many_dresses() -> None:
    assert (
        kinds(
            STORY,
            f"RT @ann: {STORY}",
            f"{STORY} https://t.example/abc",
            f"{STORY.upper()}!!! 😡",
            f"{STORY} via @news",
            f"{STORY[:70]}… https://t.example/z",
        )
        == [Kind.NEW] + [Kind.REPOST] * 5
    )


def test_different_words_and_short_cries_are_new() -> None:
    assert (
        kinds(STORY, STORY.replace("two hundred", "three hundred"), "so bad!!", "so bad", "So bad…") == [Kind.NEW] * 5
    )


def test_the_same_id_is_a_duplicate_whatever_it_says() -> None:
    duplicates = Duplicates()
    duplicates.check("a", STORY, 0, 0)
    assert duplicates.check("a", "something else entirely here", 0, 1).kind is Kind.DUPLICATE


def test_a_repost_names_the_one_before_it() -> None:
    duplicates = Duplicates()
    duplicates.check("first", STORY, 0, 0)
    duplicates.check("second", f"RT {STORY}", 1, 1)
    verdict = duplicates.check("third", f"RT @x: {STORY}", 2, 2)
    assert (verdict.kind, verdict.of) == (Kind.REPOST, "second")


def test_after_the_window_a_story_is_news_again() -> None:
    duplicates = Duplicates(window_records=10)
    duplicates.check("a", STORY, 0, 0)
    assert duplicates.check("b", STORY, 1, 11).kind is Kind.NEW
    assert Duplicates(window_ms=5).check("a", STORY, 0, 0).kind is Kind.NEW


@settings(max_examples=500)
@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 12)), max_size=80), st.integers(5, 20), st.data())
def test_reading_the_window_again_rebuilds_it(stream: list[tuple[int, int]], window: int, data: st.DataObject) -> None:
    """What a restarted process says equals what one says that never stopped."""
    documents = [(f"d{identity}", f"{STORY} number {text} of the day") for identity, text in stream]
    whole = Duplicates(window_records=window)
    expected = [whole.check(identity, text, 0, n) for n, (identity, text) in enumerate(documents)]
    cut = data.draw(st.integers(0, len(documents)))
    fresh = Duplicates(window_records=window)
    for n in range(max(0, cut - window), cut):
        fresh.check(*documents[n], 0, n)
    got = [fresh.check(*documents[n], 0, n) for n in range(cut, len(documents))]
    assert got == expected[cut:]
