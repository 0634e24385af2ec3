"""A process that serves the page and has no other role: fed by topics of a real broker, as any replica is."""

from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import Future
from pathlib import Path

import structlog

from monitor.broker import client
from monitor.broker.settings import KafkaSettings, RetentionSettings, TopicSettings, topic_configs
from monitor.detection.settings import DetectionSettings
from monitor.http.board import Board
from monitor.http.desk import Desk
from monitor.http.health import Check, Health
from monitor.http.server import Site, serve
from monitor.http.settings import HttpSettings
from monitor.metrics import Metrics
from monitor.records import Record, cloud_event, encode
from monitor.roles.feeds import WatchlistFeed
from monitor.roles.follow import follow
from monitor.watch import WatchlistKeeper
from tests.web import scene

log = structlog.get_logger(__name__)


def watchlist(folder: Path) -> Path:
    """The scene's watchlist as a file."""
    path = folder / "watchlist.toml"
    entries = (
        f'[[entity]]\nid = "{name}"\nname = "{title}"\naliases = {{ "*" = ["{title}"] }}\nlabels = {{ owner = "{labels["owner"]}" }}\n'
        for name, (title, labels) in scene.ENTITIES.items()
    )
    path.write_text("\n".join(entries), encoding="utf-8")
    return path


class PageProcess:
    """Serves on a thread of its own, so that a test can drive a browser against it.

    Args:
        kafka: The broker.
        topics: Its topics.
        folder: For the watchlist.
        http: Tokens and the like.
    """

    def __init__(self, kafka: KafkaSettings, topics: TopicSettings, folder: Path, http: HttpSettings) -> None:
        self.kafka, self.topics, self.http = kafka, topics, http
        self.watchlist_file = watchlist(folder)
        self.url = ""
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._ready: Future[str] = Future()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> PageProcess:
        self._thread.start()
        self.url = self._ready.result(60)
        return self

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(30)

    def send(self, topic: str, records: list[tuple[bytes, bytes | None]]) -> None:
        """Write records to a topic, as the roles would."""

        async def write() -> None:
            futures = [await self._producer.send(topic, value, key=key, partition=0) for key, value in records]
            await asyncio.gather(*futures)

        asyncio.run_coroutine_threadsafe(write(), self._loop).result(30)

    def tell(self, topic: str, key: str, record: Record) -> None:
        self.send(topic, [(key.encode(), encode(record))])

    def show(self, made: scene.Scene) -> None:
        """Put a scene onto the topics."""
        self.send(self.topics.state, list(made.state.items()))
        self.send(self.topics.alerts, [(a.incident.encode(), encode(cloud_event(a))) for a in made.alerts])
        now_ms = int(time.time() * 1000)
        self.send(self.topics.pulse, [(p.instance.encode(), encode(p)) for p in scene.pulses(now_ms)])

    def _run(self) -> None:
        try:
            self._loop.run_until_complete(self._serve())
        except BaseException as error:
            if not self._ready.done():
                self._ready.set_exception(error)
            raise

    async def _serve(self) -> None:
        names = [getattr(self.topics, field) for field in TopicSettings.model_fields]
        configs = topic_configs(self.topics, RetentionSettings())
        partitions = await client.ensure_topics(self.kafka, names, configs=configs)
        metrics = Metrics()
        board = Board(DetectionSettings())
        desk = Desk(self.topics, board)
        keeper = WatchlistKeeper(self.watchlist_file, metrics, in_file=False)
        self.reload_watchlist = lambda: self._loop.call_soon_threadsafe(keeper.reload)
        keeper.listen(lambda w: board.watch({e.id: (e.name, e.labels) for e in w.entities.values()}))
        self._producer = desk.producer = client.producer(self.kafka)
        await self._producer.start()
        health = Health(ready={"start": lambda: Check(True)})
        async with serve(self.http, Site(metrics, health, board, desk, keeper)) as (url, _):
            task = asyncio.create_task(
                follow(board, kafka=self.kafka, topics=self.topics, partitions=partitions, transactions=False, stopping=self._stop)
            )  # fmt: skip
            changes = WatchlistFeed(self.kafka, self.topics.watchlist, partitions[self.topics.watchlist], keeper)
            await changes.restore()
            following = asyncio.create_task(changes.run(self._stop))
            self._ready.set_result(url)
            await self._stop.wait()
            await asyncio.gather(task, following)
        await self._producer.stop()
