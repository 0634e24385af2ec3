"""Variants of a recipe, trained and compared for real, with a tiny encoder."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from tests.conftest import ROOT  # noqa: E402
from tests.unit.training import corpus  # noqa: E402


def test_variants_share_what_is_prepared_and_are_compared_with_the_recipe(tmp_path: Path) -> None:
    recipe = corpus.write_all(tmp_path / "recipe")
    (tmp_path / "variants.toml").write_text(
        '"learns nothing" = ["stages.0.learning_rate=1e-9", "stages.0.head_learning_rate=1e-9", "stages.1.learning_rate=1e-9", '
        '"stages.1.head_learning_rate=1e-9"]\n"broken" = ["stages.0.learning_rate=1e30", "stages.0.clip=1e30", "stages.0.warmup=0"]\n'
    )
    command = [sys.executable, "benchmarks/training/ablation.py", str(recipe), str(tmp_path / "variants.toml")]
    command += ["--runs", str(tmp_path / "runs"), "--seeds", "3"]
    said = subprocess.run(
        command, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=True
    ).stdout
    rows = {
        line.split(" | ")[0].strip("| "): line.split(" | ")
        for line in said.split("\ntopic\n")[0].splitlines()
        if "|" in line
    }
    assert float(rows["as it is"][1]) > 90
    assert rows["broken"][1] == "failed"
    assert "not a number" in (tmp_path / "runs" / "tiny-broken-3.log").read_text()
    low, high = rows["learns nothing"][3].partition("(")[2].partition(")")[0].split(" to ")
    assert float(low) < float(high) < 0
    log = (tmp_path / "runs" / "tiny-as-it-is-3.log").read_text()
    assert "data: done before" in log
    assert "vocabulary: done before" in log
