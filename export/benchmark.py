"""How fast each file is, side by side in one run: only the ratios travel to another machine."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from export.runner import batches, onnx_run, session

_ROUNDS = 5
"""Each file has its turn in each round, so that a busy moment of the machine hits all of them; the median is taken."""


def throughput(
    models: Mapping[str, tuple[Path | bytes, Tokenizer]],
    texts: Sequence[str],
    *,
    prefix: str,
    pad_id: int,
    threads: int,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, float]:
    """Texts a second of each model, tokenised beforehand, in batches of 32 of about one length.

    Args:
        models: File and tokenizer, by name.
        texts: What each round classifies.
        prefix: Put before each text.
        pad_id: For the places that the mask hides.
        threads: Of one run; 0 takes all cores.
        clock: Seconds.

    Returns:
        The median over the rounds, by name.
    """
    runs = {}
    for name, (model, tokenizer) in models.items():
        prepared = [(ids, mask) for _, ids, mask in batches(tokenizer, texts, prefix, pad_id)]
        runs[name] = (onnx_run(session(model, threads)), prepared)
    seconds: dict[str, list[float]] = {name: [] for name in models}
    for turn in range(_ROUNDS + 1):
        for name, (run, prepared) in runs.items():
            start = clock()
            for ids, mask in prepared:
                run(ids, mask)
            if turn:  # the first round warms up memory and caches
                seconds[name].append(clock() - start)
    return {name: len(texts) / statistics.median(taken) for name, taken in seconds.items()}


def length_percentiles(tokenizer: Tokenizer, texts: Sequence[str], prefix: str) -> dict[str, int]:
    """Tokens per text at some percentiles: a throughput means nothing without them."""
    lengths = [len(encoding.ids) for encoding in tokenizer.encode_batch_fast([prefix + text for text in texts])]
    return {f"p{p}": int(np.percentile(lengths, p)) for p in (5, 50, 95, 99)}
