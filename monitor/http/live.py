"""Server-sent events: the status at every change, at most once a second, and a heartbeat in between."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import msgspec
from aiohttp import web

from monitor.http import showing
from monitor.http.board import Board
from monitor.http.views import Status
from monitor.waiting import told_within

MIN_PUSH_S = 1.0
"""Least time between two pushes: a person reads no faster, and a fast replay must not flood a page."""

HEARTBEAT_S = 10.0
"""Longest silence: a page that heard nothing for three of these knows that the connection is dead, and proxies cut
connections that are silent for 30 to 60 s."""

STUCK_S = 20.0
"""A reader that takes nothing for so long is let go: its buffer is ours."""

MAX_STREAMS = 200
"""Open pages of one process."""


class Live:
    """The open pages of one process.

    Args:
        board: What is known.
        now_s: The wall clock.
    """

    def __init__(self, board: Board, now_s: Callable[[], float] = time.time) -> None:
        self._board = board
        self._now_s = now_s
        self._streams = 0
        self._status: Status | None = None
        self._entities: dict[str, bytes] = {}
        self._made_at = 0.0

    async def stream(self, request: web.Request) -> web.StreamResponse:
        """Serve one page until it goes.

        Raises:
            web.HTTPServiceUnavailable: too many pages are open.
        """
        if self._streams >= MAX_STREAMS:
            raise web.HTTPServiceUnavailable(
                body=b'{"error":"too many pages are open"}', content_type="application/json"
            )
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "X-Accel-Buffering": "no"})
        await response.prepare(request)
        self._streams += 1
        changed = asyncio.Event()
        unsubscribe = self._board.subscribe(changed.set)
        sent: dict[str, bytes] = {}
        try:
            await self._write(response, b"retry: 2000\n\n")
            while True:
                changed.clear()
                await self._write(response, b"event: status\ndata: " + self._message(sent) + b"\n\n")
                await asyncio.sleep(MIN_PUSH_S)
                # The pipeline's ages are of the wall clock, so there is something new to say after a silence too.
                await told_within(changed, HEARTBEAT_S)
        except (ConnectionError, TimeoutError):
            return response
        finally:
            self._streams -= 1
            unsubscribe()

    async def _write(self, response: web.StreamResponse, data: bytes) -> None:
        async with asyncio.timeout(STUCK_S):
            await response.write(data)

    def _message(self, sent: dict[str, bytes]) -> bytes:
        """The status without the entities that this page has as they are; `order` names all of them."""
        now_s = self._now_s()
        if self._status is None or now_s - self._made_at >= MIN_PUSH_S / 2:  # shared by all open pages
            self._status = showing.status(self._board, int(now_s * 1000))
            self._entities = {entity.id: _encode(entity) for entity in self._status.entities}
            self._made_at = now_s
        fresh = [msgspec.Raw(data) for name, data in self._entities.items() if sent.get(name) != data]
        sent.clear()
        sent.update(self._entities)
        rest = {field: getattr(self._status, field) for field in Status.__struct_fields__ if field != "entities"}
        return _encode({**rest, "entities": fresh, "order": list(self._entities)})


_encode = msgspec.json.encode
