"""`babelwatch export` as a user meets it: a run in, a bundle out, or one plain line."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from export.errors import ExportError
from export.texts import gather
from monitor.cli import app
from monitor.inference.bundle import Bundle, Head
from tests.unit.export import tiny
from training.data.examples import Dataset, Example

runner = CliRunner()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run, as training leaves it."""
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    tiny.write_checkpoint(folder / "final")
    (folder / "data").mkdir()
    train = [Example("sentiment", i % 3, "de", text, "made", i) for i, text in enumerate(tiny.texts(60, 6))]
    held = [Example("sentiment", i % 3, "en", text, "made", i) for i, text in enumerate(tiny.texts(30, 7))]
    Dataset(train, held, []).save(folder / "data")
    return folder


def export(*arguments: object) -> tuple[int, str]:
    told = runner.invoke(app, ["export", *map(str, arguments)])
    assert told.exception is None or isinstance(told.exception, SystemExit), told.exception
    return told.exit_code, told.output


def test_a_run_becomes_a_bundle_with_its_table(run: Path, tmp_path: Path) -> None:
    # Random weights lie close to the borders, where any rounding turns a class: this limit is for them.
    code, told = export(
        run, "--out", tmp_path / "made", "--max-f1-drop", 30, "--report", tmp_path / "r.json", "--variant", "fp32"
    )
    assert code == 0, told
    bundle = Bundle.load(tmp_path / "made")
    assert bundle.manifest.name == "made"
    assert {"de", "en", "fi", "hi"} <= set(bundle.manifest.languages)
    assert len(bundle.manifest.languages) >= 40  # word lists stand in for languages without texts
    assert "model.fp32.onnx" in told
    report = json.loads((tmp_path / "r.json").read_text())
    assert report["version"] == bundle.version
    assert set(report["texts_per_s"]) == {"fp32, not fused", "fp32"}
    assert report["parity"]["fp32"]["sentiment"]["languages"]["en"]["f1_drop"] is not None
    assert report["tokenizer"]["lines"] == 60


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--variant", "int3"], "'int3' is no precision"),
        (["--data", "nowhere"], "nowhere: no such folder"),
        (["--vocabulary", "20"], "pieces are fewer than"),
        (["--max-f1-drop", "-100", "--variant", "fp32"], "no bundle was written"),
    ],
)
def test_a_mistake_and_a_refusal_are_one_line_and_leave_nothing(
    run: Path, tmp_path: Path, arguments: list[str], words: str
) -> None:
    code, told = export(run, "--out", tmp_path / "made", "--no-benchmark", *arguments)
    assert code == 2
    (line,) = [line for line in told.splitlines() if line.startswith("error")]
    assert words in line
    assert list(tmp_path.iterdir()) == []


def test_a_folder_of_something_else_is_not_replaced(run: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    code, told = export(run, "--out", tmp_path)
    assert code == 2
    assert "something else in it" in told
    assert (tmp_path / "thesis.txt").exists()


def test_a_run_that_is_not_finished_is_named(tmp_path: Path) -> None:
    code, told = export(tmp_path, "--out", tmp_path / "made")
    assert code == 2
    assert "is the training run finished?" in told


def test_texts_come_from_the_run_and_the_folder_beside_it(run: Path, tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "train.tsv").write_text("language\ttext\tlabel\nsw\tba do\t0\nde\tki\t1\n")
    (tmp_path / "set" / "val.tsv").write_text("language\ttext\tcategory\nsw\tlu\tsport\n")
    heads = [Head(name="sentiment", labels=tuple(tiny.SENTIMENT)), Head(name="topic", labels=tuple(tiny.TOPIC))]
    found = gather(run, heads, tmp_path)
    assert (len(found.lines["de"]), found.lines["sw"]) == (61, ["ba do"])
    assert {head: len(examples) for head, examples in found.examples.items()} == {"sentiment": 30, "topic": 1}
    assert gather(run / "final", heads).examples.keys() == {"sentiment"}
    with pytest.raises(ExportError, match="no such folder"):
        gather(run, heads, tmp_path / "none")


def test_the_daemon_needs_neither_export_nor_training() -> None:
    """Importing the commands loads none of what only the extra installs; a command that needs it says so."""
    code = (
        "import sys, importlib.abc\n"
        "class Missing(importlib.abc.MetaPathFinder):\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] in ('torch', 'transformers', 'onnx', 'accelerate', 'wordfreq', 'langcodes'):\n"
        "            raise ModuleNotFoundError(name, name=name)\n"
        "sys.meta_path.insert(0, Missing())\n"
        "import monitor.cli\n"
        "assert not [m for m in sys.modules if m.split('.')[0] in ('export', 'training')]\n"
        "sys.argv = ['babelwatch', 'export', 'runs/x', '--out', 'y']\n"
        "monitor.cli.main()\n"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ended.returncode == 2
    assert "is not installed (pip install 'babelwatch[training]')" in ended.stderr.replace("\n", " ")
    assert "Traceback" not in ended.stderr


def test_a_copied_checkpoint_needs_no_run(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run / "final", tmp_path / "alone")
    code, told = export(
        tmp_path / "alone", "--out", tmp_path / "made", "--no-benchmark", "--variant", "int4", "--variant", "int8"
    )
    assert code == 0, told
    assert "no labelled texts" in told
    assert {"model.int4.onnx", "model.int8.onnx"} <= set(Bundle.load(tmp_path / "made").manifest.files)
