"""The run: real brokers, real processes, a steady stream, and a schedule of faults; then everything is counted."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
from aiohttp import web
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from monitor.broker import client
from monitor.broker.settings import KafkaSettings, TopicSettings
from monitor.config import load_config
from monitor.records import Opinion, decode_deadletter, decode_opinion_message, encode
from monitor.roles import correlate, detect
from monitor.watchlist import load_watchlist
from tests.chaos.members import Member, keep_alive
from tests.chaos.reference import Expected, Judged, Reference, differences, readable
from tests.chaos.schedule import MEMBERS, Fault
from tests.chaos.stream import PARTITIONS, Record, minutes
from tests.support.cluster import Cluster
from tests.support.daemon import records
from tests.support.servers import free_port

HISTORY_MINUTES = 560
"""Written before anything is tested: the detectors' baseline, and a backlog to begin with."""

FAULT_GRACE_S = 30.0
"""So long after the last fault a broker fault that waited for its turn is still carried out."""

HISTORY_AT_ONCE = 70
"""Minutes of history in one go."""

MINUTES_PER_S = 4.0
"""Event time against time while faults happen."""

ROUNDING = 5e-6
"""ONNX Runtime adds in another order in another batch: the sixth decimal of a probability may differ, and nothing else."""

SETTLE_S = 300.0
"""After the last fault everything has to be done within this; a machine with two busy cores needs a part of it."""


POSITIONS = {detect.POSITION_KEY, correlate.POSITION_KEY}
"""Rows of state that say an offset, which depends on how often a watermark was written."""


@dataclass
class Report:
    """What was found."""

    seed: int
    faults: Counter[str] = field(default_factory=Counter)
    skipped: int = 0
    """Broker faults whose turn did not come in time: one at a time, and each waits until the last broker has caught up."""
    documents: int = 0
    opinions: int = 0
    refused: int = 0
    alerts: int = 0
    told: int = 0
    """Alerts that the sink was told of."""
    repeated_to_sink: int = 0
    """Deliveries of one alert more than once: sinks are at least once."""
    lost: list[str] = field(default_factory=list)
    duplicated: list[str] = field(default_factory=list)
    different: list[str] = field(default_factory=list)
    ended: dict[str, list[int]] = field(default_factory=dict)
    """Exit codes of processes that ended by themselves."""
    tracebacks: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def clean(self) -> bool:
        """Nothing lost, duplicated or different, and no process ended by itself."""
        return not (self.lost or self.duplicated or self.different or self.ended or self.tracebacks)

    def __str__(self) -> str:
        lines = [
            f"seed {self.seed}: {sum(self.faults.values())} faults in {self.seconds:.0f} s ({self.skipped} skipped)",
            "  " + ", ".join(f"{kind} {count}" for kind, count in sorted(self.faults.items())),
            f"  {self.documents} documents, {self.opinions} opinions, {self.refused} refused, {self.alerts} alerts, "
            f"{self.told} told to the sink ({self.repeated_to_sink} more than once)",
            f"  lost {len(self.lost)}, duplicated {len(self.duplicated)}, different {len(self.different)}",
        ]
        for name in ("lost", "duplicated", "different", "tracebacks"):
            lines += [f"  {name}: {item}" for item in getattr(self, name)[:8]]
        lines += [f"  {name} ended by itself with {codes}" for name, codes in self.ended.items()]
        return "\n".join(lines)


def comparable(found: Opinion, wanted: Opinion) -> Opinion:
    """The opinion with its probabilities as expected, when they are so but for the rounding of another batch."""
    if all(abs(a - b) <= ROUNDING for a, b in zip(found.sentiment, wanted.sentiment, strict=True)):
        return msgspec.structs.replace(found, sentiment=wanted.sentiment)
    return found


class SlowSink:
    """A webhook that can be out of order; remembers what it was told, in order."""

    def __init__(self) -> None:
        self.port = free_port()
        self.down = False
        self.told: list[dict[str, Any]] = []
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        app = web.Application()
        app.router.add_post("/", self._take)
        self._runner = web.AppRunner(app)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port).start()

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    async def _take(self, request: web.Request) -> web.Response:
        if self.down:
            return web.Response(status=503)
        self.told.append(await request.json())
        return web.Response(status=204)


class Chaos:
    """One run.

    Args:
        cluster: Started.
        folder: For the processes.
        bundle: The model.
        seed: Of the stream.
        say: Told of each step.
    """

    def __init__(self, cluster: Cluster, folder: Path, bundle: Path, seed: int, say: Callable[[str], None]) -> None:
        self._cluster = cluster
        self._say = say
        self._report = Report(seed)
        prefix = f"chaos{seed}"
        self._topics = TopicSettings(**{name: f"{prefix}.{name}" for name in TopicSettings.model_fields})
        self._inside = KafkaSettings(bootstrap_servers=cluster.inside, group_prefix=prefix, partitions=PARTITIONS)
        self._sink = SlowSink()
        outside = self._inside.model_copy(update={"bootstrap_servers": cluster.outside})
        extra = (
            f'[[sinks]]\ntype = "webhook"\nname = "hook"\nurl = "http://127.0.0.1:{self._sink.port}/"\n'
            "retry_first_s = 0.5\nretry_last_s = 2\ntimeout_s = 5\n"
        )
        self._members = {name: Member(name, folder / name, outside, self._topics, bundle, extra) for name in MEMBERS}
        self._stream: Iterator[list[Record]] = minutes(seed)
        self._broker_busy = asyncio.Lock()
        self._member_busy: dict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._sent = 0
        self._faults_over = asyncio.Event()
        self._patience = 0.0
        self._judged: tuple[list[Opinion], Judged] = ([], Judged())
        """What the reference makes of which opinions: seconds of work, and the same until other opinions are found."""

    async def run(self, faults: list[Fault]) -> Report:
        """Everything: history, faults under load, healing, counting."""
        begun = time.monotonic()
        await self._sink.start()
        names = [getattr(self._topics, name) for name in TopicSettings.model_fields]
        await client.ensure_topics(self._inside, [self._topics.documents])
        await self._produce(HISTORY_MINUTES)
        self._say(f"{self._sent} records of history; starting {len(self._members)} processes")
        for member in self._members.values():
            member.start()
        alive = asyncio.create_task(keep_alive(list(self._members.values())))
        try:
            await self._until_topics(names)
            feeding = asyncio.create_task(self._feed())
            await self._play(faults)
            self._faults_over.set()
            await feeding
            self._cluster.heal()
            self._sink.down = False
            await self._cluster.whole()
            self._say("all is healed; waiting for the last alert")
            reference, expected = await self._settle()
            alive.cancel()
            await asyncio.gather(*(member.end() for member in self._members.values()))
            # Once more: nothing that was still on its way has made it twice.
            await self._compare(reference, expected)
        finally:
            alive.cancel()
            for member in self._members.values():
                member.destroy()
            await self._sink.stop()
        self._look_at_logs()
        self._report.seconds = time.monotonic() - begun
        return self._report

    # --- input ------------------------------------------------------------------------------------------------------

    async def _produce(self, count: int, *, paced: bool = False, until: asyncio.Event | None = None) -> None:
        """Write minutes of the stream, each one acknowledged before the next: as in life, time passes for all at once."""
        producer = await self._producer()
        started, done = time.monotonic(), 0
        try:
            while done < count and not (until is not None and until.is_set()):
                # History is written at once: nobody reads it yet, so nobody can be ahead of anybody.
                steps = 1 if paced else min(HISTORY_AT_ONCE, count - done)
                batch = [record for _ in range(steps) for record in next(self._stream)]
                while True:
                    try:
                        await asyncio.wait_for(self._send(producer, batch), 60)
                        break
                    except (KafkaError, TimeoutError):
                        # What was written already is written again: the same id, once in the end.
                        await client.stop(producer)
                        producer = await self._producer()
                done += steps
                self._sent += len(batch)
                if paced:
                    await asyncio.sleep(max(0.0, started + done / MINUTES_PER_S - time.monotonic()))
        finally:
            await client.stop(producer)

    async def _producer(self) -> AIOKafkaProducer:
        producer = client.producer(self._inside, idempotent=True)
        await client.patiently("writing documents", producer.start)
        return producer

    async def _send(self, producer: AIOKafkaProducer, batch: list[Record]) -> None:
        topic = self._topics.documents
        await asyncio.gather(*[await producer.send(topic, value, partition=partition) for partition, value in batch])

    async def _feed(self) -> None:
        await self._produce(1 << 30, paced=True, until=self._faults_over)

    # --- faults -----------------------------------------------------------------------------------------------------

    async def _play(self, faults: list[Fault]) -> None:
        begun = time.monotonic()
        self._patience = begun + faults[-1].at_s + FAULT_GRACE_S
        running: set[asyncio.Task[None]] = set()
        for fault in faults:
            await asyncio.sleep(max(0.0, begun + fault.at_s - time.monotonic()))
            running.add(asyncio.create_task(self._suffer(fault, begun)))
        await asyncio.gather(*running)

    async def _suffer(self, fault: Fault, begun: float) -> None:
        if fault.member in self._members:
            async with self._member_busy[fault.member]:
                self._say(f"{time.monotonic() - begun:6.1f} s  {fault}")
                await self._break_member(self._members[fault.member], fault)
        elif not await self._break_surroundings(fault, begun):
            self._report.skipped += 1
            return
        self._report.faults[fault.kind] += 1

    async def _break_member(self, member: Member, fault: Fault) -> None:
        match fault.kind:
            case "kill":
                await member.kill(fault.for_s)
            case "stop":
                await member.sleep(fault.for_s)
            case "clock":
                await member.shift_clock(fault.shift_s, fault.for_s)
            case "full_disk":
                await member.on_a_full_disk(fault.for_s)
            case "no_watchlist":
                await member.without_watchlist(fault.for_s)

    async def _break_surroundings(self, fault: Fault, begun: float) -> bool:
        """True when it was done."""
        proxy = self._cluster.proxies[fault.node]
        match fault.kind:
            case "delay":
                self._say(f"{time.monotonic() - begun:6.1f} s  {fault}")
                proxy.delay_s = 0.3
                await asyncio.sleep(fault.for_s)
                proxy.heal()
            case "drop":
                self._say(f"{time.monotonic() - begun:6.1f} s  {fault}")
                proxy.drop()
                await asyncio.sleep(fault.for_s)
                proxy.heal()
            case "cut":
                self._say(f"{time.monotonic() - begun:6.1f} s  {fault}")
                proxy.cut()
            case "sink":
                self._say(f"{time.monotonic() - begun:6.1f} s  {fault}")
                self._sink.down = True
                await asyncio.sleep(fault.for_s)
                self._sink.down = False
            case _:
                # One broker at a time, and the next only when the last one has caught up: what Kafka itself can bear.
                async with self._broker_busy:
                    if time.monotonic() > self._patience:
                        return False
                    node = await self._broker_for(fault)
                    self._say(
                        f"{time.monotonic() - begun:6.1f} s  {fault.kind}: broker {node + 1} for {fault.for_s:.0f} s"
                    )
                    broker = self._cluster.brokers[node]
                    await asyncio.to_thread(broker.kill)
                    await asyncio.sleep(fault.for_s)
                    await asyncio.to_thread(broker.start)
                    await self._cluster.whole()
        return True

    async def _broker_for(self, fault: Fault) -> int:
        with contextlib.suppress(KafkaError, TimeoutError, OSError):
            prefix = self._inside.group_prefix
            if fault.kind == "group_coordinator":
                return await asyncio.wait_for(self._cluster.coordinator("group", f"{prefix}.{fault.member}"), 20)
            if fault.kind == "transaction_coordinator":
                identity = f"{prefix}.classify.{self._topics.documents}.{fault.node}"
                return await asyncio.wait_for(self._cluster.coordinator("transaction", identity), 20)
        return fault.node

    # --- the end ----------------------------------------------------------------------------------------------------

    async def _until_topics(self, names: list[str]) -> None:
        consumer = client.consumer(self._inside, group=None, read_committed=False)
        await consumer.start()
        try:
            while not set(names) <= await consumer.topics():
                await asyncio.sleep(0.5)
        finally:
            await consumer.stop()

    async def _settle(self) -> tuple[Reference, Expected]:
        """Wait until what is there is what must be there, or time is up; then say what is missing."""
        watched = next(iter(self._members.values())).daemon
        config = load_config(watched.config)
        documents: dict[int, list[Any]] = {p: [] for p in range(PARTITIONS)}
        for record in await records(self._inside, self._topics.documents, committed=True):
            documents[record.partition].append(record)
        reference = Reference(config, load_watchlist(watched.folder / "watchlist.toml"))
        expected = await asyncio.to_thread(reference.expect, documents)
        self._report.documents = sum(map(len, documents.values()))
        self._report.opinions, self._report.refused = len(expected.opinions), len(expected.refused)
        self._say(f"expecting {self._report.opinions} opinions, {self._report.refused} refused")
        deadline = time.monotonic() + SETTLE_S
        while True:
            await self._compare(reference, expected)
            if self._report.clean or time.monotonic() > deadline:
                return reference, expected
            await asyncio.sleep(5)

    async def _compare(self, reference: Reference, expected: Expected) -> None:
        report = self._report
        report.lost, report.duplicated, report.different = [], [], []
        said = await self._compare_opinions(expected)
        await self._compare_refused(expected)
        if said != self._judged[0]:
            self._judged = said, await asyncio.to_thread(reference.judge, said, expected.clocks, PARTITIONS)
        judged = self._judged[1]
        report.alerts = len(judged.alerts)
        await self._compare_alerts(judged)
        await self._compare_state(judged)
        self._compare_told(judged)
        report.ended = {m.name: m.ended_by_itself for m in self._members.values() if m.ended_by_itself}

    def _count(self, what: str, expected: Counter[Any], found: Counter[Any]) -> None:
        self._report.lost += [f"{what} {item}"[:300] for item in expected if item not in found]
        self._report.duplicated += [f"{what} {item}"[:300] for item, n in found.items() if n > expected[item] > 0]
        self._report.different += [f"{what} {item} is not expected"[:300] for item in found if item not in expected]

    async def _compare_opinions(self, expected: Expected) -> list[Opinion]:
        """Those that had to be said, in their order; with the probabilities that were found, when rounding explains them."""
        found: dict[str, list[Opinion]] = defaultdict(list)
        for record in await records(self._inside, self._topics.opinions, committed=True):
            message = decode_opinion_message(record.value)
            if isinstance(message, Opinion):
                found[message.id].append(message)
        self._count("opinion", Counter(expected.opinions.keys()), Counter({k: len(v) for k, v in found.items()}))
        for identity, wanted in expected.opinions.items():
            if identity in found and encode(comparable(found[identity][0], wanted)) != encode(wanted):
                fields = [f for f in Opinion.__struct_fields__ if getattr(wanted, f) != getattr(found[identity][0], f)]
                self._report.different.append(f"opinion {identity}: {', '.join(fields)}")
        return [
            msgspec.structs.replace(wanted, sentiment=found[i][0].sentiment)
            if i in found and comparable(found[i][0], wanted) == wanted
            else wanted
            for i, wanted in expected.opinions.items()
        ]

    async def _compare_refused(self, expected: Expected) -> None:
        letters = [
            decode_deadletter(r.value) for r in await records(self._inside, self._topics.deadletter, committed=True)
        ]
        found = Counter((x.origin.partition, x.origin.offset, x.reason) for x in letters if x.role == "classify")
        self._count("dead letter", Counter((*place, why) for place, why in expected.refused.items()), found)
        self._report.different += [
            f"dead letter of {x.role}: {x.reason} {x.detail}" for x in letters if x.role != "classify"
        ]

    async def _compare_alerts(self, judged: Judged) -> None:
        values = [record.value for record in await records(self._inside, self._topics.alerts, committed=True)]
        wanted, found = Counter(judged.alerts), Counter(values)
        by_id = {_id(value): value for value in found}
        for value in wanted:
            other = by_id.get(_id(value))
            if other is None:
                self._report.lost.append(f"alert {_title(value)}")
            elif other != value:
                where = differences(json.loads(value), json.loads(other))
                self._report.different.append(f"alert {_title(value)}: {'; '.join(where)}"[:600])
        ids = Counter(map(_id, found.elements()))
        self._report.duplicated += [f"alert {_title(by_id[i])} {n} times" for i, n in ids.items() if n > 1]
        expected = {_id(value) for value in wanted}
        self._report.different += [f"alert {_title(v)} is not expected" for i, v in by_id.items() if i not in expected]

    async def _compare_state(self, judged: Judged) -> None:
        rows: dict[int, dict[bytes, bytes]] = defaultdict(dict)
        for record in await records(self._inside, self._topics.state, committed=True):
            if record.value is None:
                rows[record.partition].pop(record.key, None)
            else:
                rows[record.partition][record.key] = record.value
        for partition, wanted in judged.state.items():
            found = {key: row for key, row in rows[partition].items() if key not in POSITIONS}
            for key in sorted(wanted.keys() | found.keys()):
                left, right = readable(wanted.get(key)), readable(found.get(key))
                if left != right:
                    where = "; ".join(differences(left, right))
                    self._report.different.append(f"state {partition} {key.decode()}: {where}"[:600])

    def _compare_told(self, judged: Judged) -> None:
        wanted = {_id(value) for value in judged.alerts}
        times = Counter(event["id"] for event in self._sink.told)
        self._report.told = len(times)
        self._report.repeated_to_sink = sum(n > 1 for n in times.values())
        self._report.lost += [f"alert {identity} to the sink" for identity in sorted(wanted - times.keys())]
        self._report.different += [f"alert {identity} told, not expected" for identity in sorted(times.keys() - wanted)]
        first: dict[str, list[int]] = defaultdict(list)
        seen: set[str] = set()
        for event in self._sink.told:
            if event["id"] not in seen:
                seen.add(event["id"])
                first[event["subject"]].append(event["data"].get("sequence", 0))
        self._report.different += [f"incident {i}: told in the order {s}" for i, s in first.items() if s != sorted(s)]

    def _look_at_logs(self) -> None:
        for member in self._members.values():
            for line in member.daemon.log().splitlines():
                if "Traceback" not in line:
                    continue
                try:
                    event = msgspec.json.decode(line)
                    last = str(event.get("exception", "")).strip().splitlines()
                    self._report.tracebacks.append(f"{member.name}: {event.get('event')}: {last[-1] if last else ''}")
                except msgspec.DecodeError:
                    self._report.tracebacks.append(f"{member.name}: {line}")


def _id(alert: bytes) -> str:
    return str(json.loads(alert)["id"])


def _title(alert: bytes) -> str:
    """Enough to find an alert by."""
    data = json.loads(alert)["data"]
    return (
        f"{data['incident']} {data['state']} {data.get('sequence', 0)} (at {data['at_ms']}, onset {data['onset_ms']})"
    )


__all__ = ["Chaos", "Report"]
