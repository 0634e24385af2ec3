"""Make a tiny, contract-true model bundle for tests: random weights, a word tokenizer, texts that break it on purpose."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from monitor.inference.bundle import (
    ANY_LANGUAGE,
    TOKENIZER_FILE,
    Calibration,
    Head,
    Manifest,
    model_file_name,
    write_manifest,
)
from monitor.records import SENTIMENTS

HIDDEN = 8
MAX_LENGTH = 32
PREFIX = "query: "

NAN_WORD = "poisonnan"
"""A text with this word makes every output of its row NaN."""
CRASH_WORD = "poisoncrash"
"""A text with this word makes ONNX Runtime raise for the whole batch: its id lies outside the embedding table."""
WORDS = {"awful": "negative", "bad": "negative", "okay": "neutral", "good": "positive", "great": "positive"}
"""Words that the model reads the way a person does, so that a test may expect a class."""

_HEADS = (
    Head(name="sentiment", labels=SENTIMENTS),
    Head(name="topic", labels=("politics", "sports", "travel", "health")),
)
_SPECIAL = {"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3}


def make_tiny_bundle(path: Path, *, seed: int = 0, embedding: bool = True) -> Path:
    """Write a bundle into a folder; equal seeds give equal bytes.

    The model is the mean of its words' embeddings and one matrix per head. A text holding words of `WORDS` gets their
    sentiment, any other text something fixed but arbitrary. Calibration: `en` has a temperature of its own and `xx` a
    bias that turns every text positive.

    Args:
        path: Folder to make; it may exist.
        seed: Of the weights: another seed gives another bundle version with other probabilities.
        embedding: Whether the model has the optional output `embedding`.

    Returns:
        `path`.
    """
    path.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    vocabulary = _vocabulary()
    _tokenizer(vocabulary).save(str(path / TOKENIZER_FILE))
    model = _model(vocabulary, rng, embedding=embedding)
    onnx.save(model, path / model_file_name("int8"))
    (path / "MODEL_CARD.md").write_text("# Tiny\n\nRandom weights, for tests only.\n", encoding="utf-8")
    _manifest(path, seed)
    return path


def _vocabulary() -> dict[str, int]:
    letters = [*"abcdefghijklmnopqrstuvwxyz0123456789:", *(f"##{c}" for c in "abcdefghijklmnopqrstuvwxyz0123456789")]
    words = [*_SPECIAL, "query", *letters, *WORDS, NAN_WORD, CRASH_WORD]
    return {word: index for index, word in enumerate(words)}


def _tokenizer(vocabulary: dict[str, int]) -> Tokenizer:
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="<unk>", max_input_chars_per_word=10_000))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", _SPECIAL["<s>"]), ("</s>", _SPECIAL["</s>"])]
    )
    tokenizer.enable_truncation(MAX_LENGTH)
    return tokenizer


def _weights(vocabulary: dict[str, int], rng: np.random.Generator) -> dict[str, NDArray[np.float32]]:
    rows = len(vocabulary) - 1  # the last word, CRASH_WORD, has no row
    table = rng.normal(0.0, 0.1, (rows, HIDDEN)).astype(np.float32)
    for word, sentiment in WORDS.items():
        table[vocabulary[word], SENTIMENTS.index(sentiment)] = 60.0  # outweighs the mean of 31 other pieces
    table[vocabulary[NAN_WORD]] = np.nan
    weights = {head.name: rng.normal(0.0, 1.0, (HIDDEN, len(head.labels))).astype(np.float32) for head in _HEADS}
    weights["sentiment"][:3] = np.eye(3, dtype=np.float32) * 4
    return {"table": table, **{f"{name}.weight": value for name, value in weights.items()}}


def _model(vocabulary: dict[str, int], rng: np.random.Generator, *, embedding: bool) -> onnx.ModelProto:
    initializers = [numpy_helper.from_array(value, name) for name, value in _weights(vocabulary, rng).items()]
    initializers += [
        numpy_helper.from_array(np.array([2], dtype=np.int64), "last"),
        numpy_helper.from_array(np.array([1], dtype=np.int64), "tokens_axis"),
        numpy_helper.from_array(np.array(0, dtype=np.float32), "zero"),
    ]
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["words"]),
        helper.make_node("Cast", ["attention_mask"], ["mask_flat"], to=TensorProto.FLOAT),
        helper.make_node("Cast", ["attention_mask"], ["mask_bool_flat"], to=TensorProto.BOOL),
        helper.make_node("Unsqueeze", ["mask_bool_flat", "last"], ["mask_bool"]),
        helper.make_node("Where", ["mask_bool", "words", "zero"], ["seen"]),
        helper.make_node("ReduceSum", ["seen", "tokens_axis"], ["sum"], keepdims=0),
        helper.make_node("ReduceSum", ["mask_flat", "tokens_axis"], ["count"], keepdims=1),
        helper.make_node("Div", ["sum", "count"], ["embedding"]),
        *(helper.make_node("MatMul", ["embedding", f"{head.name}.weight"], [head.name]) for head in _HEADS),
    ]
    shapes = {head.name: len(head.labels) for head in _HEADS}
    if embedding:
        shapes["embedding"] = HIDDEN
    graph = helper.make_graph(
        nodes,
        "tiny",
        [
            helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "tokens"])
            for name in ("input_ids", "attention_mask")
        ],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", width]) for name, width in shapes.items()],
        initializers,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    onnx.checker.check_model(model)
    return model


def _calibration(head: Head, *, temperature: float = 1.0, favourite: int | None = None) -> Calibration:
    k = len(head.labels)
    right, wrong = 0.8, 0.2 / (k - 1)
    return Calibration(
        temperature=temperature,
        bias=tuple(100.0 if i == favourite else 0.0 for i in range(k)),
        confusion=tuple(tuple(right if i == j else wrong for j in range(k)) for i in range(k)),
        n=100,
    )


def _manifest(path: Path, seed: int) -> Manifest:
    sentiment, topic = _HEADS
    return write_manifest(
        path,
        name=f"tiny-{seed}",
        heads=_HEADS,
        max_length=MAX_LENGTH,
        text_prefix=PREFIX,
        pad_id=_SPECIAL["<pad>"],
        hidden=HIDDEN,
        languages=("en", "xx"),
        calibration={
            sentiment.name: {
                ANY_LANGUAGE: _calibration(sentiment),
                "en": _calibration(sentiment, temperature=2.0),
                "xx": _calibration(sentiment, favourite=SENTIMENTS.index("positive")),
            },
            topic.name: {ANY_LANGUAGE: _calibration(topic)},
        },
        provenance={"base": "random"},
    )
