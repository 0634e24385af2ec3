"""Scores are what a count by hand gives, and the report of a bundle holds them in every form."""

from __future__ import annotations

import html
import io
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from typer.testing import CliRunner

from export import evaluate
from export.corpus import Columns, Example, read_examples
from export.errors import ExportError
from export.run import ExportOptions, export_bundle
from export.runner import bundle_outputs
from monitor.cli import app
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


def write(path: Path, rows: Sequence[tuple[str, ...]], header: str = "language\tlabel\ttext") -> Path:
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
    assert len(found.errors) == 5
    assert {(error.lang, error.truth == error.predicted) for error in found.errors} == {("de", False)}
    assert found.errors[0].probability == max(error.probability for error in found.errors)
    page = evaluate.as_html(found)
    assert html.escape(found.errors[0].text) in page
    assert page.startswith("<!doctype html>")
    assert "http" not in page


@pytest.mark.parametrize(
    ("rows", "header", "words"),
    [
        ([("en", "awful", "ba"), ("en", "good", "ba")], "language\tlabel\ttext", "row 2: 'awful'; row 3: 'good'"),
        ([("en", "x", "ba")], "tongue\tlabel\ttext", "has no column for the language"),
        ([("en", "x", "ba")], "lang\tlabel\tline", "name it with --text"),
        ([("en", "0")], "language\tlabel\ttext", "another number of cells"),
        ([], "language\tlabel\ttext", "holds no examples"),
    ],
)
def test_data_that_do_not_fit_are_named(
    bundle: Path, tmp_path: Path, rows: list[tuple[str, ...]], header: str, words: str
) -> None:
    with pytest.raises(ExportError) as caught:
        evaluate.evaluate_bundle(bundle, write(tmp_path / "data.tsv", rows, header), head="sentiment")
    assert words in str(caught.value)


def test_files_of_any_kind_and_columns_of_any_name(tmp_path: Path) -> None:
    labels = ["negative", "neutral", "positive"]
    (tmp_path / "a.csv").write_text('Locale,Review,Polarity\nen,"ba, do",POS\nde,"ki ""lu""",neg\n')
    found = read_examples(tmp_path / "a.csv", labels)
    assert found == [Example("en", "ba, do", 2), Example("de", 'ki "lu"', 0)]
    (tmp_path / "b.jsonl").write_text(
        '{"said": "ba", "stars": 5}\n{"said": "do", "stars": 1}\n{"said": "x", "stars": 9}\n'
    )
    columns = Columns(text="said", label="stars", lang="ko", labels={"5": "positive", "1": "negative", "9": ""})
    assert read_examples(tmp_path / "b.jsonl", labels, columns) == [Example("ko", "ba", 2), Example("ko", "do", 0)]
    write(tmp_path / "c.tsv", [("en", "4", "ba")], "language\tstars\ttext")
    assert read_examples(tmp_path / "c.tsv", labels, Columns(mapping="stars5")) == [Example("en", "ba", 2)]
    with pytest.raises(ExportError, match="has no label 'good'"):
        read_examples(tmp_path / "c.tsv", labels, Columns(label="stars", labels={"4": "good"}))


def test_the_command_scores_shows_and_writes_a_page(bundle: Path, tmp_path: Path) -> None:
    data = write(tmp_path / "data.tsv", [("en", "sport", text) for text in tiny.texts(12, 5)])
    told = CliRunner().invoke(
        app, ["evaluate", str(bundle), str(data), "--json", "--html", str(tmp_path / "page.html")]
    )
    assert told.exit_code == 0, told.output
    assert json.loads(told.stdout)["languages"]["en"]["n"] == 12
    assert "<svg" in (tmp_path / "page.html").read_text()
    refused = CliRunner().invoke(app, ["evaluate", str(bundle), str(data), "--map", "sport"])
    assert (refused.exit_code, refused.exception.__class__) == (2, SystemExit)
    assert "is no THERE=HERE" in refused.output


def test_what_the_bundle_does_not_hold_is_named(bundle: Path, tmp_path: Path) -> None:
    data = write(tmp_path / "data.tsv", [("en", "1", "ba")])
    with pytest.raises(BabelwatchError, match="has no head 'mood'"):
        evaluate.evaluate_bundle(bundle, data, head="mood")
    with pytest.raises(BabelwatchError, match="holds no fp16 model"):
        evaluate.evaluate_bundle(bundle, data, head="sentiment", variant="fp16")
    with pytest.raises(ExportError, match="is not there"):
        evaluate.evaluate_bundle(bundle, tmp_path / "none.tsv", head="sentiment")


def test_texts_for_the_vocabulary_leave_validation_out(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    write(tmp_path / "set" / "train.tsv", [("en", "0", "ba"), ("hi", "1", "kya baat"), ("hi", "1", "क्या")])
    write(tmp_path / "set" / "val.tsv", [("en", "0", "do")])
    (tmp_path / "set" / "parallel.tsv").write_text("en\tpt-BR\nki\tlu\n")
    assert read_texts(tmp_path) == {"en": ["ki", "ba"], "hi": ["क्या"], "hi-Latn": ["kya baat"], "pt": ["lu"]}
    assert len(read_examples(tmp_path / "set" / "val.tsv", ["bad", "good"])) == 1
    assert language_code("zho_Hans") == "zh"
