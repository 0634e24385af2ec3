"""Where metrics, health, API and status page are served."""

from pydantic import Field

from monitor.settings import Settings


class HttpSettings(Settings):
    """The HTTP server of the process."""

    enabled: bool = Field(True, description="Serve /metrics, /healthz, /readyz and the status page.")
    host: str = Field(
        "127.0.0.1",
        description="Address to listen on. There is no login: off loopback, put it behind a proxy that has one.",
    )
    port: int = Field(8088, ge=0, le=65535, description="Port to listen on; 0 takes a free one.")
