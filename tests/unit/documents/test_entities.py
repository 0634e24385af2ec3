"""Finding entities: right in scripts with and without word boundaries, deaf to look-alikes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitor.documents.entities import Matcher
from monitor.documents.folding import fold
from monitor.watchlist import Entity, Watchlist

WATCHED = Watchlist(
    (
        Entity(
            id="air",
            name="Northwind Air",
            aliases={
                "*": ("Northwind Air", "@northwindair"),
                "ar": ("نورث ويند",),
                "ja": ("ノースウィンド",),
                "ko": ("노스윈드",),
            },
            exclude=("Northwind Airfield", "northwind air museum"),
        ),
        Entity(id="bank", name="Öz Bank", aliases={"tr": ("Öz Bank",), "hi": ("ओज़ बैंक",), "th": ("ธนาคารออซ",)}),
        Entity(id="lamp", name="Lamp", aliases={"*": ("Lamp",)}, context=("phone", "sim")),
        Entity(id="face", name="Smile", aliases={"*": ("🙂🛫",)}),
    )
)
matcher = Matcher(WATCHED)


@pytest.mark.parametrize(
    ("text", "entities"),
    [
        ("stuck with northwind air again", ("air",)),
        ("NORTHWIND  AIR!!!", ("air",)),
        ("Ｎｏｒｔｈｗｉｎｄ Ａｉｒ", ("air",)),
        ("#NorthwindAir #fail", ("air",)),
        ("#northwind_air", ("air",)),
        ("@NorthwindAir help", ("air",)),
        ("Northwind Air's desk", ("air",)),
        ("northwind-air", ("air",)),
        ("Northwind Air™ and Northwind Airℹ️", ("air",)),
        ("northwind airline", ()),
        ("the Northwind Airfield reopens", ()),
        ("from Northwind Airfield with Northwind Air", ("air",)),
        ("ونورث ويند تأخرت", ("air",)),
        ("نُورْث ويند", ("air",)),
        ("مينورث ويند", ()),
        ("今日もノースウィンドの便は遅延", ("air",)),
        ("노스윈드는 또 지연", ("air",)),
        ("노스윈드에서는", ("air",)),
        ("노스윈드밀", ()),
        ("ÖZ BANK çöktü", ("bank",)),
        ("öz bank'ın uygulaması", ("bank",)),
        ("oz bank", ("bank",)),
        ("ओज बैंक बंद है", ("bank",)),
        ("แอปธนาคารออซล่มอีกแล้ว", ("bank",)),
        ("my lamp is broken", ()),
        ("lamp: my phone is dead", ("lamp",)),
        ("clamp my phone", ()),
        ("fly 🙂🛫 now", ("face",)),
        ("Northwind Air and Öz Bank", ("air", "bank")),
        ("", ()),
    ],
)
def test_names_in_many_scripts(text: str, entities: tuple[str, ...]) -> None:
    assert matcher.match([text]) == [entities]


@given(st.text(max_size=80), st.text(max_size=80))
def test_a_name_between_spaces_is_found_in_any_text(before: str, after: str) -> None:
    assert "bank" in matcher.match([f"{before} Öz Bank {after}"])[0]


@given(st.text(max_size=200))
def test_folding_is_idempotent(text: str) -> None:
    assert fold(fold(text)) == fold(text)


def test_an_empty_text_and_thousands_of_names() -> None:
    many = tuple(Entity(id=f"e{n}", name=f"E{n}", aliases={"*": (f"entity number {n} ltd",)}) for n in range(5000))
    assert Matcher(Watchlist(many)).match(["about Entity Number 4999 Ltd."]) == [("e4999",)]
