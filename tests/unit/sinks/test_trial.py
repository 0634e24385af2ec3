"""`babelwatch notify test` and what `validate` says of sinks, as a user meets them."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any, get_args

import pytest
from typer.testing import CliRunner

from monitor.cli import app
from monitor.errors import ConfigError
from monitor.sinks.settings import SinkSettings, StdoutSettings
from monitor.sinks.trial import send_sample
from tests.conftest import ROOT
from tests.support.tiny_bundle import make_tiny_bundle
from tests.unit.sinks.test_mail import Post, post

__all__ = ["post"]

runner = CliRunner()


class Hook(BaseHTTPRequestHandler):
    """Takes what is posted below /yes and refuses the rest."""

    got: list[Any] = []  # noqa: RUF012

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200 if self.path.startswith("/yes") else 410)
        self.end_headers()
        if self.path.startswith("/yes"):
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


KINDS: dict[str, str] = {
    "webhook": 'url = "{http}/yes"',
    "alertmanager": 'urls = ["{http}/yes"]',
    "apprise": 'url = "json://{address}/yes"',
    "pagerduty": 'url = "{http}/yes"\nrouting_key = "k"',
    "opsgenie": 'url = "{http}/yes"\napi_key = "k"',
    "email": 'host = "127.0.0.1"\nport = {smtp}\nsecurity = "none"\nsender = "a@x.example"\nrecipients = ["b@x.example"]',
    "stdout": "",
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_sample_to_each_kind_of_sink_arrives(
    tmp_path: Path, hook: str, post: tuple[Post, int], kind: str, capfd: pytest.CaptureFixture[str]
) -> None:
    options = KINDS[kind].format(http=hook, address=hook.removeprefix("http://"), smtp=post[1])
    file = config(tmp_path, f'[[sinks]]\ntype = "{kind}"\nname = "s"\n{options}\n')
    taken = runner.invoke(app, ["notify", "test", "s", "--config", file])
    assert taken.exit_code == 0, taken.output
    arrived = [json.dumps(body) for body in Hook.got] + [mail.as_string() for mail in post[0].mails]
    (body,) = arrived or [taken.output + capfd.readouterr().out]
    assert "TEST" in body
    assert "babelwatch test" in body.lower()


def test_every_kind_of_sink_is_tried() -> None:
    assert set(KINDS) == {sink.model_fields["type"].default for sink in get_args(SinkSettings)}


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
