"""Where metrics, health, API and status page are served, and who may see them."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, IPvAnyNetwork, SecretStr, StringConstraints, model_validator

from monitor.settings import Settings


class TokenSettings(Settings):
    """One bearer token; `babelwatch token NAME` makes it."""

    name: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._@-]{0,63}$")] = Field(
        description="Who holds it: the name in the audit topic."
    )
    role: Literal["viewer", "operator", "metrics"] = Field(
        "viewer", description="viewer sees everything, operator acts as well, metrics may only read /metrics."
    )
    sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")] = Field(
        description="Hash of the token; the token itself is in no file."
    )


class ProxySettings(Settings):
    """A reverse proxy that signs people in (OpenID Connect, SAML) and says who they are in a header."""

    addresses: tuple[IPvAnyNetwork, ...] = Field(
        (), description="Addresses of the proxy; only from these are the headers below believed."
    )
    user_header: str = Field("X-Forwarded-User", description="Header with the user's name.")
    groups_header: str = Field("X-Forwarded-Groups", description="Header with the user's groups, comma-separated.")
    operators: tuple[str, ...] = Field((), description="Users or groups who may act; everyone else may look.")


class HttpSettings(Settings):
    """The HTTP server of the process."""

    enabled: bool = Field(True, description="Serve /metrics, /healthz, /readyz and the status page.")
    page: bool = Field(True, description="Serve the status page and its API; off: only metrics and health.")
    host: str = Field(
        "127.0.0.1", description="Address to listen on. Off loopback, http.tokens or http.proxy must say who may."
    )
    port: int = Field(8088, ge=0, le=65535, description="Port to listen on; 0 takes a free one.")
    metrics_host: str = Field("127.0.0.1", description="Address of the port for Prometheus.")
    metrics_port: int | None = Field(
        None,
        ge=0,
        le=65535,
        description="A port of its own for /metrics, /healthz and /readyz, open to whoever reaches it: for Prometheus "
        "and probes inside a network of yours. 0 takes a free one.",
    )
    cert_file: Path | None = Field(None, description="Certificate chain (PEM): serve HTTPS.")
    key_file: Path | None = Field(None, description="Key of the certificate (PEM).")
    session_key: SecretStr = Field(
        SecretStr(""),
        description="Signs the cookies of people signed in: the same on all replicas, or they sign in on each. Empty: "
        "random at every start.",
    )
    session_key_file: Path | None = Field(None, description="File holding the session key (a mounted secret).")
    session_hours: float = Field(12.0, gt=0, le=720, description="How long a sign-in lasts.")
    tokens: tuple[TokenSettings, ...] = Field((), description="Bearer tokens.")
    proxy: ProxySettings = Field(
        default_factory=ProxySettings, description="A reverse proxy that signs people in and names them in a header."
    )

    @property
    def open(self) -> bool:
        """Whether anyone who reaches the port is let in."""
        return not self.tokens and not self.proxy.addresses

    @model_validator(mode="after")
    def _off_loopback_needs_authentication(self) -> Self:
        if self.enabled and self.open and not is_loopback(self.host):
            raise ValueError(
                f"host {self.host} can be reached from other machines, and nothing says who may; set http.tokens "
                "(`babelwatch token NAME` makes one) or http.proxy, or listen on 127.0.0.1"
            )
        if (self.cert_file is None) != (self.key_file is None):
            raise ValueError("http.cert_file and http.key_file go together")
        names = [token.name for token in self.tokens]
        if doubled := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"the token name {doubled[0]!r} is used twice")
        return self


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches the address.

    >>> is_loopback("localhost"), is_loopback("::1"), is_loopback("0.0.0.0"), is_loopback("")
    (True, True, False, False)
    """
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
