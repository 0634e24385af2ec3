"""Who is asking, and may they: bearer tokens, sign-in cookies, a trusted proxy's word; pure, time as an argument."""

from __future__ import annotations

import base64
import hashlib
import hmac
import ipaddress
import secrets
from collections import OrderedDict, deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlsplit

from monitor.http.settings import HttpSettings, TokenSettings, is_loopback
from monitor.settings import secret

Role = Literal["viewer", "operator", "metrics"]
How = Literal["open", "token", "session", "proxy"]

TOKEN_PREFIX = "bw_"
"""So that secret scanners and people recognise one."""

SESSION_COOKIE = "babelwatch_session"

FAILURES, FAILURE_WINDOW_S = 10, 60.0
"""Wrong tokens from one address before it has to wait. A token holds 256 bits, so this is not what keeps guessers out:
it keeps them from filling the log and the processor."""

MAX_ADDRESSES = 4096
"""Addresses remembered for that; the oldest is forgotten."""


@dataclass(frozen=True, slots=True)
class Principal:
    """Someone who may come in."""

    name: str
    role: Role
    how: How

    def may(self, needed: Role) -> bool:
        """Whether the role is enough.

        >>> Principal("prometheus", "metrics", "token").may("viewer")
        False
        """
        allowed: dict[Role, tuple[Role, ...]] = {
            "operator": ("operator", "viewer", "metrics"),
            "viewer": ("viewer", "metrics"),
            "metrics": ("metrics",),
        }
        return needed in allowed[self.role]


@dataclass(frozen=True, slots=True)
class Denied:
    """Why not: an HTTP status, and a sentence for the person."""

    status: Literal[401, 403, 429]
    reason: str
    retry_after_s: int = 0


@dataclass(frozen=True, slots=True)
class Asking:
    """What access needs to know of a request. `headers` looks names up whatever their case."""

    method: str
    headers: Mapping[str, str]
    cookies: Mapping[str, str]
    peer: str
    """Address of the other end of the connection."""


class Access:
    """Decides about requests.

    Args:
        settings: Tokens, proxy, sessions.
        session_key: Signs sessions; from the settings, or random.
    """

    def __init__(self, settings: HttpSettings, session_key: bytes | None = None) -> None:
        self._settings = settings
        self._tokens = {token.name: token for token in settings.tokens}
        configured = secret(settings.session_key, settings.session_key_file).encode()
        self._key = (
            session_key or hashlib.sha256(b"babelwatch session" + (configured or secrets.token_bytes(32))).digest()
        )
        self._failures: OrderedDict[str, deque[float]] = OrderedDict()

    def decide(self, asking: Asking, needed: Role, now_s: float) -> Principal | Denied:
        """Let someone in with a role, or say why not; counts failed attempts by address."""
        if forged := self.same_site(asking):
            return forged
        found = self._identify(asking, now_s)
        if isinstance(found, Denied) or found.may(needed):
            return found
        return Denied(403, f"{found.name} is {_article(found.role)}; this needs {_article(needed)}")

    def sign_in(self, asking: Asking, token: str, now_s: float) -> tuple[Principal, str] | Denied:
        """A session for the holder of a token: who it is, and the cookie's value."""
        if forged := self.same_site(asking):
            return forged
        found = self._check_token(asking, token, now_s)
        if isinstance(found, Denied):
            return found
        if found.role == "metrics":
            return Denied(403, "this token may only read /metrics")
        return Principal(found.name, found.role, "session"), self._session(found, now_s + self.session_s)

    @property
    def session_s(self) -> float:
        """How long a session lasts."""
        return self._settings.session_hours * 3600

    @property
    def open(self) -> bool:
        """Whether there is nothing to sign in to."""
        return self._settings.open

    def is_secure(self, asking: Asking, *, tls: bool) -> bool:
        """Whether the person's browser speaks HTTPS, to us or to a trusted proxy."""
        return tls or (self._trusts(asking.peer) and asking.headers.get("X-Forwarded-Proto", "").lower() == "https")

    # --- who ------------------------------------------------------------------------------------------------------

    def _identify(self, asking: Asking, now_s: float) -> Principal | Denied:
        scheme, _, token = asking.headers.get("Authorization", "").partition(" ")
        if scheme.lower() == "bearer" and token:
            found = self._check_token(asking, token.strip(), now_s)
            return found if isinstance(found, Denied) else Principal(found.name, found.role, "token")
        if cookie := asking.cookies.get(SESSION_COOKIE):
            session = self._read_session(cookie, now_s)
            if session is not None:
                return session
        if self._trusts(asking.peer) and (user := asking.headers.get(self._settings.proxy.user_header, "").strip()):
            groups = asking.headers.get(self._settings.proxy.groups_header, "").split(",")
            acting = {user, *(group.strip() for group in groups)} & set(self._settings.proxy.operators)
            return Principal(user[:100], "operator" if acting else "viewer", "proxy")
        if self.open:
            return self._local(asking)
        return Denied(401, "sign in: a bearer token is needed")

    def _local(self, asking: Asking) -> Principal | Denied:
        """Nobody is asked on loopback, so it has to be loopback indeed, as the browser sees it too."""
        host = urlsplit(f"//{asking.headers.get('Host', '')}").hostname or ""
        if not is_loopback(host):
            # A foreign name that points here (DNS rebinding) would let any web page read and act.
            return Denied(
                403, f"the host {host[:100]!r} is not this machine; without http.tokens only localhost is served"
            )
        if any(name in asking.headers for name in ("X-Forwarded-For", "Forwarded", "X-Real-IP")):
            return Denied(403, "this request came through a proxy; set http.tokens or http.proxy")
        return Principal("local", "operator", "open")

    def _check_token(self, asking: Asking, token: str, now_s: float) -> TokenSettings | Denied:
        address = self._address(asking)
        failures = self._failures.get(address, deque())
        while failures and failures[0] <= now_s - FAILURE_WINDOW_S:
            failures.popleft()
        if len(failures) >= FAILURES:
            wait_s = int(failures[0] + FAILURE_WINDOW_S - now_s) + 1
            return Denied(429, f"too many wrong tokens from {address}", retry_after_s=wait_s)
        digest = hash_token(token)
        matching = [known for known in self._tokens.values() if hmac.compare_digest(known.sha256, digest)]
        if matching:
            return matching[0]
        failures.append(now_s)
        self._failures[address] = failures
        self._failures.move_to_end(address)
        if len(self._failures) > MAX_ADDRESSES:
            self._failures.popitem(last=False)
        return Denied(401, "this token is not known")

    def _address(self, asking: Asking) -> str:
        """Whose failures these are: the address before a trusted proxy, and of IPv6 the /64 that one customer has."""
        address = asking.peer
        if self._trusts(address):
            address = asking.headers.get("X-Forwarded-For", address).rsplit(",", 1)[-1].strip()
        try:
            parsed = ipaddress.ip_address(address)
        except ValueError:
            return asking.peer
        return str(ipaddress.ip_network((parsed, 64), strict=False)) if parsed.version == 6 else str(parsed)

    def _trusts(self, peer: str) -> bool:
        try:
            address = ipaddress.ip_address(peer)
        except ValueError:
            return False
        return any(address in network for network in self._settings.proxy.addresses)

    # --- cross-site requests ----------------------------------------------------------------------------------------

    def same_site(self, asking: Asking) -> Denied | None:
        """Refuse a request that changes something and that another site's page made the browser send."""
        if asking.method in ("GET", "HEAD", "OPTIONS"):
            return None
        site = asking.headers.get("Sec-Fetch-Site")
        if site is not None and site not in ("same-origin", "none"):
            return Denied(403, "cross-site request")
        if (origin := asking.headers.get("Origin")) is not None:
            hosts = {asking.headers.get("Host", "").lower()}
            if self._trusts(asking.peer):
                hosts.add(asking.headers.get("X-Forwarded-Host", "").lower())
            if urlsplit(origin).netloc.lower() not in hosts:
                return Denied(403, "cross-site request")
        return None

    # --- sessions -------------------------------------------------------------------------------------------------

    def _session(self, token: TokenSettings, until_s: float) -> str:
        name = base64.urlsafe_b64encode(token.name.encode()).decode().rstrip("=")
        return f"{name}.{int(until_s)}.{self._signature(token, int(until_s))}"

    def _read_session(self, cookie: str, now_s: float) -> Principal | None:
        parts = cookie.split(".")
        if len(parts) != 3 or not parts[1].isascii() or not parts[1].isdigit() or len(parts[1]) > 12:
            return None
        try:
            name = base64.urlsafe_b64decode(parts[0] + "=" * (-len(parts[0]) % 4)).decode()
        except ValueError:
            return None
        token = self._tokens.get(name)
        until_s = int(parts[1])
        # The token's hash is signed too: a token that is taken back or made anew ends its sessions.
        if token is None or until_s <= now_s or not hmac.compare_digest(
            self._signature(token, until_s).encode(), parts[2].encode()
        ):  # fmt: skip
            return None
        return Principal(token.name, token.role, "session")

    def _signature(self, token: TokenSettings, until_s: int) -> str:
        return hmac.new(self._key, f"{token.name}|{until_s}|{token.sha256}".encode(), hashlib.sha256).hexdigest()


def _article(role: Role) -> str:
    return "an operator" if role == "operator" else f"a {role}"


def new_token() -> str:
    """A fresh token: 256 random bits."""
    return TOKEN_PREFIX + secrets.token_urlsafe(32)


def hash_token(token: str) -> str:
    """What the configuration holds of a token. Plain SHA-256 is enough for 256 random bits: nobody guesses them."""
    return hashlib.sha256(token.encode()).hexdigest()
