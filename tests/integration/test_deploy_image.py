"""The image, built by its Dockerfile's own steps and started as another user on a read-only root."""

from __future__ import annotations

import json
import signal
import subprocess
import time
import urllib.request
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.support.dockerfile import checkout, container, read
from tests.support.servers import free_port
from tests.support.stream import WATCHLIST

DOCKERFILE = ROOT / "deploy" / "docker" / "Dockerfile"


def context(folder: Path) -> Path:
    """The build context: what git knows and `.dockerignore` lets through."""
    rules = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    assert rules[0] == "*", "all is kept out but what is named"
    named = [rule[1:] for rule in rules if rule.startswith("!")]
    return checkout(folder, named)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_steps_of_the_dockerfile_make_a_daemon_that_runs_read_only(tmp_path: Path) -> None:
    """With no privilege, no home, no writable file but /tmp, the whole daemon on its embedded broker becomes ready."""
    (tmp_path / "context").mkdir()
    port = free_port()
    (tmp_path / "watchlist.toml").write_text(WATCHLIST)
    (tmp_path / "babelwatch.toml").write_text('watchlist = "watchlist.toml"\n[http]\nport = 0\n')
    files = {f"/etc/babelwatch/{name}": tmp_path / name for name in ("watchlist.toml", "babelwatch.toml")}
    env = {"BABELWATCH__HTTP__METRICS_PORT": str(port)}
    process = container(DOCKERFILE, "cpu", context(tmp_path / "context"), files=files, env=env)
    try:
        deadline = time.monotonic() + 600
        while True:
            log = (tmp_path / "container.log").read_text()
            assert process.poll() is None, log
            assert time.monotonic() < deadline, log
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5) as answer:
                    assert json.loads(answer.read())["ok"]
                    break
            except OSError:
                time.sleep(0.2)
        status = dict(
            line.split(":\t", 1)
            for line in Path(f"/proc/{process.pid}/status").read_text().splitlines()
            if ":\t" in line
        )
        assert status["Uid"].split() == ["10001"] * 4
        assert int(status["CapBnd"], 16) == 0
        assert status["NoNewPrivs"] == "1"
        check = json.loads(read(DOCKERFILE)["cpu"].words["HEALTHCHECK"].partition("CMD ")[2])
        asked = check[-1].replace("8089", str(port))
        subprocess.run(
            ["nsenter", "-t", str(process.pid), "-m", "-r", "/opt/babelwatch/bin/python", "-c", asked], check=True
        )
        inside = ["nsenter", "-t", str(process.pid), "-m", "-r"]
        found = [
            "find",
            "/opt/babelwatch",
            "-path",
            "*/bin/pip*",
            "-o",
            "-name",
            "setuptools",
            "-o",
            "-path",
            "*/bin/*cc",
        ]
        tools = subprocess.run([*inside, *found], capture_output=True, text=True)
        assert tools.stdout == "", "the image carries build tools"
        owned = subprocess.run([*inside, "find", "/opt/babelwatch", "/usr/share/babelwatch", "-uid", "10001", "-o", "-perm", "-o+w", "-not", "-type", "l"],
                               capture_output=True, text=True)  # fmt: skip
        assert owned.stdout == "", "the daemon could change its own files"
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0, (tmp_path / "container.log").read_text()
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
