"""How fast each file is as the daemon runs it, side by side in one go: only the ratios travel to another machine."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from export.runner import batches, onnx_run, session

_ROUNDS = 5
"""Each file has its turn in each round, so that a busy moment of the machine hits all of them; the median is taken."""
_BATCH = 16
"""Texts in a run: with posts of some 30 tokens, about the 512 tokens that the daemon takes on a CPU."""


def throughput(
    models: Mapping[str, tuple[Path | bytes, Tokenizer]],
    texts: Sequence[str],
    *,
    prefix: str,
    pad_id: int,
    cores: int,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, float]:
    """Texts a second of each model, tokenised beforehand, in batches of about one length.

    As in `monitor.inference.engine`, a run has one thread, and there are as many runs at once as cores: all cores in one run
    would wait for each other in every small operator.

    Args:
        models: File and tokenizer, by name.
        texts: What each round classifies.
        prefix: Put before each text.
        pad_id: For the places that the mask hides.
        cores: Runs at once.
        clock: Seconds.

    Returns:
        The median over the rounds, by name.
    """
    runs = {}
    for name, (model, tokenizer) in models.items():
        prepared = [(ids, mask) for _, ids, mask in batches(tokenizer, texts, prefix, pad_id, _BATCH)]
        runs[name] = (onnx_run(session(model, threads=1)), prepared)
    seconds: dict[str, list[float]] = {name: [] for name in models}
    with ThreadPoolExecutor(cores) as pool:
        for turn in range(_ROUNDS + 1):
            for name, (run, prepared) in runs.items():
                start = clock()
                for _ in pool.map(run, *zip(*prepared, strict=True)):
                    pass
                if turn:  # the first round warms up memory and caches
                    seconds[name].append(clock() - start)
    return {name: len(texts) / statistics.median(taken) for name, taken in seconds.items()}


def length_percentiles(tokenizer: Tokenizer, texts: Sequence[str], prefix: str) -> dict[str, int]:
    """Tokens per text at some percentiles: a throughput means nothing without them."""
    lengths = [len(encoding.ids) for encoding in tokenizer.encode_batch_fast([prefix + text for text in texts])]
    return {f"p{p}": int(np.percentile(lengths, p)) for p in (5, 50, 95, 99)}
