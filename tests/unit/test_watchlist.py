"""The watchlist file: read whole, or refused with every error and its place."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitor.errors import ConfigError
from monitor.metrics import Metrics
from monitor.records import WatchlistChange
from monitor.watch import WatchlistKeeper
from monitor.watchlist import Entity, Watchlist, as_file, change_of, lay_over, load_watchlist, parse_watchlist
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


IDS = ("acme", "globex", "initech")

made_entities = st.builds(
    lambda name, alias, label: Entity(
        id=name, name=f"{name} {label}", aliases={"*": (alias,)}, labels={"owner": label} if label else {}
    ),
    st.sampled_from(IDS),
    st.sampled_from(('Ac"me', "إنيتك", "#tag", "a, b")),
    st.sampled_from(("", "desk")),
)
watchlists = st.lists(made_entities, min_size=1, unique_by=lambda e: e.id).map(lambda made: Watchlist(tuple(made)))


def changed(base: Watchlist, name: str, entity: Entity | None) -> WatchlistChange:
    return change_of(base, name, entity, who="ann", at_ms=1)


@given(base=watchlists, wanted=st.lists(made_entities, unique_by=lambda e: e.id), dropped=st.sets(st.sampled_from(IDS)))
def test_changes_are_laid_over_the_file_in_any_order(base: Watchlist, wanted: list[Entity], dropped: set[str]) -> None:
    changes = [changed(base, e.id, e) for e in wanted if e.id not in dropped]
    changes += [changed(base, name, None) for name in sorted(dropped)]
    over = lay_over(base, changes)
    assert over.version == lay_over(base, reversed(changes)).version
    expected = {**base.entities, **{e.id: e for e in wanted}}
    expected = {name: e for name, e in expected.items() if name not in dropped}
    assert over.entities == (expected or base.entities)
    assert parse_watchlist(as_file(over), Path("w")).version == over.version


@given(base=watchlists, entity=made_entities, other=made_entities)
def test_the_file_has_the_last_word_where_its_entry_changes_and_only_there(
    base: Watchlist, entity: Entity, other: Entity
) -> None:
    change = changed(base, entity.id, entity)
    later = Watchlist(tuple({**base.entities, other.id: other}.values()))
    kept = later.entities.get(entity.id) == base.entities.get(entity.id)
    assert lay_over(later, [change]).entities[entity.id] == (entity if kept else later.entities[entity.id])


def test_what_cannot_be_used_is_not_laid_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "w.toml"
    file.write_text(GOOD)
    keeper = WatchlistKeeper(file, Metrics(), in_file=False)
    good = changed(keeper.base, "globex", Entity(id="globex", name="Globex", aliases={"*": ("Globex",)}))
    assert good.definition is not None
    keeper.take("globex", good)
    keeper.take("hooli", WatchlistChange(entity="Not An Id", who="x", at_ms=1, definition=good.definition))
    assert list(keeper.current.entities) == ["acme", "globex"]
    file.write_text(GOOD.replace("#acme", "#acmeco"))
    assert keeper.reload()
    assert list(keeper.current.entities) == ["acme", "globex"]
    keeper.take("globex", None)
    assert list(keeper.current.entities) == ["acme"]
    with pytest.raises(ConfigError, match="only punctuation"):
        changed(keeper.base, "a", Entity(id="a", name="A", aliases={"*": ("--",)}))
