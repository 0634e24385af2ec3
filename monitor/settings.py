"""The base of every settings class: frozen, strict about names, documented field by field.

Each module that has options declares them beside its code as a `Settings` subclass; `monitor.config` composes them into
the one configuration file. A field's `description` is its documentation: `babelwatch config example` prints it.
"""

from pydantic import BaseModel, ConfigDict


class Settings(BaseModel):
    """Immutable options; an unknown key is an error that names the key."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)
