"""The daemon beside the real Prometheus and Alertmanager, and the demo as a new user runs it."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
import urllib.parse
import urllib.request
from pathlib import Path

import pytest

from monitor.broker.settings import KafkaSettings, TopicSettings
from monitor.detection.wording import language_name
from tests.conftest import ROOT
from tests.support.daemon import Daemon, send, tool
from tests.support.servers import Server, free_port
from tests.support.stream import documents
from tests.support.tiny_bundle import make_tiny_bundle


def get(url: str) -> object:
    with urllib.request.urlopen(url, timeout=5) as answer:
        return json.loads(answer.read())


async def eventually(look: object, wanted: object, timeout_s: float = 60) -> object:
    deadline = asyncio.get_running_loop().time() + timeout_s
    found: object = None
    while asyncio.get_running_loop().time() < deadline:
        found = await asyncio.to_thread(look)  # type: ignore[arg-type]
        if wanted(found):  # type: ignore[operator]
            return found
        await asyncio.sleep(0.2)
    raise AssertionError(f"last seen: {found}")


async def test_prometheus_scrapes_and_alertmanager_receives(
    tmp_path: Path, tansu_address: str, names: TopicSettings
) -> None:
    prometheus, alertmanager = tool("prometheus"), tool("prometheus-alertmanager", "alertmanager")
    am_port, prom_port = free_port(), free_port()
    (tmp_path / "am").mkdir()
    (tmp_path / "am" / "am.yml").write_text("route: {receiver: none}\nreceivers: [{name: none}]\n")
    command = [alertmanager, "--config.file=am.yml", "--storage.path=data", "--cluster.listen-address="]
    held = Server([*command, f"--web.listen-address=127.0.0.1:{am_port}"], am_port, folder=tmp_path / "am").start()
    settings = KafkaSettings(bootstrap_servers=tansu_address, group_prefix=names.documents.split(".")[0])
    sink = f'[[sinks]]\ntype = "alertmanager"\nname = "am"\nurls = ["http://127.0.0.1:{am_port}"]\n'
    daemon = Daemon(tmp_path / "one", settings, names, make_tiny_bundle(tmp_path / "tiny"), extra=sink)
    (tmp_path / "prom").mkdir()
    (tmp_path / "prom" / "p.yml").write_text(
        "global: {scrape_interval: 1s}\nscrape_configs:\n- job_name: babelwatch\n  static_configs:\n"
        f"  - targets: ['127.0.0.1:{daemon.port}']\n"
    )
    command = [prometheus, "--config.file=p.yml", "--storage.tsdb.path=data"]
    scraping = Server(
        [*command, f"--web.listen-address=127.0.0.1:{prom_port}"], prom_port, folder=tmp_path / "prom"
    ).start()
    try:
        await daemon.start().ready()
        # The rise lasts to the end, so that the incident is still open when Alertmanager is asked.
        sent = await send(settings, names.documents, documents(minutes=720, rise=(600, 720)))
        await eventually(
            lambda: get(f"http://127.0.0.1:{am_port}/api/v2/alerts?active=true"),
            lambda found: [alert["labels"]["entity"] for alert in found] == ["acme"],
        )

        def query(expression: str) -> list[dict[str, object]]:
            url = f"http://127.0.0.1:{prom_port}/api/v1/query?query={urllib.parse.quote(expression)}"
            return get(url)["data"]["result"]  # type: ignore[index,no-any-return]

        await eventually(
            lambda: query('sum(babelwatch_documents_total{result="opinion"})'),
            lambda found: found and float(found[0]["value"][1]) == sent,
        )
        for expression in (
            'babelwatch_open_incidents{entity="acme"} == 1',
            'babelwatch_negative_share_ratio{entity="acme",lang="*"} > babelwatch_expected_negative_share_ratio',
            'babelwatch_deliveries_total{sink="am",result="delivered"} >= 1',
            "histogram_quantile(0.9, sum by (le) (babelwatch_model_seconds_bucket)) > 0",
            'sum by (role) (babelwatch_lag_records{role="classify"}) == 0',
            "process_resident_memory_bytes > 0",
            "babelwatch_build_info == 1",
        ):
            await eventually(
                lambda expression=expression: [expression, *query(expression)], lambda seen: len(seen) > 1, timeout_s=20
            )
        assert [sample["value"][1] for sample in query("up")] == ["1"]  # type: ignore[index]
        assert await daemon.end() == 0
    finally:
        daemon.kill()
        held.kill()
        scraping.kill()


@pytest.mark.timeout(
    900
)  # the whole day through the real model: half a minute when nothing else runs, much more beside a suite
def test_the_demo_shows_the_planted_events_and_nothing_else(tmp_path: Path) -> None:
    """The real model over the real embedded broker; each planted negative event is found in its languages."""
    if not (ROOT / "bundles" / "default" / "bundle.json").exists():
        pytest.skip("bundles/default is not here")
    command = [sys.executable, "-m", "monitor.cli", "demo", "--port", "0", "--seconds", "30"]
    ended = subprocess.run(
        command,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=800,
        env={"PATH": "/usr/bin:/bin", "COLUMNS": "300", "HOME": str(tmp_path)},
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    expected = json.loads((ROOT / "examples" / "expected.json").read_text())
    names = {entity["entity"]: entity for entity in expected["events"]}
    told: dict[str, set[str]] = {}
    most: dict[str, int] = {}
    for line in ended.stdout.splitlines():
        form = r"\w{3} \d\d:\d\d\s+(?:firing|escalated)\s+(.+?)(?:, growing)?: .* · (.+?)(?: and (\d+) more)?\s*$"
        if match := re.match(form, line):
            named = set(re.split(", | and ", match[2]))
            told.setdefault(match[1], set()).update(named)
            most[match[1]] = max(most.get(match[1], 0), len(named) + int(match[3] or 0))
    by_name = {"skyharrow": "Skyharrow Airlines", "orvane-bank": "Orvane Bank", "zelvaro": "Zelvaro"}
    assert by_name["zelvaro"] not in told, "the harmless burst raised an alert"
    assert told[by_name["orvane-bank"]] == {"Turkish"}
    stranded = {language_name(lang) for lang in names["skyharrow"]["languages"]}
    assert told[by_name["skyharrow"]] <= stranded
    assert len(stranded) - 1 <= most[by_name["skyharrow"]] <= len(stranded)
    assert "Traceback" not in ended.stderr
