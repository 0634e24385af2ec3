"""A checkpoint of two small layers with random weights, in the form that training writes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import BertConfig, BertModel

torch.set_num_threads(1)  # of matrices this small, more threads only wait for each other

SENTIMENT = ["negative", "neutral", "positive"]
TOPIC = ["culture", "sport"]
SPECIAL = ["<s>", "<pad>", "</s>", "<unk>"]
SYLLABLES = [a + b for a in "bdfgklmnprst" for b in "aeiou"]
LETTERS = list("abcdefghijklmnopqrstuvwxyzäöüéñабвгдежзиклмнопрстуфхאבגדהابتثकखगघไทย中文日本語!?.,'@#")


def tokenizer() -> Tokenizer:
    """A Unigram tokenizer with words of two syllables, as XLM-R's is made: Metaspace before, <s> … </s> around."""
    words = [f"▁{a}{b}" for a in SYLLABLES[:30] for b in SYLLABLES[30:]]
    pieces = ["▁", *LETTERS, *SYLLABLES, *words]
    scores = [-3.0, *[-9.0] * len(LETTERS), *[-7.0 - i / 100 for i in range(len(SYLLABLES))]]
    scores += [-8.0 - i / 1000 for i in range(len(words))]
    vocab = [(piece, 0.0) for piece in SPECIAL] + list(zip(pieces, scores, strict=True))
    made = Tokenizer(models.Unigram(vocab, unk_id=3, byte_fallback=False))
    made.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace("  ", " ")])
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    made.decoder = decoders.Metaspace()
    made.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)])
    made.add_special_tokens([AddedToken(piece) for piece in SPECIAL])
    return made


def texts(n: int, seed: int = 0) -> list[str]:
    """Made-up words and stray letters, 1 to 30 of them."""
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(n):
        words = ["".join(rng.choice(SYLLABLES, rng.integers(1, 4))) for _ in range(rng.integers(1, 30))]
        made.append(" ".join([*words, *rng.choice(LETTERS, rng.integers(0, 4))]))
    return made


def write_checkpoint(folder: Path, seed: int = 0) -> Path:
    """Write the checkpoint and return its folder."""
    torch.manual_seed(seed)
    folder.mkdir(parents=True, exist_ok=True)
    made = tokenizer()
    config = BertConfig(
        vocab_size=made.get_vocab_size() + 7,  # more rows than pieces, as multilingual encoders have
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=64,
        initializer_range=0.2,
    )
    BertModel(config, add_pooling_layer=False).save_pretrained(folder / "encoder")
    heads = {"sentiment": SENTIMENT, "topic": TOPIC}
    tensors = {}
    calibration = {}
    for name, labels in heads.items():
        k = len(labels)
        tensors |= {f"{name}.weight": torch.randn(k, 32), f"{name}.bias": torch.zeros(k)}
        entry = {"temperature": 1.5, "bias": [0.1] * k, "confusion": np.eye(k).tolist(), "n": 9, "macro_f1": 0.5}
        calibration[name] = {"*": entry, "de": entry | {"temperature": 2.0}}
    save_file(tensors, str(folder / "heads.safetensors"))
    made.save(str(folder / "tokenizer.json"))
    about = {
        "format": 1,
        "heads": [{"name": name, "labels": labels} for name, labels in heads.items()],
        "pooling": "mean",
        "max_length": 24,
        "text_prefix": "bada: ",
        "base": "random",
        "languages": ["de", "en"],
        "provenance": {"data": ["made up"], "recipe": "tiny"},
    }
    (folder / "model.json").write_text(json.dumps(about))
    (folder / "calibration.json").write_text(json.dumps(calibration))
    return folder
