"""What exactly-once costs: transactions against none side by side, a transactional id for each partition, restoring state.

Run: `KAFKA_HOME=... python benchmarks/delivery.py [throughput] [partitions] [restore]`. Starts a Kafka of its own; everything is
in one process on one machine, so only ratios within one run mean anything.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import resource
import statistics
import sys
import time
from collections.abc import Awaitable, Sequence
from functools import partial
from pathlib import Path

from aiokafka.structs import ConsumerRecord, TopicPartition

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from monitor.broker import client
from monitor.broker.settings import KafkaSettings, TopicSettings
from monitor.broker.writer import Output
from monitor.detection.detector import Detector, EntityInfo
from monitor.detection.incidents import AlertSettings
from monitor.detection.settings import DetectionSettings
from monitor.metrics import Metrics
from monitor.records import Opinion, Watermark
from monitor.roles.detect import DetectProcessor
from monitor.roles.lane import Start
from monitor.roles.stream import StreamRole
from tests.support import servers

VALUE = b"x" * 300
"""About an opinion without its text."""
START_MS = 1_772_323_200_000


class Copier:
    """One record out for each record in, and no other work: all that is left is delivery."""

    chunk = 1000
    idle_s = 5.0
    memo = ""

    def __init__(self, topic: str) -> None:
        self._topic = topic

    async def restore(self, start: Start) -> int | None:
        """No state."""
        return start.offset

    async def start(self, records: Sequence[ConsumerRecord[bytes, bytes]]) -> Awaitable[list[Output]]:
        """Copy."""
        done: asyncio.Future[list[Output]] = asyncio.get_running_loop().create_future()
        done.set_result([Output(self._topic, record.key, record.value) for record in records])
        return done

    async def idle(self) -> list[Output]:
        """Nothing to say."""
        return []


class Running:
    """A role at work for the length of a `with`."""

    def __init__(self, kafka: KafkaSettings, source: str, target: str, *, transactions: bool) -> None:
        self.metrics = Metrics()
        self.role = StreamRole("copy", source, settings=kafka, transactions=transactions, metrics=self.metrics)
        self.role.new_processor = lambda _: Copier(target)
        self._stopping = asyncio.Event()

    async def __aenter__(self) -> Running:
        self._task = asyncio.create_task(self.role.run(self._stopping, drain_s=30))
        while not self.role.ready:
            await asyncio.sleep(0.01)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._stopping.set()
        await self._task

    @property
    def written(self) -> float:
        """Records written."""
        return float(self.metrics.outputs.labels("copy")._value.get())

    async def until(self, count: int) -> None:
        """Wait for so many."""
        while self.written < count:
            await asyncio.sleep(0.02)


async def fill(kafka: KafkaSettings, topic: str, count: int, partitions: int) -> None:
    producer = client.producer(kafka)
    await producer.start()
    for number in range(count):
        await producer.send(topic, VALUE, key=b"%d" % (number % 97), partition=number % partitions)
    await producer.flush()
    await producer.stop()


async def throughput(address: str, records: int, rounds: int) -> None:
    """The same records through both modes, in turns."""
    print(f"\nthroughput: {records} records of {len(VALUE)} bytes copied, 4 partitions, commit interval 0.5 s")
    kafka = KafkaSettings(bootstrap_servers=address, group_prefix="load")
    await client.ensure_topics(kafka, ["load.in", "load.out"])
    await fill(kafka, "load.in", records, 4)
    rates: dict[bool, list[float]] = {True: [], False: []}
    for turn in range(2 * rounds):
        # A B B A: what gets slower or faster with time counts for both.
        transactions = turn % 4 in (0, 3)
        mine = kafka.model_copy(update={"group_prefix": f"load{turn}"})
        async with Running(mine, "load.in", "load.out", transactions=transactions) as running:
            begun = time.monotonic()
            await running.until(records)
            rates[transactions].append(records / (time.monotonic() - begun))
        print(f"  {'transactions' if transactions else 'plain       '} {rates[transactions][-1]:9.0f} records/s")
    with_them, without = (statistics.median(rates[mode]) for mode in (True, False))
    print(
        f"  median: {with_them:.0f} with transactions, {without:.0f} without: {100 * (with_them / without - 1):+.1f} %"
    )


async def partitions(address: str, numbers: Sequence[int], records: int) -> None:
    """A transactional id for each partition: what opening all of them costs, and what committing does."""
    print(f"\na transactional id for each partition ({records} records, commit interval 0.5 s)")
    print("  partitions  ids    opened in  per id   copied at        commit p50  sockets  memory")
    for number in numbers:
        kafka = KafkaSettings(bootstrap_servers=address, group_prefix=f"p{number}", partitions=number)
        few = kafka.model_copy(update={"partitions": 4})
        for settings, name in ((kafka, f"p{number}.in"), (few, f"p{number}.out")):
            await client.patiently("making topics", partial(client.ensure_topics, settings, [name]))
        await fill(kafka, f"p{number}.in", records, number)
        for transactions in (False, True):
            mine = kafka.model_copy(update={"group_prefix": f"p{number}{transactions}"})
            begun = time.monotonic()
            async with Running(mine, f"p{number}.in", f"p{number}.out", transactions=transactions) as running:
                opened_s = time.monotonic() - begun
                begun = time.monotonic()
                await running.until(records)
                rate = records / (time.monotonic() - begun)
                sockets = sum("socket" in _link(fd) for fd in Path("/proc/self/fd").iterdir())
                print(
                    f"  {number:10d} {number if transactions else 0:4d} {opened_s:9.2f} s {1000 * opened_s / number:5.1f} ms"
                    f" {rate:9.0f}/s {_median_commit(running.metrics):12.3f} s {sockets:8d} {_memory_mib():6.0f} MiB"
                )


def _link(fd: Path) -> str:
    try:
        return os.readlink(fd)
    except OSError:
        return ""


def _median_commit(metrics: Metrics) -> float:
    samples = next(iter(metrics.commit_seconds.labels("copy").collect())).samples
    buckets = [(float(s.labels["le"]), s.value) for s in samples if s.name.endswith("_bucket")]
    return next(edge for edge, count in buckets if count >= buckets[-1][1] / 2)


def _memory_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


async def restore(address: str, series: int) -> None:
    """A detector's state out of its topic: every row of so many series, and the position."""
    entities = {f"entity-{n}": EntityInfo(f"Entity {n}") for n in range(series // 4)}
    detection, alerts = DetectionSettings(), AlertSettings()

    def new_detector(state: dict[bytes, bytes]) -> Detector:
        return Detector(detection, alerts, entities, lambda lang: None, state)

    detector = new_detector({})
    for minute in range(2):
        at_ms = START_MS + minute * 60_000
        detector.observe(
            [
                Opinion(id=f"{minute}{entity}{lang}", document_id=f"{minute}{entity}{lang}", entity=entity, lang=lang,
                        published_ms=at_ms, sentiment=(0.1, 0.1, 0.8), text=f"about {entity}, in a sentence of usual length")
                for entity in entities for lang in ("de", "en", "fr")
            ]
        )  # fmt: skip
    detector.observe([Watermark(topic="t", partition=0, time_ms=START_MS + 3_600_000, partitions=1)])
    detector.advance()
    rows = detector.take_changes()
    kafka = KafkaSettings(bootstrap_servers=address, partitions=1)
    topics = TopicSettings(state="restore.state")
    await client.ensure_topics(kafka, [topics.state])
    producer = client.producer(kafka, transactional_id="restore")
    await producer.start()
    for place in range(0, len(rows), 20_000):
        async with producer.transaction():
            for key, value in rows[place : place + 20_000]:
                await producer.send(topics.state, value, key=key, partition=0)
    await producer.stop()
    size = sum(len(value or b"") for _, value in rows)
    print(f"\nrestore: {len(detector)} series, {len(rows)} rows, {size / 2**20:.0f} MiB in one partition")
    for _ in range(3):
        processor = DetectProcessor(
            TopicPartition("restore.opinions", 0), partitions=1, kafka=kafka, topics=topics, transactions=True, metrics=Metrics(),
            new_detector=new_detector,
        )  # fmt: skip
        begun, worked = time.monotonic(), time.process_time()
        await processor.restore(Start(0))
        print(f"  {time.monotonic() - begun:.2f} s, of which {time.process_time() - worked:.2f} s on our processor")


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", default=["throughput", "partitions", "restore"])
    parser.add_argument("--records", type=int, default=60_000)
    parser.add_argument("--rounds", type=int, default=4, help="of each mode")
    parser.add_argument("--partitions", type=int, nargs="+", default=[4, 32, 256])
    parser.add_argument("--series", type=int, default=100_000)
    options = parser.parse_args()
    home = Path(os.environ.get("KAFKA_HOME", ""))
    if not (home / "kafka-node").exists():
        sys.exit("KAFKA_HOME names no Apache Kafka")
    print(
        f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, Python {sys.version.split()[0]}, one Kafka node beside us"
    )
    broker = servers.kafka(home.resolve()).start()
    try:
        if "restore" in options.parts:
            await restore(broker.address, options.series)
        if "throughput" in options.parts:
            await throughput(broker.address, options.records, options.rounds)
        if "partitions" in options.parts:
            await partitions(broker.address, options.partitions, options.records // 2)
    finally:
        broker.stop()


if __name__ == "__main__":
    asyncio.run(main())
