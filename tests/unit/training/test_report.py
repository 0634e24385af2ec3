"""The report counts what was predicted, keeps zero-shot languages apart, and shows no text where texts may not go."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest

from training import pages, report
from training.data.examples import Dataset, Example
from training.recipe import Recipe

RECIPE = Recipe.model_validate(
    {
        "name": "tiny",
        "description": "A recipe for a test.",
        "heads": {"mood": {"labels": ["bad", "good"]}},
        "data": {
            "sources": [{"name": "posts", "path": "posts.tsv", "mapping": "posts.toml"}],
            "leave_out": {"mood": ["sw"]},
        },
        "stages": [{"type": "finetune"}],
    }
)
TEXT = "<b>a secret post</b>"


def examples() -> list[Example]:
    langs = ["en"] * 40 + ["de"] * 40 + ["sw"] * 40
    return [Example("mood", i % 2, lang, f"{TEXT} {i}", "posts", i) for i, lang in enumerate(langs)]


def predictions(wrong: dict[str, int], split: str = "validation") -> dict[str, np.ndarray]:
    """Sure and right, but for the first so many texts of a language."""
    found = examples()
    logits = np.zeros((len(found), 2), np.float32)
    for i, example in enumerate(found):
        place = i - [e.lang for e in found].index(example.lang)
        said = 1 - example.label if place < wrong.get(example.lang, 0) else example.label
        logits[i, said] = 4
    places = np.arange(len(found))
    arrays = {f"{split}.mood.places": places, f"{split}.mood.logits": logits}
    if split == "validation":
        arrays[f"{split}.mood.probabilities"] = report.probabilities(logits.astype(float), np.array([0.0, 0.0]))
    return arrays


ENTRY = {"temperature": 2.0, "bias": [0.3, 0.5], "n": 40}


def test_scores_are_counted_per_language_and_zero_shot_apart() -> None:
    data = Dataset([], examples(), [])
    found = report.assess(RECIPE, data, predictions({"de": 10, "sw": 20}), {"mood": {"*": ENTRY}})["validation"]["mood"]
    assert {lang: score.accuracy for lang, score in found.languages.items()} == {"en": 1.0, "de": 0.75, "sw": 0.5}
    assert found.zero_shot == ("sw",)
    assert found.mean is not None
    assert found.mean.accuracy == pytest.approx(0.875)
    assert found.mean.n == 80
    assert found.zero_shot_mean is not None
    assert found.zero_shot_mean.accuracy == 0.5
    assert found.confusion["de"] == [[15, 5], [5, 15]]
    assert {(e.lang, e.truth == e.predicted) for e in found.errors} == {("de", False), ("sw", False)}
    assert "secret" not in json.dumps(found.as_json())


def test_a_test_split_takes_the_fitted_calibration() -> None:
    data = Dataset([], [], examples())
    entries = {"mood": {"*": ENTRY, "de": ENTRY | {"bias": [9.0, 0.0]}}}
    found = report.assess(RECIPE, data, predictions({}, "test"), entries)["test"]["mood"]
    assert found.languages["en"].accuracy == 1.0
    assert found.languages["de"].accuracy == 0.5  # its bias makes every text bad
    expected = np.exp(4 / 2 + 0.3) / (np.exp(4 / 2 + 0.3) + np.exp(0.5))
    sure = (expected + np.exp(4 / 2 + 0.5) / (np.exp(4 / 2 + 0.5) + np.exp(0.3))) / 2
    assert found.languages["en"].ece == pytest.approx(1 - sure, abs=0.02)


def test_the_page_is_whole_and_escaped_and_the_markdown_holds_no_text() -> None:
    data = Dataset([], examples(), [])
    found = report.assess(RECIPE, data, predictions({"de": 10}), {"mood": {"*": ENTRY}})
    picture = pages.curve({"loss": [(n, 1 / n) for n in range(1, 50)]}, "loss & more")
    page = report.as_html(RECIPE, found, [picture])
    assert "&lt;b&gt;a secret post&lt;/b&gt;" in page
    assert "<b>" not in page
    assert not re.search(r'(src|href)="http', page)
    assert page.count("<svg") == 2
    told = report.as_markdown(RECIPE, found, ["finetune.loss.svg"])
    assert "secret" not in told
    assert "| de | 40 | 75.0 (" in told
    assert "sw (zero-shot)" in told
    drawn = ElementTree.fromstring(pages.standalone(picture))
    assert drawn.tag == "{http://www.w3.org/2000/svg}svg"
    assert "var(" not in pages.standalone(picture)


def test_the_stage_writes_all_forms_and_the_curves(tmp_path: Path) -> None:
    from dataclasses import dataclass
    from typing import Any

    @dataclass
    class Given:
        recipe: Recipe
        run: Path
        data: Path
        said: list[str]

        def say(self, line: str) -> None:
            self.said.append(line)

    folders = [tmp_path / name for name in ("data", "calibrate", "finetune", "report")]
    for folder in folders:
        folder.mkdir()
    Dataset([], examples(), []).save(folders[0])
    np.savez(folders[1] / report.PREDICTIONS, **predictions({"de": 10}))
    (folders[1] / "calibration.json").write_text(json.dumps({"mood": {"*": ENTRY}}))
    history = {"losses": [[1, 0.9], [2, 0.5]], "scores": [[2, 0.61]], "seconds": 3, "texts": 9}
    (folders[2] / "history.json").write_text(json.dumps(history))
    given: Any = Given(RECIPE, tmp_path, folders[0], [])
    report.run(given, folders[3])
    assert sorted(path.name for path in folders[3].iterdir()) == [
        "REPORT.md", "finetune.loss.svg", "finetune.score.svg", "report.html", "scores.json",
    ]  # fmt: skip
    scores = json.loads((folders[3] / "scores.json").read_text())
    assert scores["validation"]["mood"]["languages"]["de"]["accuracy"] == 0.75
    assert "mood: macro-F1 87.50" in given.said[0]


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (0.52, 0.81), (3.0, 3.0001), (-5.0, 1200.0)])
def test_ticks_are_few_round_and_inside(low: float, high: float) -> None:
    ticks = pages._ticks(low, high)
    assert 2 <= len(ticks) <= 13
    assert all(low - 1e-9 <= tick <= high + 1e-9 for tick in ticks)
