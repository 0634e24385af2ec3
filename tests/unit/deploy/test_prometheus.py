"""Rules and routes, by the tools that Prometheus and Alertmanager check them with."""

from __future__ import annotations

import re
import subprocess
from typing import Any

import pytest
import yaml
from prometheus_client import CollectorRegistry

from monitor.metrics import Metrics
from tests.conftest import ROOT
from tests.support.daemon import tool

PROMETHEUS = ROOT / "deploy" / "prometheus"
RULES = sorted((PROMETHEUS / "rules").glob("*.yml"))
TESTS = sorted((PROMETHEUS / "tests").glob("*.yml"))
ALERTMANAGER = ROOT / "deploy" / "alertmanager" / "alertmanager.yml"


def run(*command: str) -> str:
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


def alerts() -> dict[str, dict[str, Any]]:
    groups = [group for file in RULES for group in yaml.safe_load(file.read_text())["groups"]]
    return {rule["alert"]: rule for group in groups for rule in group["rules"] if "alert" in rule}


def test_promtool_takes_the_rules_and_the_configuration() -> None:
    run(tool("promtool"), "check", "rules", *map(str, RULES))
    run(tool("promtool"), "check", "config", str(PROMETHEUS / "prometheus.yml"))


@pytest.mark.parametrize("file", TESTS, ids=lambda file: file.stem)
def test_rules_fire_and_stay_silent(file: Any) -> None:
    run(tool("promtool"), "test", "rules", str(file))


def test_every_alert_has_a_case_where_it_fires_and_one_where_it_is_silent() -> None:
    checks = [check for file in TESTS for case in yaml.safe_load(file.read_text())["tests"]
              for check in case.get("alert_rule_test", ())]  # fmt: skip
    fires = {check["alertname"] for check in checks if check["exp_alerts"]}
    silent = {check["alertname"] for check in checks if not check["exp_alerts"]}
    assert set(alerts()) == fires == silent


def test_every_alert_says_how_bad_it_is_and_what_to_do() -> None:
    runbook = (ROOT / "docs" / "runbook.md").read_text()
    anchors = {heading.lower() for heading in re.findall(r"^#+ (\w+)$", runbook, flags=re.M)}
    for name, rule in alerts().items():
        severity = rule["labels"].get("severity") or ("severity" in rule["expr"] and "of the incident")
        assert severity in ("critical", "warning", "info", "of the incident"), name
        assert rule["labels"]["scope"] in ("daemon", "opinion"), name
        assert rule.get("for") or rule.get("keep_firing_for"), f"{name} would flap"
        assert rule["annotations"]["summary"]
        assert rule["annotations"]["description"]
        page, _, anchor = rule["annotations"]["runbook_url"].rpartition("#")
        assert page.endswith("/docs/runbook")
        assert anchor in anchors, f"docs/runbook.md does not tell of {name}"


def test_rules_ask_for_metrics_that_exist() -> None:
    known = {name for name, _, _ in Metrics(CollectorRegistry()).families()}
    exposed = known | {f"{name}_{part}" for name in known for part in ("bucket", "sum", "count")}
    for file in RULES:
        for rule in (rule for group in yaml.safe_load(file.read_text())["groups"] for rule in group["rules"]):
            asked = set(re.findall(r"(?<![:\w])babelwatch_\w+(?!\w*:)", rule["expr"]))
            assert asked <= exposed, f"{file.name}: {asked - exposed}"


@pytest.mark.parametrize(
    ("labels", "receivers"),
    [
        ("alertname=BabelwatchSentiment entity=x owner=travel-desk severity=critical", "duty,travel-desk"),
        ("alertname=BabelwatchSentiment entity=x owner=travel-desk severity=warning", "travel-desk"),
        ("alertname=BabelwatchSentiment entity=x owner=finance-desk severity=warning desk=east-asia", "desk-east-asia,finance-desk"),
        ("alertname=BabelwatchIncident scope=opinion entity=x owner=finance-desk severity=critical", "duty,finance-desk"),
        ("alertname=BabelwatchNegativeShareHigh scope=opinion entity=x lang=ja owner=travel-desk", "desk-east-asia,travel-desk"),
        ("alertname=BabelwatchNegativeShareHigh scope=opinion entity=x lang=sw owner=nobody-knows", "newsroom"),
        ("alertname=BabelwatchSinkFailing scope=daemon severity=critical", "duty"),
        ("alertname=BabelwatchLagGrowing scope=daemon severity=warning", "operations"),
        ("alertname=BabelwatchModelSaturated scope=daemon severity=info", "nobody"),
        ("alertname=SomethingElse severity=critical", "operations"),
    ],
)  # fmt: skip
def test_alerts_find_their_receivers(labels: str, receivers: str) -> None:
    command = [tool("amtool"), "config", "routes", "test", f"--config.file={ALERTMANAGER}", *labels.split()]
    assert run(*command).strip() == receivers


def test_amtool_takes_the_routes() -> None:
    run(tool("amtool"), "check-config", str(ALERTMANAGER))
