"""The words of an alert: short first line, zones, names of languages, one message long, safe beside any script."""

from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from monitor.detection.wording import MESSAGE_UNITS, compact, description, headline, worded
from monitor.records import Alert, Evidence, Post, Share

ONSET_MS = 1_772_527_200_000  # Tue 3 Mar 2026 08:40 UTC
NAMES = {"air": "Northwind Air", "bank": "Oz Bank"}


def alert(**changes: object) -> Alert:
    post = Post(document_id="d1", text="Stranded  at\nthe gate", lang="en", published_ms=ONSET_MS, sentiment="negative",
                source="chirp", url="https://chirp.example/1", copies=3)  # fmt: skip
    arabic = msgspec.structs.replace(post, document_id="d2", text="عالقون في المطار", lang="ar")
    evidence = Evidence(
        observed=0.61, expected=0.23, low=0.5, high=0.7, unit="share", documents=48, negatives=29.2, effect=0.38,
        effect_low=0.27, effect_high=0.47, one_event=0.94, languages=(Share(name="en", count=31, share=0.72),),
        sources=(Share(name="chirp", count=20, share=0.7),), terms=("stranded", "gate"), posts=(post, arabic),
        first_post=post, reposts=4, authors=27, reach=12_400,
    )  # fmt: skip
    base = Alert(
        id="i", incident="air-1", entity="air", entity_name="Northwind Air", signal="negative_share", state="firing",
        severity="warning", onset_ms=ONSET_MS, at_ms=ONSET_MS + 40 * 60_000, languages=("en", "hi-Latn"), summary="",
        description="", evidence=evidence,
    )  # fmt: skip
    return msgspec.structs.replace(base, **changes)


def test_the_first_line_tells_who_how_much_since_when_and_where() -> None:
    line = headline(alert(), NAMES)
    assert line == "Northwind Air: 61% negative, usually 23%, since 08:40 UTC · English, Hindi (Latin)"
    yesterday = headline(alert(onset_ms=ONSET_MS - 86_400_000), NAMES)
    assert "since Mon 2 Mar 08:40 UTC" in yesterday
    end = alert(state="resolved", ended_ms=ONSET_MS + 190 * 60_000)
    assert headline(end, NAMES) == "Northwind Air: back to normal after 3 h 10 min, 08:40 to 11:50 UTC"


def test_a_volume_is_told_as_a_factor() -> None:
    shown = msgspec.structs.replace(
        alert().evidence, unit="documents/h", observed=52.0, expected=10.0, effect=5.2, effect_low=3.1, effect_high=8.4
    )
    told = description(alert(evidence=shown, signal="negative_volume"), NAMES)
    assert "5.2 times the usual negative posts since 08:40 UTC" in told
    assert "Rise: 5.2 times (95% interval 3.1 to 8.4), 52 an hour against 10." in told


def test_the_description_is_a_whole_explanation() -> None:
    told = description(alert(), NAMES)
    for part in (
        "48 posts, 29 negative (about 11 would be usual)", "Rise: +38 points (95% interval +27 to +47).",
        "Very likely one event (94%).", "Languages: English 72% (31)", "Words: stranded, gate",
        "Voices: at least 27 authors, 4 reposts, reach 12K",
        "• First, 08:40 UTC, English, chirp, 2 more alike: Stranded at the gate https://chirp.example/1",
        "• 08:40 UTC, Arabic, chirp, 2 more alike: \u2068عالقون في المطار\u2069 https://chirp.example/1",
    ):  # fmt: skip
        assert part in told


def test_several_names_are_told_by_name_and_many_by_number() -> None:
    two = alert(kind="story", entities=("air", "bank"))
    assert headline(two, NAMES).startswith("Northwind Air, Oz Bank: 61%")
    many = alert(kind="common", entities=tuple(f"e{n}" for n in range(12)))
    assert headline(many, NAMES).startswith("12 names at once: 61%")
    assert "classifier" in description(many, NAMES)
    gone = alert(state="resolved", merged_into="bank-1")
    assert "part of a wider incident" in headline(gone, NAMES)


@given(
    st.lists(st.text(st.characters(blacklist_categories=["Cs"]), max_size=600), max_size=50),
    st.lists(st.text(max_size=60), max_size=12),
    st.integers(0, 4_102_444_800_000),
)
def test_any_alert_fits_in_one_message(texts: list[str], terms: list[str], time_ms: int) -> None:
    posts = tuple(
        Post(
            document_id=str(n),
            text=text,
            lang="xx",
            published_ms=time_ms,
            sentiment="negative",
            url="https://x.example",
        )
        for n, text in enumerate(texts)
    )
    shown = msgspec.structs.replace(
        alert().evidence, posts=posts, terms=tuple(terms), first_post=posts[0] if posts else None
    )
    told = worded(alert(evidence=shown, onset_ms=time_ms, at_ms=time_ms + 1), NAMES)
    assert len(told.description.encode("utf-16-le")) // 2 <= MESSAGE_UNITS
    assert "\n" not in told.summary


def test_numbers_are_rounded() -> None:
    assert [compact(n) for n in (0, 7, 950, 12_345, 3_400_000)] == ["0", "7", "950", "12K", "3.4M"]
