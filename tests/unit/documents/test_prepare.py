"""The front end as a whole: a batch of records in, documents for the model out."""

from __future__ import annotations

import json

import pytest

from monitor.documents.duplicates import Duplicates, Kind
from monitor.documents.entities import Matcher
from monitor.documents.language import LanguageIdentifier, known
from monitor.documents.parse import DocumentSettings, Parser, Reason
from monitor.documents.prepare import Preparer, Raw
from monitor.records import Origin
from monitor.watchlist import Entity, Watchlist

NOW_MS = 1_772_323_200_000


@pytest.fixture(scope="module")
def identifier() -> LanguageIdentifier:
    return LanguageIdentifier()


@pytest.fixture
def preparer(identifier: LanguageIdentifier) -> Preparer:
    watched = Watchlist((Entity(id="acme", name="Acme", aliases={"*": ("Acme", "@acme")}),))
    return Preparer(Parser(DocumentSettings()), Matcher(watched), identifier, b"key")


def raws(*values: object) -> list[Raw]:
    return [
        Raw(
            value if value is None or isinstance(value, bytes) else json.dumps(value).encode(),
            Origin(topic="t", partition=0, offset=n),
            NOW_MS,
        )
        for n, value in enumerate(values)
    ]


def test_a_batch_is_sorted_into_what_becomes_of_it(preparer: Preparer) -> None:
    story = "Acme lost every single parcel that I ever sent with them, write to jo@example.org"
    batch = preparer.prepare(
        raws(
            {"id": "a", "text": story, "author": "jo", "url": "https://x.example/?token=1"},
            {"id": "b", "text": "nothing of interest"},
            {"id": "a", "text": story},
            {"id": "c", "text": f"RT @ann: {story}"},
            b"broken",
            None,
        ),
        Duplicates(),
    )
    assert [item.document.id for item in batch.prepared] == ["a", "c"]
    assert [item.verdict.kind for item in batch.prepared] == [Kind.NEW, Kind.REPOST]
    assert (batch.unmatched, batch.duplicates) == (1, 1)
    assert [refused.rejected.reason for refused in batch.refused] == [Reason.NOT_JSON, Reason.NULL_VALUE]
    assert len(batch.times_ms) == 4
    first = batch.prepared[0].document
    assert "jo@example.org" not in first.text
    assert "<email>" in first.text
    assert first.author not in ("", "jo")
    assert first.url == "https://x.example/"
    assert first.lang == "en"


@pytest.mark.parametrize(
    ("text", "declared", "lang"),
    [
        ("วันนี้เน็ตช้ามาก โทรไปก็ไม่มีใครรับ", "", "th"),
        ("今日もまた電車が遅れてる、最悪", "zh", "ja"),
        ("今天的航班又取消了,太差了", "", "zh"),
        ("오늘도 앱이 안 열려요", "", "ko"),
        ("Das Konto ist seit gestern gesperrt und niemand antwortet", "", "de"),
        ("le service client ne répond jamais, c'est honteux", "en", "fr"),
        ("ok", "", "und"),
        ("ok", "pl", "pl"),
        ("👍👍", "tr", "tr"),
        ("yaar ye app phir se band ho gaya kya bakwas hai", "hi", "hi"),
        ("Это просто ужас какой-то, деньги пропали", "en", "ru"),
    ],
)
def test_languages_of_posts(identifier: LanguageIdentifier, text: str, declared: str, lang: str) -> None:
    assert identifier.identify([text], [known(declared)]) == [lang]


def test_codes_are_written_one_way() -> None:
    assert [known(code) for code in ("EN-us", "zh_Hant", "arb_Arab", "iw", "xx", "", "fil")] == [
        "en", "zh", "ar", "he", "und", "und", "tl",
    ]  # fmt: skip
