"""Curves while it trains: TensorBoard, and Weights & Biases when it is asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from training.errors import TrainingError
from training.recipe import Recipe


class Tracker:
    """Passes figures on, from the main process only.

    Args:
        wanted: `tensorboard`, `wandb`.
        folder: For TensorBoard's files.
        recipe: Of the run.
        accelerator: Knows which process this is.

    Raises:
        TrainingError: A tracker is not installed.
    """

    def __init__(self, wanted: Sequence[str], folder: Path, recipe: Recipe, accelerator: Accelerator) -> None:
        self._board: Any = None
        self._wandb: Any = None
        if not accelerator.is_main_process:
            return
        if "tensorboard" in wanted:
            from torch.utils.tensorboard import SummaryWriter

            self._board = SummaryWriter(str(folder))
        if "wandb" in wanted:
            try:
                import wandb
            except ModuleNotFoundError:
                raise TrainingError("wandb is not installed", where="tracking", hint="pip install wandb") from None
            self._wandb = wandb.init(
                project="babelwatch", name=f"{recipe.name}/{folder.name}", id=f"{recipe.name}-{folder.name}", resume="allow",
                dir=str(folder), config=recipe.model_dump(mode="json"),
            )  # fmt: skip

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        """Figures after so many steps."""
        if self._board is not None:
            for name, value in figures.items():
                self._board.add_scalar(name, value, step)
        if self._wandb is not None:
            self._wandb.log(dict(figures), step=step)

    def close(self) -> None:
        """Write what is left."""
        if self._board is not None:
            self._board.close()
        if self._wandb is not None:
            self._wandb.finish()
