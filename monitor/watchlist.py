"""The watchlist file: which entities are watched, under which names, and who cares; read and checked in one go."""

from __future__ import annotations

import hashlib
import re
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any

import msgspec
from pydantic import Field, StringConstraints, ValidationError

from monitor.errors import ConfigError
from monitor.records import WatchedEntity, WatchlistChange
from monitor.settings import Settings, as_toml

MIN_ALIAS_CHARS = 2
"""A single letter names everything; a single Han character is half of most words."""

EntityId = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")]
LabelName = Annotated[str, StringConstraints(pattern=r"^[a-zA-Z_][a-zA-Z0-9_]*$")]
Phrase = Annotated[str, StringConstraints(strip_whitespace=True, min_length=MIN_ALIAS_CHARS, max_length=200)]


class Entity(Settings):
    """Something that is watched: a brand, a company, a person in office, a product."""

    id: EntityId = Field(description="Stable name in opinions, alerts and metrics: a-z, 0-9 and -.")
    name: str = Field(min_length=1, max_length=200, description="Name for people.")
    aliases: Mapping[str, tuple[Phrase, ...]] = Field(
        description='Names by language ("*" for any). The language documents the alias; every alias counts in every text, '
        "since the language of a short text is the first thing to be wrong.",
    )
    exclude: tuple[Phrase, ...] = Field((), description="Phrases that hold an alias and mean something else.")
    context: tuple[Phrase, ...] = Field(
        (), description="When given, an alias counts only in a text that holds one of these too."
    )
    labels: Mapping[LabelName, str] = Field(default_factory=dict, description="Carried on alerts, for routing.")

    @property
    def names(self) -> tuple[str, ...]:
        """All aliases once."""
        return tuple(dict.fromkeys(alias for aliases in self.aliases.values() for alias in aliases))

    @property
    def digest(self) -> str:
        """Tells one definition from another; without defaults, so that a later version with more options says the same."""
        return hashlib.sha256(self.model_dump_json(exclude_defaults=True).encode()).hexdigest()[:12]


class _File(Settings):
    entity: tuple[Entity, ...] = ()


class Watchlist:
    """The entities by id, and a version that tells one content from another.

    Args:
        entities: In the order of the file.
    """

    def __init__(self, entities: tuple[Entity, ...]) -> None:
        self.entities: dict[str, Entity] = {entity.id: entity for entity in entities}
        text = "\n".join(entity.model_dump_json() for entity in entities)
        self.version = hashlib.sha256(text.encode()).hexdigest()[:12]


def load_watchlist(path: Path) -> Watchlist:
    """Read a watchlist file.

    Raises:
        ConfigError: with every error in it, its place and a hint, one a line.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError("no such watchlist file", where=str(path), hint="see examples/watchlist.toml") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot be read: {error}", where=str(path)) from None
    return parse_watchlist(text, path)


def parse_watchlist(text: str, path: Path) -> Watchlist:
    """Read a watchlist file's content.

    Raises:
        ConfigError: with every error in it, its place and a hint, one a line.
    """
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"is not TOML: {error}", where=str(path), hint="mend the line it names") from None
    try:
        file = _File.model_validate(values)
    except ValidationError as error:
        raise ConfigError("\n".join(_explain(path, values, error))) from None
    problems = _inconsistencies(path, file.entity)
    if problems:
        raise ConfigError("\n".join(problems))
    return Watchlist(file.entity)


# --- changes that are laid over the file ------------------------------------------------------------------------------


def change_of(base: Watchlist, entity_id: str, entity: Entity | None, *, who: str, at_ms: int) -> WatchlistChange:
    """The record of a change: an entity as it is to be, or None for one that is to be watched no longer.

    Raises:
        ConfigError: the entity cannot be used.
    """
    if entity is not None and (problems := _inconsistencies(Path("watchlist"), (entity,))):
        raise ConfigError("\n".join(problems))
    known = base.entities.get(entity_id)
    definition = msgspec.convert(entity.model_dump(exclude={"id"}), WatchedEntity) if entity is not None else None
    over = known.digest if known is not None else ""
    return WatchlistChange(entity=entity_id, who=who, at_ms=at_ms, over=over, definition=definition)


def entity_of(change: WatchlistChange) -> Entity | None:
    """The entity that a change makes; None where it takes one away.

    Raises:
        ConfigError: this version cannot use it.
    """
    if change.definition is None:
        return None
    try:
        return Entity.model_validate({"id": change.entity, **msgspec.to_builtins(change.definition)})
    except ValidationError as error:
        raise ConfigError(f"entity {change.entity}: {error.errors(include_url=False)[0]['msg']}") from None


def in_force(change: WatchlistChange, base: Watchlist) -> bool:
    """Whether the file's entry is still the one that the change replaced."""
    known = base.entities.get(change.entity)
    return change.over == (known.digest if known is not None else "")


def lay_over(base: Watchlist, changes: Iterable[WatchlistChange]) -> Watchlist:
    """The file's watchlist with what was changed over it; the file's alone when nothing would be left.

    The result is the same for the same file and changes, in whatever order they came.
    """
    entities = dict(base.entities)
    for change in sorted(changes, key=lambda change: change.entity):
        if in_force(change, base):
            entity = entity_of(change)
            if entity is None:
                entities.pop(change.entity, None)
            else:
                entities[change.entity] = entity
    return Watchlist(tuple(entities.values())) if entities else base


def as_file(watchlist: Watchlist) -> str:
    """A watchlist file's content."""
    return "\n\n".join("\n".join(_block(entity)) for entity in watchlist.entities.values()) + "\n"


# --- changes in the file ------------------------------------------------------------------------------------------------


def with_entity(text: str, entity: Entity) -> str:
    """A watchlist file's content with an entity added, or put in the place of the one with its id.

    Comments and everything else stay as they are.

    Raises:
        ConfigError: the file is written in a way that cannot be edited here.
    """
    block = _block(entity)
    blocks = _blocks(text)
    lines = text.rstrip("\n").split("\n")
    if entity.id in blocks:
        first, end = blocks[entity.id]
        lines[first:end] = block
    else:
        lines += ["", *block]
    return "\n".join(lines) + "\n"


def without_entity(text: str, entity_id: str) -> str:
    """A watchlist file's content without an entity; a comment above it stays, since nobody knows what it is about.

    Raises:
        KeyError: it holds no such entity.
        ConfigError: the file is written in a way that cannot be edited here.
    """
    first, end = _blocks(text)[entity_id]
    lines = text.rstrip("\n").split("\n")
    while end < len(lines) and not lines[end].strip():
        end += 1
    return "\n".join(lines[:first] + lines[end:]) + "\n"


def _block(entity: Entity) -> list[str]:
    values = entity.model_dump(mode="json", exclude_defaults=True)
    return ["[[entity]]", *(f"{key} = {as_toml(value)}" for key, value in values.items())]


def _blocks(text: str) -> dict[str, tuple[int, int]]:
    """First line and end of each entity's table, by id: from its header to its last line that is not blank or comment."""
    lines = text.rstrip("\n").split("\n")
    starts = [place for place, line in enumerate(lines) if _HEADER.match(line)]
    blocks = {}
    for first, limit in zip(starts, [*starts[1:], len(lines)], strict=True):
        end = max(p for p in range(first, limit) if lines[p].strip() and not lines[p].lstrip().startswith("#")) + 1
        try:
            (entry,) = tomllib.loads("\n".join(lines[first:end]))["entity"]
            blocks[entry["id"]] = (first, end)
        except (tomllib.TOMLDecodeError, KeyError, TypeError, ValueError):
            blocks = {}
            break
    if set(blocks) != {entry.get("id") for entry in tomllib.loads(text).get("entity", [])}:
        raise ConfigError("the watchlist is not written as one [[entity]] table each", hint="edit the file by hand")
    return blocks


_HEADER = re.compile(r"\[\[\s*entity\s*\]\]")

_HINTS = {
    "extra_forbidden": "no such key; an entity has id, name, aliases, exclude, context, labels",
    "missing": "every entity needs id, name and aliases",
    "string_pattern_mismatch": "ids: a-z, 0-9 and -; label names: letters, digits and _",
    "string_too_short": f"aliases and phrases have at least {MIN_ALIAS_CHARS} characters",
}


def _explain(path: Path, values: dict[str, Any], error: ValidationError) -> list[str]:
    lines = []
    for item in error.errors(include_url=False):
        place = list(item["loc"])
        if len(place) >= 2 and place[0] == "entity" and isinstance(place[1], int):
            entry = values["entity"][place[1]]
            name = entry.get("id") if isinstance(entry, dict) else None
            place[:2] = [f"entity {name or f'number {place[1] + 1}'}"]
        hint = f" ({_HINTS[item['type']]})" if item["type"] in _HINTS else ""
        lines.append(f"{path}: {'.'.join(map(str, place))}: {item['msg']}{hint}")
    return lines


def _inconsistencies(path: Path, entities: tuple[Entity, ...]) -> list[str]:
    problems = []
    if not entities:
        problems.append(f"{path}: holds no [[entity]] (nothing would be watched)")
    seen: set[str] = set()
    for entity in entities:
        if entity.id in seen:
            problems.append(f"{path}: entity {entity.id}: the id is used twice")
        seen.add(entity.id)
        if not entity.names:
            problems.append(f"{path}: entity {entity.id}: has no aliases")
        problems += [
            f"{path}: entity {entity.id}: alias {alias!r} is only punctuation"
            for alias in entity.names
            if not any(ch.isalnum() or ord(ch) > 0x2000 for ch in alias)
        ]
    return problems
