"""Bytes from the documents topic -> `Document`, or the reason why not; never raises, whatever the bytes."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import StrEnum
from typing import Any, NamedTuple

import msgspec
from pydantic import Field

from monitor.documents.language import known
from monitor.records import MAX_REACH, MAX_WEIGHT, UNDETERMINED, WEIGHT_GRAIN, Document, Origin
from monitor.settings import Settings

EARLIEST_MS = 946_684_800_000
"""2000-01-01: nothing of before is news; such times come from zeroed or broken clocks."""


class Reason(StrEnum):
    """Why a record is no document; a label of metrics and of dead letters, so the list is closed."""

    NULL_VALUE = "null_value"
    TOO_LARGE = "too_large"
    NOT_UTF8 = "not_utf8"
    NOT_JSON = "not_json"
    LONE_SURROGATE = "lone_surrogate"
    NOT_AN_OBJECT = "not_an_object"
    WRONG_TYPE = "wrong_type"
    NUL_BYTE = "nul_byte"
    EMPTY_TEXT = "empty_text"
    BAD_TIME = "bad_time"
    FUTURE_TIME = "future_time"


class Rejected(NamedTuple):
    """A record that is no document."""

    reason: Reason
    detail: str


class DocumentSettings(Settings):
    """Where in the user's JSON the fields of a document are (dotted paths), and what is refused."""

    id: str = Field("id", description="Path of the unique id; topic, partition and offset stand in for it.")
    text: str = Field("text", description="Path of the text.")
    title: str = Field("title", description="Path of the title, used with the body where there is no text.")
    body: str = Field("body", description="Path of the body.")
    published_at: str = Field(
        "published_at", description="Path of the time; the time of the Kafka record stands in for it."
    )
    lang: str = Field("lang", description="Path of the language code.")
    source: str = Field("source", description="Path of the source's name.")
    author: str = Field("author", description="Path of the author's name.")
    url: str = Field("url", description="Path of the address.")
    reach: str = Field("reach", description="Path of the number of people reached.")
    weight: str = Field(
        "weight",
        description="Path of the sampling weight: how many documents one stands for where a source gives a sample.",
    )
    max_value_bytes: int = Field(262_144, ge=100, description="Larger records are dead-lettered, in bytes.")
    max_text_chars: int = Field(
        4000, ge=10, description="Longer texts are cut: the model reads the first hundred words anyway."
    )
    max_future_s: float = Field(
        600.0, ge=0, description="How far a document may be dated after the time of its Kafka record, in seconds."
    )


_decode = msgspec.json.Decoder().decode
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F][0-9a-fA-F]{2}")
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?$")
_ISO_SHORT_ZONE = re.compile(r"([+-]\d{2})(\d{2})$")


class Parser:
    """Reads documents by a mapping of fields.

    Args:
        settings: The mapping and the limits.
    """

    def __init__(self, settings: DocumentSettings) -> None:
        self._settings = settings
        self._id = _getter(settings.id)
        self._text = _getter(settings.text)
        self._title = _getter(settings.title)
        self._body = _getter(settings.body)
        self._time = _getter(settings.published_at)
        self._lang = _getter(settings.lang)
        self._source = _getter(settings.source)
        self._author = _getter(settings.author)
        self._url = _getter(settings.url)
        self._reach = _getter(settings.reach)
        self._weight = _getter(settings.weight)

    def parse(self, value: bytes | None, origin: Origin, timestamp_ms: int) -> Document | Rejected:
        """One record of the documents topic.

        Args:
            value: The record's value.
            origin: Where it stands; makes the id of a document that has none.
            timestamp_ms: The Kafka record's time: stands in for a missing one, and bounds the future. Never the wall
                clock, so that a replay judges as the first reading did.
        """
        decoded = self._decode(value)
        if isinstance(decoded, Rejected):
            return decoded
        text = self._read_text(decoded)
        if isinstance(text, Rejected):
            return text
        published_ms = self._read_time(decoded, timestamp_ms)
        if isinstance(published_ms, Rejected):
            return published_ms
        lang = self._lang(decoded)
        return Document(
            id=_label(self._id(decoded), 512) or f"{origin.topic}-{origin.partition}-{origin.offset}",
            text=text,
            published_ms=published_ms,
            origin=origin,
            lang=known(lang) if isinstance(lang, str) else UNDETERMINED,
            source=_label(self._source(decoded), 200),
            author=_label(self._author(decoded), 200),
            url=_label(self._url(decoded), 2000),
            reach=_count(self._reach(decoded)),
            weight=_weight_of(self._weight(decoded)),
        )

    def peek(self, value: bytes) -> tuple[str, int | None]:
        """The id and the time that a value claims, empty and None where it has none; for a replay's pace and keys."""
        decoded = self._decode(value)
        if isinstance(decoded, Rejected):
            return "", None
        raw = self._time(decoded)
        published_ms = to_ms(raw) if raw is not None else None
        return _label(self._id(decoded), 512), published_ms

    def _decode(self, value: bytes | None) -> dict[str, Any] | Rejected:
        if value is None:
            return Rejected(Reason.NULL_VALUE, "the record has no value")
        if len(value) > self._settings.max_value_bytes:
            return Rejected(Reason.TOO_LARGE, f"{len(value)} bytes, at most {self._settings.max_value_bytes} are taken")
        try:
            decoded = _decode(value)
        except UnicodeDecodeError as error:
            return Rejected(Reason.NOT_UTF8, str(error))
        except (msgspec.DecodeError, RecursionError) as error:
            try:
                value.decode()
            except UnicodeDecodeError as broken:
                return Rejected(Reason.NOT_UTF8, str(broken))
            if _SURROGATE.search(value) and "surrogate" in _plain_json_error(value):
                return Rejected(Reason.LONE_SURROGATE, "half of a surrogate pair stands alone")
            return Rejected(Reason.NOT_JSON, str(error))
        if not isinstance(decoded, dict):
            return Rejected(Reason.NOT_AN_OBJECT, f"a JSON {type(decoded).__name__}, not an object")
        return decoded

    def _read_text(self, decoded: dict[str, Any]) -> str | Rejected:
        parts = [self._text(decoded)]
        if parts[0] is None or parts[0] == "":
            parts = [self._title(decoded), self._body(decoded)]
        for part in parts:
            if part is not None and not isinstance(part, str):
                return Rejected(Reason.WRONG_TYPE, f"the text is a {type(part).__name__}, not a string")
        text = "\n".join(part.strip() for part in parts if part and not part.isspace())
        if not text:
            return Rejected(Reason.EMPTY_TEXT, "neither text, nor title, nor body holds anything")
        if "\x00" in text:
            return Rejected(Reason.NUL_BYTE, "the text holds a NUL character")
        return text[: self._settings.max_text_chars]

    def _read_time(self, decoded: dict[str, Any], timestamp_ms: int) -> int | Rejected:
        raw = self._time(decoded)
        if raw is None or raw == "":
            return timestamp_ms
        published_ms = to_ms(raw)
        if published_ms is None or published_ms < EARLIEST_MS:
            return Rejected(Reason.BAD_TIME, f"{str(raw)[:80]!r} is no time since 2000")
        if published_ms > timestamp_ms + self._settings.max_future_s * 1000:
            ahead_s = (published_ms - timestamp_ms) / 1000
            return Rejected(Reason.FUTURE_TIME, f"dated {ahead_s:.0f} s after its Kafka record")
        return published_ms


def to_ms(raw: object) -> int | None:
    """A time in milliseconds since 1970 UTC, or None when it is none.

    Numbers (and strings of digits) are seconds, milliseconds, microseconds or nanoseconds, told apart by their size;
    strings are RFC 3339, ISO 8601 or RFC 2822, without a zone UTC.

    >>> to_ms("2026-03-01T10:00:00+02:00") == to_ms(1772352000) == to_ms("1772352000000")
    True
    """
    if isinstance(raw, bool):
        return None
    if isinstance(raw, int | float):
        return _number_to_ms(float(raw))
    if not isinstance(raw, str):
        return None
    text = raw.strip()
    if _NUMBER.match(text):
        return _number_to_ms(float(text))
    moment = _iso(text) or _rfc2822(text)
    if moment is None:
        return None
    try:
        return round((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)
    except (OverflowError, ValueError):
        return None


def _number_to_ms(number: float) -> int | None:
    if not math.isfinite(number):
        return None
    # 1e11 s lies in the year 5138, 1e11 ms in 1973: any time since 2000 falls on one side only, and so on upwards.
    for limit, factor in ((1e11, 1000.0), (1e14, 1.0), (1e17, 1e-3), (1e20, 1e-6)):
        if abs(number) < limit:
            return round(number * factor)
    return None


def _iso(text: str) -> datetime | None:
    try:
        return datetime.fromisoformat(_ISO_SHORT_ZONE.sub(r"\1:\2", text))
    except ValueError:
        return None


def _rfc2822(text: str) -> datetime | None:
    try:
        return parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None


def _plain_json_error(value: bytes) -> str:
    """Tell a lone surrogate from other broken JSON: only the standard library decodes one, into an unencodable text."""
    import json

    try:
        json.dumps(json.loads(value), ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        return str(error)
    except (ValueError, RecursionError):
        return ""
    return ""


def _getter(path: str) -> Callable[[dict[str, Any]], Any]:
    """A function that follows a dotted path into nested objects; a key that itself holds dots is found too."""
    if "." not in path:
        return lambda decoded: decoded.get(path)
    parts = path.split(".")

    def get(decoded: dict[str, Any]) -> Any:
        if path in decoded:
            return decoded[path]
        value: Any = decoded
        for part in parts:
            if not isinstance(value, dict):
                return None
            value = value.get(part)
        return value

    return get


def _label(raw: object, longest: int) -> str:
    """A short string of anything that can be one."""
    if isinstance(raw, str):
        return raw.replace("\x00", "").strip()[:longest]
    if isinstance(raw, int) and not isinstance(raw, bool):
        return str(raw)[:longest]
    return ""


def _count(raw: object) -> int:
    """A whole number of people, 0 for anything that is none."""
    if isinstance(raw, int | float) and not isinstance(raw, bool) and math.isfinite(raw) and raw > 0:
        return min(int(raw), MAX_REACH)
    return 0


def _weight_of(raw: object) -> float:
    """A sampling weight, 1 for anything that is none.

    >>> [_weight_of(raw) for raw in (100, 12.51, 1e9, 0, "many", None)]
    [100.0, 12.5, 65536.0, 1.0, 1.0, 1.0]
    """
    if isinstance(raw, int | float) and not isinstance(raw, bool) and math.isfinite(raw) and raw > 0:
        return max(round(min(raw, MAX_WEIGHT) * WEIGHT_GRAIN), 1) / WEIGHT_GRAIN
    return 1.0
