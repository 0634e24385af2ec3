"""docs/deploy.md followed as it is written: every command of "One Debian host", in a copy-on-write view of this machine."""

from __future__ import annotations

import gzip
import json
import re
import shlex
import signal
import socket
import subprocess
import time
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT
from tests.support.daemon import tool
from tests.support.dockerfile import checkout, overlay, requires_namespaces

SYSTEMCTL = """#!/bin/bash
# Stands in for systemd, which runs on no test machine: starts what a unit says, as whom it says, in the background.
start() {
  for folder in /etc/systemd/system /lib/systemd/system; do [ -e $folder/$1.service ] && unit=$folder/$1.service && break; done
  value() { sed -n "s/^$1=//p" $unit | head -1; }
  [ "$(value DynamicUser)" = yes ] && user=61184 || user=$(id -u "$(value User)")
  ARGS= ; [ -e /etc/default/$1 ] && . /etc/default/$1
  cd /; setpriv --reuid $user --regid $user --clear-groups --no-new-privs --bounding-set=-all \\
    env -i PATH=/usr/bin:/bin ARGS="$ARGS" sh -c "exec $(value ExecStart)" >> /var/log/$1.log 2>&1 &
}
case $1 in
  daemon-reload) ;;
  enable | restart) shift; for name; do [ "$name" = --now ] || start "${name%.service}"; done ;;
  *) exit 1 ;;
esac
"""

STREAM_LINES = 400
"""Of the sample day: enough to see documents go through."""


def commands() -> list[str]:
    """The shell blocks of the section, but Grafana's, which is in no Debian."""
    text = (ROOT / "docs" / "deploy.md").read_text()
    section = text.partition("## One Debian host")[2].partition("\n## ")[0]
    return re.findall(r"^```sh\n(.*?)^```", section, flags=re.M | re.S)


def ask(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=10) as answer:
        return json.loads(answer.read())


def query(expression: str) -> list[Any]:
    found = ask(f"http://127.0.0.1:9090/api/v1/query?query={urllib.parse.quote(expression)}")
    return found["data"]["result"]  # type: ignore[no-any-return]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_an_operator_gets_daemon_prometheus_and_alertmanager_from_nothing(tmp_path: Path, tansu_address: str) -> None:
    requires_namespaces()
    tool("prometheus")
    tool("prometheus-alertmanager")
    for port in (8088, 9090, 9093):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                pytest.skip(f"port {port} is in use, and the document names it")
    source = checkout(tmp_path / "babelwatch", ["."])
    # What the document tells the operator to edit.
    config = source / "deploy" / "systemd" / "babelwatch.toml"
    config.write_text(config.read_text().replace("127.0.0.1:9092", tansu_address))
    stream = source / "examples" / "stream.jsonl.gz"
    lines = gzip.decompress(stream.read_bytes()).splitlines(keepends=True)[:STREAM_LINES]
    stream.write_bytes(gzip.compress(b"".join(lines)))
    (tmp_path / "systemctl").write_text(SYSTEMCTL)
    script = ["set -euo pipefail", *overlay(tmp_path / "root")]
    root = tmp_path / "root" / "mnt" / "root"
    script += [f"install -m 755 {tmp_path}/systemctl {root}/usr/local/sbin/systemctl", f"mount -t tmpfs tmpfs {root}/tmp",
               f"chmod 1777 {root}/tmp", f"mkdir {root}/tmp/babelwatch", f"mount --bind {source} {root}/tmp/babelwatch"]  # fmt: skip
    for block in commands():
        # The machine's own packages are not brought up to date for a test.
        faster = block.replace("--speed 150", "--speed 0").replace("apt-get install", "apt-get install --no-upgrade")
        script.append(f"chroot {root} bash -euo pipefail -c {shlex.quote('cd /tmp/babelwatch; ' + faster)}")
    script += ["echo FOLLOWED", "sleep 600"]
    (tmp_path / "follow.sh").write_text("\n".join(script))
    log = tmp_path / "log"
    # A namespace of processes too: with its first, all end.
    command = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "bash", str(tmp_path / "follow.sh")]
    process = subprocess.Popen(command, stdout=log.open("wb"), stderr=subprocess.STDOUT)
    try:
        deadline = time.monotonic() + 800
        while not log.read_text().endswith("FOLLOWED\n"):
            assert process.poll() is None, log.read_text()[-4000:]
            assert time.monotonic() < deadline, log.read_text()[-4000:]
            time.sleep(0.2)
        assert ask("http://127.0.0.1:8088/readyz")["ok"]
        while True:
            targets = {
                t["labels"]["job"]: t["health"]
                for t in ask("http://127.0.0.1:9090/api/v1/targets")["data"]["activeTargets"]
            }
            counted = sum(float(sample["value"][1]) for sample in query("babelwatch_documents_total"))
            if targets == {"prometheus": "up", "babelwatch": "up"} and counted >= STREAM_LINES * 0.9:
                break
            assert time.monotonic() < deadline, (targets, counted)
            time.sleep(0.5)
        rules = [
            rule for group in ask("http://127.0.0.1:9090/api/v1/rules")["data"]["groups"] for rule in group["rules"]
        ]
        assert len(rules) > 25
        managers = ask("http://127.0.0.1:9090/api/v1/alertmanagers")["data"]["activeAlertmanagers"]
        assert [manager["url"] for manager in managers] == ["http://127.0.0.1:9093/api/v2/alerts"]
        receivers = {receiver["name"] for receiver in ask("http://127.0.0.1:9093/api/v2/receivers")}
        assert {"duty", "newsroom", "travel-desk"} <= receivers
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
