"""Which operators leave the range of half precision, measured by running the graph on real texts."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper

FP16_LIMIT = 65504.0 / 8
"""An operator whose inputs or outputs pass this stays fp32. An eighth of fp16's largest number: texts that were not tried
may be some times larger than those that were."""


def overflowing(
    model: onnx.ModelProto, feeds: Iterable[dict[str, NDArray[np.int64]]], limit: float = FP16_LIMIT
) -> list[str]:
    """Names of the nodes with a value beyond a limit, in the order of the graph.

    Args:
        model: An fp32 graph whose nodes all have names.
        feeds: Inputs of each run.
        limit: Largest magnitude that may pass.
    """
    names = [name for node in model.graph.node for name in node.output if name]
    shown = onnx.ModelProto()
    shown.CopyFrom(model)
    have = {value.name for value in shown.graph.output}
    # A name is enough: onnxruntime knows the types, of its own fused operators too.
    shown.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name not in have)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    running = onnxruntime.InferenceSession(shown.SerializeToString(), options, providers=["CPUExecutionProvider"])
    peaks = {
        tensor.name: _peak(numpy_helper.to_array(tensor))
        for tensor in model.graph.initializer
        if tensor.data_type == TensorProto.FLOAT
    }
    for feed in feeds:
        for name, values in zip(names, running.run(names, feed), strict=True):
            if values.dtype == np.float32:
                peaks[name] = max(peaks.get(name, 0.0), _peak(values))
    return [
        node.name
        for node in model.graph.node
        if any(peaks.get(name, 0.0) > limit for name in (*node.input, *node.output))
    ]


def _peak(values: NDArray[np.float32]) -> float:
    """Largest magnitude; NaN counts as beyond every limit."""
    return float(np.nan_to_num(np.abs(values), nan=np.inf).max(initial=0.0)) if values.size else 0.0
