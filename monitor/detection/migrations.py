"""Rows of earlier versions, and how they become rows of this one."""

from __future__ import annotations

import numpy as np

_V1_WINDOW = np.dtype([
    (name, "f4")
    for name in (
        "documents", "negatives", "corrected", "corrected_expected", "documents_expected", "negatives_expected",
        "negatives_expected_mix",
    )
])  # fmt: skip
_V1_NOISE = np.dtype([(name, "f8") for name in ("residual", "poisson", "clumped", "excess", "weight")])
V1 = np.dtype([
    ("at", "i8"), ("born", "i8"), ("languages", "i8"), ("mass", "f8"), ("level", "f8", 2), ("share", "f8", 3),
    ("volume_noise", _V1_NOISE), ("share_noise", _V1_NOISE), ("held", "f4", 3), ("hour", "f4", (24, 2)),
    ("day", "f4", (7, 2)), ("share_hour", "f4", (24, 2)), ("evidence", "f8", (3, 4)), ("climb", "f4", (3, 4)),
    ("onset", "i8", (3, 4)), ("window", _V1_WINDOW, (3, 4)), ("alarm", "i1", 3), ("raised", "i8", 3),
    ("descent", "f4", 3),
], align=True)  # fmt: skip
"""Version 1: three signals (negative share, negative volume, volume), and nothing of positives."""
V1_SIGNALS = [0, 1, 4]
"""Where they are in version 2."""
_V3_WEIGHTS = np.array([[0.15, 0.35, 0.35, 0.15] if signal in (0, 2, 3) else [0.25] * 4 for signal in range(5)])
"""Weights of the sizes of change up to version 3, by signal: not yet in the evidence as it was kept."""
USUAL_POSITIVES = 0.4
"""Part of what is not negative that is taken as positive until it has been seen."""


def upgrade(state: bytes, row: np.dtype[np.void]) -> bytes:
    """A stored row in the form of the newest version (4); what is damaged or unknown stays as it is.

    Version 3 had no `purse` and kept the evidence without the weights of the sizes of change; version 2 had four unused bytes
    where 3 keeps `ebb`.

    Args:
        state: Two bytes of version and the row.
        row: The newest version's.
    """
    version, v3 = state[:2], version_3(row)
    if version == b"\x00\x01" and len(state) == 2 + V1.itemsize:
        return b"\x00\x04" + _from_v1(np.frombuffer(state, V1, offset=2)[0], row)
    if version in (b"\x00\x02", b"\x00\x03") and len(state) == 2 + v3.itemsize:
        old, new = np.frombuffer(state, v3, offset=2)[0], np.zeros(1, row)[0]
        for name in v3.names or ():
            new[name] = old[name]
        if version == b"\x00\x02":
            new["ebb"] = 0.0
        new["evidence"] *= _V3_WEIGHTS
        stored: bytes = new.tobytes()
        return b"\x00\x04" + stored
    return state


def version_3(row: np.dtype[np.void]) -> np.dtype[np.void]:
    """The row of versions 2 and 3, which were the newest without its purse."""
    return np.dtype([(name, row[name]) for name in row.names or () if name != "purse"], align=True)


def _from_v1(old: np.void, row: np.dtype[np.void]) -> bytes:
    new = np.zeros(1, row)[0]
    for name in V1.names or ():
        if name in ("share", "held"):
            negatives, documents, corrected = old[name].tolist()
            positives = USUAL_POSITIVES * (documents - negatives)
            sentiment = USUAL_POSITIVES * (documents - corrected) - corrected
            new[name] = negatives, documents, corrected, positives, sentiment
        elif V1[name].shape[:1] == (3,):
            new[name][V1_SIGNALS] = old[name]
        else:
            new[name] = old[name]
    new["evidence"] *= _V3_WEIGHTS
    stored: bytes = new.tobytes()
    return stored
