"""What the frozen lower layers make of each text, computed once and kept on disk, so that training starts above them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from training.errors import TrainingError
from training.files import recover, whole_folder
from training.model import Classifier, Texts, layers_of

_BATCH_TOKENS = 4096


class _ReachedError(Exception):
    """The last frozen layer has given its states: what comes after is not wanted."""


class LowerLayers:
    """The states that leave the last frozen layer, of all texts that will be trained on.

    While they are `given`, the frozen layers return them instead of computing; otherwise the model is as it was. They are kept in
    fp16 and computed without dropout.

    Args:
        model: Its embeddings and lowest layers do not learn.
        layers: How many do not.
        texts: As they are trained on.
        places: Those that are needed.
        folder: For the file: 2 bytes times tokens times width; what an earlier attempt left there is taken.
        precision: For autocast; None is plain fp32.

    Raises:
        TrainingError: The architecture's layers do not hand on ``[batch, tokens, hidden]``, or a state is beyond fp16.
    """

    def __init__(
        self,
        model: Classifier,
        layers: int,
        texts: Texts,
        places: Iterable[int],
        folder: Path,
        precision: torch.dtype | None,
    ) -> None:
        self._texts = texts
        self._width = int(cast(Any, model.encoder).config.hidden_size)
        self._device = next(model.parameters()).device
        wanted = sorted(set(places))
        self._starts = np.zeros(len(texts.lengths), dtype=np.int64)
        self._starts[wanted] = np.cumsum([0, *texts.lengths[wanted[:-1]]])
        self._given: Tensor | None = None
        self._returned = 0
        lower = layers_of(model.encoder)[:layers]
        for layer in lower:
            cast(Any, layer).forward = self._in_place_of(layer.forward)
        longest = max(wanted, key=lambda place: int(texts.lengths[place]))
        (found,) = self._outputs(model, lower[-1], [[longest]], None)
        # Of several values, those beside the states are attention weights, which nobody asks for here.
        self._returned = len(found) if isinstance(found, tuple) else 0
        if _states(found).shape != (1, texts.lengths[longest], self._width):
            raise TrainingError(
                "this architecture hands its states on in another form", where="cache_frozen", hint="set it to false"
            )
        shape = (int(texts.lengths[wanted].sum()), self._width)
        recover(folder)
        if not folder.exists():
            with whole_folder(folder) as draft:
                self._compute(model, lower[-1], wanted, _open(draft, shape, "w+"), precision)
        self._states = _open(folder, shape, "r")

    @contextmanager
    def given(self, places: Sequence[int], copies: int = 1) -> Iterator[None]:
        """Let the frozen layers return these texts' states, padded to the longest of them; `copies` times one after another."""
        states = np.zeros((len(places), int(self._texts.lengths[list(places)].max()), self._width), dtype=np.float32)
        for row, place in enumerate(places):
            start, length = self._starts[place], self._texts.lengths[place]
            states[row, :length] = self._states[start : start + length]
        self._given = torch.from_numpy(states).to(self._device).repeat(copies, 1, 1)
        try:
            yield
        finally:
            self._given = None

    def _in_place_of(self, forward: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **kwargs: Any) -> Any:
            if self._given is None:
                return forward(*args, **kwargs)
            return (self._given, *[None] * (self._returned - 1)) if self._returned else self._given

        return run

    def _compute(
        self, model: Classifier, last: nn.Module, wanted: Sequence[int], into: Any, precision: torch.dtype | None
    ) -> None:
        order = sorted(wanted, key=lambda place: int(self._texts.lengths[place]))
        batches: list[list[int]] = [[]]
        for place in order:
            if (len(batches[-1]) + 1) * int(self._texts.lengths[place]) > _BATCH_TOKENS and batches[-1]:
                batches.append([])
            batches[-1].append(place)
        with tqdm(total=len(order), desc="frozen layers", unit="text") as bar:
            for batch, found in zip(batches, self._outputs(model, last, batches, precision), strict=True):
                half = _states(found).float().cpu().numpy().astype(np.float16)
                if not np.isfinite(half).all():
                    raise TrainingError(
                        "states are beyond half precision", where="cache_frozen", hint="set it to false"
                    )
                for row, place in enumerate(batch):
                    start, length = self._starts[place], self._texts.lengths[place]
                    into[start : start + length] = half[row, :length]
                bar.update(len(batch))
        into.flush()

    def _outputs(
        self, model: Classifier, last: nn.Module, batches: Iterable[Sequence[int]], precision: torch.dtype | None
    ) -> Iterator[Any]:
        """What the last frozen layer returns for each batch; the layers above it do not run."""
        seen: list[Any] = []

        def keep(_: nn.Module, __: Any, output: Any) -> None:
            seen.append(output)
            raise _ReachedError

        was_training = model.training
        model.eval()
        handle = last.register_forward_hook(keep)
        try:
            for batch in batches:
                ids, mask = (part.to(self._device) for part in self._texts.batch(batch))
                with (
                    torch.no_grad(),
                    torch.autocast(self._device.type, precision or torch.bfloat16, enabled=precision is not None),
                ):
                    try:
                        model(ids, mask)
                    except _ReachedError:
                        yield seen.pop()
        finally:
            handle.remove()
            model.train(was_training)


def _states(returned: Any) -> Tensor:
    return cast(Tensor, returned[0] if isinstance(returned, tuple) else returned)


def _open(folder: Path, shape: tuple[int, int], mode: str) -> Any:
    return np.memmap(folder / "states.f16", dtype=np.float16, mode=cast(Any, mode), shape=shape)
