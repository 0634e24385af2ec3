"""PyTorch to ONNX by optimum: one graph with every head's logits and the embedding, both axes dynamic."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import onnx
import torch
from optimum.exporters.onnx import TextEncoderOnnxConfig
from optimum.exporters.onnx.convert import export_pytorch
from optimum.utils import NormalizedTextConfig

from export.checkpoint import Classifier

INPUTS = ("input_ids", "attention_mask")
EMBEDDING = "embedding"

_OPSET = 17
"""The first opset with LayerNormalization, the last that the fusion patterns of onnxruntime's optimiser are tested on."""


class _GraphConfig(TextEncoderOnnxConfig):  # type: ignore[misc]  # optimum has no types
    """What optimum is told of the graph: its names and axes, and an example."""

    NORMALIZED_CONFIG_CLASS = NormalizedTextConfig

    def __init__(self, config: Any, outputs: Sequence[str]) -> None:
        super().__init__(config)
        self._outputs = tuple(outputs)

    @property
    def inputs(self) -> Mapping[str, Mapping[int, str]]:
        return {name: {0: "batch", 1: "tokens"} for name in INPUTS}

    @property
    def outputs(self) -> Mapping[str, Mapping[int, str]]:
        return {name: {0: "batch"} for name in self._outputs}

    def generate_dummy_inputs(self, framework: str = "pt", **_: Any) -> dict[str, torch.Tensor]:
        # Two rows of different length, so that the traced graph has a mask that matters.
        ids = torch.full((2, 9), 5, dtype=torch.int64)
        mask = torch.ones_like(ids)
        mask[1, 6:] = 0
        return dict(zip(INPUTS, (ids, mask), strict=True))


def to_onnx(model: Classifier, head_names: Sequence[str]) -> onnx.ModelProto:
    """Trace a classifier into an fp32 graph.

    optimum puts traceable parts in the place of those of transformers that cannot be traced (the masks since 4.53).

    Args:
        model: In evaluation mode.
        head_names: Names of the outputs, in the model's order; `EMBEDDING` comes after them.

    Returns:
        A graph with inputs `INPUTS`, int64 ``[batch, tokens]``; outputs float32 ``[batch, labels]`` per head and
        ``[batch, hidden]``. Position and token-type ids are computed inside.
    """
    config = _GraphConfig(model.config, (*head_names, EMBEDDING))
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the tracer warns of constants that are constant for every input here
        path = Path(folder) / "model.onnx"
        export_pytorch(model, config, _OPSET, path)
        return cast(onnx.ModelProto, onnx.load(str(path)))
