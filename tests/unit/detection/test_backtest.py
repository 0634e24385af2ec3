"""A file through the detector: causal, fair to compare, and judged by the published rules."""

import csv
import json
import os
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from monitor.backtest import (
    FALSE_POSITIVE_COST,
    BacktestError,
    Scored,
    backtest_counts,
    judge,
    nab_score,
    read_counts,
    read_labels,
    score_counts,
    windows_of,
)
from monitor.backtest_command import variant
from monitor.backtest_report import Backtested, report
from monitor.backtest_stream import _stamped, read_opinions, replay
from monitor.cli import app
from monitor.detection.correlate import Correlator, Watched
from monitor.detection.detector import Detector, EntityInfo
from monitor.detection.incidents import AlertSettings
from monitor.detection.settings import DetectionSettings
from monitor.documents.eventtime import EventClock
from monitor.errors import BabelwatchError
from monitor.records import Opinion, encode
from monitor.replay import Line
from tests.support.tiny_bundle import make_tiny_bundle

SETTINGS = DetectionSettings()
STEP_MS = 300_000


def counts(days: float = 3.0, spike: int | None = None) -> list[tuple[str, int, float]]:
    values = np.random.default_rng(0).poisson(8, int(days * 288)).astype(float)
    if spike is not None:
        values[spike : spike + 6] = 90
    return [(str(n * 300), n * STEP_MS, float(value)) for n, value in enumerate(values)]


def scored(alerts: set[int], rows: int = 2000) -> list[Scored]:
    return [Scored(str(n), n * STEP_MS, 1.0, 0.0, n in alerts) for n in range(rows)]


def window(first: int, last: int) -> tuple[int, int]:
    return first * STEP_MS, last * STEP_MS


def test_a_spike_is_one_alert_at_its_first_rows_and_scores_are_about_the_bar():
    rows = list(score_counts(counts(spike=700), SETTINGS))
    alerts = [n for n, row in enumerate(rows) if row.alert]
    assert len(alerts) == 1
    assert 700 <= alerts[0] <= 702
    assert all(0 <= row.score <= 1 for row in rows)
    assert all((row.score >= 0.5) == row.alert for row in rows)


def test_no_row_knows_what_comes_after_it():
    long, short = counts(spike=700), counts(spike=700)[:650]
    assert list(score_counts(long, SETTINGS))[:650] == list(score_counts(short, SETTINGS))


def test_each_row_is_written_before_the_next_is_read():
    def endless():
        yield from counts(0.1)
        raise AssertionError("read too far")

    rows = score_counts(endless(), SETTINGS)
    assert [next(rows).value for _ in range(28)] == [row[2] for row in counts(0.1)[:28]]


def test_a_file_becomes_a_file(tmp_path: Path):
    source, out = tmp_path / "counts.csv", tmp_path / "scores.csv"
    source.write_text("timestamp,value\n2015-02-26 21:42:53,104\n2015-02-26T21:47:53Z,0\n1424987573,7\n")
    backtest_counts(source, out, SETTINGS)
    with out.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["timestamp"] for row in rows] == ["2015-02-26 21:42:53", "2015-02-26T21:47:53Z", "1424987573"]
    assert {row["alert"] for row in rows} == {"0"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("when,what\n1,2\n", "timestamp"),
        ("timestamp,value\nsoon,2\n", ":2: 'soon' is no time"),
        ("timestamp,value\n1,2\n2,-1\n", ":3: '-1' is no count"),
        ("timestamp,value\n1,nan\n", "'nan' is no count"),
        ("timestamp,value\n1\n", "is no count"),
        ("timestamp,value\n600,1\n300,1\n", ":3: 300 is before the time of the row above"),
        ("timestamp,value\n600,1\n600,1\n", ":3: 600 is the same time as the row above"),
        ("timestamp,value\n", "holds no rows"),
    ],
)
def test_a_file_that_is_no_count_series_is_refused_with_the_line(tmp_path: Path, text: str, said: str):
    source = tmp_path / "counts.csv"
    source.write_text(text)
    with pytest.raises(BacktestError, match=said):
        list(read_counts(source))


def test_the_score_is_0_for_silence_and_100_for_the_first_row_of_each_window():
    windows = [window(900, 999), window(1500, 1599)]
    assert nab_score([judge(scored(set()), windows)]) == pytest.approx(0)
    assert nab_score([judge(scored({900, 1500}), windows)]) == pytest.approx(100)
    # Only the earliest in a window counts.
    assert nab_score([judge(scored({900, 950, 1500}), windows)]) == pytest.approx(100)


def test_what_is_outside_costs_by_its_distance_and_twice_in_the_low_profile():
    windows = [window(900, 999), window(1500, 1599)]
    perfect = {900, 1500}
    for row, cost in ((800, 1.0), (1001, 0.05), (1400, 1.0)):
        quality = judge(scored(perfect | {row}), windows)
        lost = (100 - nab_score([quality])) / 100 * 2 * 2
        assert lost == pytest.approx(FALSE_POSITIVE_COST["standard"] * cost, abs=0.01)
        low = (100 - nab_score([quality], "low false positives")) / 100 * 2 * 2
        assert low == pytest.approx(2 * lost)
    # While the detector learns, nothing counts.
    assert nab_score([judge(scored(perfect | {100}), windows)]) == pytest.approx(100)


def test_quality_in_words_people_use():
    quality = judge(scored({500, 950}), [window(900, 999), window(1500, 1599)])
    assert (quality.found, quality.windows, quality.false_alarms) == (1, 2, 1)
    assert (quality.precision, quality.recall) == (0.5, 0.5)
    assert quality.delays_h == pytest.approx((50 / 12,))


def test_the_report_stands_alone_and_shows_all_parameters(tmp_path: Path):
    rows = list(score_counts(counts(spike=700), SETTINGS, band=True))
    windows = [window(690, 720)]
    run = [Backtested("a <series>", rows, windows, judge(rows, windows))]
    page = report({"as set": run, "half the budget": run})
    assert "a &lt;series&gt;" in page
    assert page.count("<svg") == 1
    assert "half the budget" in page
    assert "http" not in page.replace("http-equiv", "")


def opinions(days: float) -> list[Opinion]:
    rng, found = np.random.default_rng(2), []
    for bucket in range(int(days * 288)):
        for number in range(rng.poisson(6)):
            bad = rng.random() < (0.8 if bucket >= days * 288 - 12 else 0.2)
            found.append(
                Opinion(
                    id=f"{bucket}-{number}|acme", document_id=f"{bucket}-{number}", entity="acme", lang="de",
                    published_ms=bucket * STEP_MS + int(rng.integers(STEP_MS)), text=f"Der Zug kam um {bucket} Uhr",
                    sentiment=(0.9, 0.05, 0.05) if bad else (0.05, 0.9, 0.05),
                )
            )  # fmt: skip
    return sorted(found, key=lambda opinion: opinion.published_ms)


def test_opinions_from_a_file_give_the_alerts_of_the_daemon(tmp_path: Path):
    file, settings = tmp_path / "opinions.jsonl", DetectionSettings(bucket_s=300, false_alarms_per_day=0.1)
    stream = opinions(1.5)
    file.write_bytes(b"\n".join(encode(opinion) for opinion in stream) + b"\n\n")
    detector = Detector(settings, AlertSettings(), {"acme": EntityInfo("Acme")}, lambda _lang: None)
    correlator = Correlator(AlertSettings(), {"acme": Watched("Acme", {})})
    alerts = list(replay(read_opinions(file), detector, correlator, settings))
    assert {alert.entity for alert in alerts} == {"acme"}
    assert alerts[0].onset_ms >= stream[-1].published_ms - 14 * STEP_MS
    file.write_bytes(b"{}\n")
    with pytest.raises(BacktestError, match=":1: not an opinion"):
        list(read_opinions(file))


def data_folder() -> Path:
    folder = Path(os.environ.get("BABELWATCH_DATA", "")) / "nab"
    if not os.environ.get("BABELWATCH_DATA") or not folder.is_dir():
        pytest.skip("BABELWATCH_DATA names no folder with the labelled series")
    return folder


@pytest.mark.slow
@pytest.mark.timeout(900)  # a minute of processor time, which a busy machine may stretch
def test_on_real_series_it_is_ahead_of_every_published_detector():
    folder, judged = data_folder(), []
    for file in sorted(folder.glob("*.csv")):
        rows = backtest_counts(file, None, SETTINGS)
        judged.append(judge(rows, windows_of(read_labels(folder / "windows.json"), file.name)))
    assert nab_score(judged) > 86.4
    assert nab_score(judged, "low false positives") > 75


def test_other_parameters_are_read_as_in_the_configuration_file():
    changed = variant('false_alarms_per_day=0.1, signals=["volume", "negative_share"]', SETTINGS)
    assert changed == SETTINGS.model_copy(update={"false_alarms_per_day": 0.1, "signals": ("volume", "negative_share")})
    for wrong in ("false_alarms_per_day", "false_alarms_per_day=-1", "no_such=1"):
        with pytest.raises(BabelwatchError, match="compare"):
            variant(wrong, SETTINGS)


def told(tmp_path: Path, *arguments: str, code: int = 0) -> str:
    result = CliRunner().invoke(app, ["backtest", *arguments], env={"COLUMNS": "200"})
    assert result.exit_code == code, result.output
    assert "Traceback" not in result.output
    return result.output


def write_counts(path: Path, days: float = 3.0, spike: int | None = 700) -> Path:
    lines = [f"{datetime.fromtimestamp(n / 1000, UTC).isoformat()},{int(v)}" for _, n, v in counts(days, spike)]
    path.write_text("timestamp,value\n" + "\n".join(lines) + "\n")
    return path


def test_the_command_judges_draws_and_compares_count_series(tmp_path: Path):
    one, two = write_counts(tmp_path / "one.csv"), write_counts(tmp_path / "two.csv", spike=None)
    spans = [[datetime.fromtimestamp(n * 300, UTC).isoformat() for n in (690, 720)]]
    (tmp_path / "windows.json").write_text(json.dumps({"one": spans, "data/two.csv": []}))
    page, scores = tmp_path / "report.html", tmp_path / "scores"
    output = told(
        tmp_path, "--counts", str(one), "--counts", str(two), "--out", str(scores), "--report", str(page),
        "--windows", str(tmp_path / "windows.json"), "--compare", "minimum_documents=100000",
    )  # fmt: skip
    assert "recall 1.00" in output
    assert "minimum_documents=100000: NAB standard 0.0" in output
    assert page.read_text().count("<svg") == 2
    with (scores / "one.csv").open(newline="") as file:
        assert sum(int(row["alert"]) for row in csv.DictReader(file)) == 1


def test_a_prefix_of_a_file_gives_the_same_rows(tmp_path: Path):
    whole = write_counts(tmp_path / "whole.csv", 1.2, spike=320)
    lines = whole.read_text().splitlines(keepends=True)
    (tmp_path / "prefix.csv").write_text("".join(lines[:325]))
    told(tmp_path, "--counts", str(whole), "--out", str(tmp_path / "a.csv"))
    told(tmp_path, "--counts", str(tmp_path / "prefix.csv"), "--out", str(tmp_path / "b.csv"))
    assert (tmp_path / "a.csv").read_text().startswith((tmp_path / "b.csv").read_text())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "--counts, --opinions and --documents"),
        (["--counts", "none.csv"], "none.csv"),
        (["--opinions", "none.jsonl"], "none.jsonl"),
        (["--counts", "one.csv", "--windows", "none.json"], "none.json"),
        (["--counts", "one.csv", "--windows", "empty.json"], "no windows for one.csv"),
        (["--counts", "one.csv", "--out", "no/such/folder/scores.csv"], "cannot be written"),
        (["--counts", "one.csv", "--counts", "one.csv"], "same name"),
        (["--counts", "one.csv", "--compare", "speed=1"], "speed"),
    ],
)
def test_a_mistake_in_the_command_is_told_plainly(
    arguments: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    write_counts(tmp_path / "one.csv", 0.05, None)
    (tmp_path / "empty.json").write_text("{}")
    assert said in told(tmp_path, *arguments, code=2)


def test_opinions_become_alerts_in_a_file_and_a_page(tmp_path: Path):
    file, page, out = tmp_path / "opinions.jsonl", tmp_path / "report.html", tmp_path / "alerts.jsonl"
    config = tmp_path / "babelwatch.toml"
    config.write_text('[detection]\nbucket_s = 300\nfalse_alarms_per_day = 0.1\n[inference]\nbundle = "none"\n')
    stream = opinions(1.2)
    file.write_bytes(b"\n".join(encode(opinion) for opinion in stream))
    output = told(
        tmp_path, "--opinions", str(file), "--config", str(config), "--report", str(page), "--out", str(out)
    )  # fmt: skip
    assert f"{len(stream)} opinions, 0 late; 1 incidents" in output
    assert json.loads(out.read_text().splitlines()[0])["type"] == "io.babelwatch.alert.v1"
    assert "<svg" in page.read_text()
    assert "%</text>" in page.read_text()


def test_documents_become_the_incidents_of_the_daemon_two_names_of_one_story_as_one(tmp_path: Path):
    bundle = make_tiny_bundle(tmp_path / "bundle", embedding=False)
    (tmp_path / "watchlist.toml").write_text(
        '[[entity]]\nid = "acme"\nname = "Acme"\naliases = { "*" = ["Acme"] }\n[[entity]]\nid = "zelda"\nname = "Zelda"\naliases = { "*" = ["Zelda"] }\n'
    )
    config = tmp_path / "babelwatch.toml"
    config.write_text(
        f'watchlist = "watchlist.toml"\n[detection]\nbucket_s = 300\n[inference]\nbundle = "{bundle}"\nembeddings = false\n'
    )
    rng, lines = np.random.default_rng(1), []
    for number in range(700):
        bad = rng.random() < (0.9 if number >= 640 else 0.15)
        word = "awful" if bad else "okay"
        at = datetime.fromtimestamp(1_772_323_200 + 180 * number, UTC).isoformat()
        text = f"Acme and Zelda are {word}: " + " ".join(f"word{n}" for n in rng.integers(0, 300, 8))
        lines.append(json.dumps({"id": f"d{number}", "text": text, "published_at": at, "lang": "en"}))
    lines.insert(300, json.dumps({"id": "wrong clock", "text": "Acme awful", "published_at": "2199-01-01T00:00:00Z"}))
    lines.insert(400, "no document")
    file, out = tmp_path / "documents.jsonl", tmp_path / "alerts.jsonl"
    file.write_text("\n".join(lines))
    output = told(tmp_path, "--documents", str(file), "--config", str(config), "--out", str(out))
    assert "1400 opinions, 0 late, 1 refused (future_time), 1 refused (not_json); 1 incidents" in output
    alerts = [json.loads(line)["data"] for line in out.read_text().splitlines()]
    assert len({alert["incident"] for alert in alerts}) == 1
    assert set(alerts[-1]["entities"]) == {"acme", "zelda"}
    assert alerts[0]["onset_ms"] == pytest.approx((1_772_323_200 + 180 * 640) * 1000, abs=1_200_000)


def test_documents_hours_apart_are_believed_and_a_wrong_clock_is_not():
    hours = [0, 2, 4, 5, 5, 5, 900_000, 8, 8, 11, 14]
    lines = [Line(b"", None, None) for _ in hours]
    clock = EventClock()
    stamped = list(
        _stamped(replace(line, due_ms=clock.observe(h * 3_600_000)) for line, h in zip(lines, hours, strict=True))
    )
    believed = [hour for hour, (_, at_ms) in zip(hours, stamped, strict=True) if hour * 3_600_000 <= at_ms + 600_000]
    assert set(hours) - set(believed) <= {900_000, 11, 14}  # nothing confirms the last two
