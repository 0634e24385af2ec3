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
USUAL_POSITIVES = 0.4
"""Part of what is not negative that is taken as positive until it has been seen."""


def upgrade(state: bytes, row: np.dtype[np.void]) -> bytes:
    """A stored row in the form of the newest version (3); what is damaged or unknown stays as it is.

    Version 2 had four unused bytes where 3 keeps `ebb`.

    Args:
        state: Two bytes of version and the row.
        row: The newest version's.
    """
    if state[:2] == b"\x00\x01" and len(state) == 2 + V1.itemsize:
        return b"\x00\x03" + _from_v1(np.frombuffer(state, V1, offset=2)[0], row)
    if state[:2] == b"\x00\x02" and len(state) == 2 + row.itemsize:
        kept = np.frombuffer(state, row, offset=2).copy()
        kept["ebb"] = 0.0
        return b"\x00\x03" + kept.tobytes()
    return state


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
    stored: bytes = new.tobytes()
    return stored
