"""Renders the manifests for kustomize from the Helm chart, so that there is one source: `python deploy/kustomize/render.py`.

What belongs to Helm (its labels, checksums) is left out; the ConfigMaps of configuration and watchlist are made by
kustomize from files.
"""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).parent
CHART = HERE.parent / "helm" / "babelwatch"
HEAD = "# Made from deploy/helm/babelwatch by `make docs`; change the chart, or patch this in an overlay.\n"

GENERATED = {"babelwatch", "babelwatch-watchlist"}
"""ConfigMaps that kustomize makes from files."""

MONITORING = ("ServiceMonitor", "PrometheusRule", "ConfigMap")


def manifests(helm: str = "helm") -> dict[str, str]:
    """Path below this folder to content.

    Args:
        helm: The program.

    Raises:
        subprocess.CalledProcessError: Helm refuses the chart.
    """
    command = [helm, "template", "babelwatch", str(CHART), "--values", str(HERE / "values.yaml")]
    rendered = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    found: dict[str, list[Any]] = {"base/resources.yaml": [], "monitoring/resources.yaml": []}
    for manifest in yaml.safe_load_all(rendered):
        if not manifest or (manifest["kind"] == "ConfigMap" and manifest["metadata"]["name"] in GENERATED):
            continue
        _without_helm(manifest)
        part = "monitoring" if manifest["kind"] in MONITORING else "base"
        found[f"{part}/resources.yaml"].append(manifest)
    return {path: HEAD + yaml.safe_dump_all(parts, sort_keys=False, width=140) for path, parts in found.items()}


def _without_helm(node: Any) -> None:
    if isinstance(node, dict):
        for key in [
            key
            for key in node
            if key in ("helm.sh/chart", "app.kubernetes.io/managed-by") or key.startswith("checksum/")
        ]:
            del node[key]
        for value in list(node.values()):
            _without_helm(value)
        if node.get("annotations") == {}:
            del node["annotations"]
    elif isinstance(node, list):
        for value in node:
            _without_helm(value)


if __name__ == "__main__":
    for path, content in manifests().items():
        (HERE / path).write_text(content, encoding="utf-8")
