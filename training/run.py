"""A run: the stages of a recipe one after another, each in a folder of its own, each done once.

    runs/NAME/data/        prepared examples and the data card
    runs/NAME/vocabulary/  the encoder with its vocabulary cut, and fresh heads
    runs/NAME/STAGE/       a checkpoint per stage of the recipe; for translate and switch, data
    runs/NAME/calibrate/   calibration and predictions of the validation texts
    runs/NAME/report/      scores with intervals, as JSON, HTML and Markdown, and curves
    runs/NAME/final/       what the export reads
    runs/NAME/work/STAGE/  what a stage needs to go on after a crash; removed when it is done
    runs/NAME/logs/        TensorBoard

A folder holds a `stage.json` with the fingerprint of all that went into it. When that still fits, the stage is not run again.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

import torch
from accelerate import PartialState

from training import report
from training.errors import TrainingError
from training.files import whole_folder
from training.recipe import Recipe, fingerprint
from training.settings import Settings
from training.stages import align, augment, calibrate, distil, finetune, pretrain, vocabulary
from training.stages import data as prepare
from training.stages.settings import (
    AlignSettings,
    DistilSettings,
    FinetuneSettings,
    PretrainSettings,
    SwitchSettings,
    TransferSettings,
    TranslateSettings,
)  # fmt: skip

RUN_FORMAT = 3
"""Part of every fingerprint: raise it when a stage's results change for the same settings, as with another default."""


@dataclass(frozen=True)
class Context:
    """What a stage is given."""

    recipe: Recipe
    recipe_folder: Path
    """Relative paths of the recipe start here."""
    settings: Any
    """The stage's own part of the recipe."""
    run: Path
    name: str
    """Of the stage: its folder in the run."""
    data: Path
    """Folder of the prepared data (`Dataset.load`)."""
    model: Path
    """Folder of the checkpoint that the stage before left (`model.load_classifier`)."""
    work: Path
    """Folder for what a crash must not cost; removed once the stage is done."""
    cache: Path
    """Where fetched models are kept."""
    say: Callable[[str], None]
    """Told of what happens, in one line."""


class Stage(Protocol):
    """A stage: fills `folder` (which takes its name when all is on disk) from what the context names."""

    def __call__(self, context: Context, folder: Path) -> None:
        """Do it all, or raise."""


STAGES: Mapping[type[Settings], Stage] = {
    FinetuneSettings: finetune.run,
    TransferSettings: finetune.run,
    PretrainSettings: pretrain.run,
    AlignSettings: align.run,
    DistilSettings: distil.run,
}
"""By the settings of a recipe's stage. Each leaves a whole checkpoint (`model.save_classifier`) in its folder."""

DATA_STAGES: Mapping[type[Settings], Stage] = {
    TranslateSettings: augment.translate,
    SwitchSettings: augment.code_switch,
}
"""These leave data (`Dataset.save`) for the stages after them, and the model as it is."""


_PARALLEL: frozenset[Stage] = frozenset({finetune.run})
"""Stages that several processes do together. What makes data or figures is done by one of them while the others wait; the
other stages that train need a run of one process."""


class _Step(NamedTuple):
    """A stage in its place."""

    name: str
    run: Stage
    inputs: tuple[Any, ...]
    """What its result depends on beside the stages before it; the first are its settings."""
    leaves: Literal["model", "data", ""] = ""
    """What the stages after it take from it."""


def run_recipe(
    recipe: Recipe,
    recipe_folder: Path,
    runs: Path,
    *,
    cache: Path,
    say: Callable[[str], None] = lambda _: None,
    until: str = "final",
) -> Path:
    """Run all stages that are not done yet.

    Args:
        recipe: Checked.
        recipe_folder: Relative paths of the recipe start here.
        runs: Folder of all runs.
        cache: Where fetched models are kept.
        say: Told of what happens, in one line.
        until: The last stage to run, by its folder; those after it are left for another time.

    Returns:
        Folder of that stage; of `final`, it is the checkpoint that the export reads.

    Raises:
        TrainingError: Of a stage; the stages before it stay done.
    """
    run = runs / recipe.name
    # accelerate joins processes on CPUs only when it is told that there is nothing else.
    processes = PartialState(cpu=not torch.accelerator.is_available())
    alone = [s.type for s in recipe.stages if type(s) in STAGES and STAGES[type(s)] not in _PARALLEL]
    if alone and processes.num_processes > 1:
        raise TrainingError(
            f"the stage {alone[0]!r} needs a run of one process", where="stages", hint="launch it plainly"
        )
    steps = [
        _Step(
            "data",
            prepare.run,
            (recipe.data, recipe.seed, recipe.heads_by_name(), prepare.digest(recipe, recipe_folder)),
        ),
        _Step("vocabulary", vocabulary.run, (recipe.vocabulary, recipe.encoder), "model"),
        *(
            _Step(recipe.folder(place), STAGES[type(settings)], (settings, recipe.seed), "model")
            if type(settings) in STAGES
            else _Step(recipe.folder(place), DATA_STAGES[type(settings)], (settings, recipe.seed), "data")
            for place, settings in enumerate(recipe.stages)
        ),
        _Step("calibrate", calibrate.run, (recipe.calibrate,)),
        _Step("report", report.run, (recipe.description,)),
        _Step("final", calibrate.assemble, (recipe,)),
    ]
    names = [step.name for step in steps]
    if until not in names:
        raise TrainingError("is no stage of the recipe", where=until, hint=f"it has {', '.join(names)}")
    chain = _Chain(recipe, recipe_folder, run, cache, say if processes.is_main_process else lambda _: None)
    for step in steps[: names.index(until) + 1]:
        chain.do(step)
    return run / until


class _Chain:
    """Stages that build on each other."""

    def __init__(self, recipe: Recipe, folder: Path, run: Path, cache: Path, say: Callable[[str], None]) -> None:
        self._recipe, self._folder, self._run, self._cache, self._say = recipe, folder, run, cache, say
        self._print = fingerprint(RUN_FORMAT)
        self._model, self._data = run, run / "data"
        self._processes = PartialState()

    def do(self, step: _Step) -> None:
        """Run a stage unless its folder is there, made from the same."""
        self._print = fingerprint(self._print, step.name, *step.inputs)
        target, work = self._run / step.name, self._run / "work" / step.name
        done = _fingerprint_of(target) == self._print
        self._processes.wait_for_everyone()  # all have looked before one writes
        if done:
            self._say(f"{step.name}: done before")
        elif self._processes.is_main_process:
            self._do(step, target, work)
        elif step.run in _PARALLEL:
            with tempfile.TemporaryDirectory() as nowhere:
                self._processes.wait_for_everyone()  # for `work`
                step.run(self._context(step, work), Path(nowhere))
        self._processes.wait_for_everyone()
        if step.leaves == "model":
            self._model = target
        elif step.leaves == "data":
            self._data = target

    def _do(self, step: _Step, target: Path, work: Path) -> None:
        if target.exists():
            self._say(f"{step.name}: made from other settings or data; again")
        if _fingerprint_of(work) != self._print:
            shutil.rmtree(work, ignore_errors=True)
            work.mkdir(parents=True)
            _mark(work, self._print)
        if step.run in _PARALLEL:
            self._processes.wait_for_everyone()
        with whole_folder(target) as draft:
            step.run(self._context(step, work), draft)
            _mark(draft, self._print)
        shutil.rmtree(work)

    def _context(self, step: _Step, work: Path) -> Context:
        return Context(
            recipe=self._recipe, recipe_folder=self._folder, settings=step.inputs[0], run=self._run, name=step.name,
            data=self._data, model=self._model, work=work, cache=self._cache,
            say=lambda line: self._say(f"{step.name}: {line}"),
        )  # fmt: skip


def _mark(folder: Path, print_: str) -> None:
    (folder / "stage.json").write_text(json.dumps({"fingerprint": print_}) + "\n")


def _fingerprint_of(folder: Path) -> str:
    try:
        return str(json.loads((folder / "stage.json").read_text())["fingerprint"])
    except (OSError, ValueError, KeyError):
        return ""
