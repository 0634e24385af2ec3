"""The base of every part of a recipe: frozen, strict about names and types, documented field by field."""

from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict


class Settings(BaseModel):
    """Immutable options; an unknown key is an error that names the key."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    immaterial: ClassVar[frozenset[str]] = frozenset()
    """Options that change how a result comes about, but not the result."""

    def material(self) -> dict[str, Any]:
        """What decides about the result, as JSON values: all that is not as by default."""
        return self.model_dump(mode="json", exclude_defaults=True, exclude=set(self.immaterial))
