"""Making the dead letter of a record that could not be used."""

from __future__ import annotations

import base64

from monitor.broker.writer import Output
from monitor.records import DeadLetter, Origin, encode

MAX_VALUE_CHARS = 16_384
"""Enough to see what is wrong, and to replay any ordinary document; a flood of 1 MB records must not fill the topic."""


def deadletter(
    topic: str, role: str, reason: str, detail: str, origin: Origin, key: bytes | None, value: bytes | None
) -> Output:
    """The record for the dead-letter topic: the reason, where it came from, and the original value.

    A value that is not UTF-8 is kept as base64; one that is cut says so and cannot be replayed.
    """
    raw = value or b""
    encoding = "utf-8"
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        text, encoding = base64.b64encode(raw).decode("ascii"), "base64"
    letter = DeadLetter(
        reason=reason,
        detail=detail[:500],
        origin=origin,
        role=role,
        value=text[:MAX_VALUE_CHARS],
        encoding=encoding,  # type: ignore[arg-type]
        truncated=len(text) > MAX_VALUE_CHARS,
    )
    return Output(topic, key, encode(letter))
