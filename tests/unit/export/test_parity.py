"""The gate refuses a file for the figure that is over its limit, and not for the noise of a small sample."""

from __future__ import annotations

import dataclasses

import pytest

from export.errors import ExportError
from export.parity import Difference, Limits, check

LIMITS = Limits(probability=0.3, agreement=0.93, f1_drop=0.3)
FINE = Difference(texts=1000, probability=0.1, agreement=0.98, f1_drop=0.1)


def test_a_file_within_its_limits_passes() -> None:
    check({"mood": {"en": FINE, "de": FINE}}, LIMITS, "int8")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"probability": 0.31}, "int8, head mood, language de: a probability differs by 0.31"),
        ({"agreement": 0.85}, "language de: only 85.0% of 1000 texts"),
        ({"f1_drop": 1.2}, "macro-F1 falls by 0.65 points on average (give or take 0.32), limit 0.3"),
        ({"probability": 1.0, "agreement": 0.0}, "differs by 1.0"),
    ],
)
def test_what_is_over_is_named(changes: dict[str, float], words: str) -> None:
    with pytest.raises(ExportError, match="no bundle was written") as caught:
        check({"mood": {"en": FINE, "de": dataclasses.replace(FINE, **changes)}}, LIMITS, "int8")
    assert words in str(caught.value)


def test_few_texts_are_judged_by_what_they_can_tell() -> None:
    three_of_forty = Difference(texts=40, probability=0.1, agreement=0.925, f1_drop=None)
    check({"mood": {"en": FINE, "et": three_of_forty}}, LIMITS, "int8")
    fourteen = dataclasses.replace(three_of_forty, agreement=0.65)
    with pytest.raises(ExportError, match=r"65\.0% of 40 texts"):
        check({"mood": {"en": FINE, "et": fourteen}}, LIMITS, "int8")


def test_small_losses_everywhere_are_refused_together() -> None:
    low = Difference(texts=200, probability=0.1, agreement=0.92, f1_drop=None)
    with pytest.raises(ExportError, match=r"all languages: only 92\.0% of 2000 texts"):
        check({"mood": {f"x{i}": low for i in range(10)}}, LIMITS, "int8")


def test_a_drop_counts_by_how_many_texts_tell_it() -> None:
    few = Difference(texts=50, probability=0.1, agreement=0.96, f1_drop=2.0)
    check({"mood": {"en": few}}, LIMITS, "int8")
    many = Difference(texts=50_000, probability=0.1, agreement=0.96, f1_drop=2.0)
    with pytest.raises(ExportError, match="falls by 2"):
        check({"mood": {"en": many}}, LIMITS, "int8")
