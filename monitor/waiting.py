"""Waiting for something to be said, so long at most."""

from __future__ import annotations

import asyncio


async def told_within(event: asyncio.Event, seconds: float) -> bool:
    """Wait until the event is set, so long at most; whether it was.

    Not by `asyncio.wait_for`: in Python 3.11 that keeps a cancellation for itself which comes with the event (gh-86296), and
    a task that was to end would live on.
    """
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return False
    return True
