"""Logits of many texts, from a graph by onnxruntime or from the checkpoint by PyTorch, batched by length."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from tokenizers import Tokenizer

from monitor.inference.bundle import Bundle, Variant
from monitor.inference.processor import cpu_options

Outputs = dict[str, NDArray[np.float32]]
"""By head name, logits ``[texts, labels]``; ``embedding`` is ``[texts, hidden]``."""

_BATCH = 32
"""Large enough to fill the matrix products on a CPU, small enough that texts of one batch have nearly one length."""


def batches(
    tokenizer: Tokenizer, texts: Sequence[str], prefix: str, pad_id: int, size: int = _BATCH
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]]:
    """Token ids of all texts in batches of about equal length, the longest first.

    Args:
        tokenizer: Cuts each text to its longest length.
        texts: Any.
        prefix: Put before each text.
        pad_id: Fills the places that the mask hides.
        size: Texts in a batch.

    Yields:
        Positions of the texts ``[batch]``, ids ``[batch, tokens]`` and mask ``[batch, tokens]``.
    """
    encodings = tokenizer.encode_batch_fast([prefix + text for text in texts])
    order = np.argsort([-len(encoding.ids) for encoding in encodings], kind="stable")
    for start in range(0, len(order), size):
        chosen = order[start : start + size]
        tokens = max(len(encodings[i].ids) for i in chosen)
        ids = np.full((len(chosen), tokens), pad_id, dtype=np.int64)
        mask = np.zeros_like(ids)
        for row, i in enumerate(chosen):
            found = encodings[i].ids
            ids[row, : len(found)] = found
            mask[row, : len(found)] = 1
        yield chosen.astype(np.int64), ids, mask


def collect(
    run: Callable[[NDArray[np.int64], NDArray[np.int64]], Outputs],
    tokenizer: Tokenizer,
    texts: Sequence[str],
    prefix: str,
    pad_id: int,
) -> Outputs:
    """Outputs of all texts, in their order."""
    outputs: Outputs = {}
    for positions, ids, mask in batches(tokenizer, texts, prefix, pad_id):
        for name, values in run(ids, mask).items():
            if name not in outputs:
                outputs[name] = np.zeros((len(texts), values.shape[1]), dtype=np.float32)
            outputs[name][positions] = values
    return outputs


def session(model: Path | bytes, threads: int = 0) -> onnxruntime.InferenceSession:
    """An onnxruntime session on the CPU.

    Args:
        model: A file or its bytes.
        threads: For one run; 0 takes all cores.
    """
    options = cpu_options(threads)
    options.log_severity_level = 3
    source: Any = model if isinstance(model, bytes) else str(model)
    return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])


def onnx_run(
    running: onnxruntime.InferenceSession,
) -> Callable[[NDArray[np.int64], NDArray[np.int64]], Outputs]:
    """A session as a function of ids and mask."""
    names = [output.name for output in running.get_outputs()]

    def run(ids: NDArray[np.int64], mask: NDArray[np.int64]) -> Outputs:
        values = running.run(names, {"input_ids": ids, "attention_mask": mask})
        return dict(zip(names, values, strict=True))

    return run


def bundle_outputs(bundle: Bundle, texts: Sequence[str], variant: Variant = "int8", threads: int = 0) -> Outputs:
    """What a bundle's own files say of some texts.

    Raises:
        KeyError: The bundle does not carry this precision.
    """
    path = bundle.model_file(variant)
    if path is None:
        raise KeyError(variant)
    tokenizer = Tokenizer.from_file(str(bundle.tokenizer_file))
    manifest = bundle.manifest
    return collect(onnx_run(session(path, threads)), tokenizer, texts, manifest.text_prefix, manifest.pad_id)
