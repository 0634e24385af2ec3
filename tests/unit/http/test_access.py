"""Who may come in: tokens, sessions, a proxy's word, and what is turned away."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict
from pydantic import ValidationError

from monitor.http.access import FAILURES, SESSION_COOKIE, Access, Asking, Denied, Principal, hash_token, new_token
from monitor.http.settings import HttpSettings, ProxySettings, TokenSettings

VIEWER, OPERATOR, SCRAPER = new_token(), new_token(), new_token()
TOKENS = tuple(
    TokenSettings(name=name, role=role, sha256=hash_token(token))  # type: ignore[arg-type]
    for name, role, token in (("vera", "viewer", VIEWER), ("olga", "operator", OPERATOR), ("prom", "metrics", SCRAPER))
)
PROXY = ProxySettings.model_validate({"addresses": ["10.0.0.0/8"], "operators": ["desk", "kim"]})


def asking(method: str = "GET", peer: str = "192.0.2.7", cookie: str = "", **headers: str) -> Asking:
    named = CIMultiDict({"Host": "watch.example", **{k.replace("_", "-"): v for k, v in headers.items()}})
    return Asking(method, named, {SESSION_COOKIE: cookie} if cookie else {}, peer)


def bearer(token: str, **more: str) -> Asking:
    return asking(Authorization=f"Bearer {token}", **more)


@pytest.fixture
def access() -> Access:
    return Access(HttpSettings(tokens=TOKENS, proxy=PROXY))


def status(found: Principal | Denied) -> int:
    return found.status if isinstance(found, Denied) else 200


def test_each_role_may_what_it_is_for(access: Access) -> None:
    for token, allowed in (
        (VIEWER, {"viewer", "metrics"}),
        (OPERATOR, {"viewer", "operator", "metrics"}),
        (SCRAPER, {"metrics"}),
    ):
        for needed in ("viewer", "operator", "metrics"):
            assert status(access.decide(bearer(token), needed, 0)) == (200 if needed in allowed else 403)  # type: ignore[arg-type]
    assert status(access.decide(asking(), "viewer", 0)) == 401
    assert status(access.decide(bearer("bw_wrong"), "viewer", 0)) == 401


def test_wrong_tokens_are_limited_by_address_and_only_for_a_while(access: Access) -> None:
    for n in range(FAILURES):
        assert status(access.decide(bearer("wrong"), "viewer", n)) == 401
    limited = access.decide(bearer(VIEWER), "viewer", FAILURES)
    assert isinstance(limited, Denied)
    assert limited.status == 429
    assert status(access.decide(bearer(VIEWER, peer="192.0.2.8"), "viewer", FAILURES)) == 200
    assert status(access.decide(bearer(VIEWER), "viewer", FAILURES + limited.retry_after_s)) == 200


def test_behind_a_proxy_the_limit_is_the_client_s_and_of_ipv6_the_network_s(access: Access) -> None:
    for n in range(FAILURES):
        access.decide(bearer("wrong", peer="10.1.1.1", X_Forwarded_For=f"2001:db8:1:2::{n:x}"), "viewer", 0)
    same = bearer(VIEWER, peer="10.1.1.1", X_Forwarded_For="2001:db8:1:2:ffff::1")
    other = bearer(VIEWER, peer="10.1.1.1", X_Forwarded_For="2001:db8:1:3::1")
    assert (status(access.decide(same, "viewer", 1)), status(access.decide(other, "viewer", 1))) == (429, 200)


def test_a_session_lasts_its_time_and_ends_with_its_token(access: Access) -> None:
    signed = access.sign_in(asking("POST"), OPERATOR, 1000)
    assert not isinstance(signed, Denied)
    who, cookie = signed
    assert (who.name, who.role) == ("olga", "operator")
    assert status(access.decide(asking(cookie=cookie), "operator", 1001)) == 200
    assert status(access.decide(asking(cookie=cookie), "operator", 1001 + access.session_s)) == 401
    renewed = [t if t.name != "olga" else t.model_copy(update={"sha256": hash_token("new")}) for t in TOKENS]
    key = HttpSettings.model_validate({"session_key": "k", "tokens": [t.model_dump() for t in renewed]})
    before = Access(HttpSettings.model_validate({"session_key": "k", "tokens": [t.model_dump() for t in TOKENS]}))
    _, cookie = before.sign_in(asking("POST"), OPERATOR, 0)  # type: ignore[misc]
    assert status(before.decide(asking(cookie=cookie), "viewer", 1)) == 200
    assert status(Access(key).decide(asking(cookie=cookie), "viewer", 1)) == 401
    assert status(access.sign_in(asking("POST"), SCRAPER, 0)) == 403  # type: ignore[arg-type]


def test_replicas_with_one_key_know_each_other_s_sessions_and_others_do_not() -> None:
    def made(key: str) -> Access:
        return Access(HttpSettings.model_validate({"session_key": key, "tokens": [t.model_dump() for t in TOKENS]}))

    _, cookie = made("one").sign_in(asking("POST"), VIEWER, 0)  # type: ignore[misc]
    assert [status(made(key).decide(asking(cookie=cookie), "viewer", 1)) for key in ("one", "two", "")] == [
        200,
        401,
        401,
    ]


@given(st.text(max_size=80))
def test_no_cookie_that_we_did_not_sign_lets_anyone_in(cookie: str) -> None:
    access = Access(HttpSettings(tokens=TOKENS))
    for value in (cookie, f"dmVyYQ.{cookie}.{cookie}", f"dmVyYQ.9999999999.{cookie}"):
        assert status(access.decide(asking(cookie=value), "viewer", 0)) == 401


def test_only_the_proxy_is_believed(access: Access) -> None:
    for user, groups, role in (("ann", "", "viewer"), ("kim", "", "operator"), ("ann", "staff, desk", "operator")):
        found = access.decide(asking(peer="10.2.3.4", X_Forwarded_User=user, X_Forwarded_Groups=groups), "viewer", 0)
        assert isinstance(found, Principal)
        assert (found.name, found.role) == (user, role)
    assert status(access.decide(asking(peer="192.0.2.7", X_Forwarded_User="kim"), "viewer", 0)) == 401


def test_another_site_s_page_cannot_act(access: Access) -> None:
    post = replace(bearer(OPERATOR), method="POST")
    assert status(access.decide(post, "operator", 0)) == 200
    for headers in (
        {"Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "same-site"},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
    ):
        forged = replace(bearer(OPERATOR, **headers), method="POST")
        assert status(access.decide(forged, "operator", 0)) == 403, headers
        assert status(access.sign_in(forged, OPERATOR, 0)) == 403  # type: ignore[arg-type]
    own = replace(bearer(OPERATOR, Origin="https://watch.example", Sec_Fetch_Site="same-origin"), method="POST")
    assert status(access.decide(own, "operator", 0)) == 200


def test_without_tokens_only_this_machine_is_let_in() -> None:
    access = Access(HttpSettings())
    for host, expected in (
        ("localhost:8088", 200),
        ("127.0.0.1:8088", 200),
        ("[::1]:8088", 200),
        ("rebound.example", 403),
        ("", 403),
    ):
        assert status(access.decide(asking(peer="127.0.0.1", Host=host), "operator", 0)) == expected, host
    proxied = asking(peer="127.0.0.1", Host="127.0.0.1:8088", X_Forwarded_For="192.0.2.7")
    assert status(access.decide(proxied, "viewer", 0)) == 403


def test_off_loopback_something_must_say_who_may() -> None:
    for host in ("0.0.0.0", "::", "192.0.2.1", "watch.example", ""):
        with pytest.raises(ValidationError, match="babelwatch token"):
            HttpSettings(host=host)
        assert not HttpSettings(host=host, tokens=TOKENS).open
        assert not HttpSettings(host=host, proxy=PROXY).open
    assert HttpSettings(enabled=False, host="0.0.0.0").open
    with pytest.raises(ValidationError, match="used twice"):
        HttpSettings(tokens=(TOKENS[0], TOKENS[0]))
