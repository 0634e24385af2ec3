"""One HTTP attempt and what its answer means; shared by the sinks that speak HTTP."""

from __future__ import annotations

from collections.abc import Mapping

import aiohttp

from monitor.sinks.base import Delivered, Outcome, Rejected, Retry

TRY_AGAIN = frozenset((408, 425, 429))
"""Client errors that say "later", not "never"."""


class Poster:
    """Posts with one session, made at the first use (a session belongs to the running loop)."""

    def __init__(self, timeout_s: float) -> None:
        self._timeout = aiohttp.ClientTimeout(total=timeout_s)
        self._session: aiohttp.ClientSession | None = None

    async def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> Outcome:
        """POST once. Redirects are not followed: a signed alert goes where it was addressed, or nowhere."""
        if self._session is None:
            self._session = aiohttp.ClientSession(timeout=self._timeout)
        try:
            async with self._session.post(url, data=body, headers=headers, allow_redirects=False) as response:
                text = (await response.content.read(300)).decode("utf-8", "replace").strip()
                return judge(response.status, text, response.headers.get("Retry-After"))
        except (aiohttp.ClientError, OSError) as error:
            return Retry(f"{type(error).__name__}: {error}")
        except TimeoutError:
            return Retry(f"no answer within {self._timeout.total:.0f} s")

    async def close(self) -> None:
        """Close the session."""
        if self._session is not None:
            await self._session.close()


def judge(status: int, text: str, retry_after: str | None) -> Outcome:
    """What an HTTP status means for an alert.

    >>> judge(204, "", None), judge(503, "busy", "7"), judge(422, "no", None)
    (Delivered(), Retry(reason='HTTP 503: busy', after_s=7.0), Rejected(reason='HTTP 422: no'))
    """
    if 200 <= status < 300:
        return Delivered()
    reason = f"HTTP {status}: {text[:200]}" if text else f"HTTP {status}"
    if status >= 500 or status in TRY_AGAIN:
        seconds = float(retry_after) if retry_after and retry_after.isdigit() else None
        return Retry(reason, seconds)
    return Rejected(reason)
