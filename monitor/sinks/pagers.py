"""PagerDuty and Opsgenie by their own APIs: an incident is one alert there, under its id, and ends when it ends here.

Apprise speaks to both, and cannot do this: its PagerDuty key is fixed or a hash of the text, and it finds an Opsgenie
alert again only by what it keeps in memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

import msgspec

from monitor.records import Alert, Severity
from monitor.settings import secret
from monitor.sinks._http import Poster
from monitor.sinks.base import Delivered, Outcome, Retry, incident_link
from monitor.sinks.settings import OpsgenieSettings, PagerDutySettings
from monitor.sinks.text import shorten

PAGERDUTY_SUMMARY = 1024
OPSGENIE_MESSAGE, OPSGENIE_DESCRIPTION = 130, 15_000
"""The services' own limits, in characters."""

PRIORITY: dict[Severity, str] = {"critical": "P1", "warning": "P3", "info": "P5"}


class PagerDutySink:
    """Sends events to one service's integration (Events API v2)."""

    def __init__(self, settings: PagerDutySettings) -> None:
        self.name = settings.name
        self._settings = settings
        self._poster = Poster(settings.timeout_s)

    async def deliver(self, alert: Alert, *, key: str, again: Sequence[Severity] = ()) -> Outcome:
        """Trigger under the incident's id, or resolve what was triggered under it."""
        try:
            routing_key = secret(self._settings.routing_key, self._settings.routing_key_file)
        except OSError as error:
            return Retry(f"the integration key cannot be read: {error.strerror}")
        body = msgspec.json.encode(
            pagerduty_event(alert, routing_key, incident_link(self._settings.status_url, alert.incident))
        )
        headers = {"Content-Type": "application/json", "Idempotency-Key": key}
        return await self._poster.post(str(self._settings.url), body, headers)

    async def close(self) -> None:
        """Close the session."""
        await self._poster.close()


def pagerduty_event(alert: Alert, routing_key: str, link: str) -> dict[str, Any]:
    """The body of an event."""
    if alert.state == "resolved":
        return {"routing_key": routing_key, "event_action": "resolve", "dedup_key": alert.incident}
    return {
        "routing_key": routing_key,
        "event_action": "trigger",
        "dedup_key": alert.incident,
        "client": "Babelwatch",
        "payload": {
            "summary": shorten(alert.summary, PAGERDUTY_SUMMARY),
            "source": alert.entity_name,
            "severity": alert.severity,
            "timestamp": datetime.fromtimestamp(alert.onset_ms / 1000, UTC).isoformat(),
            "component": alert.entity,
            "class": alert.signal,
            "custom_details": _details(alert),
        },
        **({"client_url": link, "links": [{"href": link, "text": alert.incident}]} if link else {}),
    }


class OpsgenieSink:
    """Creates, raises and closes alerts (Alert API v2)."""

    def __init__(self, settings: OpsgenieSettings) -> None:
        self.name = settings.name
        self._settings = settings
        self._poster = Poster(settings.timeout_s)

    async def deliver(self, alert: Alert, *, key: str, again: Sequence[Severity] = ()) -> Outcome:
        """Create under the incident's id as alias (an open alert of the alias counts up), or close it.

        Creating does not change an open alert, so a further step also sets its priority. The service takes requests
        in turn and later: an answer means that it has the request.
        """
        try:
            api_key = secret(self._settings.api_key, self._settings.api_key_file)
        except OSError as error:
            return Retry(f"the API key cannot be read: {error.strerror}")
        headers = {"Content-Type": "application/json", "Authorization": f"GenieKey {api_key}", "Idempotency-Key": key}
        base = f"{str(self._settings.url).rstrip('/')}/v2/alerts"
        of_alias = f"{base}/{quote(alert.incident, safe='')}/{{}}?identifierType=alias"
        if alert.state == "resolved":
            closing = msgspec.json.encode({"source": "Babelwatch", "note": shorten(alert.summary, 1000)})
            return await self._poster.post(of_alias.format("close"), closing, headers)
        made = opsgenie_alert(
            alert, self._settings.responders, incident_link(self._settings.status_url, alert.incident)
        )
        outcome = await self._poster.post(base, msgspec.json.encode(made), headers)
        if isinstance(outcome, Delivered) and alert.state != "firing":
            raised = msgspec.json.encode({"priority": PRIORITY[alert.severity]})
            outcome = await self._poster.post(of_alias.format("priority"), raised, headers, method="PUT")
        return outcome

    async def close(self) -> None:
        """Close the session."""
        await self._poster.close()


def opsgenie_alert(alert: Alert, responders: tuple[str, ...], link: str) -> dict[str, Any]:
    """The body of a request to create an alert."""
    description = f"{alert.description}\n\n{link}" if link else alert.description
    return {
        "message": shorten(alert.summary, OPSGENIE_MESSAGE),
        "alias": alert.incident,
        "description": shorten(description, OPSGENIE_DESCRIPTION, keep=link),
        "entity": alert.entity_name,
        "source": "Babelwatch",
        "priority": PRIORITY[alert.severity],
        "tags": [alert.signal, alert.severity, *alert.languages],
        "details": {name: str(value) for name, value in _details(alert).items()},
        **({"responders": [{"type": "team", "name": name} for name in responders]} if responders else {}),
    }


def _details(alert: Alert) -> dict[str, Any]:
    shown = alert.evidence
    return {
        **alert.labels,
        "languages": ", ".join(alert.languages),
        "observed": shown.observed,
        "expected": shown.expected,
        "unit": shown.unit,
        "documents": shown.documents,
        "terms": ", ".join(shown.terms),
        "description": shorten(alert.description, 4000),
    }
