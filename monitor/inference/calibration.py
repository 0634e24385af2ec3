"""From logits to calibrated probabilities, for batches that mix languages."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from monitor.inference.bundle import ANY_LANGUAGE, Bundle


class Calibrator:
    """One head's temperature and bias per language as tables, so that a batch needs one pass of numpy.

    ``softmax(logits / temperature + bias)`` (Guo et al. 2017, "On Calibration of Modern Neural Networks", section 4.2,
    with a bias), as `bundle.Calibration` defines it; a language without an entry takes the head's general one.

    Args:
        bundle: Where the entries are.
        head: The head's name.
    """

    def __init__(self, bundle: Bundle, head: str) -> None:
        entries = bundle.manifest.calibration[head]
        self._row = {lang: row for row, lang in enumerate(entries)}
        self._any = self._row[ANY_LANGUAGE]
        self._temperature = np.array([entry.temperature for entry in entries.values()])[:, np.newaxis]
        self._bias = np.array([entry.bias for entry in entries.values()])

    def probabilities(self, logits: NDArray[np.float32], langs: Sequence[str]) -> NDArray[np.float64]:
        """Calibrate a batch.

        Args:
            logits: *Shape:* ``[texts, labels]``, finite.
            langs: One language code for each text.

        Returns:
            *Shape:* ``[texts, labels]``; 0 to 1, each row sums to 1.
        """
        rows = np.fromiter((self._row.get(lang, self._any) for lang in langs), dtype=np.intp, count=len(langs))
        scaled: NDArray[np.float64] = logits / self._temperature[rows] + self._bias[rows]
        scaled -= scaled.max(axis=1, keepdims=True)
        np.exp(scaled, out=scaled)
        scaled /= scaled.sum(axis=1, keepdims=True)
        return scaled
