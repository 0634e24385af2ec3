"""The commands as a user meets them: exit codes, no traceback, output that can be piped."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest
from jsonschema import Draft202012Validator
from typer.testing import CliRunner

from monitor.cli import app
from monitor.docs import documents
from monitor.records import Alert, Evidence, Opinion, Origin, cloud_event, encode
from monitor.schemas import schemas
from tests.conftest import ROOT
from tests.support.tiny_bundle import make_tiny_bundle

runner = CliRunner()


def test_help_names_every_command() -> None:
    told = runner.invoke(app, ["--help"]).output
    for command in (
        "run",
        "demo",
        "replay",
        "classify",
        "validate",
        "config",
        "schema",
        "bundle",
        "deadletter",
        "version",
    ):
        assert command in told


@pytest.mark.parametrize(
    "arguments",
    [
        ["run", "--config", "none.toml"],
        ["run", "--role", "chef"],
        ["run", "--role", "notify"],
        ["validate", "none.toml"],
        ["replay", "none.jsonl"],
        ["classify", "hello", "--bundle", "none"],
        ["bundle", "verify", "none"],
        ["schema", "pigeon"],
        ["nonsense"],
    ],
)
def test_a_mistake_of_the_user_is_told_plainly_with_exit_code_2(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = runner.invoke(app, arguments)
    assert result.exit_code == 2, result.output
    assert result.exception is None or isinstance(result.exception, SystemExit)
    assert "Traceback" not in result.output


def test_classify_as_json(tmp_path: Path) -> None:
    bundle = make_tiny_bundle(tmp_path / "tiny")
    result = runner.invoke(app, ["classify", "--json", "--bundle", str(bundle), "good", "awful"])
    assert result.exit_code == 0, result.output
    rows = [json.loads(line) for line in result.output.splitlines()]
    assert [row["sentiment"] for row in rows] == ["positive", "negative"]
    assert all(abs(sum(row["probabilities"].values()) - 1) < 1e-3 for row in rows)


def test_classify_takes_bytes_that_are_no_text(tmp_path: Path) -> None:
    bundle = make_tiny_bundle(tmp_path / "bundle")
    # As the shell's bytes arrive: what is not UTF-8 as lone surrogates.
    result = runner.invoke(app, ["classify", "--json", "--bundle", str(bundle), "good \udcff"])
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["text"] == "good \ufffd\ufffd\ufffd"


def test_a_damaged_bundle_is_found(tmp_path: Path) -> None:
    bundle = make_tiny_bundle(tmp_path / "tiny")
    assert runner.invoke(app, ["bundle", "verify", str(bundle)]).exit_code == 0
    with (bundle / "tokenizer.json").open("ab") as file:
        file.write(b" ")
    damaged = runner.invoke(app, ["bundle", "verify", str(bundle)])
    assert damaged.exit_code == 2
    assert "tokenizer.json" in damaged.output


def test_a_count_series_is_scored_row_by_row(tmp_path: Path) -> None:
    rows = [f"2026-03-{1 + n // 288:02d} {n % 288 // 12:02d}:{n % 12 * 5:02d}:00,{20 + n % 7}" for n in range(288 * 4)]
    rows[1000:1006] = [row.rsplit(",", 1)[0] + ",900" for row in rows[1000:1006]]
    (tmp_path / "counts.csv").write_text("timestamp,value\n" + "\n".join(rows) + "\n")
    arguments = ["backtest", "--counts", str(tmp_path / "counts.csv"), "--out", str(tmp_path / "scores.csv")]
    result = runner.invoke(app, arguments)
    assert result.exit_code == 0, result.output
    scores = [line.split(",") for line in (tmp_path / "scores.csv").read_text().splitlines()[1:]]
    assert len(scores) == len(rows)
    assert all(0 <= float(score) <= 1 for _, score, _ in scores)
    alerts = [n for n, (_, _, alert) in enumerate(scores) if alert == "1"]
    assert alerts
    assert 1000 <= alerts[0] <= 1006
    broken = tmp_path / "broken.csv"
    broken.write_text("when,what\n1,2\n")
    assert runner.invoke(app, ["backtest", "--counts", str(broken), "--out", str(tmp_path / "o.csv")]).exit_code == 2


def test_what_goes_on_the_topics_is_as_the_schemas_say() -> None:
    opinion = Opinion(
        id="a|b", document_id="a", entity="b", published_ms=1, lang="en", sentiment=(0.1, 0.2, 0.7),
        origin=Origin(topic="t", partition=0, offset=1),
    )  # fmt: skip
    alert = Alert(
        id="x", incident="i", entity="e", entity_name="E", signal="negative_share", state="firing", severity="warning",
        onset_ms=0, at_ms=1, languages=("en",), summary="s", description="d",
        evidence=Evidence(observed=0.5, expected=0.2, low=0.4, high=0.6, unit="share", documents=3, negatives=1.0),
    )  # fmt: skip
    for name, record in (("opinion", opinion), ("alert", cloud_event(alert))):
        schema = schemas()[name]
        Draft202012Validator.check_schema(schema)
        Draft202012Validator(schema).validate(json.loads(encode(record)))
        assert msgspec.json.decode(encode(record), type=type(record)) == record


def test_documents_made_from_code_are_up_to_date() -> None:
    for name, content in documents().items():
        assert (ROOT / "docs" / name).read_text(encoding="utf-8") == content, f"run `make docs`: docs/{name}"
