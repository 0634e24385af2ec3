"""The base of every settings class: frozen, strict about names, documented field by field.

Each module that has options declares them beside its code as a `Settings` subclass; `monitor.config` composes them into
the one configuration file. A field's `description` is its documentation: `babelwatch config example` prints it.
"""

from pathlib import Path

from pydantic import BaseModel, ConfigDict, SecretStr


class Settings(BaseModel):
    """Immutable options; an unknown key is an error that names the key."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)


def secret(value: SecretStr, file: Path | None) -> str:
    """A secret from its file when one is named, read anew each time so that it can be rotated."""
    return file.read_text(encoding="utf-8").strip() if file is not None else value.get_secret_value()
