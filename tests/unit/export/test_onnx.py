"""The graph says what PyTorch says, before and after fusion, whatever the encoder and the shape of the batch."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import onnxruntime
import pytest
import torch
from transformers import AutoConfig, AutoModel

from export.checkpoint import Classifier
from export.onnx import EMBEDDING, to_onnx
from export.optimise import fuse

_SMALL = {
    "vocab_size": 50, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64,
    "max_position_embeddings": 64,
}  # fmt: skip
_ENCODERS: dict[str, dict[str, Any]] = {
    "bert": _SMALL,
    "xlm-roberta": _SMALL,
    "mpnet": _SMALL,
    "deberta-v2": _SMALL | {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "position_buckets": 16},
    "modernbert": _SMALL
    | dict.fromkeys(("pad_token_id", "cls_token_id", "sep_token_id", "bos_token_id", "eos_token_id"), 1),
    "xlnet": {"vocab_size": 50, "d_model": 32, "n_layer": 2, "n_head": 4, "d_inner": 64},
}


@pytest.mark.parametrize("kind", _ENCODERS)
def test_the_graph_of_any_encoder_says_what_pytorch_says(kind: str) -> None:
    torch.manual_seed(0)
    encoder = AutoModel.from_config(AutoConfig.for_model(kind, **_ENCODERS[kind]), attn_implementation="eager")
    if getattr(encoder, "pooler", None) is not None:
        encoder.pooler = None
    model = Classifier(cast(Any, encoder), {"a": torch.nn.Linear(32, 3)}, "mean").eval()
    plain = to_onnx(model, ["a"])
    for graph in (plain, *(fuse(plain, kind, 4, 32, attention=fused) for fused in (False, True))):
        session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
        assert [output.name for output in session.get_outputs()] == ["a", EMBEDDING]
        for rows, tokens in ((1, 5), (3, 17)):  # neither is the shape that was traced
            ids = torch.randint(5, 50, (rows, tokens))
            mask = torch.ones_like(ids)
            if rows > 1:
                mask[-1, tokens // 2 :] = 0
            with torch.inference_mode():
                wanted = model(ids, mask)
            found = session.run(None, {"input_ids": ids.numpy(), "attention_mask": mask.numpy()})
            for want, got in zip(wanted, found, strict=True):
                np.testing.assert_allclose(got, want.numpy(), atol=1e-4)
