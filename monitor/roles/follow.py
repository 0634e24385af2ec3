"""Fills the status page's board from the topics, so that every replica shows the same, whatever its roles are."""

from __future__ import annotations

import asyncio
import time
from functools import partial

import msgspec
import structlog
from aiokafka import AIOKafkaConsumer
from aiokafka.errors import KafkaError
from aiokafka.structs import ConsumerRecord, TopicPartition

from monitor.broker import client
from monitor.broker.settings import KafkaSettings, TopicSettings
from monitor.http.board import Board
from monitor.records import decode_action, decode_alert_event, decode_pulse

log = structlog.get_logger("monitor.follow")

PULSES_S = 60.0
"""Pulses are read from so long ago: what is older tells of nobody that is alive."""

CHUNK = 500
"""Records between two breaths: a full state topic takes seconds to read, and the loop serves health checks too."""


async def follow(
    board: Board,
    *,
    kafka: KafkaSettings,
    topics: TopicSettings,
    partitions: dict[str, int],
    transactions: bool,
    stopping: asyncio.Event,
) -> None:
    """Read alerts, state, actions and pulses, and go on until `stopping`."""
    while not stopping.is_set():
        reader = client.consumer(kafka, group=None, read_committed=transactions)
        await client.patiently("following alerts and state", partial(client.begin, reader, kafka), stopping=stopping)
        try:
            await _seek(reader, topics, partitions)
            while not stopping.is_set():
                batches = await reader.getmany(timeout_ms=300, max_records=CHUNK)
                for partition, records in batches.items():
                    for record in records:
                        _show(board, topics, partition.topic, record)
                if batches:
                    board.changed()
                    await asyncio.sleep(0)
        except KafkaError as error:
            log.warning("follow.failed", reason=client.explain(error))
            await asyncio.sleep(1.0)
        finally:
            await client.stop(reader)


async def _seek(reader: AIOKafkaConsumer, topics: TopicSettings, partitions: dict[str, int]) -> None:
    whole = [
        TopicPartition(name, p) for name in (topics.alerts, topics.state, topics.audit) for p in range(partitions[name])
    ]
    pulses = [TopicPartition(topics.pulse, p) for p in range(partitions[topics.pulse])]
    reader.assign([*whole, *pulses])
    await reader.seek_to_beginning(*whole)
    since_ms = int((time.time() - PULSES_S) * 1000)
    found = await reader.offsets_for_times(dict.fromkeys(pulses, since_ms))
    for partition in pulses:
        if (offset := found.get(partition)) is not None:
            reader.seek(partition, offset.offset)
        else:
            await reader.seek_to_end(partition)


def _show(board: Board, topics: TopicSettings, topic: str, record: ConsumerRecord[bytes, bytes]) -> None:
    key, value = record.key or b"", record.value
    try:
        if topic == topics.state:
            board.on_state(key, value)
        elif value is None:
            return
        elif topic == topics.alerts:
            board.on_alert(decode_alert_event(value).data)
        elif topic == topics.audit:
            board.on_action(decode_action(value))
        else:
            board.on_pulse(decode_pulse(value))
    except (msgspec.DecodeError, ValueError, IndexError) as error:
        log.debug("follow.unreadable", topic=topic, reason=str(error))
