"""Sending dead-lettered documents back, once what was wrong is mended (a mapping, a limit, a bug)."""

from __future__ import annotations

import base64
from collections import Counter

from aiokafka.structs import TopicPartition

from monitor.broker import client
from monitor.config import Config
from monitor.errors import BabelwatchError
from monitor.records import decode_deadletter

REPLAYED = "babelwatch-replayed-from"
"""Header of a document that was sent back: the dead-letter record it came from."""


async def replay_deadletters(config: Config, reasons: set[str], *, dry_run: bool) -> Counter[str]:
    """Send the letters of the classify role back to the documents topic.

    A group of its own remembers how far it came, so a letter is sent back once.

    Args:
        config: Where Kafka is.
        reasons: Only these; empty for all.
        dry_run: Count only, and remember nothing.

    Returns:
        Letters by what was done: `sent <reason>`, `cut <reason>` (the value was shortened), `other role`, `left`.
    """
    if config.kafka.embedded:
        raise BabelwatchError("no Kafka is named", where="kafka.bootstrap_servers")
    counts = await client.patiently(
        "looking up the topics", lambda: client.ensure_topics(config.kafka, [config.topics.deadletter])
    )
    partitions = [TopicPartition(config.topics.deadletter, p) for p in range(counts[config.topics.deadletter])]
    group = f"{config.kafka.group_prefix}.deadletter-replay"
    reader = client.consumer(config.kafka, group=group, read_committed=True)
    writer = client.producer(config.kafka)
    done: Counter[str] = Counter()
    await client.patiently("connecting", reader.start)
    await client.patiently("connecting", writer.start)
    try:
        reader.assign(partitions)
        ends = await reader.end_offsets(partitions)
        while any([await reader.position(p) < ends[p] for p in partitions]):
            batches = await reader.getmany(timeout_ms=500, max_records=500)
            for record in (r for records in batches.values() for r in records):
                letter = decode_deadletter(record.value)
                if letter.role != "classify":
                    done["other role"] += 1
                elif reasons and letter.reason not in reasons:
                    done["left"] += 1
                elif letter.truncated:
                    done[f"cut {letter.reason}"] += 1
                else:
                    done[f"sent {letter.reason}"] += 1
                    if not dry_run:
                        value = base64.b64decode(letter.value) if letter.encoding == "base64" else letter.value.encode()
                        place = f"{record.topic}/{record.partition}/{record.offset}".encode()
                        await writer.send(config.topics.documents, value, key=record.key, headers=[(REPLAYED, place)])
            if not dry_run:
                await writer.flush()
                await reader.commit()
    finally:
        await writer.stop()
        await reader.stop()
    return done
