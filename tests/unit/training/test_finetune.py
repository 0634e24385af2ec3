"""The first fine-tune on a tiny encoder: it learns, calibrates, and leaves a whole checkpoint or none."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from tokenizers import Tokenizer, models, pre_tokenizers  # noqa: E402
from transformers import BertConfig, BertModel  # noqa: E402

from training.base import Base  # noqa: E402
from training.finetune import Options, batches, calibration, macro_f1, read_tsv, run  # noqa: E402

WORDS = {"negative": "awful", "neutral": "plain", "positive": "lovely"}


def tiny_base() -> Base:
    vocabulary = {
        word: n
        for n, word in enumerate(
            ["<s>", "<pad>", "</s>", "<unk>", "query", ":", "day", *WORDS.values(), "vote", "goal"]
        )
    }
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    config = BertConfig(
        vocab_size=len(vocabulary), hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32
    )
    torch.manual_seed(1)
    return Base(BertModel(config, add_pooling_layer=False), tokenizer.to_str().encode())


@pytest.fixture
def data(tmp_path: Path) -> Path:
    rng = random.Random(0)
    for source, names in (("umsab", ("train", "val")), ("sib200", ("train", "dev"))):
        (tmp_path / source).mkdir()
        for name in names:
            lines = ["language\tlabel\ttext" if source == "umsab" else "language\tindex_id\tcategory\ttext"]
            for n in range(150):
                label = rng.randrange(3)
                words = f"day {list(WORDS.values())[label]} {'day ' * rng.randrange(4)}"
                topic = rng.choice(["politics", "sports"])
                lines.append(
                    f"en\t{label}\t{words}"
                    if source == "umsab"
                    else f"eng_Latn\t{n}\t{topic}\t{'vote' if topic == 'politics' else 'goal'} day"
                )
            (tmp_path / source / f"{name}.tsv").write_text("\n".join(lines) + "\n")
    return tmp_path


def test_it_learns_calibrates_and_saves_what_the_export_reads(data: Path, tmp_path: Path) -> None:
    options = Options(
        sentiment=("umsab",),
        every={},
        epochs=12,
        frozen_layers=0,
        learning_rate=5e-3,
        head_learning_rate=2e-2,
        warmup_steps=5,
        batch_tokens=256,
    )
    found = run(tiny_base(), "tiny", data, tmp_path / "out", options)
    assert found["sentiment"]["en"]["macro_f1"] > 0.9
    assert np.allclose(np.sum(found["sentiment"]["*"]["confusion"], axis=1), 1)
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "calibration.json", "encoder", "heads.safetensors", "model.json", "tokenizer.json",
    ]  # fmt: skip
    assert json.loads((tmp_path / "out" / "model.json").read_text())["heads"][1]["labels"] == ["politics", "sports"]
    assert not (tmp_path / "out.partial").exists()

    from export.checkpoint import load_checkpoint

    assert [head.name for head in load_checkpoint(tmp_path / "out").heads] == ["sentiment", "topic"]


def test_batches_hold_every_text_once_within_the_budget(data: Path) -> None:
    examples = read_tsv(data / "umsab" / "train.tsv", "sentiment", []) + read_tsv(
        data / "sib200" / "train.tsv", "topic", ["politics", "sports"]
    )
    lengths = [3 + n % 17 for n in range(len(examples))]
    found = batches(examples, lengths, 100, random.Random(3))
    assert sorted(n for batch in found for n in batch) == list(range(len(examples)))
    assert all(len(batch) * max(lengths[n] for n in batch) <= 100 for batch in found)
    assert all(len({examples[n].head for n in batch}) == 1 for batch in found)


def test_calibration_lowers_the_error_of_an_overconfident_model() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(2000, 3)) * 2
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    true = np.array([rng.choice(3, p=row) for row in probabilities])
    found = calibration(logits * 4, true)
    assert found["temperature"] == pytest.approx(4, rel=0.2)
    assert found["ece_after"] < 0.05 < found["ece_before"]
    assert macro_f1(true, true, 3) == 1.0
