"""Helm chart and plain manifests: rendered by the real helm and kustomize, held to the API's own schemas."""

from __future__ import annotations

import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from monitor.config import load_config
from monitor.watchlist import load_watchlist
from tests.conftest import ROOT
from tests.support.daemon import tool
from tests.support.scripts import script

CHART = ROOT / "deploy" / "helm" / "babelwatch"
KUSTOMIZE = ROOT / "deploy" / "kustomize"
VALUES = ("plain", "full")
OLDEST, NEW = "1.27", "1.34"
"""The oldest version of the API that the chart says it takes, and a new one."""


def helm(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([tool("helm"), *arguments], capture_output=True, text=True, timeout=120)


@cache
def rendered(values: str) -> list[dict[str, Any]]:
    ended = helm(
        "template", "bw", str(CHART), "--namespace", "opinion", "--values", str(CHART / "ci" / f"{values}-values.yaml")
    )
    assert ended.returncode == 0, ended.stderr
    return [manifest for manifest in yaml.safe_load_all(ended.stdout) if manifest]


@cache
def kustomized() -> list[dict[str, Any]]:
    built = subprocess.run(
        [tool("kubectl"), "kustomize", str(KUSTOMIZE / "example")], capture_output=True, text=True, timeout=120
    )
    assert built.returncode == 0, built.stderr
    return list(yaml.safe_load_all(built.stdout))


def one(manifests: list[dict[str, Any]], kind: str, end: str = "") -> dict[str, Any]:
    (found,) = [m for m in manifests if m["kind"] == kind and m["metadata"]["name"].endswith(end)]
    return found


def check(manifest: dict[str, Any], version: str) -> None:
    """Against the API's schema; what operators add, against the models made from their definitions."""
    models = {"ScaledObject": "cloudcoil.models.keda.v1alpha1", "ServiceMonitor": "cloudcoil.models.prometheus_operator.v1",
              "PrometheusRule": "cloudcoil.models.prometheus_operator.v1"}  # fmt: skip
    if module := models.get(manifest["kind"]):
        model = getattr(pytest.importorskip(module), manifest["kind"])
        # The models drop what they do not know: nothing may be missing afterwards.
        assert model.model_validate(manifest).model_dump(by_alias=True, exclude_unset=True, mode="json") == manifest
    else:
        kubernetes_validate.validate(manifest, version, strict=True)


@pytest.mark.parametrize("values", VALUES)
def test_helm_finds_nothing(values: str) -> None:
    ended = helm("lint", "--strict", "--quiet", str(CHART), "--values", str(CHART / "ci" / f"{values}-values.yaml"))
    assert ended.returncode == 0, ended.stdout + ended.stderr


@pytest.mark.parametrize(("values", "version"), [("full", OLDEST), ("full", NEW), ("plain", NEW)])
def test_the_chart_s_manifests_are_what_the_api_takes(values: str, version: str) -> None:
    for manifest in rendered(values):
        check(manifest, version)


def test_the_plain_manifests_are_what_the_api_takes() -> None:
    kinds = set()
    for manifest in kustomized():
        check(manifest, NEW)
        kinds.add(manifest["kind"])
    assert {"Deployment", "NetworkPolicy", "PodDisruptionBudget", "PrometheusRule", "ServiceMonitor", "Secret"} <= kinds


def test_the_plain_manifests_are_the_chart_s() -> None:
    for path, content in script("deploy/kustomize", "render").manifests(tool("helm")).items():
        assert (KUSTOMIZE / path).read_text() == content, f"run `make docs`: deploy/kustomize/{path}"


@pytest.mark.parametrize("source", [*VALUES, "kustomize"])
def test_the_daemon_takes_the_configuration(source: str, tmp_path: Path) -> None:
    manifests = kustomized() if source == "kustomize" else rendered(source)
    found = {name: text for m in manifests if m["kind"] == "ConfigMap" for name, text in m["data"].items()}
    (tmp_path / "babelwatch.toml").write_text(found["babelwatch.toml"])
    (tmp_path / "watchlist.toml").write_text(found["watchlist.toml"])
    config = load_config(tmp_path / "babelwatch.toml")
    assert "acme" in load_watchlist(tmp_path / "watchlist.toml").entities
    for manifest in manifests:
        if manifest["kind"] == "Deployment":
            pod = manifest["spec"]["template"]["spec"]
            assert pod["terminationGracePeriodSeconds"] > config.service.shutdown_timeout_s
            mounts = {mount["mountPath"] for mount in pod["containers"][0]["volumeMounts"]}
            assert str(config.watchlist.parent) in mounts, "the folder is mounted, so that changes arrive"


@pytest.mark.parametrize("source", [*VALUES, "kustomize"])
def test_pods_may_do_nothing_but_their_work(source: str) -> None:
    """The restricted Pod Security Standard, and a read-only root."""
    manifests = kustomized() if source == "kustomize" else rendered(source)
    roles = set()
    for manifest in manifests:
        if manifest["kind"] != "Deployment":
            continue
        template = manifest["spec"]["template"]
        pod, (container,) = template["spec"], template["spec"]["containers"]
        roles.add(container["args"][-1])
        assert pod["securityContext"]["runAsNonRoot"]
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod["automountServiceAccountToken"] is False
        assert container["securityContext"] == {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True,
                                                "capabilities": {"drop": ["ALL"]}}  # fmt: skip
        ports = {port["name"] for port in container["ports"]}
        for probe, path in (("livenessProbe", "/healthz"), ("readinessProbe", "/readyz"), ("startupProbe", "/healthz")):
            assert container[probe]["httpGet"]["path"] == path
            assert container[probe]["httpGet"]["port"] in ports
        assert container["resources"]["limits"]["memory"]
        assert {spread["topologyKey"] for spread in pod["topologySpreadConstraints"]} == {
            "kubernetes.io/hostname", "topology.kubernetes.io/zone"
        }  # fmt: skip
        assert set(manifest["spec"]["selector"]["matchLabels"].items()) <= set(template["metadata"]["labels"].items())
    assert roles == {"classify", "detect", "notify"}


def test_services_monitors_and_policies_meet_their_pods() -> None:
    manifests = rendered("full")
    labels = [m["spec"]["template"]["metadata"]["labels"] for m in manifests if m["kind"] == "Deployment"]

    def meets(selector: dict[str, str]) -> int:
        return sum(selector.items() <= own.items() for own in labels)

    metrics, page = one(manifests, "Service", "-metrics"), one(manifests, "Service", "babelwatch")
    assert meets(metrics["spec"]["selector"]) == 3
    assert meets(page["spec"]["selector"]) == 1
    watched = one(manifests, "ServiceMonitor")["spec"]["selector"]["matchLabels"]
    assert watched.items() <= metrics["metadata"]["labels"].items()
    assert not watched.items() <= page["metadata"]["labels"].items(), "every pod would be scraped twice"
    for policy in (m for m in manifests if m["kind"] == "NetworkPolicy"):
        assert meets(policy["spec"]["podSelector"]["matchLabels"]) == (
            1 if policy["metadata"]["name"].endswith("-sinks") else 3
        )
    for budget in (m for m in manifests if m["kind"] == "PodDisruptionBudget"):
        assert meets(budget["spec"]["selector"]["matchLabels"]) == 1
    scaled = one(manifests, "ScaledObject")
    target = one(manifests, "Deployment", "-classify")
    assert scaled["spec"]["scaleTargetRef"]["name"] == target["metadata"]["name"]
    assert "replicas" not in target["spec"], "the autoscaler and the chart would fight over it"
    assert scaled["spec"]["triggers"][0]["metadata"]["consumerGroup"] == "babelwatch.classify"
    assert target["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == 1


def test_rules_and_dashboards_travel_with_the_chart() -> None:
    rules = one(rendered("full"), "PrometheusRule")["spec"]["groups"]
    files = sorted((ROOT / "deploy" / "prometheus" / "rules").glob("*.yml"))
    assert rules == [group for file in files for group in yaml.safe_load(file.read_text())["groups"]]
    own = helm(
        "template", "bw", str(CHART), "--values", str(CHART / "ci" / "full-values.yaml"),
        "--set", "prometheusRule.runbook=https://wiki.example/runbook",
    )  # fmt: skip
    links = {line.partition(": ")[2].partition("#")[0] for line in own.stdout.splitlines() if "runbook_url:" in line}
    assert links == {"https://wiki.example/runbook"}
    for name in ("operations", "opinion"):
        shown = one(rendered("full"), "ConfigMap", f"-{name}")["data"][f"{name}.json"]
        assert shown.strip() == (ROOT / "deploy" / "grafana" / "dashboards" / f"{name}.json").read_text().strip()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("config.kafka.bootstrap_servers=", "name your Kafka"),
        ("watchlist=", "say what to watch"),
        ("roles.classify.replicaz=3", "replicaz"),
        ("config.kafka.password=hunter2", "password"),
        ("roles.notify.replicas=-1", "replicas"),
        ("secrets.PASSWORD=x", "PASSWORD"),
    ],
)
def test_a_mistake_in_the_values_is_told_before_anything_is_installed(change: str, told: str) -> None:
    ended = helm("template", "bw", str(CHART), "--values", str(CHART / "ci" / "plain-values.yaml"), "--set", change)
    assert ended.returncode != 0
    assert told in ended.stderr
