"""Stage `vocabulary`: the base encoder with its vocabulary cut to what the languages use, before it learns anything."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
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
        kept = _choose(tokenizer, data, recipe, context.recipe_folder)
        content = vocabulary.trim_tokenizer(tokenizer, kept, recipe.encoder.max_length)
        cut_embedding(base.encoder, kept)
        context.say(f"{len(kept):,} of {pieces:,} pieces kept; {_cost(tokenizer, Tokenizer.from_str(content), data)}")
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


def _choose(
    tokenizer: Tokenizer, data: Dataset, recipe: Recipe, recipe_folder: Path
) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    settings = recipe.vocabulary
    texts: defaultdict[str, list[str]] = defaultdict(list)
    words = recipe.word_sources()
    for example in data.train:
        if example.source not in words:
            texts[example.lang].append(example.text)
    trained = set(texts)
    for name in settings.texts:
        path = resolved(name, recipe_folder)
        if not path.is_file():
            raise TrainingError("is not there", where=str(path), hint="vocabulary.texts names it")
        for lang, text in corpus.rows(path):
            texts[lang].append(text)
    counts = vocabulary.language_counts(tokenizer, texts, corpus.word_lists() if settings.word_lists else {})
    return vocabulary.select(
        vocabulary.pieces_of(tokenizer),
        vocabulary.special_ids(tokenizer),
        counts,
        settings.pieces or 0,
        trained,
        settings.trained_weight,
        settings.script_pieces,
    )


def _cost(whole: Tokenizer, cut: Tokenizer, data: Dataset) -> str:
    """How many more tokens the validation texts take, by language."""
    texts: defaultdict[str, list[str]] = defaultdict(list)
    for example in data.validation:
        texts[example.lang].append(example.text)
    untruncated = Tokenizer.from_str(cut.to_str())
    untruncated.no_truncation()
    found = []
    for lang, lines in sorted(texts.items()):
        before, after = (sum(len(e.ids) for e in t.encode_batch_fast(lines)) for t in (whole, untruncated))
        found.append(f"{lang} {100 * (after / before - 1):+.0f} %")
    return "more tokens: " + ", ".join(found)


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
