"""E-mail: plain text and HTML by SMTP, one thread of mails for each incident."""

from __future__ import annotations

import hashlib
import smtplib
import ssl
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from email.message import EmailMessage
from email.utils import format_datetime
from time import time

import structlog

from monitor.records import Alert, Severity
from monitor.settings import secret
from monitor.sinks._thread import in_thread
from monitor.sinks.base import Delivered, Digest, Outcome, Rejected, Retry
from monitor.sinks.settings import EmailSettings
from monitor.sinks.text import Limit, Message, Writer

log = structlog.get_logger("monitor.mail")

LIMIT = Limit(100_000, title=180)

STEPS = 6
"""Exchanges of one delivery (connect, EHLO, TLS, login, envelope, data): each may take the sink's `timeout_s`."""


class EmailSink:
    """Sends by one mail server.

    Args:
        settings: The server, the addresses, the language.
        clock: The time of sending: Unix seconds.
    """

    def __init__(self, settings: EmailSettings, clock: Callable[[], float] = time) -> None:
        self.name = settings.name
        self._settings = settings
        self._clock = clock
        self._writer = Writer(settings)
        self._domain = settings.sender.rpartition("@")[2]

    async def deliver(self, alert: Alert, *, key: str, again: Sequence[Severity] = ()) -> Outcome:
        """One mail; those of one incident are one thread."""
        message = self._writer.alert(alert, limit=LIMIT, reminder=bool(again))
        return await self._send(message, key, thread=alert.incident, labels={"Severity": alert.severity})

    async def deliver_digest(self, digest: Digest) -> Outcome:
        """One mail."""
        return await self._send(self._writer.digest(digest, limit=LIMIT), digest.key, thread="", labels={})

    async def close(self) -> None:
        """Connections live for one mail only."""

    async def _send(self, message: Message, key: str, *, thread: str, labels: Mapping[str, str]) -> Outcome:
        mail = self._mail(message, key, thread, labels)
        try:
            password = secret(self._settings.password, self._settings.password_file)
            limit_s = STEPS * self._settings.timeout_s
            refused = await in_thread(lambda: self._submit(mail, password), timeout_s=limit_s)
        except Exception as error:
            return judge(error)
        for recipient, (code, text) in refused.items():
            log.warning("mail.recipient_refused", sink=self.name, recipient=recipient, code=code, reason=_plain(text))
        return Delivered()

    def _mail(self, message: Message, key: str, thread: str, labels: Mapping[str, str]) -> EmailMessage:
        mail = EmailMessage()
        mail["From"], mail["To"] = self._settings.sender, ", ".join(self._settings.recipients)
        mail["Subject"] = " ".join(message.title.split())
        mail["Date"] = format_datetime(datetime.fromtimestamp(self._clock(), UTC))
        # The same alert has the same id, whenever it is sent: servers and readers drop the second.
        mail["Message-ID"] = self._identity(key)
        if thread:
            mail["References"] = mail["In-Reply-To"] = self._identity(f"incident {thread}")
        # RFC 3834: no holiday reply, please.
        mail["Auto-Submitted"] = "auto-generated"
        mail["Content-Language"] = self._settings.language
        for name, value in labels.items():
            mail[f"X-Babelwatch-{name}"] = value
        mail.set_content(message.body + "\n", cte="base64")
        if message.html:
            mail.add_alternative(message.html, subtype="html", cte="base64")
        return mail

    def _identity(self, key: str) -> str:
        return f"<{hashlib.blake2b(key.encode(), digest_size=16).hexdigest()}@{self._domain}>"

    def _submit(self, mail: EmailMessage, password: str) -> dict[str, tuple[int, bytes]]:
        """One session with the server, in a thread; returns the recipients it refused."""
        settings = self._settings
        context = ssl.create_default_context(cafile=settings.ca_file) if settings.security != "none" else None
        if settings.security == "tls":
            server: smtplib.SMTP = smtplib.SMTP_SSL(
                settings.host, settings.port, timeout=settings.timeout_s, context=context
            )
        else:
            server = smtplib.SMTP(settings.host, settings.port, timeout=settings.timeout_s)
        with server:
            if settings.security == "starttls":
                server.starttls(context=context)
            if settings.username:
                server.login(settings.username, password)
            return server.send_message(mail)


def judge(error: Exception) -> Outcome:
    """What a failure means for the alert: 4xx is "later" in SMTP, 5xx "never" (RFC 5321, 4.2.1).

    A login that fails is about the password and not about the alert, and is tried again until somebody mends it.
    """
    if isinstance(error, smtplib.SMTPAuthenticationError):
        return Retry(f"the server refuses the login: {error.smtp_code} {_plain(error.smtp_error)}")
    if isinstance(error, smtplib.SMTPRecipientsRefused):
        code, text = max(error.recipients.values())
        reason = f"all recipients refused: {code} {_plain(text)}"
        # One that may be taken later is reason enough to try again.
        return Rejected(reason) if min(code for code, _ in error.recipients.values()) >= 500 else Retry(reason)
    if isinstance(error, smtplib.SMTPResponseException):
        reason = f"SMTP {error.smtp_code}: {_plain(error.smtp_error)}"
        return Rejected(reason) if error.smtp_code >= 500 else Retry(reason)
    if isinstance(error, smtplib.SMTPNotSupportedError):
        return Rejected(f"the server does not offer what is needed: {error}")
    if isinstance(error, TimeoutError):
        return Retry("no answer in time")
    if isinstance(error, smtplib.SMTPException | OSError):
        return Retry(f"{type(error).__name__}: {error}")
    raise error


def _plain(text: bytes | str) -> str:
    shown = text.decode("utf-8", "replace") if isinstance(text, bytes) else text
    return " ".join(shown.split())[:200]
