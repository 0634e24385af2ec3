"""The systemd unit, by systemd's own tools."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from monitor.config import ServiceSettings
from tests.conftest import ROOT
from tests.support.daemon import tool

UNIT = ROOT / "deploy" / "systemd" / "babelwatch.service"

MOST_EXPOSED = 15
"""systemd's measure in tenths: 0 may do nothing, 100 everything; a plain service has 96."""


def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    """It also looks for the program, which is not installed here."""
    unit = tmp_path / UNIT.name
    unit.write_text(UNIT.read_text().replace("/opt/babelwatch/bin/babelwatch", "/bin/true"))
    ended = subprocess.run([tool("systemd-analyze"), "verify", "--man=no", str(unit)], capture_output=True, text=True)
    assert (ended.returncode, ended.stderr.strip()) == (0, "")


def test_the_service_may_do_little() -> None:
    command = [tool("systemd-analyze"), "security", "--offline=true", f"--threshold={MOST_EXPOSED}", str(UNIT)]
    ended = subprocess.run(command, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stdout


def test_it_is_given_the_time_to_finish() -> None:
    stop_s = int(re.search(r"^TimeoutStopSec=(\d+)$", UNIT.read_text(), flags=re.M)[1])  # type: ignore[index]
    assert stop_s > ServiceSettings().shutdown_timeout_s
