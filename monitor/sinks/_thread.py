"""Work that blocks, in a thread of its own: the event loop goes on, and a call that hangs holds up nobody else."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


async def in_thread(work: Callable[[], T], *, timeout_s: float) -> T:
    """Run `work` in a new daemon thread and wait for it.

    A pool would not do: its threads are joined at exit and shared, so a server that answers one byte a minute would
    keep the process from ending and other sinks from sending. After `timeout_s` the thread is left to its own end.

    Raises:
        TimeoutError: it was not done in time.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def finish(result: T | None, error: BaseException | None) -> None:
        if future.done():
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)  # type: ignore[arg-type]

    def run() -> None:
        result, failure = None, None
        try:
            result = work()
        except BaseException as error:
            failure = error
        try:
            loop.call_soon_threadsafe(finish, result, failure)
        except RuntimeError:
            return  # the loop is closed: nobody waits any more

    threading.Thread(target=run, daemon=True, name="sink").start()
    async with asyncio.timeout(timeout_s):
        return await future
