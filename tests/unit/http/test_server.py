"""The HTTP server: metrics by the conventions, honest health, a page that trusts nothing, bounds on what comes in."""

from __future__ import annotations

import asyncio
import ssl
import subprocess
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families

from monitor.errors import ConfigError
from monitor.http import server
from monitor.http.access import hash_token, new_token
from monitor.http.health import Check
from monitor.http.server import SECURITY_HEADERS, Site, serve
from monitor.http.settings import HttpSettings, TokenSettings

OPERATOR, VIEWER, SCRAPER = new_token(), new_token(), new_token()
TOKENS = tuple(
    TokenSettings(name=name, role=role, sha256=hash_token(token))  # type: ignore[arg-type]
    for name, role, token in (("olga", "operator", OPERATOR), ("vera", "viewer", VIEWER), ("prom", "metrics", SCRAPER))
)


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


async def test_metrics_are_prometheus_text_with_the_project_s_prefix(client: Any) -> None:
    answer = await client.get("/metrics")
    families = list(text_string_to_metric_families(await answer.text()))
    own = [f for f in families if not f.name.startswith(("process_", "python_"))]
    assert own
    assert all(f.name.startswith("babelwatch_") and f.documentation for f in own)
    assert any(f.name.startswith("process_") for f in families)


async def test_health_tells_which_check_failed(client: Any, site: Site) -> None:
    assert (await client.get("/healthz")).status == 200
    site.health.alive["loops"] = lambda: Check(False, "stuck")
    answer = await client.get("/healthz")
    assert answer.status == 503
    assert (await answer.json())["checks"]["loops"]["detail"] == "stuck"
    ready = await client.get("/readyz")
    assert ready.status == 503
    assert (await ready.json())["checks"]["start"]["detail"] == "loading"


async def test_the_page_comes_with_a_strict_policy_and_asks_nobody_else(client: Any) -> None:
    answer = await client.get("/")
    assert {name: answer.headers[name] for name in SECURITY_HEADERS} == SECURITY_HEADERS
    for name in server._static():
        answer = await client.get("/" if name == "index.html" else f"/{name}")
        assert answer.status == 200
        text = (await answer.text()).replace("http://www.w3.org", "")
        assert "http://" not in text
        assert "https://" not in text
        assert "SÃ" not in text


async def test_the_scripts_never_write_markup_nor_code() -> None:
    for name, body in server._static().items():
        for way in (
            b"innerHTML",
            b"outerHTML",
            b"insertAdjacentHTML",
            b"document.write",
            b"eval(",
            b"Function(",
            b"onclick=",
        ):
            assert way not in body, name


@pytest.mark.parametrize(
    "path", ["/nothing", "/api/v1/nothing", "/api/v1/status/", "/../etc/passwd", "/static/page.js"]
)
async def test_what_is_not_there_is_said_in_json_with_all_headers(client: Any, path: str) -> None:
    answer = await client.get(path)
    assert answer.status == 404
    assert "error" in await answer.json()
    assert answer.headers["Content-Security-Policy"]


async def test_a_person_who_mistypes_is_shown_the_way_back(client: Any) -> None:
    answer = await client.get("/nothing", headers={"Accept": "text/html,*/*"})
    page = await answer.text()
    assert (answer.status, answer.content_type) == (404, "text/html")
    assert "Not Found" in page
    assert 'href="./"' in page
    assert answer.headers["Content-Security-Policy"]
    program = await client.get("/api/v1/nothing", headers={"Accept": "text/html"})
    assert program.content_type == "application/json"


async def test_a_fault_of_ours_tells_nothing_of_the_inside(client: Any, site: Site, monkeypatch: Any) -> None:
    monkeypatch.setattr(site.board, "look_up", lambda: 1 / 0)
    answer = await client.get("/api/v1/status")
    assert answer.status == 500
    assert "Zero" not in await answer.text()


async def test_a_request_is_bounded_in_size_and_time(client: Any, monkeypatch: Any) -> None:
    big = b'{"kind":"mute","note":"' + b"x" * 70_000 + b'"}'
    answer = await client.post("/api/v1/actions", data=big, headers={"Content-Type": "application/json"})
    assert answer.status == 413
    monkeypatch.setattr(server, "REQUEST_S", 0.1)

    async def never() -> Any:
        yield b"{"
        await asyncio.Event().wait()

    answer = await client.post("/api/v1/actions", data=never(), headers={"Content-Type": "application/json"})
    assert answer.status == 408


async def test_a_connection_that_says_nothing_is_closed(site: Site, monkeypatch: Any) -> None:
    monkeypatch.setattr(server, "SILENT_S", 0.2)
    async with serve(HttpSettings(port=0), site) as (url, _):
        host, port = url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\nX-Slow: ")
        assert await asyncio.wait_for(reader.read(), 20) == b""
        writer.close()


async def test_roles_hold_on_the_wire_and_refusals_are_counted(site: Site) -> None:
    async with serve(HttpSettings(port=0, tokens=TOKENS), site) as (url, _), aiohttp.ClientSession(url) as session:
        wanted = {
            "/metrics": (401, 200, 200, 200),
            "/api/v1/status": (401, 200, 200, 403),
            "/healthz": (200, 200, 200, 200),
            "/": (200, 200, 200, 200),
            "/api/v1/openapi.json": (200, 200, 200, 200),
        }
        for path, expected in wanted.items():
            for headers, status in zip(({}, bearer(OPERATOR), bearer(VIEWER), bearer(SCRAPER)), expected, strict=True):
                async with session.get(path, headers=headers) as answer:
                    assert answer.status == status, (path, headers)
        body = {"kind": "mute", "entity": "acme", "for_s": 60}
        async with session.post("/api/v1/actions", json=body, headers=bearer(VIEWER)) as answer:
            assert answer.status == 403
            assert "operator" in (await answer.json())["error"]
        async with session.get("/api/v1/status") as answer:
            assert answer.headers["WWW-Authenticate"] == "Bearer"
        async with session.get("/metrics", headers=bearer(SCRAPER)) as answer:
            assert 'babelwatch_http_refused_total{status="403"} 2.0' in await answer.text()


async def test_metrics_may_have_a_port_of_their_own(site: Site) -> None:
    settings = HttpSettings(port=0, metrics_port=0, tokens=TOKENS)
    async with serve(settings, site) as (url, apart), aiohttp.ClientSession() as session:
        for path, status in (("/metrics", 200), ("/healthz", 200), ("/api/v1/status", 404), ("/", 404)):
            async with session.get(apart + path) as answer:
                assert answer.status == status, path
        async with session.get(url + "/metrics") as answer:
            assert answer.status == 401


async def test_without_the_page_there_is_only_metrics_and_health(site: Site) -> None:
    async with serve(HttpSettings(port=0, page=False), site) as (url, _), aiohttp.ClientSession(url) as session:
        for path, status in (("/metrics", 200), ("/readyz", 503), ("/", 404), ("/api/v1/status", 404)):
            async with session.get(path) as answer:
                assert answer.status == status, path


async def test_https_is_served_with_a_certificate_and_says_so_to_browsers(site: Site, tmp_path: Path) -> None:
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
        "-days",
        "1",
    ]
    command += [
        "-subj",
        "/CN=localhost",
        "-addext",
        "subjectAltName=IP:127.0.0.1",
        "-keyout",
        str(key),
        "-out",
        str(cert),
    ]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("openssl is not installed")
    context = ssl.create_default_context(cafile=str(cert))
    settings = HttpSettings(port=0, cert_file=cert, key_file=key, tokens=TOKENS)
    async with serve(settings, site) as (url, _), aiohttp.ClientSession(url) as session:
        answer = await session.post("/api/v1/session", json={"token": VIEWER}, ssl=context)
        assert answer.status == 200
        assert "Secure" in answer.headers["Set-Cookie"]
        assert answer.headers["Strict-Transport-Security"]
    with pytest.raises(ConfigError, match="certificate"):
        async with serve(settings.model_copy(update={"key_file": cert}), site):
            pass


async def test_a_taken_port_is_told_plainly(site: Site) -> None:
    async with serve(HttpSettings(port=0), site) as (url, _):
        with pytest.raises(ConfigError, match="cannot listen"):
            async with serve(HttpSettings(port=int(url.rsplit(":", 1)[1])), site):
                pass
