"""What the model says of a text, as values, and how they are read from its raw outputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from monitor.errors import BundleError
from monitor.inference.bundle import Bundle
from monitor.inference.calibration import Calibrator
from monitor.inference.engine import Outputs, Reason
from monitor.records import SENTIMENTS

_SENTIMENT = "sentiment"
_TOPIC = "topic"
_DECIMALS = 6
"""Of a probability: far finer than any calibration, and short enough as JSON."""
_INT8_MAX = 127


@dataclass(frozen=True, slots=True)
class Classification:
    """What the model says of one text."""

    sentiment: tuple[float, float, float]
    """Calibrated probabilities of negative, neutral, positive; they sum to 1."""
    topic: str
    """The most probable label of the head `topic`; empty when the bundle has no such head."""
    heads: dict[str, tuple[float, ...]]
    """Calibrated probabilities by head, in the order of its labels."""
    embedding: bytes | None
    """The pooled encoder state as int8, ``[hidden]``: its direction only, scaled so that the largest is 127."""
    bundle: str
    """Version of the bundle that said so."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A text that the model cannot classify, although it classifies others."""

    reason: Reason
    detail: str


Outcome = Classification | Failure


class Reader:
    """Makes `Classification` values of a model's outputs, a batch at a time.

    Args:
        bundle: Whose model it is.

    Raises:
        BundleError: It has no head `sentiment` with the labels negative, neutral and positive.
    """

    def __init__(self, bundle: Bundle) -> None:
        heads = {head.name: head.labels for head in bundle.manifest.heads}
        if set(heads.get(_SENTIMENT, ())) != set(SENTIMENTS):
            raise BundleError(
                f"has no head {_SENTIMENT!r} with the labels {', '.join(SENTIMENTS)}",
                where=str(bundle.path),
                hint="`babelwatch bundle inspect` shows its heads",
            )
        self._version = bundle.version
        self._calibrators = {name: Calibrator(bundle, name) for name in heads}
        self._sentiment_columns = [heads[_SENTIMENT].index(sentiment) for sentiment in SENTIMENTS]
        self._topics = heads.get(_TOPIC)

    def read(self, outputs: Outputs, langs: Sequence[str]) -> list[Classification]:
        """Calibrate and name what the model said.

        Args:
            outputs: Of `n` texts.
            langs: Their languages, `n`.
        """
        n = len(langs)
        heads = {
            name: calibrator.probabilities(outputs.logits[name], langs).round(_DECIMALS)
            for name, calibrator in self._calibrators.items()
        }
        rows = {name: [tuple(row) for row in values.tolist()] for name, values in heads.items()}
        sentiments = heads[_SENTIMENT][:, self._sentiment_columns].tolist()
        topics = [""] * n if self._topics is None else [self._topics[i] for i in heads[_TOPIC].argmax(axis=1)]
        embeddings = [None] * n if outputs.embedding is None else [row.tobytes() for row in _as_int8(outputs.embedding)]
        return [
            Classification(
                sentiment=(negative, neutral, positive),
                topic=topics[i],
                heads={name: values[i] for name, values in rows.items()},
                embedding=embeddings[i],
                bundle=self._version,
            )
            for i, (negative, neutral, positive) in enumerate(sentiments)
        ]


def _as_int8(embedding: NDArray[np.float32]) -> NDArray[np.int8]:
    largest = np.abs(embedding).max(axis=1, keepdims=True)
    scale = np.divide(_INT8_MAX, largest, out=np.zeros_like(largest), where=largest > 0)
    quantised: NDArray[np.int8] = np.rint(embedding * scale).astype(np.int8)
    return quantised
