"""Weights shared out over processes (fully sharded data parallel), and put together again.

Each process keeps its part of every weight, gradient and moment of the optimiser, and fetches a layer's others while it works
on it (Rajbhandari et al. 2020, ZeRO stage 3; `torch.distributed.fsdp.fully_shard`). What is not sharded goes through here unchanged,
so that the loop need not know.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.utils._pytree import tree_map_only

from training.model import Classifier, layers_of


def shard(model: Classifier, device: torch.device, processes: int) -> None:
    """Share a model out, in place: each layer of the encoder on its own, and what is left together."""
    mesh = init_device_mesh(device.type, (processes,))
    for layer in layers_of(model.encoder):
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)


def whole(value: Tensor) -> Tensor:
    """A weight as one tensor; all processes have to ask together."""
    return value.full_tensor() if isinstance(value, DTensor) else value


def whole_weights(model: Classifier) -> dict[str, Tensor]:
    """All weights by name; all processes have to ask together."""
    return {name: whole(value).detach().cpu() for name, value in model.state_dict().items()}


@torch.no_grad()
def put(value: Tensor, found: Tensor) -> Tensor:
    """Set a weight, in place, to what another one is, which may be whole."""
    return value.copy_(_like(value, found))


def optimizer_state(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """An optimiser's state dict with its moments whole; all processes have to ask together."""
    return dict(tree_map_only(Tensor, whole, optimizer.state_dict()))


def restore_optimizer(optimizer: torch.optim.Optimizer, state: Mapping[str, Any]) -> None:
    """Set an optimiser to what `optimizer_state` gave, for as many processes as there are now."""
    weights = [value for group in optimizer.param_groups for value in group["params"]]
    moments = {
        place: {name: _like(weights[place], kept) if isinstance(kept, Tensor) else kept for name, kept in found.items()}
        for place, found in state["state"].items()
    }
    optimizer.load_state_dict({**state, "state": moments})


def _like(value: Tensor, found: Tensor) -> Tensor:
    """Shared out as a weight is; what has another shape (a count of steps) is on every process."""
    if isinstance(value, DTensor) and not isinstance(found, DTensor) and found.shape == value.shape:
        return distribute_tensor(found.to(value.device), value.device_mesh, value.placements)
    return found
