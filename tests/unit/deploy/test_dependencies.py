"""What the daemon is installed from: all of it locked, each version the one that is tested, each licence one that may be shipped."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from importlib import metadata

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.conftest import ROOT

LOCKED = {
    canonicalize_name(name): version
    for name, _, version in (
        line.partition("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line
    )
}

MAY_BE_SHIPPED = re.compile(
    r"apache|mit\b|bsd|mpl|mozilla|psf|python software|isc\b|unlicense|zlib|0bsd|cc0|lgpl", re.IGNORECASE
)


def needed(names: list[str]) -> Iterator[metadata.Distribution]:
    """The distributions behind these requirements, and behind theirs."""
    seen: set[str] = set()
    ahead = [Requirement(name) for name in names]
    while ahead:
        requirement = ahead.pop()
        if requirement.marker and not requirement.marker.evaluate({"extra": ""}):
            continue
        name = canonicalize_name(requirement.name)
        if name in seen:
            continue
        seen.add(name)
        found = metadata.distribution(name)
        yield found
        ahead += [Requirement(text) for text in found.requires or ()]


def daemon() -> list[metadata.Distribution]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return list(needed(project["dependencies"]))


def test_everything_that_is_shipped_is_locked_and_tested_as_locked() -> None:
    for found in daemon():
        name = canonicalize_name(found.metadata["Name"])
        assert name in LOCKED, f"{name} is not in constraints.txt"
        assert found.version == LOCKED[name], f"{name}: tests run on {found.version}, {LOCKED[name]} would be installed"


def test_the_daemon_carries_no_torch() -> None:
    assert not {"torch", "transformers"} & {canonicalize_name(found.metadata["Name"]) for found in daemon()}


@pytest.mark.parametrize("found", daemon(), ids=lambda found: found.metadata["Name"])
def test_its_licence_lets_it_be_shipped(found: metadata.Distribution) -> None:
    told = [found.metadata.get("License-Expression") or "", (found.metadata.get("License") or "")[:200],
            *(text for text in found.metadata.get_all("Classifier") or () if text.startswith("License"))]  # fmt: skip
    assert any(MAY_BE_SHIPPED.search(text) for text in told), told
