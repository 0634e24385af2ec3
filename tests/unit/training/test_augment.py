"""Which translations are kept, and what becomes of the data."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

from training.data.examples import Dataset, Example
from training.errors import TrainingError
from training.stages import augment
from training.stages.settings import TranslateSettings

TABLE = {  # English, Swahili
    "a good day": "siku njema",
    "a bad day": "siku mbaya",
    "unchanged": "unchanged",
    "nothing": "",
    "short": "a translation that went on and on and on and on and on and on",
    "held out": "iliyowekwa",
}


def example(text: str, label: int = 0, lang: str = "en") -> Example:
    return Example("sentiment", label, lang, text, "posts", 2, "g1")


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    (tmp_path / "t.tsv").write_text("\n".join(["en\tsw", *(f"{a}\t{b}" for a, b in TABLE.items())]) + "\n")
    (tmp_path / "one.tsv").write_text("en\tfr\na good day\tbonjour\n")
    (tmp_path / "data").mkdir()
    train = [example(text, n % 3) for n, text in enumerate(TABLE)]
    Dataset(train, [example("iliyowekwa", 0, "sw")], []).save(tmp_path / "data")
    (tmp_path / "out").mkdir()
    return tmp_path


def run(folders: Path, **changes: Any) -> tuple[list[Example], dict[str, int]]:
    settings = TranslateSettings.model_validate(
        {"languages": ["sw"], "translator": "file:t.tsv", "similarity": 0.5} | changes
    )
    context: Any = SimpleNamespace(
        settings=settings, recipe=SimpleNamespace(seed=0), recipe_folder=folders, data=folders / "data",
        cache=folders / "cache", say=lambda _: None,
    )  # fmt: skip
    augment.translate(context, folders / "out")
    before, after = Dataset.load(folders / "data"), Dataset.load(folders / "out")
    assert after.train[: len(before.train)] == before.train
    assert after.validation == before.validation
    return after.train[len(before.train) :], json.loads((folders / "out" / "translations.json").read_text())["en-sw"]


def judge(wanted: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """An encoder that finds everything alike but the pairs named."""
    asked: list[tuple[str, str]] = []

    def similar(_: object, first: Sequence[str], second: Sequence[str]) -> np.ndarray:
        asked.extend(zip(first, second, strict=True))
        return np.array([0.1 if wanted.get(a) == b else 0.9 for a, b in zip(first, second, strict=True)])

    monkeypatch.setattr(augment, "similarities", similar)
    return asked


def test_sound_and_similar_translations_are_kept_with_their_labels(
    folders: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = judge({"a bad day": "a bad day"}, monkeypatch)
    made, counts = run(folders)
    assert [(e.lang, e.text, e.label, e.source, e.group) for e in made] == [("sw", "siku njema", 0, "posts", "g1")]
    # What is in validation is translated and judged like any other, but never trained on.
    assert counts == {"translated": 6, "unsound": 3, "unlike": 1, "kept": 2}
    assert ("a good day", "a good day") in asked  # judged by its way back


def test_direct_judgement_compares_the_text_with_its_translation(
    folders: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = judge({"a good day": "siku njema"}, monkeypatch)
    made, _ = run(folders, quality="direct")
    assert [e.text for e in made] == ["siku mbaya"]
    assert ("a bad day", "siku mbaya") in asked


def test_without_judgement_only_soundness_counts(folders: Path) -> None:
    assert len(run(folders, quality="none")[0]) == 2


def test_a_limit_draws_the_same_texts_again(folders: Path) -> None:
    first = run(folders, quality="none", limit=3)
    assert first[1]["translated"] == 3
    assert first == run(folders, quality="none", limit=3)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"languages": ["yo"]}, "knows no pair en-yo"),
        ({"origins": ["ja"]}, "no training text is in 'ja'"),
        ({"sources": ["novels"]}, "no training text"),
    ],
)
def test_what_cannot_be_translated_is_named(folders: Path, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(TrainingError, match=words):
        run(folders, **changes)
    assert list((folders / "out").iterdir()) == []
