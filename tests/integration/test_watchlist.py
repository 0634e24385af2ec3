"""What is changed on the status page reaches every process by a topic, and is in force before a restarted one reads on."""

from __future__ import annotations

import json
import signal
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from monitor.broker import client
from monitor.broker.settings import KafkaSettings, TopicSettings
from tests.support.daemon import Daemon, opinions, send
from tests.support.tiny_bundle import make_tiny_bundle


@pytest.fixture
def daemons(tmp_path: Path, kafka_settings: KafkaSettings, names: TopicSettings) -> Iterator[list[Daemon]]:
    bundle = make_tiny_bundle(tmp_path / "bundle")
    made = [Daemon(tmp_path / name, kafka_settings, names, bundle) for name in ("one", "two")]
    yield made
    for daemon in made:
        daemon.kill()


def change(daemon: Daemon, method: str, entity: str, body: dict[str, Any] | None = None) -> None:
    request = urllib.request.Request(
        f"http://127.0.0.1:{daemon.port}/api/v1/watchlist/{entity}", method=method,
        data=json.dumps(body).encode() if body else None, headers={"Content-Type": "application/json"},
    )  # fmt: skip
    with urllib.request.urlopen(request, timeout=20) as answer:
        assert answer.status == 200


def about_initech(first: int, count: int) -> list[bytes]:
    text = "Initech is awful today, says visitor {n} of the shop in the north"
    return [
        json.dumps({"id": f"i{n}", "text": text.format(n=n), "published_at": f"2026-03-01T00:{n:02}:00Z"}).encode()
        for n in range(first, first + count)
    ]


async def test_a_change_on_one_process_is_in_force_in_another_and_after_kill_9(
    daemons: list[Daemon], kafka_settings: KafkaSettings, names: TopicSettings
) -> None:
    page, worker = daemons
    await worker.start("classify").ready()
    await page.start("notify").ready()
    change(
        page, "PUT", "initech", {"id": "initech", "name": "Initech", "aliases": {"*": ["Initech"]}, "labels": {"owner": "it"}}
    )  # fmt: skip
    change(page, "DELETE", "globex")
    await worker.until(
        lambda d: [e["id"] for e in json.loads(d.get("/api/v1/watchlist")[1])["entities"]] == ["acme", "initech"]
    )
    await send(kafka_settings, names.documents, about_initech(0, 5))
    await worker.until(lambda d: d.metric("babelwatch_documents_total", result="opinion") >= 5)

    await worker.end(signal.SIGKILL)
    await send(kafka_settings, names.documents, about_initech(5, 5))
    await worker.start("classify").ready()
    await worker.until(lambda d: d.metric("babelwatch_documents_total", result="opinion") >= 5)
    committed = await client.has_transactions(kafka_settings)
    said = await opinions(kafka_settings, names, committed=committed)
    assert {(o.document_id, o.entity) for o in said} == {(f"i{n}", "initech") for n in range(10)}
    assert "acme" in (worker.folder / "watchlist.toml").read_text()
    assert "initech" not in (worker.folder / "watchlist.toml").read_text()
    assert await worker.end() == 0
    assert await page.end() == 0
