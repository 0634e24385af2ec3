"""Masking: no planted address, number or handle survives; prices, years and flight numbers do."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitor.documents.masking import author_hash, mask, mask_url

words = st.lists(
    st.sampled_from(
        ["the", "app", "lost", "my", "money", "and", "3", "bags", "at", "gate", "12", "today,", "why?!", "2026"]
    ),
    max_size=8,
).map(" ".join)


@given(words, words, st.from_regex(r"[a-z]{1,8}(\.[a-z]{1,8})?@[a-z]{2,10}\.(com|org|co\.uk)", fullmatch=True))
def test_no_mail_survives(before: str, after: str, mail: str) -> None:
    masked = mask(f"{before} {mail} {after}")
    assert mail not in masked
    assert "<email>" in masked


@given(words, words, st.integers(10**8, 10**10 - 1), st.sampled_from(["+44 {}", "+1-{}", "0{}", "({}) 5550"]))
def test_no_phone_survives(before: str, after: str, number: int, form: str) -> None:
    written = form.format(number)
    assert str(number) not in mask(f"{before} {written} {after}")


@given(st.integers(10**14, 10**15 - 1), st.sampled_from(["", " ", "-"]))
def test_no_card_survives(body: int, separator: str) -> None:
    digits = str(body)
    total = sum(
        d if place % 2 else (2 * d - 9 if 2 * d > 9 else 2 * d) for place, d in enumerate(map(int, reversed(digits)))
    )
    card = digits + str(-total % 10)
    written = separator.join(card[n : n + 4] for n in range(0, 16, 4))
    masked = mask(f"card {written} ok")
    assert card[4:12] not in masked.replace(separator or "-", "")
    assert "<card>" in masked


@given(st.text(max_size=200))
def test_masking_twice_changes_nothing_more(text: str) -> None:
    once = mask(text)
    assert mask(once) == once


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("flight 417 cost 1,299.00 in 2026", "flight 417 cost 1,299.00 in 2026"),
        ("on 2026-03-01 at 10:30:15", "on 2026-03-01 at 10:30:15"),
        ("3 000 000 people", "3 000 000 people"),
        ("اتصل ٠٥٠١٢٣٤٥٦٧", "اتصل <phone>"),
        ("jo＠example.org", "<email>"),
        ("server 192.0.2.17 and 2001:db8::7", "server <ip> and <ip>"),
        ("version 1.2.3.400", "version 1.2.3.400"),
        ("IBAN GB82 WEST 1234 5698 7654 32", "IBAN <iban>"),
        ("see https://a.example/x?token=1#y", "see https://a.example/x"),
        ("thanks @someone_else", "thanks <user>"),
        ("passport 123456789", "passport <id>"),
    ],
)
def test_what_is_masked_and_what_stays(text: str, masked: str) -> None:
    assert mask(text) == masked


def test_a_watched_handle_is_a_public_name() -> None:
    assert mask("@Northwind and @jo", {"@northwind"}) == "@Northwind and <user>"


def test_urls_lose_what_may_be_secret() -> None:
    assert mask_url("https://me:pw@h.example:8443/p?q=1") == "https://h.example:8443/p"
    assert mask_url("") == ""


def test_author_hashes_are_stable_keyed_and_mute() -> None:
    assert author_hash("ann", b"k") == author_hash("ann", b"k") != author_hash("ann", b"other")
    assert author_hash("", b"k") == ""
