"""The export: checkpoint in, checked bundle out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer

from export import benchmark, card, optimise, parity, quantise
from export.bundle import write_bundle
from export.checkpoint import Checkpoint, ExportError, load_checkpoint
from export.corpus import Example, read_examples
from export.onnx import to_onnx
from export.runner import Outputs, collect, onnx_run, session
from monitor.inference.bundle import Calibration, Manifest, Variant, find_calibration
from training import corpus, vocabulary
from training.model import cut_embedding
from training.vocabulary import pad_id as find_pad_id

DEFAULT_VOCABULARY = 82_000
"""Pieces that bring a 12 x 384 encoder with 4-bit embeddings just under 40 MB; fewer cost tokens in every language."""

_PARITY_TEXTS = 40
"""Unlabelled texts per language in the gate: 47 languages of them take about a minute on two cores."""
_BENCHMARK_TEXTS = 256
_COVERAGE_TEXTS = 500
_TRIM_LIMITS = parity.Limits(probability=1.0, agreement=0.0, f1_drop=1.0)
"""For the cut vocabulary: texts are spelt otherwise, so single ones may differ; on average little may be lost."""


@dataclass(frozen=True)
class ExportOptions:
    """What to make, and the texts to make and check it with."""

    name: str = "default"
    vocabulary: int | None = DEFAULT_VOCABULARY
    """Pieces to keep at most; None keeps the checkpoint's vocabulary."""
    variants: tuple[Variant, ...] = ("int8",)
    texts: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """By language: for the vocabulary, the gate and the benchmark."""
    words: Mapping[str, Sequence[tuple[str, float]]] = field(default_factory=dict)
    """By language, with frequencies: for the vocabulary."""
    examples: Mapping[str, Sequence[Example]] = field(default_factory=dict)
    """By head: labelled validation texts for the gate."""
    limits: Mapping[Variant, parity.Limits] = field(default_factory=lambda: dict(parity.LIMITS))
    trim_limits: parity.Limits = _TRIM_LIMITS
    benchmark: bool = True
    threads: int = 0


@dataclass(frozen=True)
class ExportReport:
    """What was made, and how it measured."""

    manifest: Manifest
    pieces: int
    sizes: dict[str, int]
    """Bytes by file."""
    coverage: dict[str, vocabulary.Coverage]
    parity: dict[str, Any]
    texts_per_s: dict[str, float]
    lengths: dict[str, int]
    """Tokens per text of the benchmark, at percentiles."""

    def as_json(self) -> dict[str, Any]:
        """JSON values, for a file or a page."""
        return {
            "version": self.manifest.version,
            "pieces": self.pieces,
            "sizes": self.sizes,
            "texts_per_s": self.texts_per_s,
            "benchmark_lengths": self.lengths,
            "parity": self.parity,
            "coverage": {lang: asdict(found) for lang, found in self.coverage.items()},
        }


def options_from_data(data_dir: Path, checkpoint: Checkpoint, base: ExportOptions) -> ExportOptions:
    """Fill the texts from a data folder: ``*/*.tsv`` for texts, ``*/val.tsv`` and ``*/dev.tsv`` for labelled ones."""
    examples: dict[str, list[Example]] = {}
    for path in sorted([*data_dir.glob("*/val.tsv"), *data_dir.glob("*/dev.tsv")]):
        for head in checkpoint.heads:
            try:
                found = read_examples(path, head.labels)
            except ExportError:
                continue  # labels of another head
            examples.setdefault(head.name, []).extend(found)
            break
    fields = {"texts": corpus.read_texts(data_dir), "words": corpus.word_lists(), "examples": examples}
    return ExportOptions(**{**{f: getattr(base, f) for f in base.__dataclass_fields__}, **fields})


def export_bundle(
    checkpoint_dir: Path | Checkpoint,
    out_dir: Path,
    *,
    options: ExportOptions,
    progress: Callable[[str], None] = lambda _: None,
) -> ExportReport:
    """Export a checkpoint.

    Args:
        checkpoint_dir: A checkpoint folder, or one that was read already.
        out_dir: The bundle's folder; replaced when it is there.
        options: What to make.
        progress: Told of each stage in a few words.

    Raises:
        ExportError: The checkpoint cannot be read, or a file is not at parity with it; then nothing is written.
    """
    progress("reading the checkpoint")
    checkpoint = checkpoint_dir if isinstance(checkpoint_dir, Checkpoint) else load_checkpoint(checkpoint_dir)
    samples = _samples(options)
    heads = [head.name for head in checkpoint.heads]
    whole = _truncated(checkpoint.tokenizer, checkpoint.max_length)
    pad_before = find_pad_id(whole)

    progress("classifying the validation texts by the checkpoint")
    flat = [text for sample in samples for text in sample.texts]
    expected = _torch_outputs(checkpoint, whole, pad_before, flat, heads)
    baseline = to_onnx(checkpoint.model, heads).SerializeToString() if options.benchmark and flat else b""

    progress("choosing the vocabulary")
    kept = _choose(checkpoint, options)
    tokenizer_json = vocabulary.trim_tokenizer(checkpoint.tokenizer, kept, checkpoint.max_length)
    tokenizer = Tokenizer.from_str(tokenizer_json)
    coverage = _coverages(checkpoint.tokenizer, tokenizer, kept, options.texts) if options.vocabulary else {}
    cut_embedding(checkpoint.model.encoder, kept)
    pad_id = find_pad_id(tokenizer)

    def calibration(head: str, lang: str) -> Calibration:
        return find_calibration(checkpoint.calibration[head], lang)

    def compared(candidate: Outputs) -> parity.Report:
        return parity.compare(lambda _: expected, lambda _: candidate, samples, calibration, heads)

    summaries: dict[str, Any] = {}
    if samples:
        progress("measuring what the cut costs")
        cut = _torch_outputs(checkpoint, tokenizer, pad_id, flat, heads)
        report = compared(cut)
        parity.check(report, options.trim_limits, "the cut vocabulary")
        summaries["trim"] = parity.summary(report)
        expected = cut  # from here on, what counts is that each file does what the cut checkpoint does

    progress("making the graphs")
    models = _models(checkpoint, heads, options.variants)
    for variant, data in models.items():
        if not samples:
            break
        progress(f"checking {variant}")
        run = onnx_run(session(data, options.threads))
        report = compared(collect(run, tokenizer, flat, checkpoint.text_prefix, pad_id))
        parity.check(report, options.limits[variant], variant)
        summaries[variant] = parity.summary(report)

    speeds: dict[str, float] = {}
    lengths: dict[str, int] = {}
    if options.benchmark and flat:
        progress("measuring the speed")
        timed = flat[:: max(1, len(flat) // _BENCHMARK_TEXTS)][:_BENCHMARK_TEXTS]
        candidates: dict[str, tuple[Path | bytes, Tokenizer]] = {"fp32, whole vocabulary, not fused": (baseline, whole)}
        candidates |= {variant: (data, tokenizer) for variant, data in models.items() if variant != "fp16"}
        speeds = benchmark.throughput(
            candidates, timed, prefix=checkpoint.text_prefix, pad_id=pad_id, threads=options.threads
        )
        lengths = benchmark.length_percentiles(tokenizer, timed, checkpoint.text_prefix)

    progress("writing the bundle")
    sizes = {f"model.{variant}.onnx": len(data) for variant, data in models.items()}
    sizes["tokenizer.json"] = len(tokenizer_json.encode())
    manifest = write_bundle(
        out_dir,
        checkpoint,
        name=options.name,
        models=models,
        tokenizer_json=tokenizer_json,
        card=card.model_card(checkpoint, options.name, sizes, coverage, summaries, len(kept)),
        pad_id=pad_id,
        languages=tuple(sorted(set(options.texts) | set(options.words) | set(checkpoint.languages))),
        metrics={"validation": checkpoint.metrics, "parity": summaries},
    )
    return ExportReport(manifest, len(kept), sizes, coverage, summaries, speeds, lengths)


def _samples(options: ExportOptions) -> list[parity.Sample]:
    samples = []
    for head, examples in options.examples.items():
        for lang in sorted({example.lang for example in examples}):
            chosen = [example for example in examples if example.lang == lang]
            labels = np.array([example.label for example in chosen], dtype=np.int64)
            samples.append(parity.Sample(lang, [example.text for example in chosen], head, labels))
    for lang, texts in sorted(options.texts.items()):
        step = max(1, len(texts) // _PARITY_TEXTS)
        samples.append(parity.Sample(lang, list(texts[::step][:_PARITY_TEXTS])))
    return samples


def _truncated(tokenizer: Tokenizer, max_length: int) -> Tokenizer:
    copy = Tokenizer.from_str(tokenizer.to_str())
    copy.enable_truncation(max_length)
    return copy


def _torch_outputs(
    checkpoint: Checkpoint, tokenizer: Tokenizer, pad_id: int, texts: Sequence[str], heads: Sequence[str]
) -> Outputs:
    def run(ids: NDArray[np.int64], mask: NDArray[np.int64]) -> Outputs:
        with torch.inference_mode():
            values = checkpoint.model(torch.from_numpy(ids), torch.from_numpy(mask))
        return {name: value.numpy() for name, value in zip([*heads, "embedding"], values, strict=True)}

    return collect(run, tokenizer, texts, checkpoint.text_prefix, pad_id)


def _choose(checkpoint: Checkpoint, options: ExportOptions) -> NDArray[np.int64]:
    pieces = checkpoint.tokenizer.get_vocab_size(with_added_tokens=True)
    if options.vocabulary is None or pieces <= options.vocabulary:
        return np.arange(pieces, dtype=np.int64)
    vocab = vocabulary.pieces_of(checkpoint.tokenizer)
    counts = vocabulary.language_counts(checkpoint.tokenizer, options.texts, options.words)
    trained = {corpus.language_code(lang) for lang in checkpoint.languages}
    trained |= {example.lang for examples in options.examples.values() for example in examples}
    return vocabulary.select(vocab, vocabulary.special_ids(checkpoint.tokenizer), counts, options.vocabulary, trained)


def _coverages(
    whole: Tokenizer, cut: Tokenizer, kept: NDArray[np.int64], texts: Mapping[str, Sequence[str]]
) -> dict[str, vocabulary.Coverage]:
    untruncated = Tokenizer.from_str(cut.to_str())
    untruncated.no_truncation()
    return {
        lang: vocabulary.coverage(whole, untruncated, kept, found[:: max(1, len(found) // _COVERAGE_TEXTS)], lang)
        for lang, found in texts.items()
    }


def _models(checkpoint: Checkpoint, heads: Sequence[str], variants: Sequence[Variant]) -> dict[Variant, bytes]:
    config = cast(Any, checkpoint.model.encoder).config
    traced = to_onnx(checkpoint.model, heads)
    fused = optimise.fuse(traced, config.model_type, config.num_attention_heads, config.hidden_size)
    optimise.cut_positions(fused, getattr(config, "max_position_embeddings", 0), checkpoint.max_length)
    models: dict[Variant, bytes] = {}
    for variant in variants:
        graph = onnx.ModelProto()
        graph.CopyFrom(fused)
        if variant == "int8":
            quantise.int8_matmuls(graph)
            quantise.int4_embeddings(graph)
        elif variant == "fp16":
            graph = quantise.to_fp16(graph)
        models[variant] = optimise.canonical(graph)
    return models
