"""The watchlist in force: the file, re-read on SIGHUP and when it changes, and what people changed on the page over it."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import structlog
from watchfiles import awatch

from monitor.errors import BabelwatchError
from monitor.metrics import Metrics
from monitor.records import WatchlistChange
from monitor.watchlist import Watchlist, entity_of, in_force, lay_over, load_watchlist, parse_watchlist

log = structlog.get_logger("monitor.watchlist")

LOOK_MS = 5000
"""The file is looked at so often without being told of a change."""


class WatchlistKeeper:
    """Holds the current watchlist and tells its listeners of a new one; a broken new file keeps the old.

    Args:
        path: The watchlist file.
        metrics: Counts reloads.
        in_file: Whether people's changes are made in the file, rather than laid over it.

    Raises:
        ConfigError: the file cannot be used (at construction only).
    """

    def __init__(self, path: Path, metrics: Metrics, *, in_file: bool = True) -> None:
        self._path = path
        self._metrics = metrics
        self._listeners: list[Callable[[Watchlist], None]] = []
        self.error = ""
        """Why the newest file is not in force; empty when it is."""
        self._seen = self._content()
        self.in_file = in_file
        self.base = self.current = load_watchlist(path)
        self.changes: dict[str, WatchlistChange] = {}
        """What people changed, by entity; some of it may be overtaken by the file (see `in_force`)."""
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
        self.base = fresh
        self._tell()
        return True

    def lay(self, changes: Mapping[str, WatchlistChange]) -> None:
        """Lay all of these over the file, and no others; those that cannot be used are told of in the log."""
        self.changes = {}
        for entity, change in changes.items():
            try:
                entity_of(change)
                self.changes[entity] = change
            except BabelwatchError as error:
                log.error("watchlist.change_rejected", reason=str(error))
        self._tell()

    def take(self, entity: str, change: WatchlistChange | None) -> None:
        """Lay one more change over the file, or take one back (None)."""
        changes = {name: known for name, known in self.changes.items() if name != entity}
        self.lay(changes if change is None else {**changes, entity: change})

    def overtaken(self, change: WatchlistChange) -> bool:
        """Whether the file was changed there since, so that its word holds."""
        return not in_force(change, self.base)

    def _tell(self) -> None:
        fresh = lay_over(self.base, self.changes.values())
        if fresh.version != self.current.version:
            self.current = fresh
            self._metrics.watchlist_entities.set(len(fresh.entities))
            for listener in self._listeners:
                listener(fresh)
            changed = sum(not self.overtaken(change) for change in self.changes.values())
            log.info(
                "watchlist.loaded", path=str(self._path), entities=len(fresh.entities), version=fresh.version, changed=changed
            )  # fmt: skip

    @property
    def writable(self) -> bool:
        """Whether changes are taken: always, unless they are made in a file that cannot be written."""
        if not self.in_file:
            return True
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
