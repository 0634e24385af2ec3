"""The table of what the API can do: the routes and the OpenAPI document are both made from it."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from importlib.metadata import version
from typing import Any, Literal

import msgspec
from aiohttp import web
from pydantic import BaseModel

from monitor.http.access import Asking, Principal
from monitor.http.views import Problem

REF = "#/components/schemas/{name}"


@dataclass(frozen=True, slots=True)
class Call:
    """One request, checked and read."""

    request: web.Request
    who: Principal
    path: Mapping[str, str]
    query: Any = None
    body: Any = None


@dataclass(frozen=True, slots=True)
class Operation:
    """One thing that the API can do."""

    method: Literal["GET", "POST", "PUT", "DELETE"]
    path: str
    handle: Callable[[Any, Call], Awaitable[Any]]
    """A method of the API; its docstring's first line is the summary."""
    answer: Any = None
    """Type of the answer; None for no content."""
    role: Literal["viewer", "operator"] | None = "viewer"
    """Who may; None for everyone."""
    query: type[msgspec.Struct] | None = None
    body: Any = None
    status: int = 200
    problems: tuple[int, ...] = ()
    """Statuses beyond those that any request can meet."""
    media_type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)
    """Request headers by name, with their meaning."""
    patterns: Mapping[str, str] = field(default_factory=dict)
    """Regular expressions of path parameters."""

    @property
    def name(self) -> str:
        """The operation's id: its function's name."""
        return self.handle.__name__

    @property
    def summary(self) -> str:
        """One line."""
        return (self.handle.__doc__ or "").splitlines()[0].rstrip(".")

    @property
    def possible_problems(self) -> tuple[int, ...]:
        """Every status of refusal."""
        found = set(self.problems)
        if self.role is not None:
            found |= {401, 403, 429}
        if self.query is not None or self.body is not None:
            found.add(400)
        if self.body is not None:
            found |= {413, 415}
        return tuple(sorted(found))


def asking_of(request: web.Request) -> Asking:
    """What access needs to know of a request."""
    return Asking(request.method, request.headers, request.cookies, request.remote or "")


def openapi(operations: tuple[Operation, ...]) -> dict[str, Any]:
    """The OpenAPI 3.1 document of these operations."""
    kinds = [kind for o in operations for kind in (o.answer, o.body) if kind is not None]
    structs = [kind for kind in kinds if not _is_model(kind)]
    _, components = msgspec.json.schema_components([*structs, Problem], ref_template=REF)
    for kind in kinds:
        if _is_model(kind):
            schema = kind.model_json_schema(ref_template=REF.replace("{name}", "{model}"))
            components |= schema.pop("$defs", {})
            components[kind.__name__] = schema
    paths: dict[str, Any] = {}
    for operation in operations:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _described(operation)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Babelwatch",
            "version": version("babelwatch"),
            "description": "What is watched, what is out of the ordinary, and what people did about it. Times are "
            "milliseconds since 1970-01-01 UTC: event time in series and incidents, the wall clock in actions.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": paths,
        "components": {
            "schemas": _tidy(dict(sorted(components.items()))),
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer"},
                "session": {"type": "apiKey", "in": "cookie", "name": "babelwatch_session"},
            },
        },
    }


def _described(operation: Operation) -> dict[str, Any]:
    parameters: list[dict[str, Any]] = [
        {
            "name": name,
            "in": "path",
            "required": True,
            "schema": {"type": "string", "pattern": operation.patterns.get(name, "^.+$")},
        }
        for name in re.findall(r"\{(\w+)\}", operation.path)
    ]
    if operation.query is not None:
        schema = msgspec.json.schema(operation.query)
        (described,) = schema["$defs"].values()
        parameters += [
            {"name": name, "in": "query", "required": name in described.get("required", ()), "schema": value}
            for name, value in described["properties"].items()
        ]
    parameters += [
        {"name": name, "in": "header", "required": False, "description": meaning, "schema": {"type": "string"}}
        for name, meaning in operation.headers.items()
    ]
    answers: dict[str, Any] = {str(operation.status): _answer(operation)}
    for status in operation.possible_problems:
        content = {"application/json": {"schema": {"$ref": REF.format(name="Problem")}}}
        answers[str(status)] = {"description": HTTPStatus(status).phrase, "content": content}
    made: dict[str, Any] = {
        "operationId": operation.name,
        "summary": operation.summary,
        "responses": answers,
        "security": [{"token": []}, {"session": []}] if operation.role else [],
    }
    if operation.role == "operator":
        made["description"] = "Needs the role operator."
    if parameters:
        made["parameters"] = parameters
    if operation.body is not None:
        made["requestBody"] = {"required": True, "content": {"application/json": {"schema": _schema(operation.body)}}}
    return made


def _answer(operation: Operation) -> dict[str, Any]:
    described: dict[str, Any] = {"description": HTTPStatus(operation.status).phrase}
    if operation.media_type != "application/json":
        described["content"] = {operation.media_type: {"schema": {"type": "string"}}}
    elif operation.answer is not None:
        described["content"] = {"application/json": {"schema": _schema(operation.answer)}}
    return described


def _schema(kind: Any) -> dict[str, Any]:
    if _is_model(kind):
        return {"$ref": REF.format(name=kind.__name__)}
    (schema,), _ = msgspec.json.schema_components([kind], ref_template=REF)
    return schema


def _is_model(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def _tidy(value: Any) -> Any:
    """Docstrings lose their indentation."""
    if isinstance(value, dict):
        return {
            k: re.sub(r"\n +", "\n", v) if k == "description" and isinstance(v, str) else _tidy(v)
            for k, v in value.items()
        }
    return [_tidy(item) for item in value] if isinstance(value, list) else value
