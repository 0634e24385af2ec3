"""Fills the status page's board from the topics, so that every replica shows the same, whatever its roles are."""

from __future__ import annotations

import asyncio

import msgspec
import structlog
from aiokafka.errors import KafkaError
from aiokafka.structs import TopicPartition

from monitor.broker import client
from monitor.broker.settings import KafkaSettings, TopicSettings
from monitor.detection.detector import read_cell
from monitor.http.board import Board, Point
from monitor.records import decode_alert_event

log = structlog.get_logger("monitor.follow")


async def follow(
    board: Board,
    *,
    kafka: KafkaSettings,
    topics: TopicSettings,
    partitions: dict[str, int],
    transactions: bool,
    stopping: asyncio.Event,
) -> None:
    """Read alerts and state from their beginning and go on until `stopping`."""
    while not stopping.is_set():
        reader = client.consumer(kafka, group=None, read_committed=transactions)
        await client.patiently("following alerts and state", reader.start, stopping=stopping)
        try:
            reader.assign(
                [TopicPartition(name, p) for name in (topics.alerts, topics.state) for p in range(partitions[name])]
            )
            await reader.seek_to_beginning()
            while not stopping.is_set():
                batches = await reader.getmany(timeout_ms=300, max_records=2000)
                for partition, records in batches.items():
                    for record in records:
                        _show(board, partition.topic == topics.alerts, record.key, record.value)
                if batches:
                    board.changed()
        except KafkaError as error:
            log.warning("follow.failed", reason=client.explain(error))
            await asyncio.sleep(1.0)
        finally:
            await reader.stop()


def _show(board: Board, is_alert: bool, key: bytes | None, value: bytes | None) -> None:
    if value is None or key is None:
        return
    try:
        if is_alert:
            board.on_alert(decode_alert_event(value).data)
        elif (cell := read_cell(key, value)) is not None:
            entity, bucket_ms, counts = cell
            for lang, (documents, negatives) in counts.items():
                board.on_point(entity, lang, Point(bucket_ms, documents, negatives))
    except (msgspec.DecodeError, ValueError) as error:
        log.debug("follow.unreadable", reason=str(error))
