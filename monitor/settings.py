"""The base of every settings class: frozen, strict about names, documented field by field.

Each module that has options declares them beside its code as a `Settings` subclass; `monitor.config` composes them into
the one configuration file. A field's `description` is its documentation: `babelwatch config example` prints it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, SecretStr


class Settings(BaseModel):
    """Immutable options; an unknown key is an error that names the key."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)


def secret(value: SecretStr, file: Path | None) -> str:
    """A secret from its file when one is named, read anew each time so that it can be rotated."""
    return file.read_text(encoding="utf-8").strip() if file is not None else value.get_secret_value()


def as_toml(value: Any) -> str | None:
    """A value of a setting as TOML; None for "unset"."""
    if value is None:
        return None
    if isinstance(value, SecretStr):
        return json.dumps(value.get_secret_value())
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, tuple | list | frozenset | set):
        inner = [as_toml(item) for item in (sorted(value) if isinstance(value, frozenset | set) else value)]
        return f"[{', '.join(item for item in inner if item is not None)}]"
    if isinstance(value, dict):
        return (
            "{ " + ", ".join(f"{json.dumps(str(k))} = {as_toml(v)}" for k, v in value.items()) + " }" if value else "{}"
        )
    return json.dumps(str(value), ensure_ascii=False)
