"""The HTTP server: /metrics, /healthz, /readyz, the status page and the API behind it, with who may see what."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from typing import Any

import msgspec
import structlog
from aiohttp import web
from prometheus_client.exposition import choose_encoder
from pydantic import BaseModel, ValidationError

from monitor.errors import ConfigError
from monitor.http.access import Access, Denied, Principal
from monitor.http.access import Role as AccessRole
from monitor.http.api import OPERATIONS, Api, refuse, refused
from monitor.http.board import Board
from monitor.http.desk import Desk, DeskClosedError
from monitor.http.health import Health, report
from monitor.http.operations import Call, Operation, asking_of
from monitor.http.settings import HttpSettings, is_loopback
from monitor.metrics import Metrics
from monitor.watch import WatchlistKeeper

log = structlog.get_logger("monitor.http")

MAX_REQUEST_BYTES = 65_536
"""The largest request is an entity with a few hundred names."""

REQUEST_S = 10.0
"""A request is read and answered within this time, or not at all."""

SILENT_S = 15.0
"""A connection that has not sent one whole request head by then is closed."""

SECURITY_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
    "Server": "babelwatch",
}

HSTS = {"Strict-Transport-Security": "max-age=31536000"}

_TYPES = {".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}


@dataclass(frozen=True, slots=True)
class Site:
    """What is served."""

    metrics: Metrics
    health: Health
    board: Board
    desk: Desk
    watchlist: WatchlistKeeper
    now_s: Callable[[], float] = time.time


def make_app(settings: HttpSettings, site: Site, access: Access | None = None) -> web.Application:
    """The application of the main port."""
    guard = _Guard(access or Access(settings), site)
    app = _new_app()
    app.router.add_get("/healthz", _health(site.health, "alive"))
    app.router.add_get("/readyz", _health(site.health, "ready"))
    app.router.add_get("/metrics", guard.protect("metrics", _metrics(site.metrics)))
    if settings.page:
        api = Api(site.board, site.desk, site.watchlist, guard.access, site.now_s)
        for operation in OPERATIONS:
            app.router.add_route(operation.method, operation.path, _handler(api, operation, guard))
        for name, body in _static().items():
            kind = _TYPES[name[name.rindex(".") :]]
            app.router.add_get("/" if name == "index.html" else f"/{name}", _file(body, kind))
    return app


def make_metrics_app(site: Site) -> web.Application:
    """The application of the port for Prometheus and probes: open, and with nothing else on it."""
    app = _new_app()
    app.router.add_get("/healthz", _health(site.health, "alive"))
    app.router.add_get("/readyz", _health(site.health, "ready"))
    app.router.add_get("/metrics", _metrics(site.metrics))
    return app


def _new_app() -> web.Application:
    app = web.Application(middlewares=[_secured, _bounded], client_max_size=MAX_REQUEST_BYTES)
    app.on_response_prepare.append(_on_prepare)
    return app


# --- handlers -------------------------------------------------------------------------------------------------------


def _metrics(metrics: Metrics) -> Any:
    async def serve_metrics(request: web.Request) -> web.Response:
        encode, content_type = choose_encoder(request.headers.get("Accept", ""))
        return web.Response(body=encode(metrics.registry), headers={"Content-Type": content_type})

    return serve_metrics


def _health(health: Health, which: str) -> Any:
    async def serve_health(_: web.Request) -> web.Response:
        ok, found = report(getattr(health, which))
        return web.json_response({"ok": ok, "checks": found}, status=200 if ok else 503)

    return serve_health


def _static() -> dict[str, bytes]:
    folder = files("monitor.http") / "static"
    return {item.name: item.read_bytes() for item in folder.iterdir() if item.name.endswith(tuple(_TYPES))}


def _file(body: bytes, kind: str) -> Any:
    async def serve_file(_: web.Request) -> web.Response:
        return web.Response(body=body, content_type=kind, charset="utf-8")

    return serve_file


def _handler(api: Api, operation: Operation, guard: _Guard) -> Any:
    async def handle(request: web.Request, who: Principal) -> web.StreamResponse:
        query, body = _query(operation, request), await _body(operation, request)
        try:
            found = await operation.handle(api, Call(request, who, request.match_info, query, body))
        except DeskClosedError as error:
            raise refuse(503, str(error)) from None
        if isinstance(found, web.StreamResponse):
            return found
        data = found.model_dump_json().encode() if isinstance(found, BaseModel) else msgspec.json.encode(found)
        return web.Response(body=data, status=operation.status, content_type="application/json")

    return guard.protect(operation.role, handle, named=True)


def _query(operation: Operation, request: web.Request) -> Any:
    if operation.query is None:
        return None
    try:
        return msgspec.convert(dict(request.query), operation.query, strict=False)
    except msgspec.ValidationError as error:
        raise refuse(400, f"the query cannot be used: {error}") from None


async def _body(operation: Operation, request: web.Request) -> Any:
    if operation.body is None:
        return None
    if request.content_type != "application/json":
        # A form of another site cannot send this type without asking first.
        raise refuse(415, "the body has to be application/json")
    data = await request.read()
    try:
        if isinstance(operation.body, type) and issubclass(operation.body, BaseModel):
            return operation.body.model_validate_json(data)
        return msgspec.json.decode(data, type=operation.body)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise refuse(400, f"{'.'.join(map(str, first['loc'])) or 'body'}: {first['msg']}") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise refuse(400, f"the body cannot be used: {error}") from None


# --- who, and how long ----------------------------------------------------------------------------------------------


class _Guard:
    """Asks `Access` before a handler runs, and counts who is turned away."""

    def __init__(self, access: Access, site: Site) -> None:
        self.access = access
        self._site = site

    def protect(self, role: AccessRole | None, handler: Any, *, named: bool = False) -> Any:
        """The handler, behind a role; `named` ones are told who it is."""

        async def guarded(request: web.Request) -> web.StreamResponse:
            asking = asking_of(request)
            found: Principal | Denied = (
                self.access.decide(asking, role, self._site.now_s())
                if role is not None
                else self.access.same_site(asking) or Principal("", "metrics", "open")
            )
            if isinstance(found, Denied):
                self._site.metrics.http_refused.labels(str(found.status)).inc()
                raise refused(found)
            answer: web.StreamResponse = await (handler(request, found) if named else handler(request))
            return answer

        return guarded


_PROBLEM = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark"><title>{reason} · Babelwatch</title><link rel="stylesheet" href="page.css">
<main class="watchlist"><h2>{reason}</h2><p class="quiet">Babelwatch answered with {status}.</p>
<p><a href="./">To the overview</a></p></main></html>
"""


@web.middleware
async def _secured(request: web.Request, handler: Any) -> web.StreamResponse:
    """Security headers on everything; errors as JSON, or as a page for a person's browser, without a word about the inside."""
    try:
        response: web.StreamResponse = await handler(request)
    except web.HTTPException as error:
        if error.content_type != "application/json" and not error.empty_body:
            if "text/html" in request.headers.get("Accept", "") and not request.path.startswith("/api/"):
                error.text, error.content_type = (
                    _PROBLEM.format(status=error.status, reason=escape(error.reason)),
                    "text/html",
                )
            else:
                error.body, error.content_type = msgspec.json.encode({"error": error.reason}), "application/json"
        error.headers.update(_headers(request))
        raise
    except (asyncio.CancelledError, ConnectionError):
        raise
    except Exception:
        log.exception("http.failed", method=request.method, path=request.path)
        response = web.json_response({"error": "something went wrong here; the log knows more"}, status=500)
    if not response.prepared:
        response.headers.update(_headers(request))
    return response


def _headers(request: web.Request) -> dict[str, str]:
    return {**SECURITY_HEADERS, **HSTS} if request.secure else SECURITY_HEADERS


async def _on_prepare(request: web.Request, response: web.StreamResponse) -> None:
    """A stream is prepared inside its handler, before the middleware sees it again."""
    for name, value in _headers(request).items():
        response.headers.setdefault(name, value)


@web.middleware
async def _bounded(request: web.Request, handler: Any) -> web.StreamResponse:
    if request.path.endswith("/events"):
        answer: web.StreamResponse = await handler(request)
        return answer
    try:
        async with asyncio.timeout(REQUEST_S):
            answer = await handler(request)
    except TimeoutError:
        raise web.HTTPRequestTimeout from None
    return answer


async def _close_silent(runner: web.AppRunner, served: set[Any]) -> None:
    """Close connections that never sent a whole request: a few thousand of them would be all there is."""
    first_seen: dict[Any, float] = {}
    while True:
        await asyncio.sleep(SILENT_S / 3)
        now = time.monotonic()
        connections = set(runner.server.connections if runner.server is not None else ())
        served &= connections
        first_seen = {c: first_seen.get(c, now) for c in connections - served}
        for connection, seen in first_seen.items():
            if now - seen >= SILENT_S:
                connection.force_close()


@asynccontextmanager
async def serve(settings: HttpSettings, site: Site) -> AsyncIterator[tuple[str, str]]:
    """Serve while the context is open; gives the addresses of the page and of the metrics (the same, if not apart).

    Raises:
        ConfigError: an address is taken or not ours, or the certificate cannot be used.
    """
    async with contextlib.AsyncExitStack() as stack:
        context = _tls(settings)
        main = await _listen(
            stack, make_app(settings, site), settings.host, settings.port, "http.host, http.port", context
        )
        if not is_loopback(settings.host) and context is None and settings.tokens:
            log.warning("http.plain", hint="tokens cross the network unencrypted; set http.cert_file, or use a proxy")
        apart = main
        if settings.metrics_port is not None:
            where = "http.metrics_host, http.metrics_port"
            apart = await _listen(
                stack, make_metrics_app(site), settings.metrics_host, settings.metrics_port, where, None
            )
        yield main, apart


async def _listen(
    stack: contextlib.AsyncExitStack, app: web.Application, host: str, port: int, where: str,
    context: ssl.SSLContext | None,
) -> str:  # fmt: skip
    served: set[Any] = set()

    @web.middleware
    async def note(request: web.Request, handler: Any) -> web.StreamResponse:
        served.add(request.protocol)
        answer: web.StreamResponse = await handler(request)
        return answer

    app.middlewares.insert(0, note)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0, keepalive_timeout=75.0)
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    site = web.TCPSite(runner, host, port, ssl_context=context)
    try:
        await site.start()
    except OSError as error:
        raise ConfigError(
            f"cannot listen on {host}:{port}: {error.strerror}",
            where=where,
            hint="another process may have the port; 0 takes a free one",
        ) from None
    sweeper = asyncio.create_task(_close_silent(runner, served))
    stack.callback(sweeper.cancel)
    address, taken = runner.addresses[0][:2]
    shown = f"[{address}]" if ":" in address else address
    return f"{'https' if context else 'http'}://{shown}:{taken}"


def _tls(settings: HttpSettings) -> ssl.SSLContext | None:
    if settings.cert_file is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(settings.cert_file, settings.key_file)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(
            f"the certificate cannot be used: {error}", where="http.cert_file, http.key_file", hint="PEM files expected"
        ) from error
    return context
