"""Making the dead letter of a record that could not be used."""

from __future__ import annotations

import base64

from monitor.broker.writer import Output
from monitor.records import DeadLetter, Origin, encode

MAX_VALUE_CHARS = 16_384
"""Enough to see what is wrong, and to replay any ordinary document; a flood of 1 MB records must not fill the topic."""


REPLAYED = "babelwatch-replayed-from"
"""Header of a record that was sent back: the dead letter it came from."""

FOR_SINK = "babelwatch-for-sink"
"""Header of an alert that was sent back: the only sink that it is for."""


def deadletter(
    topic: str, role: str, reason: str, detail: str, origin: Origin, key: bytes | None, value: bytes | None, *, sink: str = ""
) -> Output:  # fmt: skip
    """The record for the dead-letter topic: the reason, where it came from, and the original value.

    A value that is not UTF-8 is kept as base64; one that is cut says so and cannot be replayed. An alert that a `sink` refused
    is our own, no longer than what Kafka took before, and never cut.
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
        value=text if sink else text[:MAX_VALUE_CHARS],
        encoding=encoding,  # type: ignore[arg-type]
        truncated=not sink and len(text) > MAX_VALUE_CHARS,
        sink=sink,
    )
    return Output(topic, key, encode(letter))
