"""Writes the documents that are made from the recipe's code: `python -m training.docs`; a test holds them to it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import get_args

from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from training.data.mapping import LabelMapping
from training.recipe import (
    CalibrateSettings,
    DataSettings,
    EncoderSettings,
    HeadSettings,
    Recipe,
    SourceSettings,
    StageSettings,
    VocabularySettings,
)
from training.settings import Settings
from training.stages.settings import FinetuneSettings, LoopSettings

_PARTS: tuple[tuple[str, type[Settings]], ...] = (
    ("The recipe itself", Recipe),
    ("`[encoder]`", EncoderSettings),
    ("`[heads.NAME]`", HeadSettings),
    ("`[data]`", DataSettings),
    ("`[[data.sources]]`", SourceSettings),
    ("`[vocabulary]`", VocabularySettings),
    ("`[calibrate]`", CalibrateSettings),
)


def recipe_keys() -> str:
    """All keys of a recipe and of a label mapping as Markdown."""
    lines = [
        "# Every key of a recipe",
        "",
        "Made from `training/recipe.py` and `training/stages/settings.py` by `make docs`. How they go together: [training.md](training.md).",
    ]
    stages = get_args(get_args(StageSettings)[0]) or (get_args(StageSettings)[0],)
    for title, part in _PARTS:
        lines += ["", f"## {title}", "", _about(part), "", *_table(part)]
    for stage in stages:
        lines += ["", f'## `[[stages]]` with `type = "{stage.model_fields["type"].default}"`', "", _about(stage)]
        # What two stages have in common is listed once.
        base = FinetuneSettings if issubclass(stage, LoopSettings) and stage is not FinetuneSettings else Settings
        if base is FinetuneSettings:
            lines += ["", "All keys of `finetune`, with other defaults or more:"]
        lines += ["", *_table(stage, base)]
    lines += ["", "## A label mapping, a file of its own", "", *_table(LabelMapping)]
    return "\n".join([*lines, ""])


def _about(part: type[Settings]) -> str:
    return (part.__doc__ or "").strip().splitlines()[0]


def _table(part: type[Settings], base: type[Settings] = Settings) -> list[str]:
    lines = ["| key | default | meaning |", "| --- | --- | --- |"]
    for name, field in part.model_fields.items():
        known = base.model_fields.get(name)
        if isinstance(field.default, Settings) or name == "type" or (known and known.default == field.default):
            continue
        lines.append(f"| `{name}` | {_default(field)} | {(field.description or '').replace('|', '&#124;')} |")
    return lines


def _default(field: FieldInfo) -> str:
    if field.default is PydanticUndefined:
        return "required"
    if field.default is None:
        return "unset"
    value = field.default
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, tuple):
        return f"`[{', '.join(repr(item) for item in value)}]`".replace("'", '"')
    return f"`{value!r}`".replace("'", '"')


def write(folder: Path) -> None:
    """Write them below `folder`."""
    (folder / "recipe.md").write_text(recipe_keys(), encoding="utf-8")


if __name__ == "__main__":
    write(Path(sys.argv[1] if len(sys.argv) > 1 else "docs"))
