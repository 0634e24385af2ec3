"""A first fine-tune: sentiment and topic heads on one encoder, from tab-separated files to a checkpoint with calibration.

    python -m training.finetune --data DATA --out runs/first/final

`DATA` holds folders with `train.tsv` and, for calibration, `val.tsv` or `dev.tsv`; columns `language`, `text` and `label`
(0 negative, 1 neutral, 2 positive) or `category` (a topic). The frozen lower layers and short texts keep it within
minutes on two cores.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from scipy.optimize import minimize
from tokenizers import Tokenizer
from torch import nn

from training.base import E5_SMALL, Base, load_base

SENTIMENTS = ("negative", "neutral", "positive")
PREFIX = "query: "
"""E5 was trained with it on every text."""

PAD_ID = 1
CHUNK = 2048
"""Texts sorted by length among themselves: batches of like length, yet in random order."""

CALIBRATION_PRIOR = 0.02
"""Ridge on log temperature and biases: 300 texts of a language say little about them."""


class Example(NamedTuple):
    """One labelled text."""

    head: str
    lang: str
    text: str
    label: int


@dataclass(frozen=True)
class Options:
    """What is trained, and how."""

    sentiment: tuple[str, ...] = ("umsab", "wisesight")
    topic: tuple[str, ...] = ("sib200",)
    every: dict[str, int] = field(default_factory=lambda: {"wisesight": 3, "sib200": 3})
    """Only each n-th text of a source: the others would drown the tweets."""
    epochs: int = 1
    frozen_layers: int = 4
    learning_rate: float = 8e-5
    head_learning_rate: float = 1e-3
    warmup_steps: int = 100
    batch_tokens: int = 2048
    max_length: int = 72
    served_length: int = 128
    label_smoothing: float = 0.05
    seed: int = 0


def read_tsv(path: Path, head: str, topics: Sequence[str]) -> list[Example]:
    """Labelled texts of one file."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        column = "label" if head == "sentiment" else "category"
        return [
            Example(head, row["language"].split("_")[0], row["text"], int(row[column]) if head == "sentiment" else topics.index(row[column]))
            for row in rows
        ]  # fmt: skip


class Classifier(nn.Module):
    """An encoder, the mean over its tokens, and a linear head for each task."""

    def __init__(self, base: Base, heads: dict[str, Sequence[str]], max_length: int) -> None:
        super().__init__()
        self.encoder = base.encoder
        hidden = base.encoder.config.hidden_size
        self.heads = nn.ModuleDict({name: nn.Linear(hidden, len(labels)) for name, labels in heads.items()})
        self.tokenizer = Tokenizer.from_str(base.tokenizer.decode())
        self.tokenizer.no_padding()
        self.tokenizer.enable_truncation(max_length)

    def lengths(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text."""
        return [len(encoded.ids) for encoded in self.tokenizer.encode_batch([PREFIX + text for text in texts])]

    def forward(self, texts: Sequence[str], head: str) -> torch.Tensor:
        """Raw logits, float32 ``[texts, labels]``."""
        encoded = [e.ids for e in self.tokenizer.encode_batch([PREFIX + text for text in texts])]
        longest = max(map(len, encoded))
        ids = torch.tensor([one + [PAD_ID] * (longest - len(one)) for one in encoded])
        mask = torch.tensor([[1] * len(one) + [0] * (longest - len(one)) for one in encoded])
        states = self.encoder(ids, mask).last_hidden_state
        weights = mask[..., None].to(states.dtype)
        logits: torch.Tensor = self.heads[head]((states * weights).sum(1) / weights.sum(1)).float()
        return logits


def batches(examples: Sequence[Example], lengths: Sequence[int], tokens: int, rng: random.Random) -> list[list[int]]:
    """One epoch: places of examples, each batch of one head and of like length, within a budget of padded tokens."""
    found: list[list[int]] = []
    for head in dict.fromkeys(example.head for example in examples):
        places = [n for n, example in enumerate(examples) if example.head == head]
        rng.shuffle(places)
        for start in range(0, len(places), CHUNK):
            batch: list[int] = []
            for n in sorted(places[start : start + CHUNK], key=lambda place: lengths[place]):
                if batch and (len(batch) + 1) * lengths[n] > tokens:
                    found.append(batch)
                    batch = []
                batch.append(n)
            found.append(batch)
    rng.shuffle(found)
    return found


def train(model: Classifier, examples: Sequence[Example], options: Options) -> Iterator[tuple[int, int, float]]:
    """Fine-tune; yields (step, steps, loss)."""
    rng = random.Random(options.seed)
    model.encoder.embeddings.requires_grad_(False)
    for layer in model.encoder.encoder.layer[: options.frozen_layers]:
        layer.requires_grad_(False)
    lengths = model.lengths([example.text for example in examples])
    plan = [batch for _ in range(options.epochs) for batch in batches(examples, lengths, options.batch_tokens, rng)]
    groups: list[dict[str, Any]] = [
        {"params": [p for p in model.encoder.parameters() if p.requires_grad], "lr": options.learning_rate},
        {"params": list(model.heads.parameters()), "lr": options.head_learning_rate},
    ]
    optimiser = torch.optim.AdamW(groups, weight_decay=0.01)

    def rate(step: int) -> float:
        return min(1.0, (step + 1) / options.warmup_steps) * max(0.0, 1 - step / len(plan))

    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, rate)
    smoothed = nn.CrossEntropyLoss(label_smoothing=options.label_smoothing)
    model.train()
    for step, batch in enumerate(plan):
        with torch.autocast("cpu", torch.bfloat16):
            logits = model([examples[n].text for n in batch], examples[batch[0]].head)
        loss = smoothed(logits, torch.tensor([examples[n].label for n in batch]))
        loss.backward()
        nn.utils.clip_grad_norm_([p for group in groups for p in group["params"]], 1.0)
        optimiser.step()
        schedule.step()
        optimiser.zero_grad()
        yield step, len(plan), float(loss.detach())


def predict(model: Classifier, texts: Sequence[str], head: str) -> NDArray[np.float64]:
    """Logits, ``[texts, labels]``."""
    model.eval()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        parts = [model(texts[n : n + 64], head).double().numpy() for n in range(0, len(texts), 64)]
    return np.concatenate(parts)


def macro_f1(true: NDArray[np.int64], said: NDArray[np.int64], labels: int) -> float:
    """Mean of the classes' F1, 0 for a class that is in neither."""
    scores = []
    for label in range(labels):
        both = int(((true == label) & (said == label)).sum())
        either = int((true == label).sum() + (said == label).sum())
        scores.append(2 * both / either if either else 0.0)
    return float(np.mean(scores))


def calibration(logits: NDArray[np.float64], true: NDArray[np.int64]) -> dict[str, Any]:
    """Temperature, biases and confusion of one head in one language, by maximum likelihood with a small ridge."""
    labels = logits.shape[1]

    def cost(values: NDArray[np.float64]) -> float:
        scaled = logits / np.exp(values[0]) + np.append(values[1:], 0.0)
        scaled = scaled - scaled.max(1, keepdims=True)
        likelihood = scaled[np.arange(len(true)), true] - np.log(np.exp(scaled).sum(1))
        return float(-likelihood.mean() + CALIBRATION_PRIOR * (values**2).sum())

    before, fitted = np.zeros(labels), minimize(cost, np.zeros(labels)).x
    temperature, bias = float(np.exp(fitted[0])), np.append(fitted[1:], 0.0)
    said = (logits / temperature + bias).argmax(1)
    confusion = np.full((labels, labels), 0.5)
    np.add.at(confusion, (true, said), 1)
    return {
        "temperature": temperature,
        "bias": bias.tolist(),
        "confusion": (confusion / confusion.sum(1, keepdims=True)).tolist(),
        "n": len(true),
        "macro_f1": macro_f1(true, said, labels),
        "ece_before": _calibration_error(logits, true, before),
        "ece_after": _calibration_error(logits, true, fitted),
    }


def _calibration_error(logits: NDArray[np.float64], true: NDArray[np.int64], values: NDArray[np.float64]) -> float:
    """Expected calibration error over ten equal bins of the highest probability (Guo et al. 2017, section 2)."""
    scaled = logits / np.exp(values[0]) + np.append(values[1:], 0.0)
    exponent = np.exp(scaled - scaled.max(1, keepdims=True))
    probabilities = exponent / exponent.sum(1, keepdims=True)
    sure, right = probabilities.max(1), probabilities.argmax(1) == true
    bins = np.minimum((sure * 10).astype(int), 9)
    return float(sum(abs((sure - right)[bins == b].sum()) for b in range(10)) / len(true))


def save(
    out: Path, model: Classifier, base: Base, heads: dict[str, Sequence[str]], options: Options,
    calibrations: dict[str, dict[str, dict[str, Any]]], languages: Sequence[str], name: str,
) -> None:  # fmt: skip
    """Write the checkpoint beside its place, then rename: half of one is never taken for a whole."""
    draft = out.with_name(out.name + ".partial")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    model.encoder.save_pretrained(draft / "encoder")
    weights = {f"{n}.{k}": v.contiguous() for n, head in model.heads.items() for k, v in head.state_dict().items()}
    save_file(weights, draft / "heads.safetensors")
    (draft / "tokenizer.json").write_bytes(base.tokenizer)
    (draft / "calibration.json").write_text(json.dumps(calibrations, indent=1))
    facts = {
        "format": 1,
        "heads": [{"name": n, "labels": list(labels)} for n, labels in heads.items()],
        "pooling": "mean",
        "max_length": options.served_length,
        "text_prefix": PREFIX,
        "base": name,
        "languages": sorted(languages),
        "provenance": {"data": [*options.sentiment, *options.topic], "recipe": "training.finetune", "git_commit": ""},
    }
    (draft / "model.json").write_text(json.dumps(facts, indent=1))
    shutil.rmtree(out, ignore_errors=True)
    draft.rename(out)


def run(base: Base, name: str, data: Path, out: Path, options: Options) -> dict[str, dict[str, dict[str, Any]]]:
    """Train, calibrate on the validation files, save; returns the calibrations by head and language."""
    torch.manual_seed(options.seed)
    with (data / options.topic[0] / "train.tsv").open(encoding="utf-8", newline="") as file:
        rows = csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        topics = sorted({row["category"] for row in rows})
    heads: dict[str, Sequence[str]] = {"sentiment": SENTIMENTS, "topic": topics}
    sources = [("sentiment", source) for source in options.sentiment] + [("topic", source) for source in options.topic]
    examples = [
        example
        for head, source in sources
        for example in read_tsv(data / source / "train.tsv", head, topics)[:: options.every.get(source, 1)]
    ]
    model = Classifier(base, heads, options.max_length)
    for step, steps, loss in train(model, examples, options):
        if step % 20 == 0:
            print(f"step {step}/{steps}  loss {loss:.3f}", flush=True)
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for head, source in sources:
        held = [path for path in (data / source / "val.tsv", data / source / "dev.tsv") if path.exists()]
        if not held:
            continue
        checked = read_tsv(held[0], head, topics)
        logits = predict(model, [example.text for example in checked], head)
        true = np.array([example.label for example in checked])
        langs = np.array([example.lang for example in checked])
        mine = {"*": calibration(logits, true)}
        if head == "sentiment":  # a hundred texts of a language over seven topics would be noise
            mine |= {str(lang): calibration(logits[langs == lang], true[langs == lang]) for lang in sorted(set(langs))}
        found[head] = mine
        scores = {lang: round(entry["macro_f1"], 3) for lang, entry in mine.items()}
        print(f"{head}: macro-F1 on {held[0].parent.name} {scores}", flush=True)
    languages = {example.lang for example in examples if example.head == "sentiment"}
    save(out, model, base, heads, options, found, sorted(languages), name)
    return found


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--base", default=E5_SMALL, help="a Hugging Face folder or name")
    parser.add_argument("--cache", type=Path, default=Path.home() / ".cache" / "babelwatch")
    parser.add_argument("--epochs", type=int, default=1)
    chosen = parser.parse_args()
    run(load_base(chosen.base, chosen.cache), chosen.base, chosen.data, chosen.out, Options(epochs=chosen.epochs))


if __name__ == "__main__":
    main()
