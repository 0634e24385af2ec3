"""The internet as the chats' plugins see it: a proxy that answers for every host by TLS, with a certificate of its own."""

from __future__ import annotations

import asyncio
import json
import ssl
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest


@dataclass(frozen=True)
class Request:
    """What a service got."""

    host: str
    path: str
    body: Any
    """The JSON."""


Answer = tuple[int, str] | tuple[int, str, dict[str, str]]


@dataclass
class Internet:
    """What was asked of whom, and what each host answers: status, body, headers."""

    asked: list[Request] = field(default_factory=list)
    answer: Callable[[Request], Answer] = lambda _: (200, "ok")


def certificate(folder: Path, openssl: str, hosts: tuple[str, ...]) -> tuple[Path, Path]:
    """A self-signed certificate for these hosts, and its key."""
    names = ",".join(f"DNS:{host}" for host in hosts)
    command = [openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-days", "2", "-subj", "/CN=test", "-addext", f"subjectAltName={names}"]
    made = folder / "cert.pem", folder / "key.pem"
    subprocess.run([*command, "-out", made[0], "-keyout", made[1]], check=True, capture_output=True)
    return made


@asynccontextmanager
async def internet(
    folder: Path, openssl: str, hosts: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Internet]:
    """Everything that `requests` sends to these hosts while this is entered comes here instead."""
    cert, key = certificate(folder, openssl, hosts)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    net = Internet()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            connect = (await reader.readuntil(b"\r\n\r\n")).decode()
            host = connect.split()[1].partition(":")[0]
            writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            await writer.drain()
            await writer.start_tls(context)
            head, _, rest = (await reader.readuntil(b"\r\n\r\n")).decode().partition("\r\n")
            fields = dict(line.lower().split(": ", 1) for line in rest.strip().splitlines())
            body = await reader.readexactly(int(fields.get("content-length", 0)))
            request = Request(host, head.split()[1], json.loads(body) if body else None)
            net.asked.append(request)
            status, text, *more = net.answer(request)
            headers = "".join(f"{name}: {value}\r\n" for name, value in (more[0] if more else {}).items())  # type: ignore[union-attr]
            writer.write(
                f"HTTP/1.1 {status} X\r\nContent-Length: {len(text.encode())}\r\nConnection: close\r\n{headers}\r\n{text}".encode()
            )
            await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{port}")
    monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{port}")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(cert))
    try:
        yield net
    finally:
        server.close()
