"""E-mail against a real SMTP server: what arrives, how it is threaded, and what each refusal means."""

from __future__ import annotations

import asyncio
import email
import email.policy
import ssl
import subprocess
from collections.abc import Iterator
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult, Envelope

from monitor.sinks.base import Delivered, Digest, Rejected, Retry
from monitor.sinks.mail import EmailSink
from monitor.sinks.samples import samples
from monitor.sinks.settings import EmailSettings
from tests.support.daemon import tool
from tests.support.servers import free_port

FIRING, ESCALATED, RESOLVED = samples()


class Post:
    """A mail server's handler: keeps what it takes, refuses what it is told to."""

    def __init__(self) -> None:
        self.mails: list[EmailMessage] = []
        self.to: list[list[str]] = []
        self.answer = "250 OK"
        self.refuse: dict[str, str] = {}

    async def handle_RCPT(self, _: Any, __: Any, envelope: Envelope, address: str, ___: Any) -> str:  # noqa: N802
        if address in self.refuse:
            return self.refuse[address]
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, _: Any, __: Any, envelope: Envelope) -> str:  # noqa: N802
        if self.answer.startswith("2"):
            assert isinstance(envelope.content, bytes)
            found = email.message_from_bytes(envelope.content, policy=email.policy.default)
            assert isinstance(found, EmailMessage)
            self.mails.append(found)
            self.to.append(list(envelope.rcpt_tos))
        return self.answer


@pytest.fixture
def post() -> Iterator[tuple[Post, int]]:
    handler = Post()
    controller = Controller(handler, hostname="127.0.0.1", port=free_port())
    controller.start()
    yield handler, controller.port
    controller.stop()


def sink(port: int, **more: Any) -> EmailSink:
    given = {"security": "none", "timeout_s": 5, **more}
    settings = EmailSettings(
        name="mail",
        host="127.0.0.1",
        port=port,
        sender="watch@acme.example",
        recipients=("a@x.example", "b@x.example"),
        **given,
    )
    return EmailSink(settings, clock=lambda: 1_790_000_000.0)


async def test_mails_of_one_incident_are_one_thread_and_a_repeat_has_the_same_id(post: tuple[Post, int]) -> None:
    handler, port = post
    made = sink(port, language="ar", status_url="https://s.example")
    for alert in (FIRING, FIRING, RESOLVED):
        assert await made.deliver(alert, key=alert.id) == Delivered()
    first, again, last = handler.mails
    assert handler.to[0] == ["a@x.example", "b@x.example"]
    assert first["Message-ID"] == again["Message-ID"] != last["Message-ID"]
    assert first["References"] == last["References"]
    assert first["Auto-Submitted"] == "auto-generated"
    assert "62%" in first["Subject"]
    text, html = first.get_body(("plain",)), first.get_body(("html",))
    assert text is not None
    assert html is not None
    assert FIRING.evidence.posts[2].text in text.get_content()
    assert 'dir="rtl"' in html.get_content()
    assert "https://s.example/#/incident/babelwatch-test" in text.get_content()


async def test_a_digest_is_one_mail(post: tuple[Post, int]) -> None:
    handler, port = post
    assert await sink(port).deliver_digest(Digest("burst", (FIRING, RESOLVED), "digest-1")) == Delivered()
    assert handler.mails[0]["Subject"] == "🟠 Incidents: 2"
    assert handler.mails[0]["References"] is None


@pytest.mark.parametrize(
    ("answer", "outcome"), [("451 later", Retry), ("554 spam", Rejected), ("552 too big", Rejected)]
)
async def test_what_the_server_says_of_the_mail(post: tuple[Post, int], answer: str, outcome: type) -> None:
    handler, port = post
    handler.answer = answer
    found = await sink(port).deliver(FIRING, key="k")
    assert isinstance(found, outcome)
    assert answer.split()[1] in found.reason


async def test_recipients_refused(post: tuple[Post, int]) -> None:
    handler, port = post
    handler.refuse = {"a@x.example": "550 no such user"}
    assert await sink(port).deliver(FIRING, key="k") == Delivered()
    assert handler.to == [["b@x.example"]]
    handler.refuse["b@x.example"] = "450 mailbox busy"
    assert isinstance(await sink(port).deliver(FIRING, key="k"), Retry)
    handler.refuse["b@x.example"] = "550 no such user"
    assert isinstance(await sink(port).deliver(FIRING, key="k"), Rejected)


async def test_nobody_there_and_nobody_answering_are_tried_again_and_the_loop_goes_on() -> None:
    assert isinstance(await sink(free_port()).deliver(FIRING, key="k"), Retry)
    silent = await asyncio.start_server(lambda _, __: asyncio.sleep(60), "127.0.0.1", 0)
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0.01)
            turns += 1

    counting = asyncio.create_task(count())
    found = await sink(silent.sockets[0].getsockname()[1], timeout_s=0.3).deliver(FIRING, key="k")
    counting.cancel()
    silent.close()
    assert isinstance(found, Retry)
    assert turns >= 5


async def test_tls_and_login(tmp_path: Path) -> None:
    make = [tool("openssl"), "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    make += ["-days", "2", "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run([*make, "-keyout", tmp_path / "k.pem", "-out", tmp_path / "c.pem"], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "c.pem", tmp_path / "k.pem")
    handler = Post()

    def login(_: Any, __: Any, ___: Any, ____: str, data: Any) -> AuthResult:
        return AuthResult(success=data.password == b"s3cret", handled=False)

    controller = Controller(
        handler, hostname="127.0.0.1", port=free_port(), tls_context=context, require_starttls=True,
        auth_required=True, authenticator=login,
    )  # fmt: skip
    controller.start()
    try:
        (tmp_path / "pw").write_text("wrong\n")
        given = {
            "security": "starttls",
            "ca_file": tmp_path / "c.pem",
            "username": "u",
            "password_file": tmp_path / "pw",
        }
        made = sink(controller.port, **given)
        refused = await made.deliver(FIRING, key="k")
        assert isinstance(refused, Retry)
        assert "wrong" not in refused.reason
        (tmp_path / "pw").write_text("s3cret\n")
        assert await made.deliver(FIRING, key="k") == Delivered()
        untrusted = await sink(controller.port, security="starttls").deliver(FIRING, key="k")
        assert isinstance(untrusted, Retry)
        assert "CERTIFICATE" in untrusted.reason.upper()
    finally:
        controller.stop()
    assert len(handler.mails) == 1
