"""Scores are what a count by hand gives, and the report of a bundle holds them in every form."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from export import evaluate
from export.checkpoint import ExportError
from export.corpus import read_examples
from export.run import ExportOptions, export_bundle
from export.runner import bundle_outputs
from monitor.errors import BabelwatchError
from monitor.inference.bundle import Bundle
from tests.unit.export import tiny
from training.corpus import language_code, read_texts


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    checkpoint = tiny.write_checkpoint(folder / "checkpoint")
    export_bundle(checkpoint, folder / "bundle", options=ExportOptions(name="tiny", vocabulary=None, threads=1))
    return folder / "bundle"


def write(path: Path, rows: list[tuple[str, str, str]], header: str = "language\tlabel\ttext") -> Path:
    path.write_text("\n".join([header, *("\t".join(row) for row in rows)]) + "\n")
    return path


def test_scores_come_from_the_shipped_file(bundle: Path, tmp_path: Path) -> None:
    texts = tiny.texts(20, 4)
    logits = bundle_outputs(Bundle.load(bundle), texts)["topic"]
    said = [tiny.TOPIC[i] for i in logits.argmax(axis=1)]
    wrong = [tiny.TOPIC[1 - tiny.TOPIC.index(label)] for label in said]
    rows = [("en", label, text) for label, text in zip(said, texts, strict=True)]
    rows += [("deu_Latn", label, text) for label, text in zip(wrong, texts, strict=True)]
    found = evaluate.evaluate_bundle(bundle, write(tmp_path / "data.tsv", rows), threads=1)
    assert found.head.name == "topic"  # the first head that knows these labels
    assert found.languages["en"].accuracy == found.languages["en"].macro_f1 == 1.0
    assert found.languages["de"].accuracy == found.languages["de"].macro_f1 == 0.0
    assert found.mean.accuracy == 0.5
    assert np.sum(found.confusion["en"]) == 20
    console = Console(record=True, width=120, file=io.StringIO())
    console.print(evaluate.as_table(found))
    assert "100.0" in console.export_text()
    assert json.loads(evaluate.as_json(found))["languages"]["en"]["n"] == 20
    page = evaluate.as_html(found)
    assert page.startswith("<!doctype html>")
    assert "http" not in page


@pytest.mark.parametrize(
    ("rows", "header", "words"),
    [
        ([("en", "awful", "ba")], "language\tlabel\ttext", "unknown label 'awful'"),
        ([("en", "x", "ba")], "lang\tlabel\ttext", "needs the tab-separated columns"),
        ([], "language\tlabel\ttext", "holds no examples"),
    ],
)
def test_data_that_do_not_fit_are_named(
    bundle: Path, tmp_path: Path, rows: list[tuple[str, str, str]], header: str, words: str
) -> None:
    with pytest.raises(ExportError) as caught:
        evaluate.evaluate_bundle(bundle, write(tmp_path / "data.tsv", rows, header), head="sentiment")
    assert words in str(caught.value)


def test_what_the_bundle_does_not_hold_is_named(bundle: Path, tmp_path: Path) -> None:
    data = write(tmp_path / "data.tsv", [("en", "1", "ba")])
    with pytest.raises(BabelwatchError, match="has no head 'mood'"):
        evaluate.evaluate_bundle(bundle, data, head="mood")
    with pytest.raises(BabelwatchError, match="holds no fp16 model"):
        evaluate.evaluate_bundle(bundle, data, head="sentiment", variant="fp16")
    with pytest.raises(ExportError, match="cannot be read"):
        evaluate.evaluate_bundle(bundle, tmp_path / "none.tsv", head="sentiment")


def test_texts_for_the_vocabulary_leave_validation_out(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    write(tmp_path / "set" / "train.tsv", [("en", "0", "ba"), ("hi", "1", "kya baat"), ("hi", "1", "क्या")])
    write(tmp_path / "set" / "val.tsv", [("en", "0", "do")])
    (tmp_path / "set" / "parallel.tsv").write_text("en\tpt-BR\nki\tlu\n")
    assert read_texts(tmp_path) == {"en": ["ki", "ba"], "hi": ["क्या"], "hi-Latn": ["kya baat"], "pt": ["lu"]}
    assert len(read_examples(tmp_path / "set" / "val.tsv", ["bad", "good"])) == 1
    assert language_code("zho_Hans") == "zh"
