"""What does each change of a recipe bring? Every variant over several seeds, compared on the same validation texts.

Run: `python benchmarks/training/ablation.py RECIPE VARIANTS.toml [--runs runs] [--seeds 0 1 2] [--workers 1]`. VARIANTS.toml holds a name and the
changes of the recipe, as `babelwatch train --set` takes them:

    "more passes" = ["stages.transfer.epochs=8"]
    "R-Drop" = ["stages.transfer.r_drop=1.0"]

The recipe itself is the variant `as it is`, which all others are compared with. Seeds are those of the stages: data and vocabulary are
prepared once and shared by all variants that leave them alone (where the training machine has no network, `babelwatch train
--until vocabulary` prepares them elsewhere). Runs that are done are not done again, so that variants can be added. Several workers share a
machine; on a GPU, which a small encoder does not fill, some ten of them together are several times as fast as one after another.

The table shows macro-F1 averaged over the trained languages, in per cent: the mean over the seeds, from the lowest to the highest seed, and
the difference to the recipe as it is with its 95 % interval, by resampling texts within each language and seeds (paired by text; Efron and
Tibshirani 1993, chapter 16).
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import shutil
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from training.data.examples import Dataset
from training.errors import TrainingError
from training.metrics import macro_f1
from training.recipe import Recipe, load_recipe
from training.report import PREDICTIONS
from training.run import run_recipe
from training.stages.settings import LoopSettings

AS_IT_IS = "as it is"
RESAMPLES = 500


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("recipe", type=Path)
    parser.add_argument("variants", type=Path)
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--workers", type=int, default=1)
    options = parser.parse_args()
    variants: dict[str, list[str]] = {AS_IT_IS: []} | tomllib.loads(options.variants.read_text(encoding="utf-8"))
    recipe = load_recipe(options.recipe)
    shared = Run(options.recipe, options.runs, f"{recipe.name}-prepared", (), "vocabulary")
    jobs = {
        (variant, seed): Run(
            options.recipe, options.runs, name_of(recipe, variant, seed), with_seed(options.recipe, changes, seed)
        )
        for seed in options.seeds
        for variant, changes in variants.items()
    }
    # A process each, forked before anything touches a GPU, so that torch is imported once.
    with multiprocessing.get_context("fork").Pool(options.workers, maxtasksperchild=1) as pool:
        if not pool.apply(shared):
            raise SystemExit(f"what all share cannot be prepared: see {shared.log}")
        for job in jobs.values():
            job.take(shared)
        ended = zip(jobs.items(), pool.imap(Run.__call__, jobs.values()), strict=True)
        found = {}
        for (key, job), well in ended:
            print(f"{key[0]}, seed {key[1]}: {'done' if well else f'failed, see {job.log}'}", flush=True)
            if well:
                found[key] = job.folder
    for head in recipe.heads:
        print(f"\n{head}\n{table(recipe, head, found, list(variants), options.seeds)}")


def name_of(recipe: Recipe, variant: str, seed: int) -> str:
    return f"{recipe.name}-{''.join(char if char.isalnum() else '-' for char in variant)}-{seed}"


def with_seed(recipe: Path, changes: Sequence[str], seed: int) -> tuple[str, ...]:
    stages = load_recipe(recipe, changes).stages
    loops = [place for place, stage in enumerate(stages) if isinstance(stage, LoopSettings)]
    return (*changes, *(f"stages.{place}.seed={seed}" for place in loops))


@dataclass(frozen=True)
class Run:
    """One run of a recipe, as a process does it: whether it ended well."""

    recipe: Path
    runs: Path
    name: str
    changes: tuple[str, ...]
    until: str = "calibrate"

    @property
    def folder(self) -> Path:
        """Where its stages are."""
        return self.runs / self.name

    @property
    def log(self) -> Path:
        """What it said."""
        return self.runs / f"{self.name}.log"

    def take(self, other: Run) -> None:
        """What the other has prepared: the run takes it if it is made from the same, and makes its own if not."""
        for part in ("data", "vocabulary"):
            if not (self.folder / part).exists():
                shutil.copytree(other.folder / part, self.folder / part)

    def __call__(self) -> bool:
        """Do what is not done yet; False if that failed."""
        self.runs.mkdir(parents=True, exist_ok=True)
        with self.log.open("w", encoding="utf-8", buffering=1) as log:
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
            try:
                recipe = load_recipe(self.recipe, [*self.changes, f"name={self.name}"])
                cache = Path.home() / ".cache" / "babelwatch"
                run_recipe(recipe, self.recipe.parent, self.runs, cache=cache, say=print, until=self.until)
            except TrainingError as error:
                print(error, flush=True)  # the pool may end its worker as soon as it has the answer
                return False
        return True


def table(
    recipe: Recipe, head: str, found: dict[tuple[str, int], Path], variants: Sequence[str], seeds: Sequence[int]
) -> str:
    """Markdown, a line a variant."""
    scores = {job: Judged(folder, head, recipe.data.leave_out.get(head, ())) for job, folder in found.items()}
    base = [scores[AS_IT_IS, seed] for seed in seeds if (AS_IT_IS, seed) in scores]
    lines = ["| change | macro-F1 | lowest and highest seed | difference |", "| --- | --- | --- | --- |"]
    for variant in variants:
        judged = [scores[variant, seed] for seed in seeds if (variant, seed) in scores]
        if not judged:
            lines.append(f"| {variant} | failed | | |")
            continue
        singles = [100 * one.score(None) for one in judged]
        compared = "" if variant == AS_IT_IS or not base else difference(base, judged)
        lines.append(f"| {variant} | {np.mean(singles):.1f} | {min(singles):.1f} to {max(singles):.1f} | {compared} |")
    return "\n".join(lines)


def difference(base: Sequence[Judged], other: Sequence[Judged]) -> str:
    """`other` less `base` with its 95 % interval; both judged the same texts."""
    rng = np.random.default_rng(0)
    drawn = []
    for _ in range(RESAMPLES):
        rows = base[0].resample(rng)
        sides = [
            np.mean([side[n].score(rows) for n in rng.integers(0, len(side), len(side))]) for side in (base, other)
        ]
        drawn.append(100 * float(sides[1] - sides[0]))
    middle = 100 * float(np.mean([one.score(None) for one in other]) - np.mean([one.score(None) for one in base]))
    low, high = np.percentile(drawn, [2.5, 97.5])
    return f"{middle:+.1f} ({low:+.1f} to {high:+.1f})"


class Judged:
    """What one run says of the validation texts of a head, calibration aside."""

    def __init__(self, folder: Path, head: str, left_out: Sequence[str]) -> None:
        examples = Dataset.load(folder / "data").validation
        with np.load(folder / "calibrate" / PREDICTIONS) as arrays:
            places, logits = arrays[f"validation.{head}.places"], arrays[f"validation.{head}.logits"]
        kept = np.array([examples[n].lang not in left_out for n in places])
        self._truth = np.array([examples[n].label for n in places])[kept]
        self._said = logits.argmax(1)[kept]
        self._langs = np.array([examples[n].lang for n in places])[kept]
        self._labels = logits.shape[1]

    def resample(self, rng: np.random.Generator) -> dict[str, NDArray[np.int64]]:
        """Places drawn with replacement within each language."""
        by_lang = {str(lang): np.flatnonzero(self._langs == lang) for lang in np.unique(self._langs)}
        return {lang: rng.choice(rows, len(rows)) for lang, rows in by_lang.items()}

    def score(self, drawn: dict[str, NDArray[np.int64]] | None) -> float:
        """Macro-F1 averaged over the languages, 0 to 1; of all texts, or of those drawn."""
        rows = drawn or {str(lang): np.flatnonzero(self._langs == lang) for lang in np.unique(self._langs)}
        return float(np.mean([macro_f1(self._truth[r], self._said[r], self._labels) for r in rows.values()]))


if __name__ == "__main__":
    main()
