"""/api/v1: what the status page and other programs ask and do."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Annotated, Any, Literal

import msgspec
from aiohttp import web

from monitor.errors import ConfigError
from monitor.http import showing, views
from monitor.http.access import SESSION_COOKIE, Access, Denied
from monitor.http.board import Board
from monitor.http.desk import Desk
from monitor.http.live import Live
from monitor.http.operations import Call, Operation, asking_of, openapi
from monitor.records import Action
from monitor.settings import Settings
from monitor.watch import WatchlistKeeper
from monitor.watchlist import Entity, as_file, change_of, with_entity, without_entity

BASE = "/api/v1"

LONGEST_MUTE_S = 30 * 86_400
"""Whoever wants silence for longer takes the entity off the watchlist."""

Note = Annotated[str, msgspec.Meta(max_length=500)]
EntityName = Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")]
IncidentName = Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
LangName = Annotated[str, msgspec.Meta(pattern=r"^(\*|[a-z]{2,3})$")]

ENTITY_PATTERN = r"^[a-z0-9][a-z0-9-]{0,62}$"


class _Body(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind"):
    """Base of the bodies."""


class Acknowledge(_Body, frozen=True, tag="acknowledge"):
    """Someone is looking into an incident."""

    incident: IncidentName
    note: Note = ""


class FalseAlarm(_Body, frozen=True, tag="false_alarm"):
    """An incident was none: it goes to the review topic too."""

    incident: IncidentName
    note: Note = ""


class Mute(_Body, frozen=True, tag="mute"):
    """Nobody is told of an entity for a time; its incidents are still on the page and the alerts topic."""

    entity: EntityName
    for_s: Annotated[int, msgspec.Meta(ge=60, le=LONGEST_MUTE_S)]
    note: Note = ""


class Unmute(_Body, frozen=True, tag="unmute"):
    """End a mute before its time."""

    entity: EntityName
    note: Note = ""


ActionRequest = Acknowledge | FalseAlarm | Mute | Unmute


class SignIn(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A token in exchange for a cookie."""

    token: Annotated[str, msgspec.Meta(min_length=1, max_length=200)]


class WhichIncidents(msgspec.Struct, frozen=True):
    """Filters of incidents."""

    state: Literal["open", "resolved", "all"] = "all"
    entity: EntityName | None = None
    limit: Annotated[int, msgspec.Meta(ge=1, le=200)] = 50


class WhichSeries(msgspec.Struct, frozen=True):
    """One series."""

    entity: EntityName
    lang: LangName = "*"
    since_ms: Annotated[int, msgspec.Meta(ge=0, le=253_402_300_800_000)] = 0


class WhichActions(msgspec.Struct, frozen=True):
    """Filters of actions."""

    entity: EntityName | None = None
    limit: Annotated[int, msgspec.Meta(ge=1, le=500)] = 50


class WatchlistEdit(Settings):
    """What someone changed of an entity here, laid over the watchlist file."""

    entity: str
    who: str
    at_ms: int
    removed: bool
    overtaken: bool
    """The file was changed there since, so that its word holds."""


class WatchlistView(Settings):
    """The watchlist in force."""

    version: str
    writable: bool
    """Whether changes are taken here."""
    in_file: bool
    """Whether they are made in the file, rather than laid over it."""
    entities: tuple[Entity, ...]
    edits: tuple[WatchlistEdit, ...]


def refuse(status: int, reason: str, **headers: str) -> web.HTTPException:
    """The error to raise: a status with a sentence."""
    kinds: dict[int, type[web.HTTPException]] = {
        400: web.HTTPBadRequest, 401: web.HTTPUnauthorized, 403: web.HTTPForbidden, 404: web.HTTPNotFound,
        409: web.HTTPConflict, 412: web.HTTPPreconditionFailed, 415: web.HTTPUnsupportedMediaType,
        422: web.HTTPUnprocessableEntity, 429: web.HTTPTooManyRequests, 503: web.HTTPServiceUnavailable,
    }  # fmt: skip
    body = msgspec.json.encode(views.Problem(error=reason))
    return kinds[status](body=body, content_type="application/json", headers=headers)


class Api:
    """The operations.

    Args:
        board: What is known.
        desk: Takes actions.
        watchlist: The file of entities.
        access: Signs people in.
        now_s: The wall clock.
    """

    def __init__(
        self,
        board: Board,
        desk: Desk,
        watchlist: WatchlistKeeper,
        access: Access,
        now_s: Callable[[], float] = time.time,
    ) -> None:
        self._board = board
        self._desk = desk
        self._watchlist = watchlist
        self._access = access
        self._now_s = now_s
        self._live = Live(board, now_s)

    @property
    def _now_ms(self) -> int:
        return int(self._now_s() * 1000)

    # --- looking --------------------------------------------------------------------------------------------------

    async def get_status(self, _: Call) -> views.Status:
        """Everything the first screen shows."""
        return showing.status(self._board, self._now_ms)

    async def list_entities(self, _: Call) -> list[views.EntityView]:
        """Every watched entity as it is now."""
        self._board.look_up()
        return [showing.entity(self._board, name, self._now_ms) for name in self._board.entities]

    async def get_entity(self, call: Call) -> views.EntityDetail:
        """An entity with every language's course."""
        self._watched(call.path["entity"])
        return showing.entity_detail(self._board, call.path["entity"], self._now_ms)

    async def get_series(self, call: Call) -> views.Series:
        """The buckets of one series."""
        self._watched(call.query.entity)
        return showing.series(self._board, call.query.entity, call.query.lang, call.query.since_ms)

    async def list_incidents(self, call: Call) -> list[views.IncidentBrief]:
        """Incidents, open ones first."""
        which: WhichIncidents = call.query
        found = [
            brief
            for brief in showing.incidents(self._board)
            if which.entity in (None, brief.entity, *brief.entities)
            and (which.state == "all" or (brief.state == "resolved") == (which.state == "resolved"))
        ]
        return found[: which.limit]

    async def get_incident(self, call: Call) -> views.IncidentDetail:
        """An incident with its posts and steps."""
        self._known(call.path["incident"])
        return showing.incident(self._board, call.path["incident"])

    async def get_pipeline(self, _: Call) -> views.Pipeline:
        """How all processes do."""
        return showing.pipeline(self._board, self._now_ms)

    async def list_actions(self, call: Call) -> list[Action]:
        """What people did, the newest first."""
        newest = reversed(self._board.actions.values())
        return [a for a in newest if call.query.entity in (None, a.entity)][: call.query.limit]

    async def get_openapi(self, _: Call) -> web.Response:
        """This document."""
        return web.Response(body=_encode(document()), content_type="application/json")

    async def get_events(self, call: Call) -> web.StreamResponse:
        """The status at every change, as server-sent events: whole at first, then only the entities that changed."""
        return await self._live.stream(call.request)

    # --- acting ---------------------------------------------------------------------------------------------------

    async def post_action(self, call: Call) -> Action:
        """Acknowledge an incident, mute an entity ..."""
        asked: ActionRequest = call.body
        who = call.who.name
        match asked:
            case Acknowledge() | FalseAlarm():
                entity = self._known(asked.incident)
                kind: Literal["acknowledge", "false_alarm"] = (
                    "acknowledge" if isinstance(asked, Acknowledge) else "false_alarm"
                )
                return await self._desk.act(kind, who, entity=entity, incident=asked.incident, note=asked.note)
            case Mute():
                self._watched(asked.entity)
                return await self._desk.act("mute", who, entity=asked.entity, for_s=asked.for_s, note=asked.note)
            case Unmute():
                self._watched(asked.entity)
                return await self._desk.act("unmute", who, entity=asked.entity, note=asked.note)

    def _known(self, incident: str) -> str:
        steps = self._board.incidents.get(incident)
        if not steps:
            raise refuse(404, "no such incident is known (any more)")
        return steps[-1].entity

    def _watched(self, entity: str) -> None:
        if entity not in self._board.entities:
            raise refuse(404, "no such entity is watched")

    # --- the watchlist --------------------------------------------------------------------------------------------

    async def get_watchlist(self, _: Call) -> WatchlistView:
        """The watchlist in force."""
        return self._view()

    async def get_watchlist_file(self, _: Call) -> web.Response:
        """The watchlist in force as a watchlist file."""
        return web.Response(text=as_file(self._watchlist.current), content_type="application/toml")

    async def put_entity(self, call: Call) -> WatchlistView:
        """Watch an entity, or change what is watched of it."""
        entity: Entity = call.body
        if entity.id != call.path["entity"]:
            raise refuse(422, f"the id in the body is {entity.id}, the path names another")
        known = entity.id in self._watchlist.current.entities
        change = f"{'~' if known else '+'}{entity.id}"
        return await self._edit(call, entity.id, entity, change)

    async def delete_entity(self, call: Call) -> WatchlistView:
        """Watch an entity no longer."""
        name = call.path["entity"]
        if name not in self._watchlist.current.entities:
            raise refuse(404, "no such entity is watched")
        return await self._edit(call, name, None, f"-{name}")

    async def delete_edit(self, call: Call) -> WatchlistView:
        """Take back what was changed here of an entity: the file's word holds again."""
        name = call.path["entity"]
        if name not in self._watchlist.changes:
            raise refuse(404, "nothing was changed here of such an entity")
        self._matches(call)
        await self._desk.change_watchlist(name, None)
        self._watchlist.take(name, None)
        return await self._audited(call, name, f"={name}")

    def _matches(self, call: Call) -> None:
        wanted = call.request.headers.get("If-Match", "").strip('"')
        if wanted not in ("", "*", self._watchlist.current.version):
            raise refuse(412, f"the watchlist has changed: it is at version {self._watchlist.current.version}")
        if self._desk.producer is None:
            raise refuse(503, "Kafka is not reached yet, so the change could not be recorded")

    async def _edit(self, call: Call, name: str, entity: Entity | None, what: str) -> WatchlistView:
        self._matches(call)
        if self._watchlist.in_file:
            self._edit_file(name, entity)
        else:
            keeper = self._watchlist
            try:
                change = change_of(keeper.base, name, entity, who=call.who.name, at_ms=self._now_ms)
            except ConfigError as error:
                raise refuse(422, str(error)) from None
            if entity is None and list(keeper.current.entities) == [name]:
                raise refuse(422, "nothing would be watched")
            await self._desk.change_watchlist(name, change)
            keeper.take(name, change)
        return await self._audited(call, name, what)

    def _edit_file(self, name: str, entity: Entity | None) -> None:
        try:
            self._watchlist.edit(
                lambda text: with_entity(text, entity) if entity is not None else without_entity(text, name)
            )
        except ConfigError as error:
            raise refuse(422, str(error)) from None
        except KeyError:
            raise refuse(409, "the file on disk holds no such entity; it was changed by hand") from None
        except OSError as error:
            raise refuse(409, f"the watchlist file cannot be written here: {error.strerror}") from None

    async def _audited(self, call: Call, name: str, what: str) -> WatchlistView:
        version = self._watchlist.current.version
        await self._desk.act("watchlist", call.who.name, entity=name, changes=(what,), version=version)
        return self._view()

    def _view(self) -> WatchlistView:
        keeper = self._watchlist
        edits = tuple(
            WatchlistEdit(
                entity=change.entity, who=change.who, at_ms=change.at_ms, removed=change.definition is None,
                overtaken=keeper.overtaken(change),
            )
            for change in keeper.changes.values()
        )  # fmt: skip
        return WatchlistView(
            version=keeper.current.version, writable=keeper.writable, in_file=keeper.in_file,
            entities=tuple(keeper.current.entities.values()), edits=edits,
        )  # fmt: skip

    # --- signing in -----------------------------------------------------------------------------------------------

    async def get_session(self, call: Call) -> views.Session:
        """Who is asking."""
        return views.Session(name=call.who.name, role=call.who.role, how=call.who.how)

    async def post_session(self, call: Call) -> web.Response:
        """Sign in: a token for a cookie."""
        asking = asking_of(call.request)
        signed = self._access.sign_in(asking, call.body.token, self._now_s())
        if isinstance(signed, Denied):
            raise refused(signed)
        who, cookie = signed
        response = web.Response(body=_encode(views.Session(name=who.name, role=who.role, how=who.how)))
        response.content_type = "application/json"
        response.set_cookie(
            SESSION_COOKIE, cookie, httponly=True, samesite="Strict", path="/", max_age=int(self._access.session_s),
            secure=self._access.is_secure(asking, tls=call.request.secure),
        )  # fmt: skip
        return response

    async def delete_session(self, _: Call) -> web.Response:
        """Sign out."""
        response = web.Response(status=204)
        response.del_cookie(SESSION_COOKIE, path="/", httponly=True, samesite="Strict")
        return response


def _op(method: Any, path: str, handle: Any, answer: Any = None, **more: Any) -> Operation:
    return Operation(method, BASE + path, handle, answer, **more)


_ENTITY = {"entity": ENTITY_PATTERN}
_MATCH = {"If-Match": "The version of the watchlist that the change is made to."}
_EDIT = (409, 412, 422, 503)

OPERATIONS = (
    _op("GET", "/status", Api.get_status, views.Status),
    _op("GET", "/entities", Api.list_entities, list[views.EntityView]),
    _op("GET", "/entities/{entity}", Api.get_entity, views.EntityDetail, problems=(404,), patterns=_ENTITY),
    _op("GET", "/series", Api.get_series, views.Series, query=WhichSeries, problems=(404,)),
    _op("GET", "/incidents", Api.list_incidents, list[views.IncidentBrief], query=WhichIncidents),
    _op("GET", "/incidents/{incident}", Api.get_incident, views.IncidentDetail, problems=(404,)),
    _op("GET", "/pipeline", Api.get_pipeline, views.Pipeline),
    _op("GET", "/actions", Api.list_actions, list[Action], query=WhichActions),
    _op("POST", "/actions", Api.post_action, Action, role="operator", body=ActionRequest, status=201, problems=(404, 503)),
    _op("GET", "/watchlist", Api.get_watchlist, WatchlistView),
    _op("GET", "/watchlist.toml", Api.get_watchlist_file, media_type="application/toml"),
    _op("PUT", "/watchlist/{entity}", Api.put_entity, WatchlistView, role="operator", body=Entity, problems=_EDIT, headers=_MATCH, patterns=_ENTITY),
    _op("DELETE", "/watchlist/{entity}", Api.delete_entity, WatchlistView, role="operator", problems=(404, *_EDIT), headers=_MATCH, patterns=_ENTITY),
    _op("DELETE", "/watchlist/{entity}/edit", Api.delete_edit, WatchlistView, role="operator", problems=(404, 412, 503), headers=_MATCH, patterns=_ENTITY),
    _op("GET", "/session", Api.get_session, views.Session),
    _op("POST", "/session", Api.post_session, views.Session, role=None, body=SignIn, problems=(401, 403, 429)),
    _op("DELETE", "/session", Api.delete_session, role=None, status=204, problems=(403,)),
    _op("GET", "/openapi.json", Api.get_openapi, dict[str, Any], role=None),
    _op("GET", "/events", Api.get_events, media_type="text/event-stream", problems=(503,)),
)  # fmt: skip
"""Everything the API can do."""


def document() -> dict[str, Any]:
    """The OpenAPI document."""
    return openapi(OPERATIONS)


def refused(denied: Denied) -> web.HTTPException:
    """The answer to someone who may not."""
    headers = {"WWW-Authenticate": "Bearer"} if denied.status == 401 else {}
    if denied.retry_after_s:
        headers["Retry-After"] = str(denied.retry_after_s)
    return refuse(denied.status, denied.reason, **headers)


_encode = msgspec.json.encode
