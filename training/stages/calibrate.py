"""Stages `calibrate` and `final`: fitted probabilities per language, and the checkpoint that the export reads."""

from __future__ import annotations

import filecmp
import json
import os
import shutil
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from training.calibration import ANY_LANGUAGE, calibrate
from training.data.examples import Dataset
from training.loop import precision_of
from training.model import Texts, load_classifier, predict
from training.recipe import fingerprint
from training.report import PREDICTIONS, SCORES
from training.vocabulary import COVERAGE

if TYPE_CHECKING:
    from training.run import Context


def run(context: Context, folder: Path) -> None:
    """The stage `calibrate`: `calibration.json`, and `predictions.npz` for the report.

    The latter holds, for each split of `validation` and `test` and each head, `SPLIT.HEAD.places` (places in the split's
    examples), `SPLIT.HEAD.logits`, and for validation `SPLIT.HEAD.probabilities`, calibrated by a fit that has not seen the text.
    """
    from accelerate import Accelerator

    recipe, settings = context.recipe, context.settings
    data = Dataset.load(context.data)
    model, tokenizer = load_classifier(context.model)
    device = Accelerator(mixed_precision="no").device
    model.to(device)
    bf16 = precision_of("fp32", device) is not None  # calibrated as it is exported: in full precision
    found: dict[str, Any] = {}
    arrays: dict[str, Any] = {}
    for split, examples in (("validation", data.validation), ("test", data.test)):
        if not examples:
            continue
        texts = Texts(tokenizer, [e.text for e in examples], recipe.encoder.text_prefix, model.about.max_length)
        logits = predict(model, texts, device=device, bf16=bf16)
        for head in recipe.heads:
            places = np.array([n for n, example in enumerate(examples) if example.head == head], dtype=np.int64)
            arrays |= {f"{split}.{head}.places": places, f"{split}.{head}.logits": logits[head][places]}
            if split == "validation":
                fitted = calibrate(
                    logits[head][places],
                    np.array([examples[n].label for n in places], dtype=np.int64),
                    [examples[n].lang for n in places],
                    folds=settings.folds, min_texts=settings.min_texts, prior=settings.prior, seed=recipe.seed,
                    zero_shot=recipe.data.leave_out.get(head, ()),
                )  # fmt: skip
                found[head] = fitted.entries
                arrays[f"{split}.{head}.probabilities"] = fitted.probabilities
                context.say(f"{head}: {summary(fitted.entries)}")
    (folder / "calibration.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    np.savez_compressed(folder / PREDICTIONS, **arrays)


def summary(entries: dict[str, dict[str, Any]]) -> str:
    """One line: macro-F1 per language and their mean, calibration error before and after."""
    langs = {lang: entry for lang, entry in entries.items() if lang != ANY_LANGUAGE and f"{lang}-Latn" not in entries}
    if not langs:
        return f"macro-F1 {100 * entries[ANY_LANGUAGE]['macro_f1']:.1f}"
    means = {
        key: float(np.mean([entry[key] for entry in langs.values()]))
        for key in ("macro_f1", "macro_f1_before", "ece_before", "ece_after")
    }
    shown = ", ".join(
        f"{lang} {100 * entry['macro_f1']:.1f}{' (zero-shot)' if entry['zero_shot'] else ''}"
        for lang, entry in langs.items()
    )
    return (
        f"macro-F1 {100 * means['macro_f1']:.2f} (uncalibrated {100 * means['macro_f1_before']:.2f}), calibration error "
        f"{means['ece_before']:.3f} before and {means['ece_after']:.3f} after; {shown}"
    )


def assemble(context: Context, folder: Path) -> None:
    """The stage `final`: the last model with its calibration and where it came from."""
    recipe = context.recipe
    for path in context.model.rglob("*"):
        if path.is_file() and path.name not in (
            "stage.json",
            "history.json",
            "tokens.json",
            "retrieval.json",
            "masked.json",
            COVERAGE,
        ):
            target = folder / path.relative_to(context.model)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
    shutil.copyfile(context.run / "calibrate" / "calibration.json", folder / "calibration.json")
    shutil.copyfile(context.run / "report" / SCORES, folder / SCORES)
    first = context.run / "vocabulary"
    if (first / COVERAGE).exists() and filecmp.cmp(first / "tokenizer.json", folder / "tokenizer.json", shallow=False):
        shutil.copyfile(first / COVERAGE, folder / COVERAGE)  # no stage has cut it further
    data = Dataset.load(context.data)
    about = json.loads((folder / "model.json").read_text(encoding="utf-8"))
    about["languages"] = sorted(context.recipe.trained_in(data.train))
    about["provenance"] = {
        "data": sorted({example.source for example in data.train}),
        "recipe": recipe.name,
        "recipe_hash": fingerprint(recipe),
        "description": recipe.description,
        "seed": recipe.seed,
        "git_commit": _commit(),
        "versions": {name: version(name) for name in ("torch", "transformers", "tokenizers")},
    }
    (folder / "model.json").write_text(json.dumps(about, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _commit() -> str:
    """The commit of the code that trained, or an empty string outside a repository."""
    here = Path(__file__).parent
    environment = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")}
    ended = subprocess.run(
        ["git", "-C", str(here), "rev-parse", "HEAD"], capture_output=True, text=True, env=environment
    )
    return ended.stdout.strip() if ended.returncode == 0 else ""
