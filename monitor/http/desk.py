"""What people do: each action is written to the audit topic before it counts, false alarms to the review topic too, and
changes of the watchlist to a topic of theirs."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable

import structlog
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from monitor.broker.settings import TopicSettings
from monitor.errors import BabelwatchError
from monitor.http.board import Board
from monitor.records import Action, ActionKind, WatchlistChange, encode

log = structlog.get_logger("monitor.desk")

NO_ENTITY = b"*"
"""Key on the audit topic of an action that is about no single entity."""


class DeskClosedError(BabelwatchError):
    """Actions cannot be recorded now, so none is taken."""


class Desk:
    """Takes people's actions.

    Args:
        topics: Where they go.
        board: Shows them at once: the person who acted must not wait for the topic to come round.
        now_s: The wall clock.
        on_action: Told of each action that is recorded here (metrics).
    """

    def __init__(
        self,
        topics: TopicSettings,
        board: Board,
        now_s: Callable[[], float] = time.time,
        on_action: Callable[[Action], None] = lambda _: None,
    ) -> None:
        self._topics = topics
        self._board = board
        self._now_s = now_s
        self._on_action = on_action
        self.producer: AIOKafkaProducer | None = None
        """Set once the broker is there."""

    async def act(
        self, kind: ActionKind, who: str, *, entity: str = "", incident: str = "", for_s: int = 0, note: str = "",
        changes: tuple[str, ...] = (), version: str = "",
    ) -> Action:  # fmt: skip
        """Record one action; when this returns, it is durable.

        Raises:
            DeskClosedError: the broker does not take it.
        """
        at_ms = int(self._now_s() * 1000)
        action = Action(
            id=uuid.uuid4().hex, kind=kind, who=who, at_ms=at_ms, entity=entity, incident=incident,
            until_ms=at_ms + for_s * 1000 if for_s else 0, note=note, changes=changes, version=version,
        )  # fmt: skip
        key, value = entity.encode() or NO_ENTITY, encode(action)
        if kind == "false_alarm":
            await self._write(self._topics.review, key, value)
        await self._write(self._topics.audit, key, value)
        log.info("action", kind=kind, who=who, entity=entity, incident=incident, until_ms=action.until_ms)
        self._on_action(action)
        self._board.on_action(action)
        self._board.changed()
        return action

    async def change_watchlist(self, entity: str, change: WatchlistChange | None) -> None:
        """Write a change for every process to take, or that one is taken back; when this returns, it is durable.

        Raises:
            DeskClosedError: the broker does not take it.
        """
        await self._write(self._topics.watchlist, entity.encode(), encode(change) if change is not None else None)

    async def _write(self, topic: str, key: bytes, value: bytes | None) -> None:
        if self.producer is None:
            raise DeskClosedError("Kafka is not reached yet, so this cannot be recorded")
        try:
            await self.producer.send_and_wait(topic, value, key=key)
        except KafkaError as error:
            raise DeskClosedError(f"Kafka did not take it: {type(error).__name__}") from error
