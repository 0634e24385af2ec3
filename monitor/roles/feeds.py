"""Topics that every replica knows the whole of, after a restart too: what people did, what they changed in the watchlist."""

from __future__ import annotations

import asyncio

import msgspec
import structlog
from aiokafka.errors import KafkaError
from aiokafka.structs import TopicPartition

from monitor.broker import client
from monitor.broker.reading import is_behind, read_range
from monitor.broker.settings import KafkaSettings
from monitor.errors import ConfigError
from monitor.records import WatchlistChange, decode_action, decode_watchlist_change
from monitor.sinks.actions import Actions
from monitor.watch import WatchlistKeeper

log = structlog.get_logger("monitor.feeds")


class Feed:
    """Reads a topic from its beginning and goes on.

    Args:
        kafka: The connection.
        topic: What to read.
        partitions: How many it has.
    """

    def __init__(self, kafka: KafkaSettings, topic: str, partitions: int) -> None:
        self.ready = asyncio.Event()
        """Set when everything was read that was there at the start."""
        self._kafka = kafka
        self._partitions = [TopicPartition(topic, number) for number in range(partitions)]

    async def run(self, stopping: asyncio.Event) -> None:
        """Read from the beginning and go on until `stopping`; a failure is waited out, and then all is read again."""
        while not stopping.is_set():
            reader = client.consumer(self._kafka, group=None, read_committed=True)
            await client.patiently("following decisions", reader.start, stopping=stopping)
            try:
                reader.assign(self._partitions)
                await reader.seek_to_beginning()
                ends = await reader.end_offsets(self._partitions)
                caught_up = False
                self._begin()
                while not stopping.is_set():
                    for records in (await reader.getmany(timeout_ms=300)).values():
                        for record in records:
                            self._take(record.key or b"", record.value)
                    if not caught_up and not await is_behind(reader, ends):
                        caught_up = True
                        self._caught_up()
                        self.ready.set()
            except (KafkaError, TimeoutError) as error:
                log.warning("feed.failed", topic=self._partitions[0].topic, reason=client.explain(error))
                await asyncio.sleep(1.0)
            finally:
                await client.stop(reader)

    def _begin(self) -> None:
        """The topic is read from the beginning from now on."""

    def _take(self, key: bytes, value: bytes | None) -> None:
        """The next record."""
        raise NotImplementedError

    def _caught_up(self) -> None:
        """What was there at the start has been read."""


class ActionFeed(Feed):
    """The audit topic: who is muted, what is acknowledged. Nobody is told of a muted entity before it is `ready`."""

    def __init__(self, kafka: KafkaSettings, topic: str, partitions: int) -> None:
        super().__init__(kafka, topic, partitions)
        self.actions = Actions()

    def _take(self, key: bytes, value: bytes | None) -> None:
        try:
            self.actions.take(decode_action(value or b""))
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            log.warning("action.unreadable", reason=str(error))


class WatchlistFeed(Feed):
    """The watchlist topic: what people changed on the page, laid over the watchlist file of every process.

    Args:
        keeper: Told of the changes: of all at once whenever the topic was read from its beginning, since an entity that is
            away for a moment is forgotten by the detectors; then of each.
    """

    def __init__(self, kafka: KafkaSettings, topic: str, partitions: int, keeper: WatchlistKeeper) -> None:
        super().__init__(kafka, topic, partitions)
        self._keeper = keeper
        self._begin()

    async def restore(self) -> None:
        """Read what is there, before any role works with the file's word alone.

        Raises:
            KafkaError, TimeoutError: the broker does not answer.
        """
        self._begin()
        for partition in self._partitions:
            async for records in read_range(self._kafka, partition, start=None, end=None, read_committed=True):
                for record in records:
                    self._take(record.key or b"", record.value)
        self._caught_up()

    def _begin(self) -> None:
        self._reading: dict[str, WatchlistChange] | None = {}

    def _take(self, key: bytes, value: bytes | None) -> None:
        try:
            entity = key.decode()
            change = decode_watchlist_change(value) if value is not None else None
            if self._reading is None:
                self._keeper.take(entity, change)
            elif change is None:
                self._reading.pop(entity, None)
            else:
                self._reading[entity] = change
        except (msgspec.DecodeError, UnicodeDecodeError, ConfigError) as error:
            log.warning("watchlist_change.unreadable", reason=str(error))

    def _caught_up(self) -> None:
        changes, self._reading = self._reading or {}, None
        self._keeper.lay(changes)
