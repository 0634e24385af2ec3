"""The daemon as a process of its own, as an operator runs it; and what it wrote to the topics."""

from __future__ import annotations

import asyncio
import json
import math
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
from aiokafka.structs import ConsumerRecord, TopicPartition

from monitor.broker import client
from monitor.broker.reading import is_behind
from monitor.broker.settings import KafkaSettings, TopicSettings
from monitor.records import Alert, DeadLetter, Opinion, decode_alert_event, decode_deadletter, decode_opinion_message
from tests.support.servers import free_port
from tests.support.stream import WATCHLIST


class Daemon:
    """One `babelwatch run` process with a configuration file of its own."""

    def __init__(
        self, folder: Path, kafka: KafkaSettings, topics: TopicSettings, bundle: Path, extra: str = ""
    ) -> None:
        self.port = free_port()
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "watchlist.toml").write_text(WATCHLIST)
        named = "\n".join(f'{field} = "{getattr(topics, field)}"' for field in TopicSettings.model_fields)
        self.config = folder / "babelwatch.toml"
        self.config.write_text(
            f"""
            watchlist = "watchlist.toml"
            [service]
            shutdown_timeout_s = 20
            [kafka]
            bootstrap_servers = "{kafka.bootstrap_servers}"
            group_prefix = "{kafka.group_prefix}"
            commit_interval_s = 0.1
            session_timeout_s = 10
            [topics]
            {named}
            [inference]
            bundle = "{bundle}"
            threads = 1
            [http]
            port = {self.port}
            {extra}
            """
        )
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, role: str = "all", env: dict[str, str] | None = None, output: Path | None = None) -> Daemon:
        """Run it with a role; `env` is added to the environment, and the log goes to `output` instead of daemon.log."""
        log = (output or self.folder / "daemon.log").open("ab")
        command = [sys.executable, "-m", "monitor.cli", "run", "--config", str(self.config), "--role", role]
        self.process = subprocess.Popen(
            command, stdout=log, stderr=log, env={**os.environ, "OMP_NUM_THREADS": "1", **(env or {})}
        )
        return self

    def get(self, path: str) -> tuple[int, str]:
        """Status and body of an HTTP GET; 0 while nothing listens."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except OSError:
            return 0, ""

    def metric(self, name: str, **labels: str) -> float:
        """The sum of a metric's samples with these labels; NaN, which equals nothing, where none is told."""
        found = [
            float(line.rsplit(" ", 1)[1])
            for line in self.get("/metrics")[1].splitlines()
            if line.startswith((f"{name}{{", f"{name} ")) and all(f'{k}="{v}"' in line for k, v in labels.items())
        ]
        return sum(found) if found else math.nan

    async def ready(self, timeout_s: float = 90) -> Daemon:
        """Wait until /readyz says so."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            assert self.process is not None
            if self.process.poll() is not None:
                raise AssertionError(f"the daemon ended with {self.process.returncode}:\n{self.log()}")
            if (await asyncio.to_thread(self.get, "/readyz"))[0] == 200:
                return self
            await asyncio.sleep(0.1)
        raise AssertionError(f"not ready:\n{self.get('/readyz')}\n{self.log()}")

    async def until(self, condition: Callable[[Daemon], bool], timeout_s: float = 90) -> None:
        """Wait until a condition over this daemon holds."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            if await asyncio.to_thread(condition, self):
                return
            await asyncio.sleep(0.1)
        raise AssertionError(f"it did not happen in {timeout_s} s:\n{self.log()[-3000:]}")

    async def end(self, how: signal.Signals = signal.SIGTERM, timeout_s: float = 40) -> int:
        """Send a signal and wait; returns the exit code."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(how)
        return await asyncio.to_thread(self.process.wait, timeout_s)

    def log(self) -> str:
        return (self.folder / "daemon.log").read_text()

    def kill(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()


async def send(kafka: KafkaSettings, topic: str, values: Iterable[bytes | None]) -> int:
    """Write documents, keyed by their id as a producer would, round robin where they have none."""
    producer = client.producer(kafka)
    await producer.start()
    count = 0
    for value in values:
        try:
            key = json.loads(value or b"")["id"].encode()
        except (ValueError, TypeError, KeyError, AttributeError):
            key = b"%d" % count
        await producer.send(topic, value, key=key)
        count += 1
    await producer.flush()
    await producer.stop()
    return count


async def records(kafka: KafkaSettings, topic: str, *, committed: bool) -> list[ConsumerRecord[bytes, bytes]]:
    """Everything on a topic now, partition by partition."""
    count = (await client.ensure_topics(kafka, [topic]))[topic]
    consumer = client.consumer(kafka, group=None, read_committed=committed)
    await consumer.start()
    try:
        partitions = [TopicPartition(topic, p) for p in range(count)]
        consumer.assign(partitions)
        ends = await consumer.end_offsets(partitions)
        await consumer.seek_to_beginning()
        found: list[ConsumerRecord[bytes, bytes]] = []
        while await is_behind(consumer, ends):
            for batch in (await consumer.getmany(timeout_ms=200)).values():
                found += batch
        return found
    finally:
        await consumer.stop()


async def opinions(kafka: KafkaSettings, topics: TopicSettings, *, committed: bool) -> list[Opinion]:
    found = [decode_opinion_message(r.value) for r in await records(kafka, topics.opinions, committed=committed)]
    return [message for message in found if isinstance(message, Opinion)]


async def alerts(kafka: KafkaSettings, topics: TopicSettings, *, committed: bool) -> list[Alert]:
    found = [decode_alert_event(r.value).data for r in await records(kafka, topics.alerts, committed=committed)]
    return sorted(found, key=lambda alert: (alert.incident, alert.sequence))


async def deadletters(kafka: KafkaSettings, topics: TopicSettings, *, committed: bool) -> list[DeadLetter]:
    return [decode_deadletter(r.value) for r in await records(kafka, topics.deadletter, committed=committed)]


def tool(*names: str) -> str:
    """The first of these programs that is installed, or a skip that names it."""
    import shutil

    # Those that pip brought lie beside this Python, which need not be on the PATH.
    places = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    for name in names:
        if path := shutil.which(name, path=places):
            return path
    pytest.skip(f"{names[0]} is not installed")
