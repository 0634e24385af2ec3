"""Standard output: an alert as text for people, or as its CloudEvent in one line."""

from __future__ import annotations

import sys
from typing import TextIO

from monitor.records import Alert, cloud_event, encode
from monitor.sinks.base import Delivered, Outcome, Retry, StdoutSettings


class StdoutSink:
    """Writes to a stream."""

    def __init__(self, settings: StdoutSettings, stream: TextIO | None = None) -> None:
        self.name = settings.name
        self._settings = settings
        self._stream = stream

    async def deliver(self, alert: Alert, *, key: str) -> Outcome:
        """Write and flush; see `Sink.deliver`."""
        text = (
            encode(cloud_event(alert)).decode()
            if self._settings.format == "json"
            else f"[{alert.state} {alert.severity}] {alert.description}\n"
        )
        try:
            print(text, file=self._stream or sys.stdout, flush=True)
        except OSError as error:
            return Retry(str(error))
        return Delivered()

    async def close(self) -> None:
        """Nothing to give back."""
