"""Smaller numbers: int8 or 4-bit matrix products, 4-bit embeddings, fp16 with fp32 islands.

Activations get one scale per token (row), computed in the graph. A scale per tensor would make the class of a text depend
on the texts beside it, and one outlier would coarsen every token (Dettmers et al. 2022, "LLM.int8()", section 2.1); with
a scale per row both are impossible, and there is nothing to calibrate.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from typing import Any, cast

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from export.optimise import CONTRIB, initializers, replace_initializers

BLOCK = 32
"""Weights that share a scale in 4 bits: the block of Q4_0, so a base that was stored as Q4_0 stays exact."""

_MIN_EMBEDDING_ROWS = 1000
"""A Gather from fewer rows is a position or type table: not worth four bits."""
_CLIP_RATIOS = (1.0, 0.95, 0.9, 0.85, 0.8)
"""Tried for each 4-bit block: cutting its largest weight can lower the error of the other 31."""
_TINY = np.float32(1e-6)
"""Added to a row's scale so that a row of zeros divides by something."""


def int8_matmuls(model: onnx.ModelProto, keep: Container[str] = ()) -> list[str]:
    """Make the products with constant matrices int8, in place.

    Weights are symmetric int8 with a scale per output channel; activations symmetric, 8 bits, with a scale per row.

    Args:
        model: A fused fp32 graph.
        keep: Names of nodes that stay fp32.

    Returns:
        The names of the nodes that were made int8.
    """
    constants = initializers(model)
    rows: dict[str, tuple[str, str]] = {}
    nodes: list[onnx.NodeProto] = []
    drop: set[str] = set()
    add = [
        numpy_helper.from_array(np.float32(1 / 127), "int8_step"),
        numpy_helper.from_array(np.float32(-1 / 127), "int8_step_down"),
        numpy_helper.from_array(_TINY, "int8_tiny"),
        numpy_helper.from_array(np.float32(1), "int8_one"),
        numpy_helper.from_array(np.uint8(128), "int8_middle"),
        numpy_helper.from_array(np.int8(0), "int8_zero"),
        numpy_helper.from_array(np.array([-1], np.int64), "int8_flat"),
    ]
    done = []
    for node in model.graph.node:
        weight = constants.get(node.input[1]) if node.op_type == "MatMul" else None
        if weight is None or len(weight.dims) != 2 or node.name in keep:
            nodes.append(node)
            continue
        source, name = node.input
        if source not in rows:
            rows[source] = (f"{source}_int8", f"{source}_scale")
            nodes.extend(_quantise_rows(source, *rows[source]))
        quantised, scale = rows[source]
        values, scales = quantise_channels(numpy_helper.to_array(weight))
        if name not in drop:
            drop.add(name)
            add += [
                numpy_helper.from_array(values, f"{name}_int8"),
                numpy_helper.from_array(scales, f"{name}_scale"),
            ]
        product = f"{node.output[0]}_unscaled"
        nodes += [
            helper.make_node(
                "MatMulIntegerToFloat",
                [quantised, f"{name}_int8", "int8_one", f"{name}_scale", "int8_middle", "int8_zero"],
                [product],
                name=f"{node.name}_int8",
                domain=CONTRIB,
            ),
            helper.make_node("Mul", [product, scale], list(node.output), name=f"{node.name}_rescale"),
        ]
        done.append(node.name)
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    still_used = {name for node in nodes for name in node.input}
    replace_initializers(model, drop - still_used, add)
    return done


def _quantise_rows(source: str, quantised: str, scale: str) -> list[onnx.NodeProto]:
    """Nodes that give the rows of `source` in 8 bits, and their scales with a last axis of 1.

    A pass over all values costs as much as its memory: the extremes are reduced without an ``Abs`` before them, and one
    ``QuantizeLinear`` divides, rounds to the nearest even, shifts by 128 and saturates. It takes a scale for each index of one
    axis, so for it the rows are one axis.
    """

    def node(kind: str, inputs: list[str], output: str, **attributes: Any) -> onnx.NodeProto:
        return helper.make_node(kind, inputs, [output], name=output, **attributes)

    middle = helper.make_tensor("value", TensorProto.UINT8, [1], [128])
    return [
        node("ReduceMax", [source], f"{source}_high", axes=[-1], keepdims=1),
        node("ReduceMin", [source], f"{source}_low", axes=[-1], keepdims=1),
        node("Mul", [f"{source}_high", "int8_step"], f"{source}_step_high"),
        node("Mul", [f"{source}_low", "int8_step_down"], f"{source}_step_low"),
        node("Max", [f"{source}_step_high", f"{source}_step_low"], f"{source}_step"),
        node("Add", [f"{source}_step", "int8_tiny"], scale),
        node("Reshape", [scale, "int8_flat"], f"{scale}_flat"),
        node("Shape", [f"{scale}_flat"], f"{source}_count"),
        node("ConstantOfShape", [f"{source}_count"], f"{source}_middles", value=middle),
        node("Flatten", [source], f"{source}_rows", axis=-1),
        node("QuantizeLinear", [f"{source}_rows", f"{scale}_flat", f"{source}_middles"], f"{quantised}_rows", axis=0),
        node("Shape", [source], f"{source}_shape"),
        node("Reshape", [f"{quantised}_rows", f"{source}_shape"], quantised),
    ]


def quantise_channels(weights: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Symmetric int8 with a scale per output channel.

    Args:
        weights: *Shape:* ``[inputs, outputs]``.

    Returns:
        Values in -127..127, ``[inputs, outputs]``, and scales ``[outputs]``: ``weights ~ values * scales``.
    """
    scales = np.abs(weights).max(axis=0) / np.float32(127)
    scales = np.where(scales == 0, np.float32(1), scales).astype(np.float32)
    return np.clip(np.rint(weights / scales), -127, 127).astype(np.int8), scales


def int4_embeddings(model: onnx.ModelProto) -> None:
    """Store the large embedding tables as 4-bit blocks, in place; each lookup gives fp32 again."""
    constants = initializers(model)
    nodes: list[onnx.NodeProto] = []
    drop: set[str] = set()
    add: list[onnx.TensorProto] = []
    for node in model.graph.node:
        table = constants.get(node.input[0]) if node.op_type == "Gather" else None
        if table is None or not _is_embedding(table):
            nodes.append(node)
            continue
        name = node.input[0]
        values, scales = quantise_blocks(numpy_helper.to_array(table))
        packed = helper.make_tensor(
            f"{name}_int4", TensorProto.INT4, values.shape, pack_int4(values).tobytes(), raw=True
        )
        drop.add(name)
        add += [packed, numpy_helper.from_array(scales, f"{name}_scale")]
        nodes += [
            helper.make_node(
                "GatherBlockQuantized",
                [f"{name}_int4", node.input[1], f"{name}_scale"],
                [f"{node.output[0]}_half"],
                name=f"{node.name}_int4",
                domain=CONTRIB,
                block_size=BLOCK,
                gather_axis=0,
                quantize_axis=1,
            ),
            helper.make_node(
                "Cast", [f"{node.output[0]}_half"], list(node.output), name=f"{node.name}_cast", to=TensorProto.FLOAT
            ),
        ]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    replace_initializers(model, drop, add)


def _is_embedding(table: onnx.TensorProto) -> bool:
    return len(table.dims) == 2 and table.dims[0] >= _MIN_EMBEDDING_ROWS and table.dims[1] % BLOCK == 0


def quantise_blocks(weights: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float16]]:
    """Symmetric 4 bits with a scale per block of `BLOCK` weights.

    Each block takes the scale with the least squared error among: the weight of largest magnitude at -8 (which is how
    Q4_0 is made, so weights on that grid come back exactly), and cuts of it by `_CLIP_RATIOS`.

    Args:
        weights: *Shape:* ``[rows, width]``, the width a multiple of the block.

    Returns:
        Values in -8..7, ``[rows, width]``, and scales ``[rows, width / block]``.
    """
    rows, width = weights.shape
    blocks = weights.reshape(-1, BLOCK).astype(np.float32)
    peak = np.take_along_axis(blocks, np.abs(blocks).argmax(axis=1)[:, None], axis=1)[:, 0]
    best_error = np.full(len(blocks), np.inf)
    best_values = np.zeros(blocks.shape, np.int8)
    best_scales = np.ones(len(blocks), np.float16)
    for ratio in _CLIP_RATIOS:
        scales = (peak * np.float32(ratio) / np.float32(-8)).astype(np.float16)
        steps = np.where(scales == 0, np.float16(1), scales).astype(np.float32)[:, None]
        values = np.clip(np.rint(blocks / steps), -8, 7)
        error = np.square(values * steps - blocks).sum(axis=1)
        better = error < best_error
        best_error[better] = error[better]
        best_values[better] = values[better].astype(np.int8)
        best_scales[better] = scales[better]
    return best_values.reshape(rows, width), best_scales.reshape(rows, width // BLOCK)


def pack_int4(values: NDArray[np.int8]) -> NDArray[np.uint8]:
    """Two values of -8..7 in a byte, the first in the low half, as ONNX stores INT4."""
    nibbles = values.reshape(-1).astype(np.uint8) & 0xF
    return cast(NDArray[np.uint8], nibbles[0::2] | (nibbles[1::2] << 4))


def int4_matmuls(model: onnx.ModelProto) -> list[str]:
    """Store the constant matrices of products in 4 bits with a scale per 32 weights of a channel, in place.

    ``MatMulNBits`` computes in int8 (``accuracy_level`` 4) with scales per row and block of the activations, so a text's
    class does not depend on its batch here either. Half the size of int8 in the encoder, slower where the CPU is the
    limit, and coarser: the parity gate says whether a checkpoint bears it.

    Returns:
        The names of the nodes that were replaced: those whose inner size is a multiple of the block.
    """
    constants = initializers(model)
    nodes: list[onnx.NodeProto] = []
    packed: dict[str, list[onnx.TensorProto]] = {}
    done = []
    for node in model.graph.node:
        weight = constants.get(node.input[1]) if node.op_type == "MatMul" else None
        if weight is None or len(weight.dims) != 2 or weight.dims[0] % BLOCK:
            nodes.append(node)
            continue
        name, (inner, outer) = node.input[1], weight.dims
        if name not in packed:
            values, scales = quantise_blocks(numpy_helper.to_array(weight).T)
            # Stored from 0 to 15, the low half first, by channel and block.
            codes = pack_int4(values + np.int8(8)).reshape(outer, inner // BLOCK, BLOCK // 2)
            packed[name] = [
                numpy_helper.from_array(codes, f"{name}_int4"),
                numpy_helper.from_array(scales.astype(np.float32), f"{name}_scale"),
            ]
        nodes.append(
            helper.make_node(
                "MatMulNBits",
                [node.input[0], f"{name}_int4", f"{name}_scale"],
                list(node.output),
                name=f"{node.name}_int4",
                domain=CONTRIB,
                K=inner,
                N=outer,
                bits=4,
                block_size=BLOCK,
                accuracy_level=4,
            )
        )
        done.append(node.name)
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    still_used = {name for node in nodes for name in node.input}
    replace_initializers(model, set(packed) - still_used, [tensor for pair in packed.values() for tensor in pair])
    return done


def to_fp16(model: onnx.ModelProto, keep: Sequence[str] = ()) -> onnx.ModelProto:
    """Half precision for CUDA, with inputs and outputs as they are.

    Layer normalisation, softmax and pooling stay fp32: their sums overflow in fp16 when a residual is large. Attention
    runs fused, and its kernels accumulate in fp32.

    Args:
        model: A fused fp32 graph.
        keep: Names of nodes that stay fp32 besides, as `export.ranges.overflowing` finds them.
    """
    from onnxruntime.transformers.onnx_model import OnnxModel

    blocked = ["LayerNormalization", "SkipLayerNormalization", "Softmax", "ReduceSum", "ReduceMean", "Div", "Gemm"]
    converted: Any = OnnxModel(model)  # infers the types of fused operators too, which ONNX alone cannot
    converted.convert_float_to_float16(keep_io_types=True, op_block_list=blocked, node_block_list=list(keep))
    return cast(onnx.ModelProto, converted.model)
