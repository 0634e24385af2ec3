"""The classifier that is trained: any encoder, pooled, with a linear head per task; its folder, and its texts as tokens."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel
from transformers.utils import logging

from training.errors import TrainingError
from training.vocabulary import pad_id

CHECKPOINT_FORMAT = 1
"""What `export/checkpoint.py` reads."""

EMBEDDING = "embedding"
"""Name of the pooled state among the outputs; no head may be called so."""

Pooling = Literal["cls", "mean"]


@dataclass(frozen=True)
class About:
    """What `model.json` says of a checkpoint."""

    heads: Mapping[str, Sequence[str]]
    """Labels by head, in the order of the outputs."""
    pooling: Pooling
    max_length: int
    """Tokens per text as it is served, special ones included."""
    text_prefix: str
    base: str
    languages: Sequence[str] = ()
    """That it was trained in."""
    provenance: Mapping[str, Any] = field(default_factory=dict)


class Classifier(nn.Module):
    """An encoder, its pooled state, and a linear head for each task.

    Args:
        encoder: A Hugging Face encoder whose output has ``last_hidden_state``.
        about: Heads and pooling.
        dropout: On the pooled state, before the heads.
    """

    def __init__(self, encoder: nn.Module, about: About, dropout: float = 0.1) -> None:
        super().__init__()
        hidden = int(cast(Any, encoder).config.hidden_size)
        if about.pooling == "cls" and cast(Any, encoder).config.model_type == "xlnet":
            raise TrainingError("XLNet's first token is no summary", where="base.pooling", hint='take "mean"')
        self.encoder = encoder
        self.about = about
        self.dropout = nn.Dropout(dropout)
        self.heads = nn.ModuleDict({name: nn.Linear(hidden, len(labels)) for name, labels in about.heads.items()})
        for head in self.heads.values():
            nn.init.normal_(cast(nn.Linear, head).weight, std=0.02)
            nn.init.zeros_(cast(nn.Linear, head).bias)

    def embed(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """The pooled state.

        Args:
            input_ids: int64; *Shape:* ``[batch, tokens]``.
            attention_mask: int64, 1 for a token and 0 for padding; *Shape:* ``[batch, tokens]``.

        Returns:
            *Shape:* ``[batch, hidden]``.
        """
        states = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        return pool(states, attention_mask, self.about.pooling)

    def forward(self, input_ids: Tensor, attention_mask: Tensor, embedding: bool = False) -> dict[str, Tensor]:
        """Raw logits by head, ``[batch, labels]`` each; arguments as for `embed`.

        Args:
            embedding: Give the pooled state too, as `EMBEDDING`, ``[batch, hidden]``.
        """
        pooled = self.embed(input_ids, attention_mask)
        dropped = self.dropout(pooled)
        found = {name: head(dropped) for name, head in self.heads.items()}
        return found | {EMBEDDING: pooled} if embedding else found


def pool(states: Tensor, attention_mask: Tensor, pooling: Pooling) -> Tensor:
    """States ``[batch, tokens, hidden]`` to one ``[batch, hidden]``."""
    if pooling == "cls":
        return states[:, 0]
    shown = attention_mask.unsqueeze(-1).to(states.dtype)
    return (states * shown).sum(1) / shown.sum(1)


def layers_of(encoder: nn.Module) -> nn.ModuleList:
    """The encoder's layers, lowest first: its longest module list, whatever the architecture calls it."""
    lists = [module for module in encoder.modules() if isinstance(module, nn.ModuleList)]
    if not lists:
        raise TrainingError("has no list of layers", where=type(encoder).__name__, hint="it is no encoder known here")
    return max(lists, key=len)


def cut_embedding(encoder: nn.Module, kept: NDArray[np.int64]) -> None:
    """Keep only these rows of the word embedding, in this order, as `vocabulary.trim_tokenizer` renumbers the pieces.

    Args:
        encoder: A Hugging Face encoder; changed in place.
        kept: Old ids; *Shape:* ``[kept]``.
    """
    hugging = cast(Any, encoder)
    rows = hugging.get_input_embeddings().weight.data[torch.from_numpy(kept)].clone()
    hugging.set_input_embeddings(nn.Embedding(rows.shape[0], rows.shape[1], _weight=rows))
    hugging.config.vocab_size = len(kept)


class Texts:
    """Texts as token ids, made once: prefixed, cut at a length, without padding.

    Args:
        tokenizer: Content of `tokenizer.json`.
        texts: As they are, without the prefix.
        prefix: Put before each.
        max_length: Tokens per text, special ones included.
    """

    def __init__(self, tokenizer: str, texts: Sequence[str], prefix: str, max_length: int) -> None:
        made = Tokenizer.from_str(tokenizer)
        made.no_padding()
        made.enable_truncation(max_length)
        self._pad = pad_id(made)
        encodings = made.encode_batch_fast([prefix + text for text in texts])
        self.ids = [np.asarray(encoding.ids, dtype=np.int32) for encoding in encodings]
        self.lengths = np.array([len(ids) for ids in self.ids], dtype=np.int64)

    def batch(self, places: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Ids and mask, int64 ``[batch, tokens]``, padded to the longest of them."""
        longest = int(self.lengths[list(places)].max())
        ids = np.full((len(places), longest), self._pad, dtype=np.int64)
        mask = np.zeros_like(ids)
        for row, place in enumerate(places):
            found = self.ids[place]
            ids[row, : len(found)] = found
            mask[row, : len(found)] = 1
        return torch.from_numpy(ids), torch.from_numpy(mask)


def save_classifier(model: Classifier, tokenizer: str, folder: Path) -> None:
    """Write encoder, heads, tokenizer and `model.json` into a folder that exists."""
    cast(Any, model.encoder).save_pretrained(folder / "encoder")
    heads = {
        f"{n}.{k}": v.contiguous().float() for n, head in model.heads.items() for k, v in head.state_dict().items()
    }
    save_file(heads, str(folder / "heads.safetensors"))
    (folder / "tokenizer.json").write_text(tokenizer, encoding="utf-8")
    about = asdict(model.about) | {
        "format": CHECKPOINT_FORMAT,
        "heads": [{"name": name, "labels": list(labels)} for name, labels in model.about.heads.items()],
        "languages": sorted(model.about.languages),
    }
    (folder / "model.json").write_text(json.dumps(about, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


_DROPOUT = ("hidden_dropout_prob", "dropout", "resid_pdrop", "mlp_dropout", "embedding_dropout")
_ATTENTION_DROPOUT = ("attention_probs_dropout_prob", "attention_dropout", "dropatt", "attn_pdrop")
"""What the architectures call them in their configurations."""


def load_classifier(
    folder: Path, *, dropout: float = 0.1, attention_dropout: float = 0.0, head_dropout: float = 0.1
) -> tuple[Classifier, str]:
    """A classifier and its tokenizer's content, as `save_classifier` wrote them.

    Args:
        folder: Of the checkpoint.
        dropout: On states inside the encoder, where the architecture has it.
        attention_dropout: On attention weights.
        head_dropout: On the pooled state.

    Raises:
        TrainingError: The folder holds no such thing, or its parts do not fit together.
    """
    try:
        facts = json.loads((folder / "model.json").read_text(encoding="utf-8"))
        tokenizer = (folder / "tokenizer.json").read_text(encoding="utf-8")
        config = AutoConfig.from_pretrained(folder / "encoder")
        for names, rate in ((_DROPOUT, dropout), (_ATTENTION_DROPOUT, attention_dropout)):
            for name in names:
                if hasattr(config, name):
                    setattr(config, name, rate)
        encoder = load_encoder(folder / "encoder", config)
        about = About(
            heads={head["name"]: tuple(head["labels"]) for head in facts["heads"]},
            **{
                name: facts[name]
                for name in ("pooling", "max_length", "text_prefix", "base", "languages", "provenance")
            },
        )
        model = Classifier(encoder, about, head_dropout)
        model.heads.load_state_dict(load_file(str(folder / "heads.safetensors")))
    except (OSError, KeyError, ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise TrainingError(
            f"is no checkpoint of a classifier: {reason}", where=str(folder), hint="remove it, and train again"
        ) from None
    return model, tokenizer


def load_encoder(name: str | Path, config: Any = None) -> nn.Module:
    """An encoder in fp32 from a folder or the hub, without the pooler that some architectures add and nothing here uses."""
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()  # it would tell of the pooler
    try:
        encoder = AutoModel.from_pretrained(name, config=config, dtype=torch.float32)
    finally:
        logging.set_verbosity(verbosity)
    if getattr(encoder, "pooler", None) is not None:
        encoder.pooler = None
    return cast(nn.Module, encoder)


@torch.inference_mode()
def predict(
    model: Classifier,
    texts: Texts,
    batch_tokens: int = 4096,
    device: str | torch.device = "cpu",
    bf16: bool = False,
    embedding: bool = False,
) -> dict[str, NDArray[np.float32]]:
    """Logits of every head for all texts, by head, ``[texts, labels]``; batches of like length.

    With `embedding`, the pooled states too, as `EMBEDDING`, ``[texts, hidden]``.
    """
    was_training = model.training
    model.eval()
    found = {
        name: np.zeros((len(texts.ids), len(labels)), dtype=np.float32) for name, labels in model.about.heads.items()
    }
    order = np.argsort(texts.lengths, kind="stable")
    start = 0
    while start < len(order):
        end = start + 1
        while end < len(order) and (end + 1 - start) * texts.lengths[order[end]] <= batch_tokens:
            end += 1
        places = order[start:end]
        ids, mask = texts.batch(places.tolist())
        with torch.autocast(torch.device(device).type, torch.bfloat16, enabled=bf16):
            outputs = model(ids.to(device), mask.to(device), embedding=embedding)
        for name, values in outputs.items():
            if name not in found:
                found[name] = np.zeros((len(texts.ids), values.shape[1]), dtype=np.float32)
            found[name][places] = values.float().cpu().numpy()
        start = end
    model.train(was_training)
    return found
