"""Writes the documents that are made from code: `python -m monitor.docs`; a test holds them to it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from prometheus_client import CollectorRegistry

from monitor.config import example
from monitor.http.api import document
from monitor.metrics import Metrics
from monitor.schemas import schemas


def metrics_table() -> str:
    """All metrics of the daemon as a Markdown table."""
    lines = [
        "# Metrics",
        "",
        "Made from `monitor/metrics.py` by `make docs`. Beside these, the Python client's `process_*` and `python_*`.",
        "",
        "| metric | type | labels | meaning |",
        "| --- | --- | --- | --- |",
    ]
    metrics = Metrics(CollectorRegistry())
    declared = {
        name: (family.type, family.documentation, labels)
        for name, family, labels in metrics.families()
        if name.startswith("babelwatch_")
    }
    for name in sorted(declared):
        kind, documentation, labels = declared[name]
        shown = ", ".join(f"`{label}`" for label in labels) or "–"
        lines.append(f"| `{name}` | {kind} | {shown} | {documentation} |")
    return "\n".join(lines) + "\n"


def documents() -> dict[str, str]:
    """Content by path below `docs/`."""
    made = {f"schemas/{name}.json": json.dumps(schema, indent=2) + "\n" for name, schema in schemas().items()}
    made["api/openapi.json"] = json.dumps(document(), indent=2) + "\n"
    return made | {"metrics.md": metrics_table(), "config.example.toml": example()}


def write(folder: Path) -> None:
    """Write them all below `folder`."""
    for name, content in documents().items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")


if __name__ == "__main__":
    write(Path(sys.argv[1] if len(sys.argv) > 1 else "docs"))
