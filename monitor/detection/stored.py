"""How the state of one partition lies in its rows: their keys, what they hold, and how others read them; pure."""

from __future__ import annotations

from typing import Any

import msgspec

from monitor.detection.cells import Cell
from monitor.detection.counts import ROLLUP

STATE_VERSION = 1
PROGRESS = b"progress"


class Progress(msgspec.Struct):
    """The part of the state that belongs to no entity."""

    version: int = STATE_VERSION
    sources: dict[str, int] = msgspec.field(default_factory=dict)
    """By `topic/partition`: how far its event time has come."""
    idle: dict[str, int] = msgspec.field(default_factory=dict)
    """Sources that are silent, and how far any source had come when they last said so: ms."""
    expected: dict[str, int] = msgspec.field(default_factory=dict)
    """By topic: how many partitions it has."""
    closed_ms: int = 0
    """End of the last closed bucket; 0 before the first."""
    opinions: int = 0
    late: int = 0
    duplicates: int = 0


def cell_key(entity: str, bucket_ms: int) -> bytes:
    """Of one entity in one bucket."""
    return f"cell|{entity}|{bucket_ms}".encode()


def incident_key(entity: str) -> bytes:
    """Of one entity's newest incident."""
    return f"incident|{entity}".encode()


pack = msgspec.msgpack.Encoder(order="sorted").encode


def unpack(data: bytes, kind: Any) -> Any:
    """A row's content.

    Raises:
        msgspec.DecodeError: the row is damaged.
    """
    return msgspec.msgpack.decode(data, type=kind)


def read_cell(key: bytes, value: bytes) -> tuple[str, int, dict[str, tuple[int, float]]] | None:
    """What a row of state says of one entity's bucket: (entity, bucket, counts); None for other rows.

    The counts are (documents, negatives) by language, and `*` for all.

    Raises:
        msgspec.DecodeError: the row is damaged.
    """
    kind, *rest = key.decode().split("|")
    if kind != "cell":
        return None
    cell: Cell = unpack(value, Cell)
    counts = {lang: (round(sum(row[:3])), float(row[0])) for lang, row in cell.counts.items()}
    counts[ROLLUP] = (sum(n for n, _ in counts.values()), sum(negatives for _, negatives in counts.values()))
    return rest[0], int(rest[1]), counts


def read_progress(key: bytes, value: bytes) -> int | None:
    """The end of the last closed bucket that a row of state tells of; None for other rows.

    Raises:
        msgspec.DecodeError: the row is damaged.
    """
    return int(unpack(value, Progress).closed_ms) if key == PROGRESS else None


def read_series(key: bytes) -> tuple[str, str] | None:
    """The series (entity, language) whose row of state has this key; None for other rows."""
    kind, *rest = key.decode().split("|")
    return (rest[0], rest[1]) if kind == "series" else None
