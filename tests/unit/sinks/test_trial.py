"""`babelwatch notify test` and what `validate` says of sinks, as a user meets them."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from typer.testing import CliRunner

from monitor.cli import app
from monitor.errors import ConfigError
from monitor.sinks.settings import StdoutSettings
from monitor.sinks.trial import send_sample
from tests.conftest import ROOT
from tests.support.tiny_bundle import make_tiny_bundle

runner = CliRunner()


class Hook(BaseHTTPRequestHandler):
    """Takes what is posted to /yes and refuses the rest."""

    got: list[dict[str, object]] = []  # noqa: RUF012

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200 if self.path == "/yes" else 410)
        self.end_headers()
        if self.path == "/yes":
            Hook.got.append(json.loads(body))

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def hook() -> Iterator[str]:
    Hook.got.clear()
    server = HTTPServer(("127.0.0.1", 0), Hook)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def config(tmp_path: Path, text: str) -> str:
    file = tmp_path / "b.toml"
    file.write_text(text)
    return str(file)


def test_a_sample_is_sent_marked_and_told_of(tmp_path: Path, hook: str) -> None:
    file = config(
        tmp_path,
        f'[[sinks]]\ntype = "webhook"\nname = "good"\nurl = "{hook}/yes"\n'
        f'[[sinks]]\ntype = "webhook"\nname = "bad"\nurl = "{hook}/no"\n',
    )
    taken = runner.invoke(app, ["notify", "test", "good", "--config", file])
    assert taken.exit_code == 0, taken.output
    assert "delivered" in taken.output
    data = Hook.got[0]["data"]
    assert isinstance(data, dict)
    assert data["labels"] == {"test": "true"}
    assert data["summary"].startswith("TEST")
    again = runner.invoke(app, ["notify", "test", "good", "--config", file, "--state", "resolved"])
    assert again.exit_code == 0
    assert Hook.got[0]["id"] != Hook.got[1]["id"]
    refused = runner.invoke(app, ["notify", "test", "bad", "--config", file])
    assert refused.exit_code == 1
    assert "HTTP 410" in refused.output
    unknown = runner.invoke(app, ["notify", "test", "none", "--config", file])
    assert unknown.exit_code == 2
    assert "good, bad" in unknown.output


def test_a_sample_in_another_state_is_a_mistake() -> None:
    with pytest.raises(ConfigError, match="--state"):
        asyncio.run(send_sample((StdoutSettings(name="s"),), "s", "exploded"))


def test_validate_tells_everything_wrong_with_sinks_at_once(tmp_path: Path) -> None:
    make_tiny_bundle(tmp_path / "tiny")
    (tmp_path / "broken.txt").write_text("title\n\n{% for %}")
    file = config(
        tmp_path,
        f'watchlist = "{ROOT}/examples/watchlist.toml"\n[inference]\nbundle = "tiny"\n'
        '[[sinks]]\ntype = "stdout"\nname = "a"\ntemplate = "broken.txt"\n'
        '[[sinks]]\ntype = "apprise"\nname = "b"\nurl = "nosuch://s3cr3t-token"\n'
        '[[sinks]]\ntype = "stdout"\nname = "a"\n',
    )
    told = runner.invoke(app, ["validate", file])
    assert told.exit_code == 2
    for said in (f"{tmp_path}/broken.txt:3", "sinks.b.url", "'a' is used twice"):
        assert said in told.output, told.output
    assert "s3cr3t-token" not in told.output
