"""Parsing: any bytes become a document or a reason, and never an exception."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitor.documents.parse import DocumentSettings, Parser, Reason, Rejected, to_ms
from monitor.records import Document, Origin

ORIGIN = Origin(topic="docs", partition=2, offset=41)
NOW_MS = 1_772_323_200_000
parser = Parser(DocumentSettings())

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
fields = st.sampled_from(["id", "text", "title", "body", "published_at", "lang", "source", "author", "url", "reach"])


def parse(**values: object) -> Document | Rejected:
    return parser.parse(json.dumps(values).encode("utf-8", "surrogatepass"), ORIGIN, NOW_MS)


@given(st.binary(max_size=300))
def test_any_bytes_are_judged(value: bytes) -> None:
    assert isinstance(parser.parse(value, ORIGIN, NOW_MS), Document | Rejected)


@given(st.dictionaries(fields, json_values))
def test_any_values_in_any_field_are_judged(values: dict[str, object]) -> None:
    found = parser.parse(json.dumps(values).encode("utf-8", "surrogatepass"), ORIGIN, NOW_MS)
    if isinstance(found, Document):
        assert found.text.strip()
        assert found.id
        assert 946_684_800_000 <= found.published_ms <= NOW_MS + 600_000
        found.text.encode()


def test_a_document_keeps_what_it_says() -> None:
    found = parse(
        id="a1", title="Title", body="Body.", published_at="2026-02-28T23:00:00+01:00", lang="pt-BR",
        source="paper", author="ann", url="https://x.example/1", reach=12.0,
    )  # fmt: skip
    assert found == Document(
        id="a1", text="Title\nBody.", published_ms=1_772_316_000_000, origin=ORIGIN, lang="pt", source="paper",
        author="ann", url="https://x.example/1", reach=12,
    )  # fmt: skip


def test_what_is_missing_is_taken_from_the_record() -> None:
    found = parse(text="hello there")
    assert isinstance(found, Document)
    assert (found.id, found.published_ms, found.lang) == ("docs-2-41", NOW_MS, "und")


def test_fields_are_found_by_dotted_paths() -> None:
    mapped = Parser(DocumentSettings(text="data.post.message", author="user.name"))
    found = mapped.parse(b'{"data": {"post": {"message": "hi all"}}, "user": "not an object"}', ORIGIN, NOW_MS)
    assert isinstance(found, Document)
    assert (found.text, found.author) == ("hi all", "")


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, Reason.NULL_VALUE),
        (b"", Reason.NOT_JSON),
        (b"{'id': 1}", Reason.NOT_JSON),
        (b"null", Reason.NOT_AN_OBJECT),
        (b'"text"', Reason.NOT_AN_OBJECT),
        (b'{"text": "caf\xe9"}', Reason.NOT_UTF8),
        (b'{"text": "\\udc00 x"}', Reason.LONE_SURROGATE),
        (b'{"text": ["a"]}', Reason.WRONG_TYPE),
        (b'{"text": "", "title": " "}', Reason.EMPTY_TEXT),
        (b'{"text": "a\\u0000b"}', Reason.NUL_BYTE),
        (b'{"text": "a", "published_at": "soon"}', Reason.BAD_TIME),
        (b'{"text": "a", "published_at": true}', Reason.BAD_TIME),
        (b'{"text": "a", "published_at": -5}', Reason.BAD_TIME),
        (b'{"text": "a", "published_at": "2031-01-01"}', Reason.FUTURE_TIME),
        (b'{"text": "' + b"a" * 300_000 + b'"}', Reason.TOO_LARGE),
    ],
)
def test_each_kind_of_poison_has_its_reason(value: bytes | None, reason: Reason) -> None:
    found = parser.parse(value, ORIGIN, NOW_MS)
    assert isinstance(found, Rejected)
    assert found.reason is reason
    assert found.detail


@given(st.datetimes(min_value=datetime(2000, 1, 2), max_value=datetime(2100, 1, 1)))
def test_a_time_is_read_in_every_form_it_is_written(moment: datetime) -> None:
    moment = moment.replace(microsecond=0, tzinfo=UTC)
    seconds = int(moment.timestamp())
    forms: list[object] = [seconds, seconds * 1000, seconds * 10**6, seconds * 10**9, str(seconds), float(seconds)]
    forms += [moment.isoformat(), moment.strftime("%Y-%m-%dT%H:%M:%SZ"), moment.strftime("%Y-%m-%d %H:%M:%S")]
    forms.append(moment.strftime("%a, %d %b %Y %H:%M:%S +0000"))
    assert {to_ms(form) for form in forms} == {seconds * 1000}


def test_peek_gives_what_a_replay_needs() -> None:
    assert parser.peek(b'{"id": 7, "published_at": 1772323200}') == ("7", NOW_MS)
    assert parser.peek(b"broken") == ("", None)
