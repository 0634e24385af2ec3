"""Stage `distil`: a student learns a teacher's probabilities on unlabelled texts; layers and vocabulary may be pruned first."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Container, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from accelerate import Accelerator
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn import functional

from training import vocabulary
from training.data.examples import Dataset, Example
from training.errors import TrainingError
from training.files import whole_folder
from training.loop import precision_of, train
from training.model import (
    EMBEDDING,
    Classifier,
    Texts,
    cut_embedding,
    layers_of,
    load_classifier,
    predict,
    save_classifier,
)  # fmt: skip
from training.recipe import resolved
from training.stages.finetune import evaluator, make_plan
from training.stages.settings import DistilSettings
from training.stages.unlabelled import gather
from training.tracking import Tracker

if TYPE_CHECKING:
    from training.run import Context


def run(context: Context, folder: Path) -> None:
    """The stage."""
    settings: DistilSettings = context.settings
    seed = context.recipe.seed if settings.seed is None else settings.seed
    data = Dataset.load(context.data)
    examples = gather(data, settings, context.recipe_folder, seed)
    lines = [example.text for example in examples]
    accelerator = Accelerator(mixed_precision="no")
    torch.manual_seed(seed)
    student, tokenizer = load_classifier(context.model, **settings.dropouts())
    told = teach(context, examples, student, accelerator)
    if settings.layers:
        prune_layers(student, settings.layers)
        context.say(f"{settings.layers} layers kept")
    if settings.pieces is not None:
        trained = context.recipe.trained_in(data.train)
        tokenizer = prune_pieces(student, tokenizer, examples, trained, settings.pieces)
    prefix = context.recipe.encoder.text_prefix
    texts = Texts(tokenizer, lines, prefix, settings.max_length)
    plan = make_plan(examples, texts, settings, {example.source: 1.0 for example in examples}, seed)
    evaluate = evaluator(tokenizer, student.about, data.validation, context, accelerator, settings)
    context.say(f"{len(lines):,} texts; before it learns, score {100 * evaluate(student.to(accelerator.device)):.2f}")
    tracker = Tracker(context.recipe.tracking, context.run / "logs" / context.name, context.recipe, accelerator)
    try:
        progress = train(
            student, plan, Soft(texts, told, settings, accelerator.device), settings, seed=seed, work=context.work,
            accelerator=accelerator, evaluate=evaluate, track=tracker.log, say=context.say,
        )  # fmt: skip
    finally:
        tracker.close()
    save_classifier(student, tokenizer, folder)
    history = {"losses": progress.losses, "scores": progress.scores, "seconds": round(progress.seconds, 1)}
    (folder / "history.json").write_text(json.dumps(history) + "\n", encoding="utf-8")


def teach(
    context: Context, examples: Sequence[Example], student: Classifier, accelerator: Accelerator
) -> dict[str, NDArray[np.float32]]:
    """What the teachers say of each text, computed once and kept in the work folder.

    Returns:
        By head, probabilities at the temperature, averaged over the teachers and over the translations of a sentence, ``[texts, labels]``;
        `EMBEDDING`, of the first teacher, ``[texts, hidden]``.

    Raises:
        TrainingError: A teacher is no checkpoint, or has other heads than the student.
    """
    settings: DistilSettings = context.settings
    lines = [example.text for example in examples]
    kept = context.work / "teachers" / "told.npz"
    if kept.exists():
        with np.load(kept) as arrays:
            return {name: arrays[name] for name in arrays.files}
    told: dict[str, NDArray[np.float32]] = {}
    for name in settings.teachers:
        folder = context.model if name == "self" else resolved(name, context.recipe_folder)
        if not (folder / "model.json").exists() and (folder / "final" / "model.json").exists():
            folder = folder / "final"
        teacher, tokenizer = load_classifier(folder)
        if {h: tuple(labels) for h, labels in teacher.about.heads.items()} != {
            h: tuple(labels) for h, labels in student.about.heads.items()
        }:
            raise TrainingError(
                "has other heads or labels than the student",
                where=str(folder),
                hint="a teacher of the same recipe's heads",
            )
        context.say(f"{folder} classifies {len(lines):,} texts")
        outputs = predict(
            teacher.to(accelerator.device),
            Texts(tokenizer, lines, teacher.about.text_prefix, settings.max_length),
            device=accelerator.device,
            bf16=precision_of(settings.precision, accelerator.device) is torch.bfloat16,
            embedding=True,
        )
        told.setdefault(EMBEDDING, outputs.pop(EMBEDDING))
        for head, logits in outputs.items():
            soft = torch.from_numpy(logits / settings.temperature).softmax(dim=1).numpy() / len(settings.teachers)
            told[head] = (told[head] + soft if head in told else soft).astype(np.float32)
    for places in _translations(examples):
        for head in student.about.heads:
            told[head][places] = told[head][places].mean(0)
    if accelerator.is_main_process:
        with whole_folder(kept.parent) as draft:
            np.savez(draft / kept.name, **cast(Any, told))
    return told


def _translations(examples: Sequence[Example]) -> list[list[int]]:
    """Places of the texts that are one sentence in several languages."""
    found: defaultdict[str, list[int]] = defaultdict(list)
    for place, example in enumerate(examples):
        if example.group:
            found[example.group].append(place)
    return list(found.values())


def prune_layers(model: Classifier, keep: int) -> None:
    """Keep layers evenly spaced, the first and the last among them (Sanh et al. 2019, section 3; Sajjad et al. 2023).

    Raises:
        TrainingError: There are not so many.
    """
    layers = layers_of(model.encoder)
    if keep > len(layers):
        raise TrainingError(f"the encoder has {len(layers)} layers", where="layers", hint=f"{keep} are to be kept")
    places = np.linspace(0, len(layers) - 1, keep).round().astype(int) if keep > 1 else np.array([len(layers) - 1])
    chosen = [layers[int(place)] for place in places]
    del layers[:]
    layers.extend(chosen)
    config = cast(Any, model.encoder).config
    name = "n_layer" if hasattr(config, "n_layer") and config.model_type == "xlnet" else "num_hidden_layers"
    setattr(config, name, keep)


def prune_pieces(
    model: Classifier, tokenizer: str, examples: Sequence[Example], trained: Container[str], pieces: int
) -> str:
    """Cut the vocabulary to the pieces that these texts use most, those of trained languages first; returns the new tokenizer's content."""
    whole = Tokenizer.from_str(tokenizer)
    whole.no_truncation()
    if pieces >= whole.get_vocab_size(with_added_tokens=True):
        return tokenizer
    texts: defaultdict[str, list[str]] = defaultdict(list)
    for example in examples:
        texts[example.lang].append(example.text)
    kept = vocabulary.select(
        vocabulary.pieces_of(whole),
        vocabulary.special_ids(whole),
        vocabulary.language_counts(whole, texts, {}),
        pieces,
        trained,
    )
    cut_embedding(model.encoder, kept)
    return vocabulary.trim_tokenizer(whole, kept, model.about.max_length)


class Soft:
    """Divergence of the student's probabilities from the teachers' at a temperature (Hinton et al. 2015, section 2), all heads.

    The hidden loss compares the cosines between the texts of a batch on both sides (Park et al. 2019), so that teacher
    and student may be of different width.
    """

    def __init__(
        self, texts: Texts, told: Mapping[str, NDArray[np.float32]], settings: DistilSettings, device: torch.device
    ) -> None:
        self._texts, self._settings, self._device = texts, settings, device
        self._told = {name: torch.from_numpy(values) for name, values in told.items()}

    def __call__(self, model: nn.Module, places: Sequence[int]) -> Tensor:
        """Mean over the texts."""
        ids, mask = (part.to(self._device) for part in self._texts.batch(places))
        outputs: Mapping[str, Tensor] = model(ids, mask, embedding=True)
        told = {name: values[list(places)].to(self._device) for name, values in self._told.items()}
        total = torch.zeros((), device=self._device)
        heads = [name for name in outputs if name != EMBEDDING]
        for head in heads:
            said = functional.log_softmax(outputs[head].float() / self._settings.temperature, dim=1)
            total = total + functional.kl_div(said, told[head], reduction="batchmean")
        total = total * self._settings.temperature**2 / len(heads)
        if self._settings.hidden_weight:
            mine, theirs = (functional.normalize(v.float(), dim=1) for v in (outputs[EMBEDDING], told[EMBEDDING]))
            total = total + self._settings.hidden_weight * functional.mse_loss(mine @ mine.T, theirs @ theirs.T)
        return total
