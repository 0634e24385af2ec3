"""Every query of the dashboards, and the rules, against a real Prometheus that scraped a real daemon at work."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from monitor.broker.settings import KafkaSettings, TopicSettings
from tests.conftest import ROOT
from tests.integration.test_operations import eventually
from tests.support.daemon import Daemon, send
from tests.support.prometheus import Prometheus
from tests.support.stream import documents
from tests.support.tiny_bundle import NAN_WORD, make_tiny_bundle

BOARDS = sorted((ROOT / "deploy" / "grafana" / "dashboards").glob("*.json"))
RULES = sorted((ROOT / "deploy" / "prometheus" / "rules").glob("*.yml"))
MACROS = {
    "$__rate_interval": "20s",
    "$__range": "10m",
    "$__interval": "5s",
    "$job": ".+",
    "$entity": ".+",
    "$lang": ".+",
}


def filled(expression: str) -> str:
    """A query as Grafana sends it, with everything chosen."""
    for macro, value in MACROS.items():
        expression = expression.replace(macro, value)
    assert "$" not in expression, expression
    return expression


def panels(board: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for panel in board["panels"]:
        yield panel
        yield from panel.get("panels") or ()


def empty_queries(prometheus: Prometheus, board: dict[str, Any]) -> list[str]:
    """Those that return nothing."""
    found = []
    now = time.time()
    for panel in panels(board):
        for target in panel.get("targets", ()):
            expression = filled(target["expr"])
            if not prometheus.get("query_range", query=expression, start=now - 60, end=now, step=2)["result"]:
                found.append(f"{panel['title']}: {expression}")
    marks = board.get("annotations", {}).get("list", ())
    found += [f"annotation {mark['name']}" for mark in marks if not prometheus.query(filled(mark["expr"]))]
    for choice in board["templating"]["list"]:
        if choice["type"] == "query":
            metric, label = re.fullmatch(r"label_values\((.*), (\w+)\)", choice["query"]).groups()  # type: ignore[union-attr]
            if not prometheus.get(f"label/{label}/values", **{"match[]": filled(metric)}):
                found.append(f"variable {choice['name']}")
    return found


def test_the_dashboards_are_those_of_the_code() -> None:
    pytest.importorskip("grafana_foundation_sdk")
    code = "import dashboards, json; print(json.dumps(dashboards.dashboards()))"
    made = subprocess.run([sys.executable, "-c", code], cwd=ROOT / "deploy" / "grafana", capture_output=True, text=True)
    assert made.returncode == 0, made.stderr
    assert {file.name: file.read_text() for file in BOARDS} == json.loads(made.stdout), "run `make docs`"


@pytest.mark.parametrize("file", BOARDS, ids=lambda file: file.stem)
def test_a_dashboard_is_whole(file: Path) -> None:
    """What Grafana would only show as an error in the browser."""
    board = json.loads(file.read_text())
    shown = list(panels(board))
    assert len({panel["id"] for panel in shown}) == len(shown)
    known = {choice["name"] for choice in board["templating"]["list"]}
    cells: set[tuple[int, int]] = set()
    for panel in shown:
        place = panel["gridPos"]
        own = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not own & cells, f"{panel['title']} lies over another panel"
        assert place["x"] + place["w"] <= 24
        cells |= own
        if panel["type"] == "row":
            continue
        assert panel["description"], f"{panel['title']} says not what it shows"
        assert panel["datasource"]["uid"] == "${datasource}"
        refs = [target["refId"] for target in panel["targets"]]
        assert len(set(refs)) == len(refs)
        for target in panel["targets"]:
            used = set(re.findall(r"\$(?:\{)?([a-z]\w*)", target["expr"]))
            assert used <= known, f"{panel['title']} uses {used - known}"


async def test_every_query_returns_data(tmp_path: Path, tansu_address: str, names: TopicSettings) -> None:
    settings = KafkaSettings(bootstrap_servers=tansu_address, group_prefix=names.documents.split(".")[0])
    sink = '[[sinks]]\ntype = "stdout"\nname = "out"\n'
    daemon = Daemon(tmp_path / "one", settings, names, make_tiny_bundle(tmp_path / "tiny"), extra=sink)
    prometheus = Prometheus(tmp_path / "prom", [f"127.0.0.1:{daemon.port}"], RULES).start()
    try:
        await daemon.start().ready()
        await send(settings, names.documents, [b"no json", json.dumps({"text": f"Acme {NAN_WORD}"}).encode()])
        # The rise lasts to the end, so that the incident is still open.
        await send(settings, names.documents, documents(minutes=720, rise=(600, 720)))
        await daemon.until(lambda d: d.metric("babelwatch_open_incidents", entity="acme") > 0)
        for file in BOARDS:
            board = json.loads(file.read_text())
            await eventually(
                lambda board=board: empty_queries(prometheus, board), lambda empty: not empty, timeout_s=30
            )
        assert prometheus.query("babelwatch_role_ready == 0") == []
        firing = await eventually(
            lambda: [a for a in prometheus.get("alerts")["alerts"] if a["state"] == "firing"],
            lambda found: "BabelwatchIncident" in [alert["labels"]["alertname"] for alert in found],
        )
        incident = next(a for a in firing if a["labels"]["alertname"] == "BabelwatchIncident")  # type: ignore[attr-defined]
        assert (incident["labels"]["entity"], incident["labels"]["owner"]) == ("acme", "brands")
        rules = [rule for group in prometheus.get("rules")["groups"] for rule in group["rules"]]
        assert [rule["name"] for rule in rules if rule["health"] != "ok"] == []
        documented = set(re.findall(r"`(babelwatch_\w+)`", (ROOT / "docs" / "metrics.md").read_text()))
        exposed = set(re.findall(r"^# TYPE (babelwatch_\w+)", daemon.get("/metrics")[1], flags=re.M))
        assert {name for name in exposed if not name.endswith("_created")} <= documented
        assert await daemon.end() == 0
    finally:
        daemon.kill()
        prometheus.stop()
