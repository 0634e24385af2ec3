"""A tiny recipe goes the whole road, from rows to the daemon's classifier; and one that was killed ends where it would have."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from safetensors.torch import load_file  # noqa: E402

from tests.unit.training import corpus  # noqa: E402
from training.errors import TrainingError  # noqa: E402
from training.recipe import load_recipe  # noqa: E402
from training.run import run_recipe  # noqa: E402

ROOT = Path(__file__).parents[3]


def train(recipe: Path, runs: Path, *changes: str) -> tuple[Path, list[str]]:
    said: list[str] = []
    return run_recipe(load_recipe(recipe, changes), recipe.parent, runs, cache=runs, say=said.append), said


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return corpus.write_all(tmp_path_factory.mktemp("recipe"))


@pytest.fixture(scope="module")
def run(recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(recipe, tmp_path_factory.mktemp("runs"))[0]


def test_it_learns_and_the_daemon_serves_what_it_learned(run: Path, tmp_path: Path) -> None:
    from export.run import ExportOptions, export_bundle
    from monitor.oneshot import classify_texts

    calibration = json.loads((run / "calibration.json").read_text())
    assert calibration["sentiment"]["*"]["macro_f1"] > 0.9
    assert calibration["topic"]["*"]["macro_f1"] > 0.9
    assert set(calibration["sentiment"]) == {"*", *corpus.LANGS}
    about = json.loads((run / "model.json").read_text())
    assert about["languages"] == list(corpus.LANGS)
    assert about["provenance"]["data"] == ["news", "posts"]

    report = export_bundle(run, tmp_path / "bundle", options=ExportOptions(name="tiny", benchmark=False))
    # Nothing is cut by the export, which knows no texts here: it tells what the cut before the training costs.
    assert set(report.coverage) >= set(corpus.LANGS)
    for label, telling in corpus.TELLING.items():
        (found,) = classify_texts([f"{telling} ba {telling} {telling}"], tmp_path / "bundle")
        assert found.sentiment == label


def test_the_vocabulary_is_cut_before_training(run: Path) -> None:
    from export.checkpoint import load_checkpoint

    checkpoint = load_checkpoint(run)
    pieces = checkpoint.tokenizer.get_vocab_size(with_added_tokens=True)
    assert pieces <= 700
    assert checkpoint.model.encoder.get_input_embeddings().weight.shape[0] == pieces  # type: ignore[operator]


def killed_at_work(command: list[str], runs: Path) -> None:
    """Start it, and kill -9 it with its processes once it has saved the fifth step."""
    state = runs / "tiny" / "work" / "finetune" / "run-0" / "state" / "progress.json"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL) as started:
        assert started.stderr is not None
        while not (state.exists() and json.loads(state.read_text())["step"] >= 5):
            assert started.stderr.readline(), "it ended before it could be killed"
        children = Path(f"/proc/{started.pid}/task/{started.pid}/children").read_text().split()
        for process in (*children, started.pid):
            os.kill(int(process), signal.SIGKILL)
    assert not (runs / "tiny" / "finetune").exists()


def test_what_is_done_is_not_done_again_and_what_changed_is(recipe: Path, run: Path) -> None:
    _, said = train(recipe, run.parents[1])
    assert all(line.endswith("done before") for line in said)
    _, said = train(recipe, run.parents[1], "calibrate.folds=3")
    assert "transfer: done before" in said
    assert "calibrate: made from other settings or data; again" in said


def test_a_run_killed_at_any_moment_ends_with_the_same_weights(recipe: Path, run: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "monitor.cli", "train", str(recipe), "--runs", str(tmp_path)]
    killed_at_work([*command, "--set", "stages.0.checkpoint_minutes=1e-6"], tmp_path)  # it saves after each step
    # How often it is saved is no part of the result, so the fingerprint lets the default of the recipe go on from it.
    final, said = train(recipe, tmp_path)
    assert any("going on from step" in line for line in said)
    for file in ("encoder/model.safetensors", "heads.safetensors"):
        expected, found = load_file(run / file), load_file(final / file)
        assert all(torch.equal(expected[name], found[name]) for name in expected), file


def test_runs_of_a_stage_differ_and_the_mean_of_their_weights_is_kept(recipe: Path, tmp_path: Path) -> None:
    def weights(name: str, *changes: str) -> dict[str, torch.Tensor]:
        train(recipe, tmp_path / name, "stages.0.average=0", *changes)
        return load_file(tmp_path / name / "tiny" / "finetune" / "encoder" / "model.safetensors")

    apart = [weights(str(seed), f"stages.0.seed={seed}") for seed in (0, 7919)]
    mean = weights("mean", "stages.0.seed=0", "stages.0.runs=2")
    changed = [name for name in mean if not torch.equal(apart[0][name], apart[1][name])]
    assert changed
    for name in changed:
        assert torch.allclose(mean[name], (apart[0][name] + apart[1][name]) / 2, atol=1e-6), name


def test_a_stage_keeps_a_share_of_the_weights_as_it_found_them(recipe: Path, run: Path, tmp_path: Path) -> None:
    kept = train(recipe, tmp_path, "stages.1.keep=0.25")[0]
    folders = (run.parent / "finetune", run.parent / "transfer", kept)
    for file in ("encoder/model.safetensors", "heads.safetensors"):
        before, after, mixed = (load_file(folder / file) for folder in folders)
        assert any(not torch.equal(before[name], after[name]) for name in mixed)
        for name, value in mixed.items():
            assert torch.allclose(value, before[name] / 4 + after[name] * 3 / 4, atol=1e-6), name


def test_a_loss_that_is_no_number_is_one_clear_line(recipe: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"the loss is not a number at step .* \(a smaller learning_rate"):
        train(recipe, tmp_path, "stages.0.learning_rate=1e30", "stages.0.clip=1e30", "stages.0.warmup=0")
    assert not (tmp_path / "tiny" / "finetune").exists()


def test_a_dry_run_shows_data_labels_lengths_and_cost_and_writes_nothing(recipe: Path, tmp_path: Path) -> None:
    from training.dryrun import dry_run

    before = sorted(recipe.parent.rglob("*"))
    shown = "\n".join(dry_run(load_recipe(recipe), recipe.parent, tmp_path))
    assert "| posts | train | 200 | 3 |" in shown  # the source, its texts and languages
    assert "| posts | 0 | negative |" in shown  # the mapping
    assert "   8-15 " in shown  # a bar of the histogram
    assert "texts/s:" in shown
    assert sorted(recipe.parent.rglob("*")) == before
    assert not list(tmp_path.iterdir())


def test_mistakes_end_the_command_with_one_line_and_code_2(recipe: Path, tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from monitor.cli import app

    for change, said in (
        ("data.sources.0.path=nowhere.tsv", "nowhere.tsv: is not there"),
        ("data.sources.0.mapping=nowhere.toml", "nowhere.toml: no such mapping"),
        ("encoder.model=/no/such/folder", "/no/such/folder: cannot be loaded"),
        ("vocabulary.pieces=5", "5 pieces are fewer than"),
        ("stages.0.freeze_layers=9", "freeze_layers: the encoder has 2 layers"),
    ):
        found = CliRunner().invoke(app, ["train", str(recipe), "--runs", str(tmp_path), "--set", change])
        assert found.exit_code == 2, found.output
        line = found.stderr.strip().splitlines()[-1]
        assert line.startswith("error ")
        assert said in line


@pytest.mark.parametrize("shard", [False, True], ids=["ddp", "fsdp"])
def test_two_processes_do_what_one_does_with_twice_the_batches_though_they_are_killed(
    recipe: Path, tmp_path: Path, shard: bool
) -> None:
    same = ["stages.0.dropout=0.0", "stages.0.head_dropout=0.0", "stages.0.epochs=1"]
    same += ["stages.transfer.unfreeze_every=0.0", "stages.0.precision=fp32", "stages.transfer.dropout=0.0"]
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    command += ["-m", "monitor.cli", "train", str(recipe), "--runs", str(tmp_path / "two")]
    for change in (*same, f"stages.0.shard={str(shard).lower()}", "stages.0.checkpoint_minutes=1e-6"):
        command += ["--set", change]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    killed_at_work(command, tmp_path / "two")
    ended = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert "going on from step" in ended.stderr
    train(recipe, tmp_path / "one", *same, "stages.0.accumulate=2")
    found, expected = (
        load_file(tmp_path / n / "tiny" / "finetune" / "encoder" / "model.safetensors") for n in ("two", "one")
    )
    for name, value in expected.items():
        assert torch.allclose(found[name], value, atol=1e-4), name
    assert json.loads((tmp_path / "two" / "tiny" / "final" / "calibration.json").read_text())
