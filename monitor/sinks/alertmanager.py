"""Prometheus Alertmanager (API v2): an incident is one alert there, from its first message to its end.

Alertmanager knows an alert by its labels, so only what never changes during an incident is a label: severity and
languages grow, and travel as annotations. An alert for routing by severity is therefore sent under each severity the
incident has reached: the one that began as a warning goes on as such, and a second one says critical.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

from monitor.records import Alert, Severity
from monitor.settings import secret
from monitor.sinks._http import Poster
from monitor.sinks.base import Delivered, Outcome, Rejected, Retry, incident_link
from monitor.sinks.settings import AlertmanagerSettings

REACHED: dict[Severity, tuple[Severity, ...]] = {
    "info": ("info",),
    "warning": ("warning",),
    "critical": ("warning", "critical"),
}
"""Alerts to be ended when an incident of this severity ends; ending one that never began is no event to Alertmanager."""


class AlertmanagerSink:
    """Posts to every member of a cluster, as Prometheus does.

    Args:
        settings: The members.
        clock: Unix seconds. Alertmanager lives in wall-clock time: an incident of a replayed year starts there when it is
            told, and the time it really began is in the annotations.
    """

    def __init__(self, settings: AlertmanagerSettings, clock: Callable[[], float] = time.time) -> None:
        self.name = settings.name
        self._settings = settings
        self._clock = clock
        self._poster = Poster(settings.timeout_s)

    async def deliver(self, alert: Alert, *, key: str, again: Sequence[Severity] = ()) -> Outcome:
        """Post to all members; delivered when one has it, since they tell each other."""
        headers = {"Content-Type": "application/json", "Idempotency-Key": key}
        alert = msgspec.structs.replace(alert, labels={**alert.labels, **self._settings.extra_labels})
        try:
            token = secret(self._settings.token, self._settings.token_file)
        except OSError as error:
            return Retry(f"the token cannot be read: {error.strerror}")
        if token:
            headers["Authorization"] = f"Bearer {token}"
        body = msgspec.json.encode(
            payload(alert, self._clock(), self._settings.hold_s, self._settings.status_url, again)
        )
        outcomes = await asyncio.gather(
            *(self._poster.post(f"{str(url).rstrip('/')}/api/v2/alerts", body, headers) for url in self._settings.urls)
        )
        return _best(outcomes)

    async def close(self) -> None:
        """Close the session."""
        await self._poster.close()


def payload(
    alert: Alert, now_s: float, hold_s: float, status_url: str, again: Sequence[Severity] = ()
) -> list[dict[str, Any]]:
    """The body of the request: one alert for each severity that is to be begun, kept alive or ended."""
    ended = alert.state == "resolved"
    severities = REACHED[alert.severity] if ended else again or (alert.severity,)
    return [
        {
            "labels": {
                **{name: value for name, value in alert.labels.items() if name not in _OWN},
                "alertname": "BabelwatchSentiment",
                "entity": alert.entity,
                "incident": alert.incident,
                "signal": alert.signal,
                "severity": severity,
            },
            "annotations": {
                "summary": alert.summary,
                "description": alert.description,
                "languages": ", ".join(alert.languages),
                "state": alert.state,
                "onset": _rfc3339(alert.onset_ms / 1000),
            },
            "startsAt": _rfc3339(min(alert.onset_ms / 1000, now_s)),
            "endsAt": _rfc3339(now_s if ended else now_s + hold_s),
            **({"generatorURL": incident_link(status_url, alert.incident)} if status_url else {}),
        }
        for severity in severities
    ]


_OWN = frozenset(("alertname", "entity", "incident", "signal", "severity"))


def _best(outcomes: Sequence[Outcome]) -> Outcome:
    """Delivered if anywhere; a retry rather than a refusal, since a member may be of an older version."""
    for kind in (Delivered, Retry, Rejected):
        for outcome in outcomes:
            if isinstance(outcome, kind):
                return outcome
    return Rejected("no address")


def _rfc3339(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
