"""A steady load on one daemon for as long as you like: does anything grow that should not? `python -m tests.chaos.soak`.

Sampled: resident memory, open files, threads, asyncio tasks, and the number of series that Prometheus would store.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from monitor.broker import client
from monitor.broker.settings import KafkaSettings, TopicSettings
from tests.chaos.stream import PARTITIONS, minutes
from tests.support import servers
from tests.support.daemon import Daemon
from tests.support.tiny_bundle import make_tiny_bundle


class Sample(NamedTuple):
    """One look at the process."""

    minute: float
    memory_mib: float
    files: int
    threads: int
    tasks: int
    series: int
    """Lines of /metrics that are samples."""
    documents: int
    lag: int


def look(daemon: Daemon, begun: float) -> Sample:
    """Ask the process and the kernel."""
    assert daemon.process is not None
    proc = Path(f"/proc/{daemon.process.pid}")
    status = dict(line.split(":", 1) for line in (proc / "status").read_text().splitlines() if ":" in line)
    lines = [line for line in daemon.get("/metrics")[1].splitlines() if line and not line.startswith("#")]

    def total(name: str) -> int:
        return int(sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith((f"{name}{{", f"{name} "))))

    return Sample(
        minute=(time.monotonic() - begun) / 60,
        memory_mib=int(status["VmRSS"].split()[0]) / 1024,
        files=len(os.listdir(proc / "fd")),
        threads=int(status["Threads"]),
        tasks=total("babelwatch_tasks"),
        series=len(lines),
        documents=total("babelwatch_documents_total"),
        lag=total("babelwatch_lag_records"),
    )


async def feed(kafka: KafkaSettings, topic: str, minutes_per_s: float, until: asyncio.Event) -> None:
    """A steady stream, event time faster than the clock."""
    producer = client.producer(kafka)
    await producer.start()
    started = time.monotonic()
    for done, batch in enumerate(minutes(1), 1):
        if until.is_set():
            break
        for partition, value in batch:
            await producer.send(topic, value, partition=partition)
        await asyncio.sleep(max(0.0, started + done / minutes_per_s - time.monotonic()))
    await producer.stop()


async def main(duration_s: float, minutes_per_s: float, every_s: float, home: Path) -> int:
    broker = servers.kafka(home)
    folder = Path(tempfile.mkdtemp(prefix="babelwatch-soak-"))
    topics = TopicSettings()
    kafka = KafkaSettings(bootstrap_servers=broker.address, partitions=PARTITIONS)
    daemon = Daemon(folder / "one", kafka, topics, make_tiny_bundle(folder / "bundle"))
    samples: list[Sample] = []
    until = asyncio.Event()
    begun = time.monotonic()
    try:
        await asyncio.to_thread(broker.start)
        await daemon.start().ready(600)
        feeding = asyncio.create_task(feed(kafka, topics.documents, minutes_per_s, until))
        print(f"pid {daemon.process.pid if daemon.process else 0}, logs in {folder}")
        print(" ".join(f"{name:>10}" for name in Sample._fields))
        while time.monotonic() - begun < duration_s:
            await asyncio.sleep(every_s)
            samples.append(await asyncio.to_thread(look, daemon, begun))
            print(
                " ".join(f"{value:10.1f}" if isinstance(value, float) else f"{value:10d}" for value in samples[-1]),
                flush=True,
            )
        until.set()
        await feeding
        code = await daemon.end()
    finally:
        daemon.kill()
        broker.stop()
    return report(samples, code)


def report(samples: list[Sample], code: int) -> int:
    """The second half against the last quarter: what grows steadily shows there."""
    half = samples[len(samples) // 2 :]
    middle, end = half[: len(half) // 2], half[len(half) // 2 :]
    for name in ("memory_mib", "files", "threads", "tasks", "series"):
        before, after = (statistics.median(getattr(s, name) for s in part) for part in (middle, end))
        print(f"{name:>12}: {before:.1f} in the third quarter, {after:.1f} in the last ({after - before:+.1f})")
    print(f"{samples[-1].documents} documents in {samples[-1].minute:.0f} minutes; exit code {code}")
    return code


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=120.0)
    parser.add_argument(
        "--pace", type=float, default=8.0, help="minutes of event time in a second; each holds about five documents"
    )
    parser.add_argument("--every", type=float, default=60.0, help="seconds between two samples")
    options = parser.parse_args()
    kafka_home = Path(os.environ.get("KAFKA_HOME", ""))
    if not (kafka_home / "kafka-node").exists():
        sys.exit("KAFKA_HOME names no Apache Kafka")
    sys.exit(asyncio.run(main(options.minutes * 60, options.pace, options.every, kafka_home.resolve())))
