"""The export: checkpoint in, checked bundle out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer

from export import benchmark, card, optimise, parity, quantise, ranges, tokens
from export.bundle import write_bundle
from export.checkpoint import Checkpoint, load_checkpoint
from export.onnx import to_onnx
from export.runner import Outputs, batches, collect, onnx_run, session
from export.texts import Texts
from monitor.inference.bundle import Calibration, Manifest, Variant, find_calibration
from monitor.inference.engine import usable_cpus
from training import corpus, vocabulary
from training.model import cut_embedding
from training.vocabulary import pad_id as find_pad_id

DEFAULT_VOCABULARY = 82_000
"""Pieces that bring a 12 x 384 encoder with 4-bit embeddings just under 40 MB; fewer cost tokens in every language."""

BASELINE = "fp32, not fused"
"""In the table of speeds: the checkpoint with its own vocabulary, as it is traced."""

_BENCHMARK_TEXTS = 256
_RANGE_TEXTS = 256
"""Run once for fp16, every intermediate value kept."""
_TRIM_LIMITS = parity.Limits(probability=1.0, agreement=0.0, f1_drop=1.0)
"""For the cut vocabulary: texts are spelt otherwise, so single ones may differ; on average little may be lost."""


@dataclass(frozen=True)
class ExportOptions:
    """What to make, and the texts to make and check it with."""

    name: str = "default"
    vocabulary: int | None = DEFAULT_VOCABULARY
    """Pieces to keep at most; None keeps the checkpoint's vocabulary."""
    variants: tuple[Variant, ...] = ("int8",)
    texts: Texts = field(default_factory=Texts)
    """Without any, nothing can be cut, checked or timed."""
    limits: Mapping[Variant, parity.Limits] = field(default_factory=lambda: dict(parity.LIMITS))
    trim_limits: parity.Limits = _TRIM_LIMITS
    benchmark: bool = True
    threads: int = 0
    """Cores to use; 0 takes all."""


@dataclass(frozen=True)
class ExportReport:
    """What was made, and how it measured."""

    manifest: Manifest
    pieces: int
    sizes: dict[str, int]
    """Bytes by file."""
    coverage: dict[str, vocabulary.Coverage]
    parity: dict[str, Any]
    tokenizer: tokens.Checked
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
            "tokenizer": asdict(self.tokenizer),
            "coverage": {lang: asdict(found) for lang, found in self.coverage.items()},
        }


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
    samples = options.texts.samples()
    heads = [head.name for head in checkpoint.heads]
    whole = _truncated(checkpoint.tokenizer, checkpoint.max_length)
    pad_before = find_pad_id(whole)
    flat = [text for sample in samples for text in sample.texts]
    baseline = to_onnx(checkpoint.model, heads).SerializeToString() if options.benchmark and flat else b""

    def compared(expected: Outputs, candidate: Outputs) -> parity.Report:
        return parity.compare(lambda _: expected, lambda _: candidate, samples, calibration, heads)

    def calibration(head: str, lang: str) -> Calibration:
        return find_calibration(checkpoint.calibration[head], lang)

    summaries: dict[str, Any] = {}
    expected: Outputs = {}
    if samples:
        progress(f"classifying {len(flat):,} texts by the checkpoint")
        expected = _torch_outputs(checkpoint, whole, pad_before, flat, heads)

    progress("choosing the vocabulary")
    kept = _choose(checkpoint, options)
    tokenizer_json = vocabulary.trim_tokenizer(checkpoint.tokenizer, kept, checkpoint.max_length)
    tokenizer = Tokenizer.from_str(tokenizer_json)
    pad_id = find_pad_id(tokenizer)
    progress("comparing the tokenizer with the one of training")
    checked = tokens.verify(checkpoint.tokenizer, _untruncated(tokenizer), kept, options.texts.lines)
    pieces = checkpoint.tokenizer.get_vocab_size(with_added_tokens=True)
    # Where training cut the vocabulary and nothing is cut here, its word on what that costs is the one to tell.
    coverage = (checkpoint.coverage if len(kept) == pieces else {}) or vocabulary.coverages(
        checkpoint.tokenizer, tokenizer, kept, options.texts.lines, options.texts.words
    )
    cut_embedding(checkpoint.model.encoder, kept)
    if samples and len(kept) < pieces:
        progress("measuring what the cut costs")
        cut = _torch_outputs(checkpoint, tokenizer, pad_id, flat, heads)
        report = compared(expected, cut)
        parity.check(report, options.trim_limits, "the cut vocabulary")
        summaries["trim"] = parity.summary(report)
        expected = cut  # from here on, what counts is that each file does what the cut checkpoint does

    progress("making the graphs")
    models = _models(checkpoint, heads, options.variants, _feeds(tokenizer, flat, checkpoint.text_prefix, pad_id))
    for variant, data in models.items() if samples else ():
        progress(f"checking {variant}")
        run = onnx_run(session(data, options.threads))
        report = compared(expected, collect(run, tokenizer, flat, checkpoint.text_prefix, pad_id))
        parity.check(report, options.limits[variant], variant)
        summaries[variant] = parity.summary(report)

    speeds: dict[str, float] = {}
    lengths: dict[str, int] = {}
    if options.benchmark and flat:
        progress("measuring the speed")
        timed = flat[:: max(1, len(flat) // _BENCHMARK_TEXTS)][:_BENCHMARK_TEXTS]
        candidates: dict[str, tuple[Path | bytes, Tokenizer]] = {BASELINE: (baseline, whole)}
        # A CPU has no fp16 products: it would tell nothing of a GPU.
        candidates |= {variant: (data, tokenizer) for variant, data in models.items() if variant != "fp16"}
        speeds = benchmark.throughput(
            candidates,
            timed,
            prefix=checkpoint.text_prefix,
            pad_id=pad_id,
            cores=options.threads or usable_cpus(),
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
        languages=tuple(sorted({*options.texts.languages, *checkpoint.languages})),
        metrics={
            "validation": checkpoint.metrics,
            "scores": checkpoint.scores,
            "parity": summaries,
            "tokenizer": asdict(checked),
        },
    )
    return ExportReport(manifest, len(kept), sizes, coverage, summaries, checked, speeds, lengths)


def _truncated(tokenizer: Tokenizer, max_length: int) -> Tokenizer:
    copy = Tokenizer.from_str(tokenizer.to_str())
    copy.enable_truncation(max_length)
    return copy


def _untruncated(tokenizer: Tokenizer) -> Tokenizer:
    copy = Tokenizer.from_str(tokenizer.to_str())
    copy.no_truncation()
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
    vocab, special = vocabulary.pieces_of(checkpoint.tokenizer), vocabulary.special_ids(checkpoint.tokenizer)
    vocabulary.always_kept(vocab, special, options.vocabulary)  # a size too small is told before the counting
    counts = vocabulary.language_counts(checkpoint.tokenizer, options.texts.lines, options.texts.words)
    trained = {corpus.language_code(lang) for lang in checkpoint.languages}
    trained |= {example.lang for examples in options.texts.examples.values() for example in examples}
    return vocabulary.select(vocab, special, counts, options.vocabulary, trained)


def _feeds(
    tokenizer: Tokenizer, texts: Sequence[str], prefix: str, pad_id: int
) -> Iterator[dict[str, NDArray[np.int64]]]:
    """Inputs of the graph for some of the texts."""
    some = texts[:: max(1, len(texts) // _RANGE_TEXTS)][:_RANGE_TEXTS]
    for _, ids, mask in batches(tokenizer, some, prefix, pad_id):
        yield {"input_ids": ids, "attention_mask": mask}


def _models(
    checkpoint: Checkpoint,
    heads: Sequence[str],
    variants: Sequence[Variant],
    feeds: Iterator[dict[str, NDArray[np.int64]]],
) -> dict[Variant, bytes]:
    config = cast(Any, checkpoint.model.encoder).config
    traced = to_onnx(checkpoint.model, heads)
    models: dict[Variant, bytes] = {}
    for variant in variants:
        graph = optimise.fuse(
            traced, config.model_type, config.num_attention_heads, config.hidden_size, attention=variant == "fp16"
        )
        optimise.cut_positions(graph, getattr(config, "max_position_embeddings", 0), checkpoint.max_length)
        if variant == "int8":
            quantise.int8_matmuls(graph)
            quantise.int4_embeddings(graph)
        elif variant == "int4":
            quantise.int4_matmuls(graph)
            quantise.int4_embeddings(graph)
        elif variant == "fp16":
            graph = quantise.to_fp16(graph, ranges.overflowing(graph, feeds))
        models[variant] = optimise.canonical(graph)
    return models
