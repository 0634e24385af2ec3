"""The training loop: steps of an optimiser over a plan of batches, for any objective; goes on after a crash as if none had been.

Everything random is a function of the seed and the step (the plan is made beforehand, dropout is seeded per step), so that
a run from its last saved state does the very steps that the killed one would have done.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, cast

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from tqdm import tqdm

from training.errors import TrainingError
from training.files import recover, whole_folder
from training.model import Classifier, layers_of
from training.optimizer import make_optimizer, rate_factor
from training.sharding import optimizer_state, put, restore_optimizer, shard, whole
from training.stages.settings import LoopSettings, Precision

_AVERAGED = 20
"""Snapshots in an average: the mean over more differs by less than the noise of one."""

_PLAIN_ATTENTION = 128
"""Tokens up to which attention is computed as plain products on a CPU in bf16: the fused kernel takes 2 to 9 times as long there, most of it
backward; from 256 on it is faster, as it is in fp32 throughout (benchmarks/training/attention.py)."""


class Objective(Protocol):
    """What is made small."""

    def __call__(self, model: nn.Module, places: Sequence[int]) -> Tensor:
        """Mean loss over the texts at these places of the plan; a scalar, float32."""


@dataclass
class Progress:
    """How far it is; saved with the weights."""

    step: int = 0
    scores: list[tuple[int, float]] = field(default_factory=list)
    """Of the evaluations: after so many steps, the score (higher is better)."""
    best_step: int = -1
    best_score: float = -math.inf
    averaged: int = 0
    """Snapshots in the average."""
    tokens_limit: int = 0
    """Padded tokens that fit into memory at once; 0 while all did."""
    losses: list[tuple[int, float]] = field(default_factory=list)
    """Smoothed loss at every hundredth of the steps."""
    smoothed: float = 0.0
    stopped: bool = False
    seconds: float = 0.0
    """Spent so far, over all attempts."""


@dataclass(frozen=True)
class Plan:
    """What is trained on."""

    batches: Sequence[Sequence[int]]
    """All batches of all epochs, in order: places of texts."""
    lengths: Sequence[int]
    """Tokens by place."""


def precision_of(wanted: Precision, device: torch.device) -> torch.dtype | None:
    """The type for autocast, or None for plain fp32.

    Raises:
        TrainingError: The device has no such thing.
    """
    if wanted == "fp32":
        return None
    if device.type == "cuda":
        bf16 = torch.cuda.is_bf16_supported()
        if wanted == "bf16" and not bf16:
            raise TrainingError("this GPU has no bf16", where="precision", hint='take "fp16" or "fp32"')
        return torch.bfloat16 if wanted == "bf16" or (wanted == "auto" and bf16) else torch.float16
    if wanted == "fp16":
        raise TrainingError("fp16 is for GPUs", where="precision", hint='take "bf16" or "auto"')
    # Without these instructions bf16 is emulated, and slower than fp32.
    native = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return torch.bfloat16 if wanted == "bf16" or native else None


def attention(device: str, dtype: torch.dtype | None, longest: int) -> AbstractContextManager[None]:
    """A context in which torch computes attention by what is fastest in training.

    Args:
        device: "cpu", "cuda", ...
        dtype: Of autocast; None for plain fp32.
        longest: Tokens of the longest text.
    """
    plain = device == "cpu" and dtype is torch.bfloat16 and longest <= _PLAIN_ATTENTION
    return cast(AbstractContextManager[None], sdpa_kernel(SDPBackend.MATH)) if plain else nullcontext()


def train(
    model: Classifier,
    plan: Plan,
    objective: Objective,
    settings: LoopSettings,
    *,
    seed: int,
    work: Path,
    accelerator: Accelerator,
    evaluate: Callable[[Classifier], float],
    track: Callable[[int, Mapping[str, float]], None] = lambda _, __: None,
    say: Callable[[str], None] = lambda _: None,
    unfreeze_every: float = 0.0,
) -> Progress:
    """Train `model` in place; afterwards it holds the best weights seen: of an evaluation, or the average.

    Args:
        model: On any device; it is moved to the accelerator's.
        plan: What is trained on.
        objective: What is made small.
        settings: How.
        seed: Of dropout.
        work: Folder for the saved state; what an earlier attempt left there is gone on from.
        accelerator: Device and processes.
        evaluate: Scores the model on validation texts; higher is better.
        track: Told of figures by step.
        say: Told of what happens, in one line.
        unfreeze_every: Free one more layer from the top per this share of the steps; 0: all at once.

    Raises:
        TrainingError: The loss is not a number, or one text does not fit into memory.
    """
    return _Loop(model, plan, objective, settings, seed, work, accelerator, evaluate, track, say, unfreeze_every).run()


class _Loop:
    def __init__(
        self, model: Classifier, plan: Plan, objective: Objective, settings: LoopSettings, seed: int, work: Path,
        accelerator: Accelerator, evaluate: Callable[[Classifier], float],
        track: Callable[[int, Mapping[str, float]], None], say: Callable[[str], None], unfreeze_every: float,
    ) -> None:  # fmt: skip
        self._plan, self._objective, self._settings, self._seed, self._work = plan, objective, settings, seed, work
        self._accelerator, self._evaluate, self._track, self._say = accelerator, evaluate, track, say
        self._unfreeze_every = unfreeze_every
        self._model = model.to(accelerator.device)
        self._type = precision_of(settings.precision, accelerator.device)
        self._scaler = torch.amp.GradScaler(accelerator.device.type, enabled=self._type is torch.float16)
        freeze(model, embeddings=settings.freeze_embeddings, layers=settings.freeze_layers)
        several = accelerator.num_processes > 1
        if several and unfreeze_every:
            raise TrainingError("needs a single process", where="unfreeze_every", hint="or set it to 0")
        self._sharded = several and settings.shard
        if self._sharded:
            if self._type is torch.float16:
                raise TrainingError("does not go with fp16", where="shard", hint='take "bf16" or "fp32"')
            shard(model, accelerator.device, accelerator.num_processes)
        self._trained = {name: value for name, value in model.named_parameters() if value.requires_grad}
        if settings.gradient_checkpointing:
            cast(Any, model.encoder).gradient_checkpointing_enable({"use_reentrant": False})
        self._optimizer = make_optimizer(model, settings)
        self._rates = [group["lr"] for group in self._optimizer.param_groups]
        if not plan.batches:
            raise TrainingError(
                f"{settings.epochs:g} are so few that no text is drawn", where="epochs", hint="more of them"
            )
        self._stride = settings.accumulate * accelerator.num_processes
        self._steps = max(1, len(plan.batches) // self._stride)
        self._progress = Progress()
        self._average: dict[str, Tensor] = {}
        # Several processes with all weights each: gradients are averaged by DDP, as accelerate sets it up.
        self._wrapped: nn.Module = accelerator.prepare_model(model) if several and not self._sharded else model

    def run(self) -> Progress:
        self._resume()
        settings, progress = self._settings, self._progress
        evaluated = {round(self._steps * (n + 1) / settings.evaluations) for n in range(settings.evaluations)}
        averaged = _tail(self._steps, settings.average)
        started, saved = time.monotonic(), time.monotonic()
        texts = 0
        self._model.train()
        main = self._accelerator.is_main_process
        with tqdm(total=self._steps, initial=progress.step, desc="training", unit="step", disable=not main) as bar:
            while progress.step < self._steps and not progress.stopped:
                loss = self._step(progress.step)
                texts += sum(len(self._batch(progress.step, micro)) for micro in range(settings.accumulate))
                progress.step += 1
                progress.smoothed = loss if progress.step == 1 else 0.98 * progress.smoothed + 0.02 * loss
                if progress.step % max(1, self._steps // 100) == 0:
                    progress.losses.append((progress.step, progress.smoothed))
                    self._track(progress.step, {"loss": loss, "rate": self._optimizer.param_groups[0]["lr"]})
                if progress.step in averaged:
                    self._add_to_average()
                if progress.step in evaluated:
                    self._score()
                spent = time.monotonic() - started
                rate = texts * self._accelerator.num_processes / spent
                bar.set_postfix(loss=f"{progress.smoothed:.3f}", texts_s=f"{rate:.0f}", refresh=False)
                bar.update()
                if time.monotonic() - saved > 60 * settings.checkpoint_minutes:
                    progress.seconds += time.monotonic() - saved
                    self._save()
                    saved = time.monotonic()
        progress.seconds += time.monotonic() - saved
        self._take_the_best()
        return progress

    def _batch(self, step: int, micro: int) -> Sequence[int]:
        place = step * self._stride + micro * self._accelerator.num_processes + self._accelerator.process_index
        return self._plan.batches[place % len(self._plan.batches)]

    def _step(self, step: int) -> float:
        """One step of the optimiser; what does not fit into memory is done in smaller pieces."""
        torch.manual_seed(
            self._seed * 1_000_003 + step * self._accelerator.num_processes + self._accelerator.process_index
        )
        for group, rate in zip(self._optimizer.param_groups, self._rates, strict=True):
            group["lr"] = rate * rate_factor(self._settings.schedule, self._settings.warmup, step, self._steps)
        self._unfreeze(step)
        while True:
            try:
                loss = sum(self._backward(self._batch(step, micro)) for micro in range(self._settings.accumulate))
                break
            except (torch.OutOfMemoryError, MemoryError) as error:
                if self._accelerator.num_processes > 1:  # the others are in the middle of the same step
                    raise TrainingError(
                        "out of memory", where="training", hint="a smaller batch_tokens, and accumulate"
                    ) from error
                self._optimizer.zero_grad()
                self._halve(step, error)
        if not math.isfinite(loss):
            raise TrainingError(
                f"the loss is not a number at step {step + 1} of {self._steps}",
                where="training",
                hint='a smaller learning_rate, a longer warmup, or precision = "fp32"; it goes on from the last saved state',
            )
        self._scaler.unscale_(self._optimizer)
        nn.utils.clip_grad_norm_(self._trained.values(), self._settings.clip)
        self._scaler.step(self._optimizer)
        self._scaler.update()
        self._optimizer.zero_grad()
        return loss

    def _backward(self, places: Sequence[int]) -> float:
        total = 0.0
        for piece in _pieces(places, self._plan.lengths, self._progress.tokens_limit):
            device = self._accelerator.device.type
            longest = max(self._plan.lengths[place] for place in piece)
            with (
                torch.autocast(device, self._type or torch.bfloat16, enabled=self._type is not None),
                attention(device, self._type, longest),
            ):
                loss = self._objective(self._wrapped, piece)
            loss = loss * (len(piece) / len(places) / self._settings.accumulate)
            self._scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
            total += float(loss.detach())
        return total

    def _halve(self, step: int, error: BaseException) -> None:
        batches = [self._batch(step, micro) for micro in range(self._settings.accumulate)]
        tokens = max(len(places) * max(self._plan.lengths[place] for place in places) for places in batches)
        limit = min(self._progress.tokens_limit or tokens, tokens) // 2
        if all(len(places) == 1 for places in batches) or limit < 1:
            raise TrainingError(
                "one text alone does not fit into memory",
                where="training",
                hint="a smaller max_length, or gradient_checkpointing = true",
            ) from error
        if self._accelerator.device.type == "cuda":
            torch.cuda.empty_cache()
        self._progress.tokens_limit = limit
        self._say(f"out of memory: going on with at most {limit} tokens at once")

    def _unfreeze(self, step: int) -> None:
        if not self._unfreeze_every:
            return
        layers = layers_of(self._model.encoder)
        freed = 1 + int(step / self._steps / self._unfreeze_every)
        for place, layer in enumerate(layers):
            for value in layer.parameters():
                value.requires_grad_(place >= max(self._settings.freeze_layers, len(layers) - freed))

    def _add_to_average(self) -> None:
        count = self._progress.averaged
        for name, value in self._trained.items():
            if count == 0:
                self._average[name] = value.detach().clone()
            else:
                self._average[name].lerp_(value.detach(), 1 / (count + 1))
        self._progress.averaged += 1

    def _score(self) -> None:
        progress = self._progress
        score = self._judged()
        self._model.train()
        progress.scores.append((progress.step, score))
        self._track(progress.step, {"score": score})
        self._say(f"step {progress.step} of {self._steps}: score {100 * score:.2f}, loss {progress.smoothed:.3f}")
        if score > progress.best_score:
            progress.best_score, progress.best_step = score, progress.step
            weights = self._whole(self._trained)
            if self._accelerator.is_main_process:
                with whole_folder(self._work / "best") as folder:
                    save_file(weights, str(folder / "model.safetensors"))
                    (folder / "step.json").write_text(json.dumps({"step": progress.step}))
        elif self._settings.patience:
            since = sum(step > progress.best_step for step, _ in progress.scores)
            progress.stopped = since >= self._settings.patience

    def _judged(self) -> float:
        """The score, by one process for all, unless it takes all to run the model."""
        does = self._accelerator.is_main_process or self._sharded
        score = torch.tensor([self._evaluate(self._model) if does else 0.0], device=self._accelerator.device)
        return float(broadcast(score)[0])

    def _take_the_best(self) -> None:
        progress = self._progress
        last = {name: value.detach().clone() for name, value in self._trained.items()}
        if self._average:
            self._load(self._average)
            score = self._evaluate(self._model)
            self._say(
                f"average of {progress.averaged} snapshots: score {100 * score:.2f}, best single {100 * progress.best_score:.2f}"
            )
            progress.scores.append((progress.step, score))
            if score >= progress.best_score:
                progress.best_score, progress.best_step = score, progress.step
                return
        if progress.best_step == progress.step:
            self._load(last)
            return
        self._accelerator.wait_for_everyone()
        self._load(load_file(str(self._work / "best" / "model.safetensors")))

    def _load(self, values: Mapping[str, Tensor]) -> None:
        for name, value in self._trained.items():
            put(value, values[name])

    def _whole(self, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {name: whole(value.detach()).contiguous() for name, value in values.items()}

    def _save(self) -> None:
        if not (self._accelerator.is_main_process or self._sharded):
            return
        weights, average = self._whole(self._trained), self._whole(self._average)
        optimizer = optimizer_state(self._optimizer)
        if not self._accelerator.is_main_process:
            return
        with whole_folder(self._work / "state") as folder:
            save_file(weights, str(folder / "model.safetensors"))
            if average:
                save_file(average, str(folder / "average.safetensors"))
            torch.save({"optimizer": optimizer, "scaler": self._scaler.state_dict()}, folder / "optimizer.pt")
            (folder / "progress.json").write_text(json.dumps(self._progress.__dict__))

    def _resume(self) -> None:
        folder = self._work / "state"
        recover(folder)
        recover(self._work / "best")
        if not folder.exists():
            return
        self._load(load_file(str(folder / "model.safetensors")))
        if (folder / "average.safetensors").exists():
            saved = load_file(str(folder / "average.safetensors"))
            self._average = {name: put(torch.empty_like(value), saved[name]) for name, value in self._trained.items()}
        state = torch.load(folder / "optimizer.pt", map_location="cpu", weights_only=True)
        restore_optimizer(self._optimizer, state["optimizer"])
        self._scaler.load_state_dict(state["scaler"])
        values = json.loads((folder / "progress.json").read_text())
        pairs = {name: [tuple(pair) for pair in values[name]] for name in ("scores", "losses")}
        self._progress = Progress(**(values | pairs))
        self._say(f"going on from step {self._progress.step} of {self._steps}")


def freeze(model: Classifier, *, embeddings: bool, layers: int) -> None:
    """Let the embeddings or the lowest layers as they are.

    Raises:
        TrainingError: There are fewer layers.
    """
    model.requires_grad_(True)
    found = layers_of(model.encoder)
    if layers > len(found):
        raise TrainingError(
            f"the encoder has {len(found)} layers", where="freeze_layers", hint=f"{layers} are to be frozen"
        )
    if embeddings:
        inside = {id(value) for value in found.parameters()}
        for name, value in model.encoder.named_parameters():
            if "embed" in name.lower() and id(value) not in inside:
                value.requires_grad_(False)
    for layer in found[:layers]:
        layer.requires_grad_(False)


def _tail(steps: int, share: float) -> frozenset[int]:
    """The steps after which a snapshot goes into the average: evenly over the last share, the last step among them."""
    if not share:
        return frozenset()
    count = min(_AVERAGED, max(1, int(steps * share)))
    return frozenset(steps - round(n * steps * share / count) for n in range(count))


def _pieces(places: Sequence[int], lengths: Sequence[int], limit: int) -> list[Sequence[int]]:
    if not limit:
        return [places]
    rows = max(1, limit // max(lengths[place] for place in places))
    return [places[start : start + rows] for start in range(0, len(places), rows)]
