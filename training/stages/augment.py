"""Stages `translate` and `switch`: more training texts, made of those there are; both leave data and no model."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from training.align.cache import CachedTranslator
from training.align.dictionary import load_dictionary, switch
from training.align.translate import make_translator
from training.data.examples import Dataset, Example
from training.errors import TrainingError
from training.model import EMBEDDING, Texts, load_classifier, predict
from training.recipe import resolved
from training.stages.settings import SwitchSettings, TranslateSettings

if TYPE_CHECKING:
    from training.run import Context

_LONGEST_RATIO = 3.0
"""A translation more than so many times as long as its text, or so many times shorter, has lost its way."""


def translate(context: Context, folder: Path) -> None:
    """The stage `translate`: the data with translated texts in `train`, and `translations.json` with what was kept."""
    settings: TranslateSettings = context.settings
    data = Dataset.load(context.data)
    translator = CachedTranslator(
        make_translator(settings.translator, lambda name: resolved(name, context.recipe_folder)),
        context.cache / "translations.sqlite",
    )
    try:
        made: list[Example] = []
        counts: dict[str, dict[str, int]] = {}
        for origin in settings.origins:
            for target in settings.languages:
                if origin != target:
                    pair = f"{origin}-{target}"
                    found, counts[pair] = _translate_pair(context, data.train, translator, origin, target)
                    made += found
                    context.say(f"{pair}: " + ", ".join(f"{count:,} {what}" for what, count in counts[pair].items()))
    finally:
        translator.close()
    judged = {example.text for example in [*data.validation, *data.test]}
    fresh = [example for example in made if example.text not in judged]
    Dataset([*data.train, *fresh], data.validation, data.test).save(folder)
    (folder / "translations.json").write_text(json.dumps(counts, indent=1) + "\n", encoding="utf-8")


def _translate_pair(
    context: Context, examples: Sequence[Example], translator: CachedTranslator, origin: str, target: str
) -> tuple[list[Example], dict[str, int]]:
    settings: TranslateSettings = context.settings
    chosen = _chosen(examples, settings, origin)
    if not chosen:
        raise TrainingError(f"no training text is in {origin!r}", where="translate.origins")
    if not translator.knows(origin, target):
        raise TrainingError(
            f"{settings.translator} knows no pair {origin}-{target}", where="translate.languages",
            hint="install it, or take the language out",
        )  # fmt: skip
    rng = random.Random(f"{context.recipe.seed} {origin} {target}")
    if len(chosen) > settings.limit:
        chosen = rng.sample(chosen, settings.limit)
    texts = [example.text for example in chosen]
    with tqdm(total=len(texts), desc=f"{origin}-{target}", unit="text") as bar:
        there = translator(texts, origin, target, bar.update)
    counts: Counter[str] = Counter(translated=len(texts))
    keep = [_sound(text, translation) for text, translation in zip(texts, there, strict=True)]
    counts["unsound"] = keep.count(False)
    if settings.quality != "none":
        back = there
        if settings.quality == "back":
            if not translator.knows(target, origin):
                raise TrainingError(
                    f"{settings.translator} knows no way back from {target} to {origin}", where="translate.quality",
                    hint='take quality = "direct"',
                )  # fmt: skip
            with tqdm(total=len(texts), desc=f"{target}-{origin}", unit="text") as bar:
                back = translator(there, target, origin, bar.update)
        near = similarities(context, texts, back)
        keep = [sound and bool(value >= settings.similarity) for sound, value in zip(keep, near, strict=True)]
        counts["unlike"] = len(texts) - counts["unsound"] - sum(keep)
    counts["kept"] = sum(keep)
    return [
        Example(e.head, e.label, target, translation, e.source, e.row, e.group)
        for e, translation, kept in zip(chosen, there, keep, strict=True)
        if kept
    ], dict(counts)


def _chosen(examples: Sequence[Example], settings: TranslateSettings | SwitchSettings, origin: str) -> list[Example]:
    return [e for e in examples if e.lang == origin and (not settings.sources or e.source in settings.sources)]


def _sound(text: str, translation: str) -> bool:
    """Whether a translation can be one: there, not the text itself, and of about its length."""
    return (
        bool(translation.strip())
        and translation.casefold() != text.casefold()
        and 1 / _LONGEST_RATIO <= (len(translation) + 5) / (len(text) + 5) <= _LONGEST_RATIO
    )


def similarities(context: Context, first: Sequence[str], second: Sequence[str]) -> NDArray[np.float32]:
    """Cosines of the encoder's states of texts, pair by pair; *Shape:* ``[texts]``."""
    model, tokenizer = load_classifier(context.model)
    vectors: list[Any] = []
    for texts in (first, second):
        prepared = Texts(tokenizer, list(texts), context.recipe.encoder.text_prefix, model.about.max_length)
        found = predict(model, prepared, embedding=True)[EMBEDDING]
        vectors.append(found / np.linalg.norm(found, axis=1, keepdims=True))
    cosines: NDArray[np.float32] = (vectors[0] * vectors[1]).sum(axis=1)
    return cosines


def code_switch(context: Context, folder: Path) -> None:
    """The stage `switch`: the data with switched copies in `train`."""
    settings: SwitchSettings = context.settings
    data = Dataset.load(context.data)
    rng = random.Random(f"{context.recipe.seed} switch")
    made = []
    for origin in settings.origins:
        dictionaries = [
            load_dictionary(origin, target, Path(settings.folder)) for target in settings.languages if target != origin
        ]
        for example in _chosen(data.train, settings, origin):
            if rng.random() < settings.copies:
                text = switch(example.text, dictionaries, settings.share, rng)
                if text != example.text:
                    made.append(
                        Example(example.head, example.label, origin, text, example.source, example.row, example.group)
                    )
    if not made:
        raise TrainingError("not one text was switched", where="switch", hint="are `origins` and `sources` right?")
    Dataset([*data.train, *made], data.validation, data.test).save(folder)
    context.say(f"{len(made):,} switched texts")
