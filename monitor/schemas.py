"""JSON Schemas of the values on the topics, made from the record types."""

from __future__ import annotations

from typing import Any

import msgspec

from monitor.records import (
    Action,
    AlertEvent,
    Closed,
    DeadLetter,
    EntityStep,
    Erasure,
    Opinion,
    Pulse,
    WatchlistChange,
    Watermark,
)

DIALECT = "https://json-schema.org/draft/2020-12/schema"

_DOCUMENT: dict[str, Any] = {
    "title": "Document",
    "description": "One post or article, with the default field names; the configuration maps others. "
    "Either `text`, or `title` and/or `body`, is needed; unknown fields are ignored.",
    "type": "object",
    "properties": {
        "id": {"type": ["string", "integer"], "description": "Unique; topic, partition and offset stand in for it."},
        "text": {"type": "string"},
        "title": {"type": "string"},
        "body": {"type": "string"},
        "published_at": {
            "type": ["string", "number"],
            "description": "RFC 3339, RFC 2822, or seconds to nanoseconds since 1970; else the time of the Kafka record.",
        },
        "lang": {"type": "string", "description": "Used when it is plausible for the text."},
        "source": {"type": "string"},
        "author": {"type": "string", "description": "Leaves the process only as a keyed hash."},
        "url": {"type": "string"},
        "reach": {"type": "number", "minimum": 0, "description": "How many people the source says it reached."},
        "weight": {
            "type": "number",
            "exclusiveMinimum": 0,
            "description": "How many documents it stands for where the source gives a sample (100 in one of a hundredth); else 1.",
        },
    },
    "anyOf": [{"required": ["text"]}, {"required": ["title"]}, {"required": ["body"]}],
}


def schemas() -> dict[str, dict[str, Any]]:
    """By record name: document (in), opinion, watermark, erasure, step, closed, alert, deadletter, action, watchlist_change
    and pulse (out).

    >>> sorted(schemas())
    ['action', 'alert', 'closed', 'deadletter', 'document', 'erasure', 'opinion', 'pulse', 'step', 'watchlist_change', 'watermark']
    """
    made = {
        name: msgspec.json.schema(kind)
        for name, kind in (
            ("opinion", Opinion),
            ("watermark", Watermark),
            ("erasure", Erasure),
            ("step", EntityStep),
            ("closed", Closed),
            ("alert", AlertEvent),
            ("deadletter", DeadLetter),
            ("action", Action),
            ("watchlist_change", WatchlistChange),
            ("pulse", Pulse),
        )
    }
    return {name: {"$schema": DIALECT, **schema} for name, schema in {"document": _DOCUMENT, **made}.items()}
