"""The notify role as a process, killed without warning: what is held, muted or refused is told once it may be, in order."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiokafka.structs import TopicPartition

from monitor.broker import client
from monitor.broker.reading import end_of
from monitor.broker.settings import KafkaSettings, TopicSettings
from monitor.config import load_config
from monitor.deadletters import replay_deadletters
from monitor.records import Action, Alert, cloud_event, decode_alert_event, encode
from tests.support.daemon import Daemon, deadletters
from tests.support.servers import free_port
from tests.support.tiny_bundle import make_tiny_bundle
from tests.unit.sinks.test_outbox import step


class Receiver:
    """HTTP endpoints, one a sink: what each took, and what each answers.

    Delivery is at least once (a member whose session ends while it commits delivers again), so repeats of an idempotency
    key are dropped as every receiver should, and kept apart.
    """

    def __init__(self, port: int) -> None:
        self.port = port
        self.took: defaultdict[str, list[str]] = defaultdict(list)
        self.repeated: defaultdict[str, list[str]] = defaultdict(list)
        self.answers: dict[str, int] = {}
        self.stalled = asyncio.Event()

    async def handle(self, request: web.Request) -> web.Response:
        name = request.path.strip("/")
        status = self.answers.get(name, 200)
        body = await request.read()
        if status == 0:
            self.stalled.set()
            await asyncio.sleep(3600)
        if status == 200:
            shown = _shown(body)
            # An alert is sent under its id; a message that Apprise made has no key.
            assert request.headers.get("Idempotency-Key", shown) == shown
            (self.repeated if shown in self.took[name] else self.took)[name].append(shown)
        return web.Response(status=status, text="because")

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[Receiver]:
        app = web.Application()
        app.router.add_route("*", "/{tail:.*}", self.handle)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", self.port).start()
        try:
            yield self
        finally:
            await runner.cleanup()


def _shown(body: bytes) -> str:
    """The alert's id of a CloudEvent; the title of a message that Apprise made."""
    value: dict[str, Any] = json.loads(body)
    return str(decode_alert_event(body).data.id if "specversion" in value else value["title"])


async def eventually(wanted: Callable[[], bool], daemon: Daemon, there: Receiver, timeout_s: float = 120) -> None:
    deadline = time.monotonic() + timeout_s
    while not wanted():
        if time.monotonic() > deadline:
            told = "\n".join(line for line in daemon.log().splitlines() if "sink.refused" not in line)
            took = f"taken: {dict(there.took)}, again: {dict(there.repeated)}"
            raise AssertionError(f"it did not happen in {timeout_s} s; {took}\n{told[-6000:]}")
        await asyncio.sleep(0.05)


async def produce(kafka: KafkaSettings, topic: str, values: list[tuple[str, bytes]]) -> None:
    producer = client.producer(kafka)
    await producer.start()
    try:
        for key, value in values:
            await producer.send_and_wait(topic, value, key=key.encode())
    finally:
        await producer.stop()


async def raise_alerts(kafka: KafkaSettings, topics: TopicSettings, *alerts: Alert) -> None:
    await produce(kafka, topics.alerts, [(alert.incident, encode(cloud_event(alert))) for alert in alerts])


async def act(kafka: KafkaSettings, topics: TopicSettings, **action: Any) -> None:
    made = Action(who="ann", at_ms=int(time.time() * 1000), **action)
    await produce(kafka, topics.audit, [(made.entity, encode(made))])


def sinks(port: int, dead: int, *, night: str = "", digest_s: float = 3600) -> str:
    """The configuration: `day` as it comes, `night` with quiet hours, `chat` with digests, `dead` whose server is down."""
    hook = 'retry_first_s = 0.05\nretry_last_s = 0.2\ntype = "webhook"'
    return f"""
        [[sinks]]
        {hook}
        name = "day"
        url = "http://127.0.0.1:{port}/day"
        [[sinks]]
        {hook}
        name = "night"
        url = "http://127.0.0.1:{port}/night"
        quiet = [{night}]
        [[sinks]]
        {hook}
        name = "dead"
        url = "http://127.0.0.1:{dead}/dead"
        [[sinks]]
        type = "apprise"
        name = "chat"
        url = "json://127.0.0.1:{port}/chat"
        digest_s = {digest_s}
        """


@pytest.fixture
async def daemon(
    tmp_path: Path, kafka_settings: KafkaSettings, names: TopicSettings, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[tuple[Daemon, int, int]]:
    # A killed member that comes back under its name is taken in again at once.
    monkeypatch.setenv("BABELWATCH__KAFKA__INSTANCE_ID", "one")
    port, dead = free_port(), free_port()
    extra = sinks(port, dead, night='"00:00-24:00"')
    made = Daemon(tmp_path / "one", kafka_settings, names, make_tiny_bundle(tmp_path / "tiny"), extra=extra)
    yield made, port, dead
    made.kill()


def becomes_morning(daemon: Daemon, port: int, dead: int) -> None:
    """What a test cannot wait for: the quiet hours and the digest's wait are over."""
    text = daemon.config.read_text()
    before, after = sinks(port, dead, night='"00:00-24:00"'), sinks(port, dead, digest_s=0.2)
    assert before.strip() in text
    daemon.config.write_text(text.replace(before.strip(), after.strip()))


async def test_a_new_sink_may_begin_at_the_end(kafka_settings: KafkaSettings, names: TopicSettings) -> None:
    await client.ensure_topics(kafka_settings, [names.alerts], single=[names.alerts])
    partition = TopicPartition(names.alerts, 0)
    assert await end_of(kafka_settings, partition, read_committed=True) == 0
    await raise_alerts(kafka_settings, names, step("a", 0), step("b", 0))
    assert await end_of(kafka_settings, partition, read_committed=True) == 2


async def test_what_is_held_survives_kill_9_and_is_told_in_order(
    daemon: tuple[Daemon, int, int], kafka_settings: KafkaSettings, names: TopicSettings
) -> None:
    process, port, dead = daemon
    async with Receiver(port).listening() as there:
        await process.start("notify").ready()
        first = [
            step("a", 0),
            step("b", 0),
            step("c", 0, severity="critical"),
            step("a", 1),
            step("e", 0),
            step("e", 1, "resolved"),
        ]
        await raise_alerts(kafka_settings, names, *first)
        ids = [alert.id for alert in first]
        # The dead sink delays nobody; quiet hours let the critical one through.
        await eventually(lambda: there.took["day"] == ids and there.took["night"] == ["c.0"], process, there)
        await process.until(lambda d: d.metric("babelwatch_held_alerts", sink="night") == 4)
        await process.until(lambda d: d.metric("babelwatch_held_alerts", sink="chat") >= 5)
        await process.until(lambda d: d.metric("babelwatch_lag_records", role="notify.night") == 0)
        await process.until(lambda d: d.metric("babelwatch_backlog_records", role="notify.chat") == 0)
        assert there.took["chat"] == []

        await process.end(signal.SIGKILL)
        await raise_alerts(kafka_settings, names, step("b", 1))
        becomes_morning(process, port, dead)
        await process.start("notify").ready()
        await eventually(lambda: len(there.took["night"]) >= 6, process, there)
        # In the order of the topic, the one that was told not again, and the one that came and went told once.
        assert there.took["night"] == ["c.0", "a.0", "b.0", "a.1", "e.1", "b.1"]
        assert not there.repeated["night"] or "partition." in process.log(), "committed, and yet told again"
        await eventually(lambda: bool(there.took["chat"]), process, there)
        assert there.took["chat"][0].endswith("Incidents: 4")
        await eventually(lambda: there.took["day"] == [*ids, "b.1"], process, there)

        # The dead sink's server comes up: everything, in order.
        async with Receiver(dead).listening() as late:
            await eventually(lambda: late.took["dead"] == [*ids, "b.1"], process, late)
        assert await process.end() == 0


async def test_a_muted_entity_stays_so_through_a_kill_and_what_is_open_then_is_told(
    daemon: tuple[Daemon, int, int], kafka_settings: KafkaSettings, names: TopicSettings
) -> None:
    process, port, _ = daemon
    async with Receiver(port).listening() as there:
        await process.start("notify").ready()
        await act(
            kafka_settings, names, id="1", kind="mute", entity="acme", until_ms=int(time.time() * 1000) + 3_600_000
        )
        # Once an alert of the muted entity is withheld, the action has been read.
        probe = [step(f"p{n}", 0, entity="acme") for n in range(3)]
        for alert in probe:
            await raise_alerts(kafka_settings, names, alert)
        await process.until(lambda d: d.metric("babelwatch_withheld_alerts_total", sink="day", reason="muted") >= 1)
        told = list(there.took["day"])
        await process.end(signal.SIGKILL)
        await raise_alerts(
            kafka_settings, names, step("a", 0), step("o", 0, entity="globex"), step("a", 1), step("over", 0), step("over", 1, "resolved")
        )  # fmt: skip
        await process.start("notify").ready()
        await eventually(lambda: "o.0" in there.took["day"], process, there)
        await process.until(lambda d: d.metric("babelwatch_withheld_alerts_total", sink="day", reason="muted") >= 4)
        assert there.took["day"] == [*told, "o.0"]
        await act(kafka_settings, names, id="2", kind="unmute", entity="acme")
        await eventually(lambda: "a.1" in there.took["day"], process, there)
        assert "a.0" not in there.took["day"]
        assert "over.1" not in there.took["day"]
        assert {alert.id for alert in probe} <= set(there.took["day"])
        assert await process.end() == 0


async def test_killed_while_delivering_it_delivers_again_and_what_is_refused_is_kept(
    daemon: tuple[Daemon, int, int], kafka_settings: KafkaSettings, names: TopicSettings, broker_address: str
) -> None:
    process, port, _ = daemon
    async with Receiver(port).listening() as there:
        there.answers["day"] = 0
        await process.start("notify").ready()
        await raise_alerts(kafka_settings, names, step("a", 0), step("a", 1))
        await asyncio.wait_for(there.stalled.wait(), 120)
        await process.end(signal.SIGKILL)
        there.answers["day"] = 400
        await process.start("notify").ready()
        committed = "kafka" in broker_address
        deadline = time.monotonic() + 120
        while len(letters := await deadletters(kafka_settings, names, committed=committed)) < 2:
            assert time.monotonic() < deadline, process.log()[-3000:]
            await asyncio.sleep(0.2)
        assert {letter.reason for letter in letters} == {"sink_rejected"}
        assert "HTTP 400: because" in letters[0].detail
        assert {decode_alert_event(letter.value.encode()).data.id for letter in letters} == {"a.0", "a.1"}
        assert {letter.sink for letter in letters} == {"day"}
        there.answers.clear()
        # Mended: the newest step is told, by the sink that refused it alone.
        others = {name: list(took) for name, took in there.took.items() if name != "day"}
        config = load_config(process.config)
        assert await replay_deadletters(config, set(), sinks={"night"}, dry_run=False) == {"left": len(letters)}
        assert await replay_deadletters(config, set(), dry_run=False) == {"sent sink_rejected": len(letters)}
        assert await replay_deadletters(config, set(), dry_run=False) == {}
        await eventually(lambda: there.took["day"] == ["a.1"], process, there)
        await raise_alerts(kafka_settings, names, step("a", 2))
        await eventually(lambda: there.took["day"] == ["a.1", "a.2"], process, there)
        assert {name: took for name, took in there.took.items() if name != "day"} == others
        assert await process.end() == 0
