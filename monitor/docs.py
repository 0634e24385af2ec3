"""Writes the documents that are made from code: `python -m monitor.docs`; a test holds them to it."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import get_args

from prometheus_client import CollectorRegistry

from monitor.config import example
from monitor.http.api import document
from monitor.metrics import Metrics
from monitor.schemas import schemas
from monitor.settings import Settings, as_toml
from monitor.sinks.settings import BaseSinkSettings, SinkSettings, TextSinkSettings


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


DOCS = Path(__file__).parent.parent / "docs"


def sinks_page(page: str) -> str:
    """The page on sinks with its tables of options written anew, between the marks."""
    known: dict[str, type[Settings]] = {kind.model_fields["type"].default: kind for kind in get_args(SinkSettings)}

    def table(found: re.Match[str]) -> str:
        name = found[1]
        kind = {"base": BaseSinkSettings, "text": TextSinkSettings}.get(name) or known[name]
        general = (
            () if name == "base" else (BaseSinkSettings,) if name == "text" else (BaseSinkSettings, TextSinkSettings)
        )
        shared = {key: field.description for parent in general for key, field in parent.model_fields.items()}
        lines = ["| option | default | meaning |", "| --- | --- | --- |"]
        for key, field in kind.model_fields.items():
            if key == "type" or shared.get(key) == field.description:
                continue
            default = "required" if field.is_required() else as_toml(field.get_default(call_default_factory=True))
            lines.append(
                f"| `{key}` | {f'`{default}`' if default not in (None, 'required') else default or '–'} | {field.description} |"
            )
        return f"<!-- options {name} -->\n" + "\n".join(lines) + "\n<!-- /options -->"

    return re.sub(r"<!-- options (\w+) -->.*?<!-- /options -->", table, page, flags=re.DOTALL)


def documents() -> dict[str, str]:
    """Content by path below `docs/`."""
    made = {f"schemas/{name}.json": json.dumps(schema, indent=2) + "\n" for name, schema in schemas().items()}
    made["api/openapi.json"] = json.dumps(document(), indent=2) + "\n"
    made["sinks.md"] = sinks_page((DOCS / "sinks.md").read_text(encoding="utf-8"))
    return made | {"metrics.md": metrics_table(), "config.example.toml": example()}


def write(folder: Path) -> None:
    """Write them all below `folder`."""
    for name, content in documents().items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")


if __name__ == "__main__":
    write(Path(sys.argv[1] if len(sys.argv) > 1 else "docs"))
