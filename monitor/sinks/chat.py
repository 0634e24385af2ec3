"""Chats and everything else that Apprise speaks to: Slack, Teams, Telegram, Feishu, Lark, DingTalk, WeCom ...

Apprise knows the services' addresses and forms, blocks while it sends, and tells only whether it worked. So it runs in a
thread, and what the service really answered is kept on the way: a busy service is asked again, when it said, and one
that refuses is not. Two services (DingTalk, WeCom) refuse with HTTP 200 and an error code, which Apprise takes for
success; the kept answer tells them apart. What Apprise leaves out (the signature of Feishu's and Lark's robots) is added on
the same way.
"""

from __future__ import annotations

import base64
import dataclasses
import hmac
import importlib
import json
import logging
import re
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import apprise
import requests
from apprise.common import PersistentStoreMode

from monitor.errors import ConfigError
from monitor.records import Alert, Severity
from monitor.settings import secret
from monitor.sinks._http import judge
from monitor.sinks._thread import in_thread
from monitor.sinks.base import Delivered, Digest, Outcome, Rejected, Retry
from monitor.sinks.settings import AppriseSettings
from monitor.sinks.text import Limit, Message, Writer, escaped_bytes, utf8_bytes, utf16_units

LIMITS: dict[str, Limit] = {
    "slack": Limit(7_000, title=150),
    "workflow": Limit(5_000, title=200),
    "tgram": Limit(4_000, utf16_units),
    "feishu": Limit(18_000, utf8_bytes),
    "lark": Limit(18_000, utf8_bytes),
    "dingtalk": Limit(18_000, escaped_bytes),
    "wecombot": Limit(2_000, utf8_bytes),
}
"""Room for title and body, in what the service counts, below its documented limit by what the form around the text
takes; for Slack and Teams, below it by what anybody reads. Other services: as Apprise says, in characters."""

LATER: dict[str, set[int | str]] = {
    "tgram": {429},
    "slack": {"ratelimited", "rate_limited", "internal_error", "fatal_error", "service_unavailable", "request_timeout"},
    # 19021: the signature does not fit, which says nothing about the alert.
    "feishu": {11232, 11233, 11247, 19021, 99991400},
    "lark": {11232, 11233, 11247, 19021, 99991400},
    "dingtalk": {-1, 130101, 130102, 410100, 410101},
    "wecombot": {-1, 45009, 45011, 45033},
}
"""Error codes in an answer's body that mean "too often" or "busy"; every other one is a refusal."""

NATIVE = (
    (re.compile(r"https://oapi\.dingtalk\.com/robot/send\?access_token=([A-Za-z0-9]+)"), "dingtalk://{}/"),
    (re.compile(r"https://open\.feishu\.cn/open-apis/bot/v2/hook/([A-Za-z0-9_-]+)/?"), "feishu://{}/"),
)
"""Webhook addresses that Apprise does not take as they are."""

SIGNED = ("feishu", "lark")

SPECIAL = re.compile(r"([\\`*_\[\]~#|])")
"""What Markdown would make something of."""


class AppriseSink:
    """Sends to one Apprise URL.

    Args:
        settings: The URL, the language.

    Raises:
        ConfigError: the URL cannot be read or Apprise does not know it, or the template is broken.
    """

    def __init__(self, settings: AppriseSettings) -> None:
        self.name = settings.name
        self._settings = settings
        self._writer = Writer(settings)
        self._url = ""
        self._service: Any = None
        self._lock = threading.Lock()
        try:
            self._connect(secret(settings.url, settings.url_file))
            signing = secret(settings.sign_secret, settings.sign_secret_file)
        except OSError as error:
            raise ConfigError(f"the URL or the key cannot be read: {error}", where=f"sinks.{self.name}") from None
        if signing and self.schema not in SIGNED:
            raise ConfigError(
                "only robots of Feishu and Lark are signed this way", where=f"sinks.{self.name}.sign_secret",
                hint="DingTalk's key stands in its URL",
            )  # fmt: skip

    @property
    def schema(self) -> str:
        """The service, as Apprise's URLs begin."""
        schemas = self._service.secure_protocol or self._service.protocol
        return str(schemas if isinstance(schemas, str) else schemas[0])

    async def deliver(self, alert: Alert, *, key: str, again: Sequence[Severity] = ()) -> Outcome:
        """One message; see `Sink.deliver`. Chats have no idempotency keys: a repeat after a crash is seen twice."""
        kind = "success" if alert.state == "resolved" else {"critical": "failure"}.get(alert.severity, alert.severity)
        return await self._send(lambda limit: self._writer.alert(alert, limit=limit, reminder=bool(again)), kind)

    async def deliver_digest(self, digest: Digest) -> Outcome:
        """One message."""
        return await self._send(lambda limit: self._writer.digest(digest, limit=limit), "info")

    async def close(self) -> None:
        """Connections live for one message only."""

    # --- sending, in a thread -----------------------------------------------------------------------------------------

    async def _send(self, write: Callable[[Limit], Message], kind: str) -> Outcome:
        pause_s = max(0.0, float(self._service.request_rate_per_sec))
        try:
            # Connecting and reading each take at most the timeout; Apprise keeps a pause between two messages.
            return await in_thread(lambda: self._attempt(write, kind), timeout_s=3 * self._settings.timeout_s + pause_s)
        except TimeoutError:
            return Retry(f"no answer within {3 * self._settings.timeout_s:g} s")

    def _attempt(self, write: Callable[[Limit], Message], kind: str) -> Outcome:
        with self._lock:
            try:
                url = secret(self._settings.url, self._settings.url_file)
                signing = secret(self._settings.sign_secret, self._settings.sign_secret_file)
            except OSError as error:
                return Retry(f"the URL or the key cannot be read: {error.strerror}")
            if url != self._url:
                try:
                    self._connect(url)
                except ConfigError as error:
                    return Retry(str(error))
            limit = LIMITS.get(self.schema) or Limit(min(32_000, self._service.body_maxlen - 20))
            message = write(limit)
            markdown = self._service.notify_format == apprise.NotifyFormat.MARKDOWN
            sender = apprise.Apprise(asset=self._service.asset)
            sender.add(self._service)
            with _Answers(signing) as answers:
                taken = sender.notify(
                    title=message.title,
                    body=as_markdown(message.body) if markdown else message.body,
                    body_format=apprise.NotifyFormat.MARKDOWN if markdown else apprise.NotifyFormat.TEXT,
                    notify_type=kind,
                    log_level=logging.WARNING,
                )
            with taken:
                told = [entry.message for entry in taken.logs()]
            return hide(understand(self.schema, bool(taken), answers, told), url)

    def _connect(self, url: str) -> None:
        for pattern, form in NATIVE:
            if found := pattern.fullmatch(url):
                url_known = form.format(found[1])
                break
        else:
            url_known = url
        service = apprise.Apprise.instantiate(url_known, asset=_asset(), suppress_exceptions=True)
        if service is None:
            raise ConfigError(
                "Apprise does not know this URL, or something in it is missing",
                where=f"sinks.{self.name}.url",
                hint="docs/sinks.md has one for each service",
            )
        service.socket_connect_timeout = service.socket_read_timeout = self._settings.timeout_s
        service.include_image = False
        _keep_answers(type(service).__module__)
        self._service, self._url = service, url


def as_markdown(text: str) -> str:
    """Plain text as Markdown that shows the same: nothing is emphasised, lines stay lines, addresses are links.

    >>> as_markdown("1 * 2 [x]\\nhttp://a.b/#c_d")
    '1 \\\\* 2 \\\\[x\\\\]\\n\\n[http://a.b/\\\\#c\\\\_d](http://a.b/#c_d)'
    """
    lines = []
    for line in text.splitlines():
        shown = SPECIAL.sub(r"\\\1", line)
        address = line.strip("\u200f ")
        lines.append(f"[{shown}]({address})" if re.fullmatch(r"https?://[^\s()]+", address) else shown)
    return "\n\n".join(line for line in lines if line)


def understand(schema: str, taken: bool, answers: Sequence[requests.Response], told: Sequence[str]) -> Outcome:
    """What became of a message, from what Apprise says and what the service answered.

    Args:
        schema: The service.
        taken: Apprise's own verdict.
        answers: The service's answers, in order.
        told: Apprise's warnings: the reason when there was no answer at all.
    """
    for answer in reversed(answers):
        outcome = judge(answer.status_code, _short(answer), answer.headers.get("Retry-After") or _asked_pause(answer))
        if not isinstance(outcome, Delivered):
            return outcome
        if (code := _error_code(answer)) is not None:
            reason = f"{schema} answered {_short(answer)}"
            return Retry(reason) if code in LATER.get(schema, ()) else Rejected(reason)
    if taken:
        return Delivered()
    # No answer, or one that only Apprise understands: the network more often than not.
    return Retry(told[-1][:200] if told else "Apprise could not send it")


def hide(outcome: Outcome, url: str) -> Outcome:
    """The same without any part of the URL that may be a token: reasons are logged, and an exception tells addresses.

    >>> hide(Retry("no way to /hook/s3cr3t-token"), "lark://s3cr3t-token/")
    Retry(reason='no way to /hook/***', after_s=None)
    """
    if isinstance(outcome, Delivered):
        return outcome
    reason = outcome.reason
    for part in sorted(re.split(r"[/:@?&=#\s]+", url), key=len, reverse=True):
        if len(part) >= 6 and "." not in part and part not in LIMITS:
            reason = reason.replace(part, "***")
    return dataclasses.replace(outcome, reason=reason)


def signed(body: bytes, key: str, now_s: float) -> bytes:
    """A message to a robot of Feishu or Lark with their "signature verification": an HMAC of nothing, under time and key.

    >>> json.loads(signed(b'{"msg_type": "text"}', "k", 1_599_360_473.9))["timestamp"]
    '1599360473'
    """
    stamp = str(int(now_s))
    digest = hmac.digest(f"{stamp}\n{key}".encode(), b"", "sha256")
    made = {"timestamp": stamp, "sign": base64.b64encode(digest).decode(), **json.loads(body)}
    return json.dumps(made, ensure_ascii=False).encode()


def _error_code(answer: requests.Response) -> int | str | None:
    """The error in the body of an answer that was HTTP 200, by the services' several customs."""
    try:
        body = answer.json()
    except ValueError:
        return None
    if not isinstance(body, dict):
        return None
    if body.get("ok") is False:
        return str(body.get("error", "error"))
    for name in ("errcode", "code", "StatusCode"):
        if isinstance(body.get(name), int) and body[name] != 0:
            return int(body[name])
    return None


def _asked_pause(answer: requests.Response) -> str | None:
    """Telegram says in the body when to come again."""
    try:
        return str(answer.json()["parameters"]["retry_after"])
    except (ValueError, KeyError, TypeError):
        return None


def _short(answer: requests.Response) -> str:
    return " ".join(answer.text.split())[:200]


def _asset() -> apprise.AppriseAsset:
    """Our name, no pictures from elsewhere, nothing on the disk, no secrets in the log, and no thread but ours: answers
    are kept by thread."""
    return apprise.AppriseAsset(
        app_id="Babelwatch", app_desc="Babelwatch", app_url="", image_url_mask="", image_url_logo="",
        storage_mode=PersistentStoreMode.MEMORY, secure_logging=True, service_timeout=0,
    )  # fmt: skip


# --- the answers ------------------------------------------------------------------------------------------------------

_kept = threading.local()


class _Answers(list[requests.Response]):
    """Collects the answers that this thread gets while it is entered, and signs what it asks.

    Args:
        key: Of the signature; empty for none.
    """

    def __init__(self, key: str) -> None:
        super().__init__()
        self.key = key

    def __enter__(self) -> _Answers:
        _kept.answers = self
        return self

    def __exit__(self, *_: object) -> None:
        _kept.answers = None


class _KeepingRequests:
    """Stands where a plugin of Apprise expects the module `requests`, and keeps each answer on its way.

    Apprise has no other way to it: a plugin calls `requests.post` and gives back a boolean.
    """

    def __getattr__(self, name: str) -> Any:
        found = getattr(requests, name)
        if name not in ("get", "post", "put", "patch", "delete", "request"):
            return found

        def call(*args: Any, **kwargs: Any) -> requests.Response:
            answers: _Answers | None = getattr(_kept, "answers", None)
            if answers is not None and answers.key:
                kwargs["data"] = signed(kwargs["data"], answers.key, time.time())
            answer: requests.Response = found(*args, **kwargs)
            if answers is not None:
                answers.append(answer)
            return answer

        return call


def _keep_answers(module: str) -> None:
    plugin = sys.modules.get(module) or importlib.import_module(module)
    if getattr(plugin, "requests", None) is requests:
        plugin.requests = _KeepingRequests()  # type: ignore[attr-defined]
