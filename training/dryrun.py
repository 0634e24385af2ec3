"""What a run would be: its data, its labels, its lengths and what it would cost here; nothing is written."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator

from training.base import load_base
from training.data.card import data_card
from training.data.examples import Dataset
from training.loop import Objective, Plan, freeze, precision_of
from training.model import About, Classifier, Texts
from training.optimizer import make_optimizer
from training.recipe import Recipe
from training.stages.data import prepare
from training.stages.finetune import Supervised, chosen, make_plan
from training.stages.pretrain import Guesser, Masked, Masking
from training.stages.settings import LoopSettings, PretrainSettings
from training.stages.unlabelled import gather
from training.stages.vocabulary import base_name

_TIMED = 4
"""Steps that are timed, spread over the lengths; one more before them is not, since the first is slow."""
_BAR = 40


def dry_run(recipe: Recipe, recipe_folder: Path, cache: Path) -> Iterator[str]:
    """Lines for a person.

    Args:
        recipe: Checked.
        recipe_folder: Relative paths of the recipe start here.
        cache: Where fetched models are kept.

    Raises:
        TrainingError: As the run itself would.
    """
    data, sources, dropped = prepare(recipe, recipe_folder, cache)
    yield data_card(recipe, data, sources, dropped)
    base = load_base(base_name(recipe.encoder.model, recipe_folder), cache)
    content = base.tokenizer.decode()
    about = About(
        heads=recipe.heads_by_name(), pooling=recipe.encoder.pooling, max_length=recipe.encoder.max_length,
        text_prefix=recipe.encoder.text_prefix, base=recipe.encoder.model,
    )  # fmt: skip
    model = Classifier(base.encoder, about)
    texts = Texts(content, [example.text for example in data.train], about.text_prefix, about.max_length)
    yield "## Tokens per text (training texts, before the vocabulary is cut)"
    yield from histogram(texts.lengths.tolist(), about.max_length)
    yield "## Cost on this machine"
    yield f"{sum(v.numel() for v in model.parameters()) / 1e6:.1f} million parameters, {torch.get_num_threads()} threads"
    weights = {source.name: source.weight for source in recipe.data.sources if source.split == "train"}
    for place, settings in enumerate(recipe.stages):
        if isinstance(settings, LoopSettings):
            yield _cost(recipe.folder(place), settings, recipe, recipe_folder, data, weights, model, content)
        else:
            yield f"{recipe.folder(place)}: not estimated"


def histogram(lengths: Sequence[int], longest: int) -> list[str]:
    """Bars over lengths of 8 tokens each; the last holds the texts that are cut."""
    bins = Counter(min(length, longest) // 8 * 8 for length in lengths)
    most = max(bins.values())
    return [
        f"{start:4d}-{start + 7:<4d} {bins[start]:7d} {'█' * max(1, round(_BAR * bins[start] / most)) if bins[start] else ''}"
        for start in range(0, max(bins) + 1, 8)
    ]


def _cost(
    name: str, settings: LoopSettings, recipe: Recipe, recipe_folder: Path, data: Dataset, weights: dict[str, float],
    model: Classifier, tokenizer: str,
) -> str:  # fmt: skip
    accelerator = Accelerator(mixed_precision="no")
    if isinstance(settings, PretrainSettings):
        examples = gather(data, settings, recipe_folder, recipe.seed)
    else:
        examples, weights = chosen(data.train, settings, weights)
    prefix = recipe.encoder.text_prefix
    texts = Texts(tokenizer, [example.text for example in examples], prefix, settings.max_length)
    plan = make_plan(examples, texts, settings, weights, recipe.seed)
    objective: Objective
    if isinstance(settings, PretrainSettings):
        model = Guesser(model)
        objective = Masked(texts, Masking.of(tokenizer, prefix, settings.mask), accelerator.device)
    else:
        objective = Supervised(examples, texts, settings, model, accelerator.device)
    drawn = sum(len(batch) for batch in plan.batches)
    rate = _texts_per_second(model, plan, objective, settings, accelerator)
    languages = Counter(examples[place].lang for batch in plan.batches for place in batch)
    shown = ", ".join(f"{lang} {100 * count / drawn:.1f} %" for lang, count in languages.most_common())
    steps = max(1, len(plan.batches) // settings.accumulate)
    return (
        f"{name}: {drawn:,} texts in {steps:,} steps, about {rate:.0f} texts/s: {drawn / rate / 60:.0f} minutes\n"
        f"  drawn: {shown}"
    )


def _texts_per_second(
    model: Classifier, plan: Plan, objective: Objective, settings: LoopSettings, accelerator: Accelerator
) -> float:
    """Timed over a few steps; weights change, and are not kept."""
    model.to(accelerator.device).train()
    freeze(model, embeddings=settings.freeze_embeddings, layers=settings.freeze_layers)
    optimizer = make_optimizer(model, settings)
    kind = precision_of(settings.precision, accelerator.device)
    by_length = sorted(plan.batches, key=lambda batch: max(plan.lengths[place] for place in batch))
    places = [int(place) for place in np.linspace(0, len(by_length) - 1, _TIMED + 2)[1:-1]]
    done, spent = 0, 0.0
    for number, place in enumerate([places[0], *places]):
        started = time.perf_counter()
        with torch.autocast(accelerator.device.type, kind or torch.bfloat16, enabled=kind is not None):
            loss = objective(model, by_length[place])
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad()
        if accelerator.device.type == "cuda":
            torch.cuda.synchronize()
        if number:
            done += len(by_length[place])
            spent += time.perf_counter() - started
    return done / spent * int(accelerator.num_processes)
