"""Finding the texts that no process survives: each is classified alone, in a child process that may die of it.

A fault inside native code (a segmentation fault, the kernel's out-of-memory killer) leaves no exception to catch: the process
is gone, the same documents are read again at the next start, and it is gone again. Whoever has seen that happen asks here.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections.abc import Sequence

import structlog

from monitor.errors import BabelwatchError
from monitor.inference.bundle import Bundle
from monitor.inference.engine import Engine, InferenceError
from monitor.inference.settings import InferenceSettings

log = structlog.get_logger("monitor.probe")

LOAD_TIMEOUT_S = 120.0
"""Until the child has its model; a large one from a cold disk takes a minute."""

TEXT_TIMEOUT_S = 60.0
"""One text alone takes milliseconds; what takes this long hangs, which is as bad."""

READY = b"ready\n"


async def deadly(settings: InferenceSettings, texts: Sequence[str]) -> set[int]:
    """Places of the texts that end, or hang, a process that classifies them.

    Costs one start of a child process (some seconds), and one more for each such text.

    Raises:
        BabelwatchError: a child does not even load the model; that is no text's fault.
    """
    found: set[int] = set()
    start = 0
    while start < len(texts):
        survived = await _survivors(settings, texts[start:])
        start += survived
        if start < len(texts):
            log.error("text.deadly", place=start, chars=len(texts[start]))
            found.add(start)
            start += 1
    return found


async def _survivors(settings: InferenceSettings, texts: Sequence[str]) -> int:
    """How many texts, from the first on, a fresh child survives."""
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "monitor.inference.probe", settings.model_dump_json(),
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    assert child.stdin is not None
    assert child.stdout is not None
    try:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LOAD_TIMEOUT_S):
                if await child.stdout.readline() == READY:
                    return await _feed(child.stdin, child.stdout, texts)
        raise BabelwatchError("a second process cannot load the model", where="inference", hint="is memory short?")
    finally:
        with contextlib.suppress(ProcessLookupError):
            child.kill()
        await child.wait()


async def _feed(stdin: asyncio.StreamWriter, stdout: asyncio.StreamReader, texts: Sequence[str]) -> int:
    for place, text in enumerate(texts):
        try:
            stdin.write(json.dumps(text).encode() + b"\n")
            async with asyncio.timeout(TEXT_TIMEOUT_S):
                await stdin.drain()
                if not await stdout.readline():
                    return place
        except (ConnectionError, TimeoutError):
            return place
    return len(texts)


def main() -> None:
    """The child: a line in for each text, a line out for each that it survived."""
    settings = InferenceSettings.model_validate_json(sys.argv[1])
    engine = Engine(Bundle.load(settings.bundle), settings)
    engine.warm_up()
    sys.stdout.buffer.write(READY)
    sys.stdout.buffer.flush()
    for line in sys.stdin.buffer:
        with contextlib.suppress(InferenceError):
            ids = engine.encode([json.loads(line)])
            engine.infer(ids, engine.grid.length_for(len(ids[0])))
        sys.stdout.buffer.write(b".\n")
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
