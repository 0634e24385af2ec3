"""The trained checkpoint as export reads it: a folder with encoder, heads, tokenizer and calibration."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import Tensor, nn
from transformers import AutoModel
from transformers.utils import logging

from export.errors import ExportError
from monitor.inference.bundle import ANY_LANGUAGE, Calibration, Head
from training.report import SCORES
from training.vocabulary import COVERAGE, Coverage, read_coverages

CHECKPOINT_FORMAT = 1


class Classifier(nn.Module):
    """An encoder with pooling and linear heads, in the form that is exported.

    Args:
        encoder: A Hugging Face encoder whose output has ``last_hidden_state``.
        heads: Linear layers by name, in the order of the outputs.
        pooling: ``cls`` takes the first token's state, ``mean`` averages over the tokens that the mask shows.
    """

    def __init__(self, encoder: nn.Module, heads: dict[str, nn.Linear], pooling: Literal["cls", "mean"]) -> None:
        super().__init__()
        self.encoder = encoder
        self.config = cast(Any, encoder).config
        """The encoder's, where optimum looks for it."""
        self.heads = nn.ModuleDict(heads)
        self.pooling = pooling

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, ...]:
        """Logits of every head, then the embedding.

        Args:
            input_ids: int64; *Shape:* ``[batch, tokens]``.
            attention_mask: int64, 1 for a token and 0 for padding; *Shape:* ``[batch, tokens]``.

        Returns:
            Per head float32 ``[batch, labels]``, and float32 ``[batch, hidden]``.
        """
        states = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        if self.pooling == "cls":
            pooled = states[:, 0]
        else:
            shown = attention_mask.unsqueeze(-1).to(states.dtype)
            pooled = (states * shown).sum(1) / shown.sum(1)
        return (*(head(pooled) for head in self.heads.values()), pooled)


@dataclass(frozen=True)
class Checkpoint:
    """What training hands over."""

    model: Classifier
    tokenizer: Tokenizer
    heads: tuple[Head, ...]
    calibration: dict[str, dict[str, Calibration]]
    metrics: dict[str, Any]
    """By head and language: what was measured when the calibration was fitted."""
    scores: dict[str, Any]
    """The training report's `scores.json`, by split and head; empty for a checkpoint without a report."""
    max_length: int
    text_prefix: str
    base: str
    languages: tuple[str, ...]
    provenance: dict[str, Any]
    coverage: dict[str, Coverage]
    """By language, what the vocabulary's cut before the training costs; empty where it was not cut."""

    @property
    def hidden(self) -> int:
        """Width of the encoder."""
        return int(cast(Any, self.model.encoder).config.hidden_size)


def load_checkpoint(folder: Path) -> Checkpoint:
    """Read a checkpoint folder.

    Args:
        folder: Holds ``encoder/``, ``heads.safetensors``, ``tokenizer.json``, ``model.json``, ``calibration.json`` and
            perhaps ``scores.json`` and ``coverage.json``; or a run whose ``final/`` holds them.

    Raises:
        ExportError: Something is missing or does not fit together.
    """
    if not (folder / "model.json").exists() and (folder / "final" / "model.json").exists():
        folder = folder / "final"
    about = _read_json(folder / "model.json")
    if about.get("format") != CHECKPOINT_FORMAT:
        raise ExportError(
            f"checkpoint format {about.get('format')} is not known, this release reads {CHECKPOINT_FORMAT}",
            where=str(folder / "model.json"),
        )
    heads = tuple(Head(name=head["name"], labels=tuple(head["labels"])) for head in about["heads"])
    tokenizer = Tokenizer.from_file(str(_present(folder / "tokenizer.json")))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    encoder = _load_encoder(_present(folder / "encoder"))
    model = Classifier(encoder, _load_heads(folder / "heads.safetensors", heads), about["pooling"]).eval()
    fitted = _read_json(folder / "calibration.json")
    return Checkpoint(
        model=model,
        tokenizer=tokenizer,
        heads=heads,
        calibration={head.name: _calibrations(fitted, head, folder / "calibration.json") for head in heads},
        metrics={
            head.name: {
                lang: {key: entry[key] for key in ("n", "macro_f1", "ece_before", "ece_after") if key in entry}
                for lang, entry in fitted[head.name].items()
            }
            for head in heads
        },
        scores=_read_json(folder / SCORES) if (folder / SCORES).exists() else {},
        max_length=int(about["max_length"]),
        text_prefix=about.get("text_prefix", ""),
        base=about.get("base", ""),
        languages=tuple(about.get("languages", ())),
        provenance=about.get("provenance", {}),
        coverage=read_coverages(folder / COVERAGE),
    )


def _load_encoder(folder: Path) -> nn.Module:
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()  # it would tell of the pooler, which is not used here
    try:
        # The eager attention is the one whose traced operators the optimiser knows how to fuse.
        return cast(nn.Module, AutoModel.from_pretrained(folder, attn_implementation="eager", dtype=torch.float32))
    except (OSError, ValueError, RuntimeError) as error:
        raise ExportError(f"is not an encoder that can be loaded: {error}".splitlines()[0], where=str(folder)) from None
    finally:
        logging.set_verbosity(verbosity)


def _load_heads(path: Path, heads: tuple[Head, ...]) -> dict[str, nn.Linear]:
    tensors = load_file(_present(path))
    layers = {}
    for head in heads:
        try:
            weight, bias = tensors[f"{head.name}.weight"], tensors[f"{head.name}.bias"]
        except KeyError as error:
            raise ExportError(f"holds no tensor {error}", where=str(path), hint="train this head first") from None
        if weight.shape[0] != len(head.labels):
            raise ExportError(
                f"head {head.name!r} has {weight.shape[0]} rows for {len(head.labels)} labels", where=str(path)
            )
        layer = nn.Linear(weight.shape[1], weight.shape[0])
        layer.load_state_dict({"weight": weight.float(), "bias": bias.float()})
        layers[head.name] = layer
    return layers


def _calibrations(fitted: dict[str, Any], head: Head, path: Path) -> dict[str, Calibration]:
    entries = {
        lang: Calibration(
            temperature=float(entry["temperature"]),
            bias=tuple(map(float, entry["bias"])),
            confusion=tuple(tuple(map(float, row)) for row in entry["confusion"]),
            n=int(entry["n"]),
        )
        for lang, entry in fitted.get(head.name, {}).items()
    }
    if ANY_LANGUAGE not in entries:
        raise ExportError(
            f"head {head.name!r} has no entry {ANY_LANGUAGE!r}", where=str(path), hint="calibrate it first"
        )
    return entries


def _present(path: Path) -> Path:
    if not path.exists():
        raise ExportError("is missing from the checkpoint", where=str(path), hint="is the training run finished?")
    return path


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return cast(dict[str, Any], json.loads(_present(path).read_text(encoding="utf-8")))
    except ValueError as error:
        raise ExportError(f"is not JSON: {error}", where=str(path)) from None
