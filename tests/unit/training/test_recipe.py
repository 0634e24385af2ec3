"""A recipe is checked whole: every mistake at once, each with its place."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from training.errors import TrainingError
from training.recipe import Recipe, fingerprint, load_recipe, resolved
from training.stages.settings import FinetuneSettings

GOOD = """
name = "r"
[heads.sentiment]
labels = ["negative", "positive"]
[[data.sources]]
name = "mine"
path = "mine.tsv"
mapping = "mine.toml"
[[stages]]
type = "finetune"
[[stages]]
type = "transfer"
name = "last"
sources = ["mine"]
"""


def load(tmp_path: Path, text: str, *changes: str) -> Recipe:
    (tmp_path / "r.toml").write_text(text)
    return load_recipe(tmp_path / "r.toml", changes)


def test_all_mistakes_are_told_at_once_with_their_places(tmp_path: Path) -> None:
    text = GOOD.replace('type = "finetune"', 'type = "finetune"\nepoch = 3\nlearning_rate = -1\noptimizer = "adamx"')
    text = text.replace('name = "r"', 'name = "../r"').replace('path = "mine.tsv"\n', "")
    with pytest.raises(TrainingError) as caught:
        load(tmp_path, text)
    said = str(caught.value)
    assert said.startswith(str(tmp_path / "r.toml"))
    for line in (
        "stages.0.epoch: no such key",
        "stages.0.learning_rate: input should be greater than 0, got -1",
        "stages.0.optimizer: input should be 'adamw'",
        "name: string should match pattern",
        "data.sources.0.path: is missing",
    ):
        assert line in said


def test_what_does_not_fit_together_is_told(tmp_path: Path) -> None:
    text = GOOD.replace('sources = ["mine"]', 'sources = ["yours"]\nhead_weights = { topic = 1.0 }').replace(
        '"last"', '"finetune"'
    )
    with pytest.raises(TrainingError) as caught:
        load(tmp_path, text)
    said = str(caught.value)
    assert "stages.1.sources: no source is called yours; there are mine" in said
    assert "stages.1.head_weights.topic: no such head" in said
    assert "'finetune' is the name of two" in said


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ('type = "finetune"\n', "needs freeze_embeddings = true and freeze_layers of 1 or more"),
        ('type = "finetune"\nfreeze_layers = 2\nfreeze_embeddings = false\n', "needs freeze_embeddings = true"),
        ('type = "align"\nparallel = ["x.tsv"]\nfreeze_layers = 2\n', "is for the stages finetune and transfer"),
    ],
)
def test_only_what_is_frozen_and_supervised_is_kept(tmp_path: Path, more: str, said: str) -> None:
    with pytest.raises(TrainingError, match=f"stages.0.cache_frozen: {said}"):
        load(tmp_path, GOOD.replace('type = "finetune"\n', more + "cache_frozen = true\n"))


@pytest.mark.parametrize("text", ["name = ", "name = 'a'\nname = 'b'"])
def test_what_is_not_toml_is_told(tmp_path: Path, text: str) -> None:
    with pytest.raises(TrainingError, match="is not TOML"):
        load(tmp_path, text)


def test_values_can_be_changed_from_the_command(tmp_path: Path) -> None:
    found = load(tmp_path, GOOD, "name=other", "stages.0.epochs=3", "stages.last.replay=0.5", "vocabulary.pieces=900")
    assert (found.name, found.stages[0].epochs, found.stages[1].replay, found.vocabulary.pieces) == (
        "other",
        3,
        0.5,
        900,
    )  # type: ignore[union-attr]
    for change, said in (
        ("stages.7.epochs=1", "'7' is no member"),
        ("name", "is no KEY=VALUE"),
        ("stages.0.epoch=1", "no such key"),
    ):
        with pytest.raises(TrainingError, match=said):
            load(tmp_path, GOOD, change)


def test_a_variable_that_is_not_set_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_SUCH_PLACE", raising=False)
    with pytest.raises(TrainingError, match=r"NO_SUCH_PLACE is not set .*export NO_SUCH_PLACE="):
        resolved("$NO_SUCH_PLACE/a.tsv", Path())
    monkeypatch.setenv("NO_SUCH_PLACE", "/data")
    assert resolved("${NO_SUCH_PLACE}/a.tsv", Path("recipes")) == Path("/data/a.tsv")
    assert resolved("a.tsv", Path("recipes")) == Path("recipes/a.tsv")


def test_a_fingerprint_is_of_what_changes_the_result() -> None:
    plain = fingerprint(FinetuneSettings())
    assert fingerprint(FinetuneSettings(checkpoint_minutes=9)) == plain
    assert fingerprint(FinetuneSettings(epochs=9)) != plain


def test_the_shipped_recipes_are_good() -> None:
    for path in (Path(__file__).parents[3] / "training" / "recipes").glob("*.toml"):
        assert load_recipe(path).name == tomllib.loads(path.read_text())["name"]


def test_every_key_is_documented_and_the_document_is_the_one_from_the_code() -> None:
    from training.docs import recipe_keys

    document = Path(__file__).parents[3] / "docs" / "recipe.md"
    assert document.read_text(encoding="utf-8") == recipe_keys(), "run `make docs`"
    undescribed = [line for line in recipe_keys().splitlines() if line.startswith("| `") and line.endswith("|  |")]
    assert not undescribed
