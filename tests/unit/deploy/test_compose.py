"""compose.yaml, by Docker's own compose command, which needs no engine for that; and the files that it mounts."""

from __future__ import annotations

import json
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from monitor.config import load_config
from tests.conftest import ROOT
from tests.support.daemon import tool
from tests.support.dockerfile import read

DEPLOY = ROOT / "deploy"


@cache
def services() -> dict[str, Any]:
    command = [tool("docker-compose"), "-f", str(DEPLOY / "compose.yaml"), "config", "--format", "json"]
    ended = subprocess.run(command, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout)["services"]  # type: ignore[no-any-return]


def mounted(service: str) -> dict[str, Path]:
    """Files of the repository in a service's container."""
    return {v["target"]: Path(v["source"]) for v in services()[service]["volumes"] if v["type"] == "bind"}


def test_every_part_is_there_and_what_is_mounted_exists() -> None:
    assert set(services()) == {"kafka", "classify", "detect", "notify", "demo", "prometheus", "alertmanager", "grafana"}
    for name, service in services().items():
        tag = service["image"].partition(":")[2]
        assert tag, f"{name} has no version"
        assert "latest" not in tag
        for source in mounted(name).values():
            assert source.exists(), f"{name}: {source}"
        for port in service.get("ports", ()):
            assert port["host_ip"] == "127.0.0.1", f"{name} would be open to the network"
        if "build" in service:
            assert service["build"]["target"] in read(ROOT / service["build"]["dockerfile"])
            assert service["read_only"]
            assert service["cap_drop"] == ["ALL"]


def test_the_three_roles_run_with_a_configuration_that_the_daemon_takes() -> None:
    config = load_config(mounted("detect")["/etc/babelwatch"] / "babelwatch.toml")
    for role in ("classify", "detect", "notify"):
        assert services()[role]["command"][-2:] == ["--role", role]
        assert float(services()[role]["stop_grace_period"].rstrip("s")) > config.service.shutdown_timeout_s
    inside = services()["kafka"]["environment"]["KAFKA_ADVERTISED_LISTENERS"]
    assert f"INSIDE://{config.kafka.bootstrap_servers}" in inside
    assert str(config.watchlist) == "/usr/share/babelwatch/examples/watchlist.toml", "it is in the image"
    assert config.http.port == services()["detect"]["ports"][0]["target"]


def test_prometheus_finds_the_roles_the_rules_and_alertmanager() -> None:
    files = mounted("prometheus")
    settings = yaml.safe_load(files["/etc/prometheus/prometheus.yml"].read_text())
    targets = settings["scrape_configs"][0]["static_configs"][0]["targets"]
    metrics = read(DEPLOY / "docker" / "Dockerfile")["cpu"].env["BABELWATCH__HTTP__METRICS_PORT"]
    assert targets == [f"{role}:{metrics}" for role in ("classify", "detect", "notify")]
    assert settings["rule_files"] == ["rules/babelwatch-*.yml"]
    assert list(files["/etc/prometheus/rules"].glob("babelwatch-*.yml"))
    # As it lies in the container, promtool takes it.
    checked = subprocess.run(
        [tool("promtool"), "check", "config", "--syntax-only", str(files["/etc/prometheus/prometheus.yml"])],
        capture_output=True,
        text=True,
    )
    assert checked.returncode == 0, checked.stderr


def test_grafana_is_provisioned_with_its_data_source_and_dashboards() -> None:
    files = mounted("grafana")
    (source,) = yaml.safe_load((files["/etc/grafana/provisioning"] / "datasources" / "prometheus.yaml").read_text())[
        "datasources"
    ]
    assert source["url"] == "http://prometheus:9090"
    (provider,) = yaml.safe_load((files["/etc/grafana/provisioning"] / "dashboards" / "babelwatch.yaml").read_text())[
        "providers"
    ]
    shown = {file.name for file in files[provider["options"]["path"]].glob("*.json")}
    assert shown == {"operations.json", "opinion.json"}
    home = services()["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert Path(home).name in shown
