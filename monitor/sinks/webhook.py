"""A webhook: each alert as a signed CloudEvents 1.0 event in structured mode."""

from __future__ import annotations

import hashlib
import hmac
import time
from collections.abc import Callable, Sequence

from monitor.records import Alert, Severity, cloud_event, encode
from monitor.settings import secret
from monitor.sinks._http import Poster
from monitor.sinks.base import Outcome, Retry
from monitor.sinks.settings import WebhookSettings

SIGNATURE, TIMESTAMP = "X-Babelwatch-Signature", "X-Babelwatch-Timestamp"


def sign(key: str, timestamp: str, body: bytes) -> str:
    """`sha256=` and the HMAC-SHA256 of `<timestamp>.<body>` in hex: the time is signed too, so that an old request
    cannot be sent again as a new one.

    >>> sign("k", "1", b"{}")[:15]
    'sha256=3dd49b25'
    """
    return "sha256=" + hmac.new(key.encode(), timestamp.encode() + b"." + body, hashlib.sha256).hexdigest()


class WebhookSink:
    """Posts to one address.

    Args:
        settings: Where to, and how it is signed.
        clock: The time of the request (not of the event): Unix seconds.
    """

    def __init__(self, settings: WebhookSettings, clock: Callable[[], float] = time.time) -> None:
        self.name = settings.name
        self._settings = settings
        self._clock = clock
        self._poster = Poster(settings.timeout_s)

    async def deliver(self, alert: Alert, *, key: str, again: Sequence[Severity] = ()) -> Outcome:
        """One POST; see `Sink.deliver`."""
        body = encode(cloud_event(alert))
        headers = {
            **self._settings.headers,
            "Content-Type": "application/cloudevents+json; charset=utf-8",
            "Idempotency-Key": key,
        }
        try:
            signing = secret(self._settings.secret, self._settings.secret_file)
        except OSError as error:
            return Retry(f"the signing key cannot be read: {error.strerror}")
        if signing:
            headers[TIMESTAMP] = str(int(self._clock()))
            headers[SIGNATURE] = sign(signing, headers[TIMESTAMP], body)
        return await self._poster.post(str(self._settings.url), body, headers)

    async def close(self) -> None:
        """Close the session."""
        await self._poster.close()
