"""Where alerts go."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from importlib import import_module
from typing import TYPE_CHECKING

from monitor.errors import ConfigError
from monitor.sinks.settings import SinkSettings

if TYPE_CHECKING:
    from monitor.sinks.base import Sink


_MADE_BY = {
    "alertmanager": "alertmanager.AlertmanagerSink",
    "webhook": "webhook.WebhookSink",
    "apprise": "chat.AppriseSink",
    "email": "mail.EmailSink",
    "pagerduty": "pagers.PagerDutySink",
    "opsgenie": "pagers.OpsgenieSink",
    "stdout": "stdout.StdoutSink",
}


def make_sink(settings: SinkSettings) -> Sink:
    """The sink that its settings describe; what a type needs is loaded when the first of it is made.

    Raises:
        ConfigError: its template or its address cannot be used.
    """
    module, _, name = _MADE_BY[settings.type].partition(".")
    made: Sink = getattr(import_module(f"monitor.sinks.{module}"), name)(settings)
    return made


def problems(sinks: Sequence[SinkSettings]) -> list[str]:
    """Everything that can be found wrong with sinks without sending: names used twice, templates, addresses."""
    found = [f"sinks: the name {name!r} is used twice" for name, n in Counter(s.name for s in sinks).items() if n > 1]
    for settings in sinks:
        try:
            make_sink(settings)
        except ConfigError as error:
            found.append(f"sinks.{settings.name}: {error}")
    return found


__all__ = ["make_sink", "problems"]
