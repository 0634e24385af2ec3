"""Stage `vocabulary`: the base encoder with its vocabulary cut to what the languages use, before it learns anything."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Container
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer

from training import corpus, vocabulary
from training.base import load_base
from training.data.examples import Dataset
from training.errors import TrainingError
from training.model import About, Classifier, cut_embedding, save_classifier
from training.recipe import Recipe, resolved

if TYPE_CHECKING:
    from training.run import Context


def run(context: Context, folder: Path) -> None:
    """The stage."""
    recipe, settings = context.recipe, context.settings
    base = load_base(base_name(recipe.encoder.model, context.recipe_folder), context.cache)
    tokenizer = Tokenizer.from_str(base.tokenizer.decode())
    tokenizer.no_padding()
    tokenizer.no_truncation()
    content, data = tokenizer.to_str(), Dataset.load(context.data)
    pieces = tokenizer.get_vocab_size(with_added_tokens=True)
    if settings.pieces is not None and settings.pieces < pieces:
        texts, trained = _Texts.gather(data, recipe, context.recipe_folder), recipe.trained_in(data.train)
        kept = _choose(tokenizer, texts, recipe, trained)
        content = vocabulary.trim_tokenizer(tokenizer, kept, recipe.encoder.max_length)
        cut_embedding(base.encoder, kept)
        found = vocabulary.coverages(tokenizer, Tokenizer.from_str(content), kept, texts.lines, texts.words)
        vocabulary.write_coverages(found, folder / vocabulary.COVERAGE)
        costs = {lang: found[lang].tokens_per_word / found[lang].tokens_per_word_before for lang in sorted(trained)}
        more = ", ".join(f"{lang} {100 * (times - 1):+.0f} %" for lang, times in costs.items())
        context.say(f"{len(kept):,} of {pieces:,} pieces kept; more tokens: {more}")
    if recipe.encoder.replace:
        content = vocabulary.replacing(content, recipe.encoder.replace)
    torch.manual_seed(recipe.seed)
    about = About(
        heads=recipe.heads_by_name(),
        pooling=recipe.encoder.pooling,
        max_length=recipe.encoder.max_length,
        text_prefix=recipe.encoder.text_prefix,
        base=recipe.encoder.model,
    )
    save_classifier(Classifier(base.encoder, about), content, folder)
    lengths = _lengths(Tokenizer.from_str(content), data)
    (folder / "tokens.json").write_text(json.dumps(lengths, indent=1) + "\n", encoding="utf-8")


def base_name(name: str, recipe_folder: Path) -> str:
    """A folder, relative to the recipe, or the name as it is."""
    folder = resolved(name, recipe_folder)
    return str(folder) if folder.is_dir() else name


def _choose(tokenizer: Tokenizer, texts: _Texts, recipe: Recipe, trained: Container[str]) -> NDArray[np.int64]:
    settings = recipe.vocabulary
    counts = vocabulary.language_counts(tokenizer, texts.lines, texts.words)
    return vocabulary.select(
        vocabulary.pieces_of(tokenizer),
        vocabulary.special_ids(tokenizer),
        counts,
        settings.pieces or 0,
        trained,
        settings.trained_weight,
        settings.script_pieces,
    )


@dataclass(frozen=True)
class _Texts:
    """What the vocabulary is chosen by."""

    lines: dict[str, list[str]]
    """Running text by language."""
    words: dict[str, list[tuple[str, float]]]
    """With their frequencies, by language."""

    @classmethod
    def gather(cls, data: Dataset, recipe: Recipe, recipe_folder: Path) -> _Texts:
        """From the training texts, and what the recipe names beside them."""
        lines: defaultdict[str, list[str]] = defaultdict(list)
        words = recipe.word_sources()
        for example in data.train:
            if example.source not in words:
                lines[example.lang].append(example.text)
        for name in recipe.vocabulary.texts:
            path = resolved(name, recipe_folder)
            if not path.is_file():
                raise TrainingError("is not there", where=str(path), hint="vocabulary.texts names it")
            for lang, text in corpus.rows(path):
                lines[lang].append(text)
        return cls(lines, corpus.word_lists() if recipe.vocabulary.word_lists else {})


def _lengths(tokenizer: Tokenizer, data: Dataset) -> dict[str, dict[str, float]]:
    """Tokens per training text, by language: mean and percentiles."""
    tokenizer.no_truncation()
    by_lang: defaultdict[str, list[int]] = defaultdict(list)
    for example, encoding in zip(data.train, tokenizer.encode_batch_fast([e.text for e in data.train]), strict=True):
        by_lang[example.lang].append(len(encoding.ids))
    return {
        lang: {"mean": round(float(np.mean(n)), 1)} | {f"p{p}": float(np.percentile(n, p)) for p in (50, 90, 99)}
        for lang, n in sorted(by_lang.items())
    }
