"""Texts without labels, for the stages that need none: those of training, and more from files beside them."""

from __future__ import annotations

import random
from collections import defaultdict
from pathlib import Path

from training import corpus
from training.align.parallel import read_groups
from training.data.examples import Dataset, Example
from training.errors import TrainingError
from training.recipe import resolved
from training.stages.settings import DistilSettings, PretrainSettings

UNLABELLED = "unlabelled"
"""Head of a text without a label; and the source of one that is no training text."""


def gather(data: Dataset, settings: DistilSettings | PretrainSettings, recipe_folder: Path, seed: int) -> list[Example]:
    """Training texts and the unlabelled ones, each once, none of them in validation or test.

    Raises:
        TrainingError: A file that `texts` names is not there, or no text is left.
    """
    judged = {example.text for example in [*data.validation, *data.test]}
    found: dict[str, Example] = {}
    for example in data.train:
        if not settings.sources or example.source in settings.sources:
            found.setdefault(
                example.text, Example(UNLABELLED, 0, example.lang, example.text, example.source, example.row)
            )
    for name in settings.texts:
        path = resolved(name, recipe_folder)
        if not path.is_file():
            raise TrainingError("is not there", where=str(path), hint=f"{settings.type}.texts names it")
        for row, (lang, text) in enumerate(corpus.rows(path), 2):
            if text.strip():
                found.setdefault(text, Example(UNLABELLED, 0, lang, text, UNLABELLED, row))
    for name in settings.parallel if isinstance(settings, DistilSettings) else ():
        for row, sentence in enumerate(read_groups(resolved(name, recipe_folder)), 1):
            for lang, text in sentence.items():
                # Over a training text too: of a translation, more is known.
                found[text] = Example(UNLABELLED, 0, lang, text, UNLABELLED, row, f"{name} {row}")
    by_lang: defaultdict[str, list[Example]] = defaultdict(list)
    for text, example in found.items():
        if text not in judged:
            by_lang[example.lang].append(example)
    rng = random.Random(f"{seed} {settings.type}")
    chosen = [
        example
        for _, members in sorted(by_lang.items())
        for example in (
            rng.sample(members, settings.limit) if settings.limit and len(members) > settings.limit else members
        )
    ]
    if not chosen:
        raise TrainingError("there are no texts to learn from", where=settings.type, hint="name some in `texts`")
    return chosen
