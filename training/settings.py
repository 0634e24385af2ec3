"""The base of every part of a recipe: frozen, strict about names and types, documented field by field."""

from pydantic import BaseModel, ConfigDict


class Settings(BaseModel):
    """Immutable options; an unknown key is an error that names the key."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)
