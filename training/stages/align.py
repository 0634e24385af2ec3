"""Stage `align`: the encoder learns to put a sentence next to its translations (translation ranking, InfoNCE)."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.nn import functional

from training import sampling
from training.align.parallel import draw_pairs, read_groups, retrieval
from training.errors import TrainingError
from training.loop import Plan, precision_of, train
from training.model import EMBEDDING, Classifier, Texts, load_classifier, predict, save_classifier
from training.recipe import resolved
from training.stages.settings import AlignSettings
from training.tracking import Tracker

if TYPE_CHECKING:
    from training.run import Context


def run(context: Context, folder: Path) -> None:
    """The stage: a checkpoint, and `retrieval.json` with the accuracy per language before and after."""
    settings: AlignSettings = context.settings
    seed = context.recipe.seed if settings.seed is None else settings.seed
    groups = [
        group
        for name in settings.parallel
        for group in read_groups(resolved(name, context.recipe_folder), settings.languages)
    ]
    rng = random.Random(f"{seed} align")
    rng.shuffle(groups)
    held = max(2, round(settings.held_out * len(groups)))
    judged, learned = groups[:held], groups[held:]
    if len(learned) < 2:
        raise TrainingError(f"{len(groups)} parallel sentences are too few", where="parallel")
    model, tokenizer = load_classifier(context.model, **settings.dropouts())
    prefix = context.recipe.encoder.text_prefix
    pairs = Pairs(learned, tokenizer, prefix, settings, rng)
    accelerator = Accelerator(mixed_precision="no")
    measure = Retrieval(judged, tokenizer, prefix, settings, accelerator)
    before = measure.by_language(model.to(accelerator.device))
    context.say(
        f"{len(learned):,} sentences, {len(pairs.places):,} pairs; retrieval before {100 * _mean(before):.2f} %"
    )
    tracker = Tracker(context.recipe.tracking, context.run / "logs" / context.name, context.recipe, accelerator)
    try:
        progress = train(
            model, pairs.plan(settings, seed), Ranking(pairs, settings, accelerator), settings, seed=seed,
            work=context.work, accelerator=accelerator, evaluate=measure, track=tracker.log, say=context.say,
        )  # fmt: skip
    finally:
        tracker.close()
    after = measure.by_language(model)
    context.say(f"retrieval {100 * _mean(before):.2f} % before, {100 * _mean(after):.2f} % after")
    save_classifier(model, tokenizer, folder)
    (folder / "retrieval.json").write_text(json.dumps({"before": before, "after": after}, indent=1) + "\n")
    history = {"losses": progress.losses, "scores": progress.scores, "seconds": round(progress.seconds, 1)}
    (folder / "history.json").write_text(json.dumps(history) + "\n", encoding="utf-8")


def _mean(found: Mapping[str, float]) -> float:
    return float(np.mean(list(found.values())))


class Pairs:
    """Pairs of translations as two lists of token ids, drawn anew for each epoch."""

    def __init__(
        self,
        groups: Sequence[Mapping[str, str]],
        tokenizer: str,
        prefix: str,
        settings: AlignSettings,
        rng: random.Random,
    ) -> None:
        self.places: list[tuple[int, str, str]] = []
        self.epochs: list[range] = []
        for _ in range(int(np.ceil(settings.epochs))):
            drawn = draw_pairs(groups, rng)
            self.epochs.append(range(len(self.places), len(self.places) + len(drawn)))
            self.places += drawn
        known = {
            (place, lang): n for n, (place, lang) in enumerate((p, lang) for p, g in enumerate(groups) for lang in g)
        }
        self._texts = Texts(tokenizer, [t for group in groups for t in group.values()], prefix, settings.max_length)
        self._sides = np.array([(known[place, a], known[place, b]) for place, a, b in self.places])
        self.groups = np.array([place for place, _, _ in self.places])
        self.lengths = self._texts.lengths[self._sides].sum(axis=1)

    def plan(self, settings: AlignSettings, seed: int) -> Plan:
        """Batches of pairs of like length: among them, the wrong answers are not told by their length."""
        left = settings.epochs
        batches: list[list[int]] = []
        for number, epoch in enumerate(self.epochs):
            order = np.random.default_rng([seed, number, 3]).permutation(np.array(epoch))
            order = order[: max(2, round(len(order) * min(left, 1.0)))]
            left -= 1.0
            batches += sampling.batches(order, self.lengths, settings.batch_tokens, random.Random(f"{seed} {number}"))
        return Plan([batch for batch in batches if len(batch) > 1], self.lengths.tolist())

    def batch(self, places: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Ids and mask: first all left sides, then all right ones; int64 ``[2 * pairs, tokens]``."""
        sides = self._sides[list(places)]
        return self._texts.batch([*sides[:, 0].tolist(), *sides[:, 1].tolist()])


class Ranking:
    """Each sentence's translation among those of the batch (Yang et al. 2019, equation 3; van den Oord et al. 2018).

    Cosines over a temperature, a margin off the right one, cross-entropy both ways. Other languages' versions of the same
    sentence are no wrong answers: they are left out.
    """

    def __init__(self, pairs: Pairs, settings: AlignSettings, accelerator: Accelerator) -> None:
        self._pairs, self._settings, self._accelerator = pairs, settings, accelerator

    def __call__(self, model: nn.Module, places: Sequence[int]) -> Tensor:
        """Mean over the pairs."""
        ids, mask = (part.to(self._accelerator.device) for part in self._pairs.batch(places))
        outputs: Mapping[str, Tensor] = model(ids, mask, embedding=True)
        vectors = functional.normalize(outputs[EMBEDDING].float(), dim=-1)
        near = vectors[: len(places)] @ vectors[len(places) :].T
        own = torch.eye(len(places), dtype=torch.bool, device=near.device)
        groups = torch.from_numpy(self._pairs.groups[list(places)]).to(near.device)
        same = (groups[:, None] == groups[None]) & ~own
        scores = ((near - self._settings.margin * own) / self._settings.temperature).masked_fill(same, -1e4)
        right = torch.arange(len(places), device=near.device)
        loss = (functional.cross_entropy(scores, right) + functional.cross_entropy(scores.T, right)) / 2
        if self._accelerator.num_processes > 1:  # all processes must have gradients for the same parameters
            loss = loss + 0.0 * sum(values.sum() for name, values in outputs.items() if name != EMBEDDING)
        return loss


class Retrieval:
    """Scores a model by how often it finds the translation among the held-out sentences."""

    def __init__(
        self,
        groups: Sequence[Mapping[str, str]],
        tokenizer: str,
        prefix: str,
        settings: AlignSettings,
        accelerator: Accelerator,
    ) -> None:
        langs = sorted({lang for group in groups for lang in group})
        if settings.pivot not in langs:
            raise TrainingError(
                f"no parallel sentence is in {settings.pivot!r}", where="pivot", hint=f"they are in {', '.join(langs)}"
            )
        self._pivot, self._accelerator = settings.pivot, accelerator
        self._pairs = {
            lang: [group for group in groups if lang in group and settings.pivot in group]
            for lang in langs
            if lang != settings.pivot
        }
        self._pairs = {lang: found for lang, found in self._pairs.items() if len(found) > 1}
        wanted = dict.fromkeys(
            text for lang, found in self._pairs.items() for group in found for text in (group[lang], group[self._pivot])
        )
        self._rows = {text: row for row, text in enumerate(wanted)}
        self._texts = Texts(tokenizer, list(wanted), prefix, settings.max_length)
        self._bf16 = precision_of(settings.precision, accelerator.device) is torch.bfloat16

    def by_language(self, model: Classifier) -> dict[str, float]:
        """Accuracy against the pivot, both ways averaged, 0 to 1."""
        vectors = predict(model, self._texts, device=self._accelerator.device, bf16=self._bf16, embedding=True)[
            EMBEDDING
        ]
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        found: dict[str, float] = {}
        for lang, groups in self._pairs.items():
            sides = {name: vectors[[self._rows[group[name]] for group in groups]] for name in (lang, self._pivot)}
            found |= retrieval(sides, self._pivot)
        return found

    def __call__(self, model: Classifier) -> float:
        """The mean over the languages."""
        return _mean(self.by_language(model))
