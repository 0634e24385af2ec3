"""Standard output: an alert as text for people, or as its CloudEvent in one line."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TextIO

from monitor.records import Alert, Severity, cloud_event, encode
from monitor.sinks.base import Delivered, Digest, Outcome, Retry
from monitor.sinks.settings import StdoutSettings
from monitor.sinks.text import Message, Writer


class StdoutSink:
    """Writes to a stream."""

    def __init__(self, settings: StdoutSettings, stream: TextIO | None = None) -> None:
        self.name = settings.name
        self._settings = settings
        self._stream = stream
        self._writer = Writer(settings)

    async def deliver(self, alert: Alert, *, key: str, again: Sequence[Severity] = ()) -> Outcome:
        """Write and flush; see `Sink.deliver`."""
        if self._settings.format == "json":
            return self._print(encode(cloud_event(alert)).decode())
        return self._say(self._writer.alert(alert, reminder=bool(again)))

    async def deliver_digest(self, digest: Digest) -> Outcome:
        """Write and flush; as JSON, one line for each alert."""
        if self._settings.format == "json":
            return self._print("\n".join(encode(cloud_event(alert)).decode() for alert in digest.alerts))
        return self._say(self._writer.digest(digest))

    async def close(self) -> None:
        """Nothing to give back."""

    def _say(self, message: Message) -> Outcome:
        return self._print(f"{message.title}\n{message.body}\n")

    def _print(self, text: str) -> Outcome:
        try:
            print(text, file=self._stream or sys.stdout, flush=True)
        except OSError as error:
            return Retry(str(error))
        return Delivered()
