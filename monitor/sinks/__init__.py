"""Where alerts go."""

from monitor.sinks.alertmanager import AlertmanagerSink
from monitor.sinks.base import AlertmanagerSettings, Sink, SinkSettings, WebhookSettings
from monitor.sinks.stdout import StdoutSink
from monitor.sinks.webhook import WebhookSink


def make_sink(settings: SinkSettings) -> Sink:
    """The sink that its settings describe."""
    if isinstance(settings, AlertmanagerSettings):
        return AlertmanagerSink(settings)
    if isinstance(settings, WebhookSettings):
        return WebhookSink(settings)
    return StdoutSink(settings)


__all__ = ["make_sink"]
