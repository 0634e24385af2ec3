"""A real Prometheus that scrapes one daemon every second."""

from __future__ import annotations

import json
import urllib.parse
import urllib.request
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tests.support.daemon import tool
from tests.support.servers import Server, free_port


class Prometheus:
    """Scrapes `targets` and evaluates `rules`, until stopped.

    Args:
        folder: For its configuration and data.
        targets: host:port of each process to scrape.
        rules: Rule files.
    """

    def __init__(self, folder: Path, targets: Iterable[str], rules: Iterable[Path] = ()) -> None:
        folder.mkdir(parents=True)
        job = {"job_name": "babelwatch", "static_configs": [{"targets": list(targets)}]}
        (folder / "p.yml").write_text(
            json.dumps(
                {
                    "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
                    "rule_files": [str(rule) for rule in rules],
                    "scrape_configs": [job],
                }
            )
        )
        port = free_port()
        command = [tool("prometheus"), "--config.file=p.yml", "--storage.tsdb.path=data"]
        self._server = Server([*command, f"--web.listen-address=127.0.0.1:{port}"], port, folder=folder)

    def start(self) -> Prometheus:
        self._server.start()
        return self

    def stop(self) -> None:
        self._server.kill()

    def get(self, path: str, **parameters: str | float) -> Any:
        """The `data` of an answer of its HTTP API."""
        url = f"http://{self._server.address}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        with urllib.request.urlopen(url, timeout=10) as answer:
            return json.loads(answer.read())["data"]

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The series of an instant query."""
        return self.get("query", query=expression)["result"]  # type: ignore[no-any-return]
