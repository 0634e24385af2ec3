"""Graph optimisation: fused attention, layer normalisation and GELU, and no weight that the graph never reads."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any, cast

import onnx
from onnx import numpy_helper

_BERT_LIKE = frozenset({"bert", "roberta", "xlm-roberta", "distilbert", "electra", "mpnet", "camembert"})
"""Encoders whose attention has the pattern that the optimiser fuses as ``bert``; others keep their own operators."""

CONTRIB = "com.microsoft"
"""The domain of onnxruntime's own operators."""

_MASK_VALUE = -10_000.0
"""Added to the scores of padding. Finite, and small enough for fp16: a row of -inf gives NaN in the softmax."""


def fuse(model: onnx.ModelProto, model_type: str, heads: int, hidden: int, *, attention: bool) -> onnx.ModelProto:
    """Fuse the operators of an encoder.

    Args:
        model: As `export.onnx.to_onnx` made it.
        model_type: ``config.model_type`` of the encoder.
        heads: Attention heads.
        hidden: Width.
        attention: The attention too. On a GPU that is where the time is; on a CPU the fused kernel takes half as long again as
            its parts (1.32, AVX-512, 32 tokens), and as long with 64 and more.

    Returns:
        The same function with fewer operators.
    """
    from onnxruntime.transformers import optimizer
    from onnxruntime.transformers.fusion_options import AttentionMaskFormat, FusionOptions

    if model_type not in _BERT_LIKE:
        return model
    options = FusionOptions("bert")
    options.enable_attention = attention
    options.use_multi_head_attention = True  # keeps the projections as matrix products, which can then be quantised
    options.attention_mask_format = AttentionMaskFormat.AttentionMask
    options.enable_skip_layer_norm = (
        False  # the fused CPU kernel takes four times as long as its two parts (1.32, AVX-512)
    )
    options.enable_embed_layer_norm = False  # it would hide the embedding's Gather, which is quantised on its own
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        onnx.save(model, str(path))
        optimised = optimizer.optimize_model(
            str(path), model_type="bert", num_heads=heads, hidden_size=hidden, optimization_options=options, opt_level=0
        )
    fused = cast(onnx.ModelProto, optimised.model)
    if all(imported.domain != CONTRIB for imported in fused.opset_import):
        fused.opset_import.append(onnx.helper.make_opsetid(CONTRIB, 1))
    _bound_mask(fused)
    return fused


def cut_positions(model: onnx.ModelProto, positions: int, tokens: int) -> None:
    """Shorten a learned position table, in place, to the texts' longest length.

    Only a table that is addressed by token place from 0 is cut; tables with an offset (RoBERTa) are left alone.
    """
    for node in model.graph.node:
        if node.op_type != "Gather":
            continue
        table = next((t for t in model.graph.initializer if t.name == node.input[0]), None)
        if table is not None and list(table.dims[:1]) == [positions] and len(table.dims) == 2 and tokens < positions:
            table.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(table)[:tokens].copy(), table.name))


def _bound_mask(model: onnx.ModelProto) -> None:
    for node in model.graph.node:
        for attribute in node.attribute:
            if attribute.name == "mask_filter_value":
                attribute.f = max(attribute.f, _MASK_VALUE)


def initializers(model: onnx.ModelProto) -> dict[str, Any]:
    """The graph's constant tensors by name."""
    return {tensor.name: tensor for tensor in model.graph.initializer}


def replace_initializers(model: onnx.ModelProto, drop: set[str], add: list[onnx.TensorProto]) -> None:
    """Take constant tensors out of a graph and put others in, in place."""
    kept = [tensor for tensor in model.graph.initializer if tensor.name not in drop]
    del model.graph.initializer[:]
    model.graph.initializer.extend([*kept, *add])


def canonical(model: onnx.ModelProto) -> bytes:
    """The model's bytes, the same for the same graph: no names or versions of the tools that made it."""
    model.producer_name, model.producer_version, model.doc_string = "babelwatch", "", ""
    model.graph.name = "babelwatch"
    for node in model.graph.node:
        node.doc_string = ""
    del model.metadata_props[:]
    return cast(bytes, model.SerializeToString(deterministic=True))
