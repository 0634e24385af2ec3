"""PyTorch to ONNX: one graph with every head's logits and the embedding, both axes dynamic."""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from typing import cast

import onnx
import torch

from export.checkpoint import Classifier

INPUTS = ("input_ids", "attention_mask")
EMBEDDING = "embedding"

_OPSET = 17
"""The first opset with LayerNormalization, the last that the fusion patterns of onnxruntime's optimiser are tested on."""


def to_onnx(model: Classifier, head_names: Sequence[str]) -> onnx.ModelProto:
    """Trace a classifier into an fp32 graph.

    Args:
        model: In evaluation mode.
        head_names: Names of the outputs, in the model's order; `EMBEDDING` comes after them.

    Returns:
        A graph with inputs `INPUTS`, int64 ``[batch, tokens]``; outputs float32 ``[batch, labels]`` per head and
        ``[batch, hidden]``. Position and token-type ids are computed inside.
    """
    # Two rows of different length, so that the traced graph has a mask that matters.
    ids = torch.full((2, 9), 5, dtype=torch.int64)
    mask = torch.ones_like(ids)
    mask[1, 6:] = 0
    outputs = (*head_names, EMBEDDING)
    axes = {name: {0: "batch", 1: "tokens"} for name in INPUTS} | {name: {0: "batch"} for name in outputs}
    buffer = io.BytesIO()
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore")  # the tracer warns of constants that are constant for every input here
        # The tracing exporter on purpose: its graph is what the fusion patterns know, and it needs no extra package.
        torch.onnx.export(
            model,
            (ids, mask),
            buffer,  # type: ignore[arg-type]  # the tracing exporter takes a stream too
            input_names=list(INPUTS),
            output_names=list(outputs),
            dynamic_axes=axes,
            opset_version=_OPSET,
            dynamo=False,
        )
    return cast(onnx.ModelProto, onnx.load_from_string(buffer.getvalue()))
