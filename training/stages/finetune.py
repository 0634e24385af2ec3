"""Stages `finetune` and `transfer`: supervised training of encoder and heads on the sources, or on some of them."""

from __future__ import annotations

import json
import random
import shutil
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs, DistributedType
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from training import sampling
from training.data.examples import Dataset, Example
from training.errors import TrainingError
from training.files import recover, whole_folder
from training.loop import Plan, precision_of, train
from training.lower import LowerLayers
from training.metrics import macro_f1
from training.model import About, Classifier, Texts, load_classifier, predict, save_classifier
from training.sharding import whole_weights
from training.stages.settings import LoopSettings, SupervisedSettings, TransferSettings
from training.tracking import Tracker

if TYPE_CHECKING:
    from training.run import Context


_NEVER = -1e4
"""The logit of a label that a source does not give: finite, so that its gradient is 0 and not undefined."""
_NEXT_SEED = 7919
"""From one run of a stage to the next; the seeds that people choose are small."""


def run(context: Context, folder: Path) -> None:
    """The stage."""
    settings: SupervisedSettings = context.settings
    seed = context.recipe.seed if settings.seed is None else settings.seed
    data = Dataset.load(context.data)
    examples, weights = chosen(
        data.train, settings, {s.name: s.weight for s in context.recipe.data.sources if s.split == "train"}
    )
    # An architecture may have parameters that this use of it leaves alone.
    accelerator = Accelerator(
        mixed_precision="no", kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)]
    )
    if accelerator.distributed_type is DistributedType.FSDP:
        raise TrainingError("shards by itself", where="accelerate", hint="launch without FSDP, and set shard = true")
    if settings.cache_frozen and accelerator.num_processes > 1:
        raise TrainingError("needs a single process", where="cache_frozen", hint="or set it to false")
    start, tokenizer = load_classifier(context.model)
    texts = Texts(
        tokenizer, [example.text for example in examples], context.recipe.encoder.text_prefix, settings.max_length
    )
    seeds = [seed + _NEXT_SEED * number for number in range(settings.runs)]
    plans = [make_plan(examples, texts, settings, weights, its) for its in seeds]
    evaluate = evaluator(tokenizer, start.about, data.validation, context, accelerator, settings)
    context.say(
        f"{len(examples):,} texts, {sum(len(plan.batches) for plan in plans):,} batches, {int(np.mean(texts.lengths))} tokens a text"
    )
    finished = []
    for number, its in enumerate(seeds):
        done = context.work / f"done-{number}"
        recover(done)
        if not done.exists():
            _train_once(context, done, examples, texts, plans, number, its, evaluate, accelerator)
        finished.append(done)
    mean: dict[str, Tensor] = {}
    for count, done in enumerate(finished, 1):
        for name, value in load_file(str(done / "model.safetensors")).items():
            mean[name] = value if count == 1 else mean[name].lerp_(value, 1 / count)
    if settings.keep:
        mean = {name: value.lerp(mean[name], 1 - settings.keep) for name, value in start.state_dict().items()}
    start.load_state_dict(mean)
    history = json.loads((finished[0] / "history.json").read_text(encoding="utf-8"))
    if settings.runs > 1 or settings.keep:
        score = evaluate(start.to(accelerator.device))
        context.say(f"mean of the weights, {settings.keep:g} of them as they were: score {100 * score:.2f}")
        history["runs"] = [json.loads((done / "history.json").read_text(encoding="utf-8")) for done in finished]
        history["mean"] = score
    save_classifier(start, tokenizer, folder)
    (folder / "history.json").write_text(json.dumps(history) + "\n", encoding="utf-8")


def _train_once(
    context: Context, done: Path, examples: Sequence[Example], texts: Texts, plans: Sequence[Plan], number: int, seed: int,
    evaluate: Callable[[Classifier], float], accelerator: Accelerator,
) -> None:  # fmt: skip
    """One run of the stage; `done` then holds all weights, and how it went."""
    settings: SupervisedSettings = context.settings
    torch.manual_seed(seed)
    model, _ = load_classifier(context.model, **settings.dropouts())
    lower = None
    if settings.cache_frozen:  # for all runs at once
        drawn = {place for plan in plans for batch in plan.batches for place in batch}
        lower = LowerLayers(
            model.to(accelerator.device), settings.freeze_layers, texts, drawn,
            context.work / "frozen", precision_of(settings.precision, accelerator.device),
        )  # fmt: skip
    logs = context.run / "logs" / (context.name if settings.runs == 1 else f"{context.name}-{number}")
    tracker = Tracker(context.recipe.tracking, logs, context.recipe, accelerator)
    try:
        progress = train(
            model, plans[number], Supervised(examples, texts, settings, model, accelerator.device, lower), settings,
            seed=seed, work=context.work / f"run-{number}", accelerator=accelerator, evaluate=evaluate,
            track=tracker.log, say=context.say,
            unfreeze_every=settings.unfreeze_every if isinstance(settings, TransferSettings) else 0.0,
        )  # fmt: skip
    finally:
        tracker.close()
    count = sum(len(batch) for batch in plans[number].batches)
    context.say(f"{count / max(progress.seconds, 1e-9):.0f} texts/s, best score {100 * progress.best_score:.2f}")
    weights = whole_weights(model)
    accelerator.wait_for_everyone()  # till all have read what lies in the folder that is removed now
    if accelerator.is_main_process:
        history = {
            "losses": progress.losses,
            "scores": progress.scores,
            "seconds": round(progress.seconds, 1),
            "texts": count,
        }
        with whole_folder(done) as draft:
            save_file({name: value.contiguous() for name, value in weights.items()}, str(draft / "model.safetensors"))
            (draft / "history.json").write_text(json.dumps(history) + "\n", encoding="utf-8")
        shutil.rmtree(context.work / f"run-{number}", ignore_errors=True)
    accelerator.wait_for_everyone()


def chosen(
    train_examples: Sequence[Example], settings: LoopSettings, weights: Mapping[str, float]
) -> tuple[list[Example], dict[str, float]]:
    """The examples that a stage trains on, and how much each source weighs: those named, and others to be replayed.

    Raises:
        TrainingError: The sources named have no training texts.
    """
    weights = dict(weights)
    if not settings.sources:
        return list(train_examples), weights
    named = [example for example in train_examples if example.source in settings.sources]
    if not named:
        raise TrainingError(
            "none of its sources has texts for training", where="sources", hint=", ".join(settings.sources)
        )
    replay = settings.replay if isinstance(settings, TransferSettings) else 0.0
    others = [example for example in train_examples if example.source not in settings.sources]
    if not replay or not others:
        return named, weights
    # So that of all texts drawn, the share `replay` is the others'.
    factor = replay / (1 - replay) * sum(weights[e.source] for e in named) / sum(weights[e.source] for e in others)
    return [*named, *others], {s: w if s in settings.sources else w * factor for s, w in weights.items()}


def make_plan(
    examples: Sequence[Example], texts: Texts, settings: LoopSettings, weights: Mapping[str, float], seed: int
) -> Plan:
    """All batches of all epochs."""
    wanted = sampling.shares(examples, settings.language_temperature, settings.head_weights, weights)
    size = len(examples)
    if isinstance(settings, TransferSettings) and settings.sources:
        named = sum(example.source in settings.sources for example in examples)
        size = round(named / (1 - settings.replay)) if named < size else size  # where others are there to be replayed
    epochs = sampling.draw(examples, wanted, settings.epochs, seed, size)
    found = [
        batch
        for number, places in enumerate(epochs)
        for batch in sampling.batches(places, texts.lengths, settings.batch_tokens, random.Random(f"{seed} {number}"))
    ]
    return Plan(found, texts.lengths.tolist())


class Supervised:
    """Cross-entropy of each text's own head, with label smoothing and class weights, and R-Drop if it is asked for.

    A source that never gives a label in a language (film lines without a neutral one, reviews of one or five stars) is no witness against
    it: its texts are compared over the labels that it does give, so that others decide how often that label is right.

    R-Drop (Liang et al. 2021): each text goes through twice, and the two predictions, which dropout makes differ, are pulled
    together by their symmetric Kullback-Leibler divergence.
    """

    def __init__(
        self,
        examples: Sequence[Example],
        texts: Texts,
        settings: LoopSettings,
        model: Classifier,
        device: torch.device,
        lower: LowerLayers | None = None,
    ) -> None:
        self._texts, self._settings, self._device, self._lower = texts, settings, device, lower
        self._names = list(model.about.heads)
        self._heads = np.array([self._names.index(example.head) for example in examples])
        self._labels = np.array([example.label for example in examples])
        self._given = torch.from_numpy(given_labels(examples, max(map(len, model.about.heads.values())))).to(device)
        self._weights = {name: torch.ones(len(labels), device=device) for name, labels in model.about.heads.items()}
        if settings.class_weights == "balanced":
            for place, name in enumerate(self._names):
                counts = np.bincount(self._labels[self._heads == place], minlength=len(model.about.heads[name]))
                balanced = counts.sum() / np.maximum(counts, 1) / len(counts)
                self._weights[name] = torch.tensor(balanced, dtype=torch.float32, device=device)

    def __call__(self, model: nn.Module, places: Sequence[int]) -> Tensor:
        """Mean over the texts."""
        ids, mask = (part.to(self._device) for part in self._texts.batch(places))
        twice = self._settings.r_drop > 0
        if twice:
            ids, mask = torch.cat([ids, ids]), torch.cat([mask, mask])
        with self._lower.given(places, 1 + twice) if self._lower else nullcontext():
            logits: Mapping[str, Tensor] = model(ids, mask)
        heads, labels = self._heads[list(places)], self._labels[list(places)]
        total = torch.zeros((), device=self._device)
        for number, name in enumerate(self._names):
            rows = np.flatnonzero(heads == number)
            scores = logits[name].float()
            if not len(rows):
                total = total + 0.0 * scores.sum()  # so that several processes agree on which gradients there are
                continue
            target = torch.from_numpy(labels[rows]).to(self._device)
            given = self._given[np.asarray(places)[rows], : scores.shape[1]]
            pairs = [scores[rows], scores[rows + len(heads)]] if twice else [scores[rows]]
            pairs = [part.masked_fill(~given, _NEVER) for part in pairs]
            losses = [
                cross_entropy(part, target, given, self._weights[name], self._settings.label_smoothing)
                for part in pairs
            ]
            total = total + torch.stack(losses).mean(0).sum()
            if twice:
                p, q = (torch.log_softmax(part, -1) for part in pairs)
                apart = (p.exp() * (p - q)).sum() + (q.exp() * (q - p)).sum()
                total = total + self._settings.r_drop * apart / 2
        return total / len(heads)


def given_labels(examples: Sequence[Example], labels: int) -> NDArray[np.bool_]:
    """Which labels the source of each text gives in its language; where it gives but one, all count.

    Args:
        examples: Of all sources.
        labels: Of the head that has most.

    Returns:
        *Shape:* ``[examples, labels]``.
    """
    seen: defaultdict[tuple[str, str, str], NDArray[np.bool_]] = defaultdict(lambda: np.zeros(labels, dtype=bool))
    for example in examples:
        seen[example.head, example.source, example.lang][example.label] = True
    for found in seen.values():
        found |= found.sum() == 1
    return np.stack([seen[example.head, example.source, example.lang] for example in examples])


def cross_entropy(scores: Tensor, target: Tensor, given: Tensor, weights: Tensor, smoothing: float) -> Tensor:
    """Cross-entropy over the labels given, smoothed over them alone (Szegedy et al. 2016, section 7).

    Args:
        scores: Logits, very low where a label is not given; *Shape:* ``[texts, labels]``.
        target: int64 ``[texts]``.
        given: bool ``[texts, labels]``.
        weights: Of the labels; ``[labels]``.
        smoothing: Share of the target that is spread over all labels given, 0 to 1.

    Returns:
        ``[texts]``.
    """
    surprise = -torch.log_softmax(scores, -1)
    spread = (surprise * weights).masked_fill(~given, 0.0).sum(-1) / given.sum(-1)
    right = surprise.gather(1, target[:, None])[:, 0] * weights[target]
    return (1 - smoothing) * right + smoothing * spread


def evaluator(
    tokenizer: str,
    about: About,
    validation: Sequence[Example],
    context: Context,
    accelerator: Accelerator,
    settings: LoopSettings,
) -> Callable[[Classifier], float]:
    """A function that scores the model: macro-F1 averaged over languages, then over heads; zero-shot languages apart."""
    leave_out = context.recipe.data.leave_out
    judged = [example for example in validation if example.lang not in leave_out.get(example.head, ())]
    texts = Texts(tokenizer, [example.text for example in judged], context.recipe.encoder.text_prefix, about.max_length)
    bf16 = precision_of(settings.precision, accelerator.device) is torch.bfloat16

    def evaluate(now: Classifier) -> float:
        logits = predict(now, texts, device=accelerator.device, bf16=bf16)
        found: defaultdict[str, dict[str, float]] = defaultdict(dict)
        for head in now.about.heads:
            for lang in sorted({example.lang for example in judged if example.head == head}):
                rows = [n for n, example in enumerate(judged) if example.head == head and example.lang == lang]
                truth = np.array([judged[n].label for n in rows])
                found[head][lang] = macro_f1(truth, logits[head][rows].argmax(1), len(now.about.heads[head]))
        means = {head: float(np.mean(list(by_lang.values()))) for head, by_lang in found.items()}
        context.say(", ".join(f"{head} {100 * mean:.2f}" for head, mean in means.items()))
        return float(np.mean(list(means.values())))

    return evaluate
