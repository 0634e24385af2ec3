"""Follows a Dockerfile without Docker: each stage in a copy-on-write view of this machine's own root, in a mount namespace.

The base image is this machine with the Python that runs the tests. Every `RUN` is executed as it stands, `COPY` copies what
`.dockerignore` lets through, and what `CMD` names is started as `USER` on a root that is then read-only.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from dockerfile_parse import DockerfileParser

from tests.conftest import ROOT

PYTHON = Path(sys.base_prefix) / "bin"
BASE_PATH = f"{PYTHON}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass
class Stage:
    """One stage: the one it begins with, its commands, and what it says of the container."""

    name: str
    base: str
    commands: list[tuple[str, str]] = field(default_factory=list)
    env: dict[str, str] = field(default_factory=dict)
    workdir: str = "/"
    user: str = "0:0"
    words: dict[str, str] = field(default_factory=dict)
    """The values of ENTRYPOINT, CMD and HEALTHCHECK."""


def read(path: Path) -> dict[str, Stage]:
    """The stages of a Dockerfile by name."""
    stages: dict[str, Stage] = {}
    stage: Stage | None = None
    parser = DockerfileParser(path=str(path), env_replace=False, cache_content=True)
    for item in parser.structure:
        word, value = item["instruction"], item["value"]
        if word == "FROM":
            base, _, name = value.partition(" AS ")
            parent = stages.get(base)
            stage = Stage(name, base)
            if parent:
                stage.env, stage.workdir, stage.user = dict(parent.env), parent.workdir, parent.user
                stage.words = dict(parent.words)
            stages[name] = stage
        elif stage is None or word in ("COMMENT", "ARG", "LABEL", "EXPOSE", "SHELL"):
            continue
        elif word == "ENV":
            for pair in shlex.split(value):
                key, _, text = pair.partition("=")
                stage.env[key] = text.replace("$PATH", stage.env.get("PATH", BASE_PATH))
        elif word == "WORKDIR":
            stage.workdir = value
            stage.commands.append(("RUN", f"mkdir -p {value}"))
        elif word == "USER":
            stage.user = value
        elif word in ("RUN", "COPY"):
            stage.commands.append(
                (word, f"{stage.workdir}\n{value}" if word == "COPY" else f"cd {stage.workdir}; {value}")
            )
        else:
            stage.words[word] = value
    return stages


def requires_namespaces() -> None:
    """Skip, with the reason, where a root of one's own cannot be had."""
    if os.geteuid() != 0 or not shutil.which("unshare") or not shutil.which("setpriv"):
        pytest.skip("a root of one's own takes root, unshare and setpriv")
    if subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode != 0:
        pytest.skip("this machine allows no mount namespaces")


def checkout(folder: Path, named: list[str]) -> Path:
    """Copy what git knows below these paths, as a clone would have it, or skip where this is no clone."""
    command = ["git", "ls-files", "-co", "--exclude-standard", "--", *named]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if listed.returncode != 0 or not listed.stdout:
        pytest.skip("not a git checkout")
    for name in listed.stdout.splitlines():
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    return folder


def overlay(folder: Path) -> list[str]:
    """Commands that lay a copy-on-write view of this machine at `folder/mnt/root`; what is written goes with the namespace."""
    folder.mkdir()
    return [f"mount -t tmpfs tmpfs {folder}", *_base(folder / "mnt" / "root")]


def container(
    dockerfile: Path, target: str, context: Path, *, files: dict[str, Path], env: dict[str, str]
) -> subprocess.Popen[bytes]:
    """Build a target and start its command; the process is the container's own.

    Args:
        dockerfile: The file.
        target: The stage.
        context: The build context, after `.dockerignore`.
        files: Mounted read-only, by their place in the container.
        env: Added to the container's environment.
    """
    requires_namespaces()
    stages = read(dockerfile)
    top = context.parent / "roots"
    top.mkdir()
    lines = ["set -euo pipefail", f"mount -t tmpfs tmpfs {top}"]
    for stage in _needed(stages, target):
        lines += _build(stage, stages, top, context)
    stage = stages[target]
    root = top / _root_of(stage, stages) / "root"
    for place, file in files.items():
        lines += [f"install -D /dev/null {root}{place}", f"mount --bind -o ro {file} {root}{place}"]
    lines += [f"mount -o remount,ro {root}", f"mount -t tmpfs tmpfs {root}/tmp", f"chmod 1777 {root}/tmp"]
    uid, _, gid = stage.user.partition(":")
    command = json.loads(stage.words["ENTRYPOINT"]) + json.loads(stage.words["CMD"])
    dropped = f"setpriv --reuid {uid} --regid {gid} --clear-groups --no-new-privs --bounding-set=-all"
    given = shlex.join(f"{k}={v}" for k, v in ({"PATH": BASE_PATH, "HOME": "/tmp"} | stage.env | env).items())
    inner = f"cd {stage.workdir}; exec {shlex.join(command)}"
    lines.append(f"exec chroot {root} {dropped} env -i {given} sh -c {shlex.quote(inner)}")
    log = (context.parent / "container.log").open("wb")
    script = context.parent / "build.sh"
    script.write_text("\n".join(lines))
    return subprocess.Popen(["unshare", "-m", "bash", str(script)], stdout=log, stderr=log)


def _needed(stages: dict[str, Stage], target: str) -> list[Stage]:
    """The target and what it is made from, in the order of the file."""
    wanted, ahead = set(), [target]
    while ahead:
        stage = stages[ahead.pop()]
        wanted.add(stage.name)
        sources = [text.partition("--from=")[2].split()[0] for _, text in stage.commands if "--from=" in text]
        ahead += [name for name in (stage.base, *sources) if name in stages]
    return [stage for name, stage in stages.items() if name in wanted]


def _root_of(stage: Stage, stages: dict[str, Stage]) -> str:
    """A stage that begins with another goes on in its root."""
    return _root_of(stages[stage.base], stages) if stage.base in stages else stage.name


def _build(stage: Stage, stages: dict[str, Stage], top: Path, context: Path) -> list[str]:
    root = top / _root_of(stage, stages) / "root"
    lines = [] if stage.base in stages else _base(root)
    # pip keeps its cache of this machine: the wheels are the same.
    pip = {name: value for name, value in os.environ.items() if name.startswith("PIP_")} | {"HOME": "/root"}
    env = {"PATH": BASE_PATH} | stage.env | pip | {"PIP_NO_CACHE_DIR": "0"}
    for word, text in stage.commands:
        if word == "RUN":
            given = shlex.join(f"{k}={v}" for k, v in env.items())
            lines.append(f"chroot {root} env -i {given} bash -euo pipefail -c {shlex.quote(text)}")
        else:
            workdir, _, copied = text.partition("\n")
            lines += _copy(copied.split(), workdir, root, top, context, stages)
    return lines


def _base(root: Path) -> list[str]:
    """This machine as it is, with the tests' Python first, under the image's name for it, and in everyone's reach."""
    lines = [f"mkdir -p {root} {root.parent}/up {root.parent}/work"]
    lines.append(f"mount -t overlay overlay -o lowerdir=/,upperdir={root.parent}/up,workdir={root.parent}/work {root}")
    lines += [f"mount --rbind /{name} {root}/{name}" for name in ("proc", "dev")]
    lines += [f"chmod o+x {root}{parent}" for parent in [PYTHON, *PYTHON.parents]]
    name = f"python{sysconfig.get_python_version()}"
    return [*lines, f"ln -sf {name} {root}{PYTHON}/python"]


def _copy(words: list[str], workdir: str, root: Path, top: Path, context: Path, stages: dict[str, Stage]) -> list[str]:
    source = context
    if words[0].startswith("--from="):
        source = top / _root_of(stages[words.pop(0).partition("=")[2]], stages) / "root"
    *froms, to = words
    target = Path(f"{root}{to}" if to.startswith("/") else f"{root}{workdir}/{to}")
    lines = []
    for name in froms:
        path = source / name.lstrip("/")
        if len(froms) > 1 or to.endswith("/"):
            lines += [f"mkdir -p {target}", f"cp -a {path} {target}/"]
        else:
            # A folder's content goes into the target; a file becomes it.
            lines += [f"mkdir -p {target}; cp -a {path}/. {target}/" if path.is_dir() or source != context
                      else f"install -D {path} {target}"]  # fmt: skip
    return lines
