"""The HTTP server: /metrics, /healthz, /readyz, the status page and the JSON behind it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.resources import files
from typing import Any

import structlog
from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from monitor.errors import ConfigError
from monitor.http.board import Board
from monitor.http.health import Health, report
from monitor.http.settings import HttpSettings

log = structlog.get_logger("monitor.http")

MAX_REQUEST_BYTES = 65_536

MIN_PUSH_S = 1.0
"""Least time between two pushes to one page: a person reads no faster, and a fast replay must not flood it."""

KEEPALIVE_S = 15.0

SECURITY_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}

_TYPES = {"index.html": "text/html", "page.js": "text/javascript", "page.css": "text/css"}


@web.middleware
async def _secured(request: web.Request, handler: Any) -> web.StreamResponse:
    response: web.StreamResponse = await handler(request)
    if not response.prepared:
        response.headers.update(SECURITY_HEADERS)
    return response


def make_app(registry: CollectorRegistry, health: Health, board: Board) -> web.Application:
    """The application, for the server and for tests."""

    async def metrics(request: web.Request) -> web.Response:
        encode, content_type = choose_encoder(request.headers.get("Accept", ""))
        return web.Response(body=encode(registry), headers={"Content-Type": content_type})

    async def healthz(_: web.Request) -> web.Response:
        return _checked(health.alive)

    async def readyz(_: web.Request) -> web.Response:
        return _checked(health.ready)

    def _checked(checks: Any) -> web.Response:
        ok, found = report(checks)
        return web.json_response({"ok": ok, "checks": found}, status=200 if ok else 503)

    async def snapshot(_: web.Request) -> web.Response:
        return web.json_response(board.snapshot())

    async def events(request: web.Request) -> web.StreamResponse:
        return await _stream(request, board)

    app = web.Application(middlewares=[_secured], client_max_size=MAX_REQUEST_BYTES)
    app.router.add_get("/metrics", metrics)
    app.router.add_get("/healthz", healthz)
    app.router.add_get("/readyz", readyz)
    app.router.add_get("/api/v1/status", snapshot)
    app.router.add_get("/api/v1/events", events)
    static = files("monitor.http") / "static"
    for name, kind in _TYPES.items():
        body = (static / name).read_bytes()
        app.router.add_get("/" if name == "index.html" else f"/{name}", _file(body, kind))
    return app


def _file(body: bytes, kind: str) -> Any:
    async def serve_file(_: web.Request) -> web.Response:
        return web.Response(body=body, content_type=kind, charset="utf-8")

    return serve_file


async def _stream(request: web.Request, board: Board) -> web.StreamResponse:
    """Server-sent events: the whole snapshot at each change, at most once a second."""
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream", **SECURITY_HEADERS})
    await response.prepare(request)
    changed = asyncio.Event()
    changed.set()
    unsubscribe = board.subscribe(changed.set)
    try:
        while True:
            try:
                await asyncio.wait_for(changed.wait(), KEEPALIVE_S)
            except TimeoutError:
                await response.write(b": still here\n\n")
                continue
            changed.clear()
            await response.write(f"data: {json.dumps(board.snapshot())}\n\n".encode())
            await asyncio.sleep(MIN_PUSH_S)
    except (ConnectionError, asyncio.CancelledError):
        return response
    finally:
        unsubscribe()


@asynccontextmanager
async def serve(
    settings: HttpSettings, registry: CollectorRegistry, health: Health, board: Board
) -> AsyncIterator[str]:
    """Serve while the context is open; gives the address.

    Raises:
        ConfigError: the address is taken or not ours.
    """
    runner = web.AppRunner(make_app(registry, health, board), access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    try:
        site = web.TCPSite(runner, settings.host, settings.port)
        try:
            await site.start()
        except OSError as error:
            raise ConfigError(
                f"cannot listen on {settings.host}:{settings.port}: {error.strerror}",
                where="http.host, http.port",
                hint="another process may have the port; 0 takes a free one",
            ) from None
        host, port = runner.addresses[0][:2]
        yield f"http://{host}:{port}"
    finally:
        await runner.cleanup()
