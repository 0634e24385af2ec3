"""One HTTP attempt and what its answer means; shared by the sinks that speak HTTP."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime

import aiohttp

from monitor.sinks.base import Delivered, Outcome, Rejected, Retry

TRY_AGAIN = frozenset((408, 425, 429))
"""Client errors that say "later", not "never"."""


class Poster:
    """Posts with one session, made at the first use (a session belongs to the running loop)."""

    def __init__(self, timeout_s: float) -> None:
        self._timeout = aiohttp.ClientTimeout(total=timeout_s)
        self._session: aiohttp.ClientSession | None = None

    async def post(self, url: str, body: bytes, headers: Mapping[str, str], *, method: str = "POST") -> Outcome:
        """Send once. Redirects are not followed: a signed alert goes where it was addressed, or nowhere.

        A proxy is taken from the environment (`HTTPS_PROXY`, `NO_PROXY`), as is usual behind a firewall.
        """
        if self._session is None:
            self._session = aiohttp.ClientSession(timeout=self._timeout, trust_env=True)
        sending = self._session.request(method, url, data=body, headers=headers, allow_redirects=False)
        try:
            async with sending as response:
                text = (await response.content.read(300)).decode("utf-8", "replace").strip()
                return judge(response.status, text, response.headers.get("Retry-After"))
        except TimeoutError:
            return Retry(f"no answer within {self._timeout.total:g} s")
        except (aiohttp.ClientError, OSError) as error:
            return Retry(f"{type(error).__name__}: {error}")

    async def close(self) -> None:
        """Close the session."""
        if self._session is not None:
            await self._session.close()


def judge(status: int, text: str, retry_after: str | None, now_s: float | None = None) -> Outcome:
    """What an HTTP status means for an alert.

    >>> judge(204, "", None), judge(503, "busy", "7"), judge(422, "no", None)
    (Delivered(), Retry(reason='HTTP 503: busy', after_s=7.0), Rejected(reason='HTTP 422: no'))
    """
    if 200 <= status < 300:
        return Delivered()
    reason = f"HTTP {status}: {text[:200]}" if text else f"HTTP {status}"
    if status >= 500 or status in TRY_AGAIN:
        return Retry(reason, pause_s(retry_after, time.time() if now_s is None else now_s))
    return Rejected(reason)


def pause_s(retry_after: str | None, now_s: float) -> float | None:
    """Seconds that a `Retry-After` asks for: a number, or a date (RFC 9110, 10.2.3); None when it says nothing.

    >>> pause_s("7", 0), pause_s("Thu, 01 Jan 1970 00:02:00 GMT", 90), pause_s("soon", 0)
    (7.0, 30.0, None)
    """
    try:
        seconds = float(retry_after or "nan")
    except ValueError:
        try:
            seconds = parsedate_to_datetime(retry_after or "").timestamp() - now_s
        except ValueError:
            return None
    return seconds if math.isfinite(seconds) and seconds >= 0 else None
