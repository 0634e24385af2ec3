"""The Dockerfile: linted, pinned, nobody's root."""

from __future__ import annotations

import re
import subprocess

from tests.conftest import ROOT
from tests.support.daemon import tool
from tests.support.dockerfile import read

DOCKERFILE = ROOT / "deploy" / "docker" / "Dockerfile"


def test_hadolint_finds_nothing() -> None:
    ended = subprocess.run([tool("hadolint"), str(DOCKERFILE)], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stdout


def test_the_image_is_nobody_s_root_and_pinned() -> None:
    stages = read(DOCKERFILE)
    assert list(stages)[-1] == "cpu", "built when no target is named"
    for target in ("cpu", "cuda"):
        uid, gid = stages[target].user.split(":")
        assert int(uid) >= 10_000
        assert int(gid) >= 10_000
        assert "HEALTHCHECK" in stages[target].words
    text = DOCKERFILE.read_text()
    assert re.search(r"^ARG BASE=\S+:\d+\.\d+\.\d+-slim-\w+$", text, flags=re.M), "the base is a full version"
    assert "apt-get" not in text, "nothing to compile with, nothing to patch"
    assert "PIP_ONLY_BINARY=:all:" in text
    locked = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().split() if "==" in line)
    cuda = dict(
        line.split("==")
        for line in (DOCKERFILE.parent / "constraints-cuda.txt").read_text().splitlines()
        if "==" in line
    )
    assert "setuptools" in locked
    assert "onnxruntime-gpu" in cuda
