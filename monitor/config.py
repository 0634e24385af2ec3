"""The one configuration file: composed from each module's settings, read, checked and explained.

A value comes from, in falling precedence: an environment variable (`BABELWATCH__KAFKA__BOOTSTRAP_SERVERS`), the TOML
file, the default. All errors are told at once, each with its place and a hint.
"""

from __future__ import annotations

import tomllib
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, Field, SecretStr, ValidationError
from pydantic_core import PydanticUndefined
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from monitor.broker.settings import KafkaSettings, RetentionSettings, TopicSettings
from monitor.detection.incidents import AlertSettings
from monitor.detection.settings import DetectionSettings
from monitor.documents.parse import DocumentSettings
from monitor.errors import ConfigError
from monitor.http.settings import HttpSettings
from monitor.inference.settings import InferenceSettings
from monitor.log import LogSettings
from monitor.settings import Settings, as_toml
from monitor.sinks.settings import SinkSettings

ENV_PREFIX = "BABELWATCH__"
ENV_DELIMITER = "__"


class ServiceSettings(Settings):
    """The process itself."""

    shutdown_timeout_s: float = Field(
        25.0,
        gt=0,
        le=600,
        description="After SIGTERM: finish and commit what is in flight within this time. Kubernetes kills after 30 s.",
    )
    author_salt: SecretStr = Field(
        SecretStr("babelwatch"),
        description="Keys the hash that stands for an author's name in opinions; set your own, the same on all replicas.",
    )
    author_salt_file: Path | None = Field(None, description="File holding the key (a mounted secret).")


class Config(BaseSettings):
    """Everything the daemon can be told."""

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX, env_nested_delimiter=ENV_DELIMITER, extra="forbid", frozen=True, validate_default=True
    )

    watchlist: Path = Field(
        Path("watchlist.toml"), description="The file of entities to watch; re-read when it changes."
    )
    service: ServiceSettings = Field(default_factory=ServiceSettings, description="The process itself.")
    log: LogSettings = Field(default_factory=LogSettings, description="Logging.")
    kafka: KafkaSettings = Field(default_factory=KafkaSettings, description="The connection to Kafka.")
    topics: TopicSettings = Field(default_factory=TopicSettings, description="Names of the topics.")
    retention: RetentionSettings = Field(
        default_factory=RetentionSettings, description="How long the topics keep their records, when they are created."
    )
    documents: DocumentSettings = Field(default_factory=DocumentSettings, description="How to read a document.")
    inference: InferenceSettings = Field(default_factory=InferenceSettings, description="How the model is run.")
    detection: DetectionSettings = Field(default_factory=DetectionSettings, description="When a change is an alarm.")
    alerts: AlertSettings = Field(default_factory=AlertSettings, description="How alarms become incidents.")
    http: HttpSettings = Field(default_factory=HttpSettings, description="Metrics, health, API and status page.")
    sinks: tuple[Annotated[SinkSettings, Field(discriminator="type")], ...] = Field(
        (), description="Where alerts go; each sink has a consumer group of its own."
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The environment wins over the file, whose content comes as keyword arguments."""
        return env_settings, init_settings


def load_config(path: Path | None) -> Config:
    """Read a configuration file, or only the environment when `path` is None.

    Relative paths inside the file are relative to the file's folder.

    Raises:
        ConfigError: with every error, its place and a hint, one a line; a file that is named and not there is one.
    """
    values: dict[str, Any] = {}
    if path is not None:
        values = _anchored(Config, _read_toml(path), path.parent)
    where = str(path) if path is not None else "environment"
    try:
        config = Config(**values)
    except ValidationError as error:
        raise ConfigError(
            "\n".join(_explain(where, error)), hint="`babelwatch config example` shows every option"
        ) from None
    except Exception as error:  # pydantic-settings wraps JSON errors of environment variables in its own
        raise ConfigError(f"an environment variable cannot be read: {error}", where=ENV_PREFIX + "*") from None
    if missing := [f"{where}: {key}: no such file: {file}" for key, file in _files(config) if not file.is_file()]:
        raise ConfigError("\n".join(missing), hint="secrets and certificates are mounted before the start")
    return config


def _files(settings: BaseModel, prefix: str = "") -> Iterator[tuple[str, Path]]:
    """The files that must be there: every option named `..._file`, with its key."""
    for name in type(settings).model_fields:
        value = getattr(settings, name)
        members = value if isinstance(value, tuple) else (value,)
        for place, member in enumerate(members):
            key = f"{prefix}{name}.{place}" if isinstance(value, tuple) else f"{prefix}{name}"
            if isinstance(member, BaseModel):
                yield from _files(member, f"{key}.")
            elif isinstance(member, Path) and name.endswith("_file"):
                yield key, member


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(
            "no such file", where=str(path), hint="`babelwatch config example > FILE` writes one"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot be read: {error}", where=str(path)) from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"is not TOML: {error}", where=str(path), hint="mend the line it names") from None


def _anchored(model: type[BaseModel], values: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Make relative paths of a file absolute, by the types of the fields they are for."""
    anchored = dict(values)
    for name, field in model.model_fields.items():
        value = values.get(name)
        kinds = list(_members(field.annotation))
        if isinstance(value, str) and Path in kinds and value:
            anchored[name] = str(folder / value)
        for kind in kinds:
            if not (isinstance(kind, type) and issubclass(kind, BaseModel)):
                continue
            if isinstance(value, dict):
                anchored[name] = _anchored(kind, value, folder)
            elif isinstance(value, list):
                anchored[name] = [_anchored_item(kinds, item, folder) for item in value]
    return anchored


def _anchored_item(kinds: list[Any], item: Any, folder: Path) -> Any:
    if not isinstance(item, dict):
        return item
    for kind in kinds:
        if isinstance(kind, type) and issubclass(kind, BaseModel) and _tag(kind) == item.get("type"):
            return _anchored(kind, item, folder)
    return item


def _members(annotation: Any) -> Iterator[Any]:
    """The plain types inside a union, a tuple or an Annotated."""
    origin = get_origin(annotation)
    if origin in (Union, types.UnionType, tuple, list, Annotated):
        for member in get_args(annotation):
            yield from _members(member)
    elif annotation is not Ellipsis:
        yield annotation


def _tag(model: type[BaseModel]) -> str | None:
    """The value of a union member's `type` field."""
    field = model.model_fields.get("type")
    return get_args(field.annotation)[0] if field is not None else None


_HINTS = {
    "extra_forbidden": "no such option; mind the spelling",
    "missing": "this option has no default",
    "union_tag_invalid": "the sink types are listed in docs/sinks.md",
    "literal_error": "use one of the values named",
}


def _explain(where: str, error: ValidationError) -> list[str]:
    lines = []
    for item in error.errors(include_url=False):
        key = ".".join(str(part) for part in item["loc"]) or "(file)"
        message = item["msg"].removeprefix("Value error, ")
        given = item.get("input")
        shown = (
            f", got {given!r}"
            if isinstance(given, str | int | float | bool) and item["type"] != "extra_forbidden"
            else ""
        )
        secret = any(word in key for word in ("password", "secret", "token", "salt", "key", "url"))
        hint = f" ({_HINTS[item['type']]})" if item["type"] in _HINTS else ""
        lines.append(f"{where}: {key}: {message}{'' if secret else shown}{hint}")
    return lines


def example() -> str:
    """Every option with its default and its meaning, as a TOML file that is valid as it stands.

    >>> "bootstrap_servers" in example()
    True
    """
    lines = [
        "# Babelwatch configuration: every option with its default.",
        f"# Any value can be set from the environment too: {ENV_PREFIX}KAFKA__BOOTSTRAP_SERVERS=kafka:9092",
        "",
    ]
    sections: list[tuple[str, type[BaseModel], str]] = []
    for name, field in Config.model_fields.items():
        kinds = [k for k in _members(field.annotation) if isinstance(k, type) and issubclass(k, BaseModel)]
        if name == "sinks":
            continue
        if kinds:
            sections.append((name, kinds[0], field.description or ""))
        else:
            lines += _option(name, field)
    for name, model, description in sections:
        lines += ["", f"# {description}", f"[{name}]"]
        for key, field in model.model_fields.items():
            nested = [k for k in _members(field.annotation) if isinstance(k, type) and issubclass(k, BaseModel)]
            if not nested:
                lines += _option(key, field)
        for key, field in model.model_fields.items():
            nested = [k for k in _members(field.annotation) if isinstance(k, type) and issubclass(k, BaseModel)]
            if nested and get_origin(field.annotation) is None:
                lines += ["", f"# {field.description or ''}", f"[{name}.{key}]"]
                for inner, inner_field in nested[0].model_fields.items():
                    lines += _option(inner, inner_field)
            elif nested:
                lines += ["", f"# {field.description or ''} One table for each.", f"# [[{name}.{key}]]"]
                for inner, inner_field in nested[0].model_fields.items():
                    lines += [f"# {line.removeprefix('# ')}" for line in _option(inner, inner_field)]
    lines += ["", f"# {Config.model_fields['sinks'].description} One table for each."]
    for kind in _members(Config.model_fields["sinks"].annotation):
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            lines += ["", f"# {(kind.__doc__ or '').splitlines()[0]}", "# [[sinks]]"]
            for key, field in kind.model_fields.items():
                lines += [line if line.startswith("#") else f"# {line}" for line in _option(key, field)]
    return "\n".join(lines) + "\n"


def _option(name: str, field: Any) -> list[str]:
    default = field.get_default(call_default_factory=True)
    comment = [f"# {field.description}"] if field.description else []
    if default is PydanticUndefined:
        return [*comment, f"# {name} = ...  (required)"]
    text = as_toml(default)
    return [*comment, f"{name} = {text}" if text is not None else f"# {name} = (unset)"]


__all__ = ["Config", "example", "load_config"]
