"""The watchlist in force: read at start, re-read on SIGHUP and when the file changes; a broken new file keeps the old."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import structlog
from watchfiles import awatch

from monitor.errors import BabelwatchError
from monitor.metrics import Metrics
from monitor.watchlist import Watchlist, load_watchlist, parse_watchlist

log = structlog.get_logger("monitor.watchlist")

LOOK_MS = 5000
"""The file is looked at so often without being told of a change."""


class WatchlistKeeper:
    """Holds the current watchlist and tells its listeners of a new one.

    Args:
        path: The watchlist file.
        metrics: Counts reloads.

    Raises:
        ConfigError: the file cannot be used (at construction only).
    """

    def __init__(self, path: Path, metrics: Metrics) -> None:
        self._path = path
        self._metrics = metrics
        self._listeners: list[Callable[[Watchlist], None]] = []
        self.error = ""
        """Why the newest file is not in force; empty when it is."""
        self._seen = self._content()
        self.current = load_watchlist(path)
        metrics.watchlist_entities.set(len(self.current.entities))
        metrics.watchlist_in_force.set(1)

    def listen(self, listener: Callable[[Watchlist], None]) -> None:
        """Call `listener` with the watchlist in force, now and whenever it changes."""
        self._listeners.append(listener)
        listener(self.current)

    def reload(self) -> bool:
        """Read the file again; True when its content is in force afterwards."""
        try:
            fresh = load_watchlist(self._path)
        except BabelwatchError as error:
            self.error = str(error)
            self._metrics.watchlist_reloads.labels("failed").inc()
            self._metrics.watchlist_in_force.set(0)
            log.error("watchlist.rejected", path=str(self._path), reason=self.error, kept=self.current.version)
            return False
        self.error = ""
        self._metrics.watchlist_reloads.labels("ok").inc()
        self._metrics.watchlist_in_force.set(1)
        if fresh.version != self.current.version:
            self.current = fresh
            self._metrics.watchlist_entities.set(len(fresh.entities))
            for listener in self._listeners:
                listener(fresh)
            log.info("watchlist.loaded", path=str(self._path), entities=len(fresh.entities), version=fresh.version)
        return True

    @property
    def writable(self) -> bool:
        """Whether `edit` can replace the file: a mounted ConfigMap cannot be written."""
        target = self._path.resolve()
        return os.access(target.parent, os.W_OK) and os.access(target, os.W_OK)

    def edit(self, change: Callable[[str], str]) -> Watchlist:
        """Change the file's content, and take it at once: a whole valid file, or the old one, whatever happens.

        Args:
            change: From the content to the new content.

        Raises:
            ConfigError: the new content cannot be used; nothing was written.
            OSError: the file cannot be written.
        """
        target = self._path.resolve()
        text = change(target.read_text(encoding="utf-8"))
        parse_watchlist(text, self._path)
        handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            shutil.copymode(target, name)
            os.replace(name, target)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
        self._seen = self._content()
        self.reload()
        return self.current

    async def follow(self, stopping: asyncio.Event) -> None:
        """Reload whenever the file changes, until `stopping`.

        Folders are watched, not the file: editors replace a file instead of writing into it, and Kubernetes turns a
        link to another folder and deletes the one before. So both are watched, that of the name and that of the file
        behind it, and anew after each change. What no event tells (a network file system) is seen within `LOOK_MS`.
        """
        while not stopping.is_set():
            folders = {self._path.absolute().parent, self._path.resolve().parent}
            changes = awatch(
                *folders,
                stop_event=stopping,
                recursive=False,
                debounce=200,
                rust_timeout=LOOK_MS,
                yield_on_timeout=True,
            )
            async for _ in changes:
                if (content := self._content()) != self._seen:
                    self._seen = content
                    self.reload()
                    break

    def _content(self) -> bytes:
        try:
            return self._path.read_bytes()
        except OSError:
            return b""
