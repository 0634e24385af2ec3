"""The watchlist file: read whole, or refused with every error and its place."""

from __future__ import annotations

from pathlib import Path

import pytest

from monitor.errors import ConfigError
from monitor.metrics import Metrics
from monitor.watch import WatchlistKeeper
from monitor.watchlist import load_watchlist
from tests.conftest import ROOT

GOOD = (
    '[[entity]]\nid = "acme"\nname = "Acme"\naliases = { en = ["Acme"], "*" = ["#acme"] }\nlabels = { owner = "a" }\n'
)


def refused(tmp_path: Path, content: str) -> str:
    file = tmp_path / "watchlist.toml"
    file.write_text(content)
    with pytest.raises(ConfigError) as caught:
        load_watchlist(file)
    return str(caught.value)


def test_the_example_is_good() -> None:
    assert len(load_watchlist(ROOT / "examples" / "watchlist.toml").entities) >= 5


def test_all_errors_are_told_at_once_with_their_places(tmp_path: Path) -> None:
    told = refused(
        tmp_path,
        GOOD
        + '[[entity]]\nid = "Bad Id"\nname = "B"\naliases = { en = ["x"] }\ncolour = "red"\n[[entity]]\nid = "c"\nname = "C"\n',
    )
    lines = told.splitlines()
    assert len(lines) == 4
    assert any("entity Bad Id" in line and "id" in line for line in lines)
    assert any("aliases.en.0" in line for line in lines)
    assert any("colour" in line and "no such key" in line for line in lines)
    assert any("entity c" in line and "aliases" in line for line in lines)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "holds no [[entity]]"),
        ("[[entity]\n", "is not TOML"),
        (GOOD + GOOD, "used twice"),
        ('[[entity]]\nid = "a"\nname = "A"\naliases = { "*" = ["--"] }\n', "only punctuation"),
        ('[[entity]]\nid = "a"\nname = "A"\naliases = {}\n', "no aliases"),
    ],
)
def test_each_mistake_is_named(tmp_path: Path, content: str, said: str) -> None:
    assert said in refused(tmp_path, content)


def test_versions_tell_contents_apart(tmp_path: Path) -> None:
    file = tmp_path / "w.toml"
    file.write_text(GOOD)
    first = load_watchlist(file).version
    file.write_text(GOOD + "# a comment\n")
    assert load_watchlist(file).version == first
    file.write_text(GOOD.replace("#acme", "#acmeco"))
    assert load_watchlist(file).version != first


def test_a_broken_new_file_keeps_the_old_one(tmp_path: Path) -> None:
    file = tmp_path / "w.toml"
    file.write_text(GOOD)
    keeper = WatchlistKeeper(file, Metrics())
    told: list[str] = []
    keeper.listen(lambda watchlist: told.append(watchlist.version))
    file.write_text("broken [")
    assert not keeper.reload()
    assert "is not TOML" in keeper.error
    assert list(keeper.current.entities) == ["acme"]
    file.write_text(GOOD.replace('"acme"', '"other"', 1))
    assert keeper.reload()
    assert (keeper.error, list(keeper.current.entities), len(told)) == ("", ["other"], 2)
