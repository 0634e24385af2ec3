"""`babelwatch erase`: what was said in some documents, or by some authors, goes from everything that is kept.

Kafka can replace a record of a compacted topic, and cut a topic off before an offset; it cannot take one record out of the
middle. So: the detectors' state is written anew (an order on the opinions topic), what waits in the notify role too, the
page and the sinks show the posts no more (an action on the audit topic), and what is left on the other topics ends with
their retention, or at once when they may be cut off.
"""

from __future__ import annotations

import base64
import getpass
import json
import time
import uuid
from collections.abc import AsyncIterator, Collection, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

import msgspec
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete
from aiokafka.errors import KafkaError
from aiokafka.structs import ConsumerRecord, TopicPartition

from monitor.broker import client
from monitor.broker.reading import read_range
from monitor.config import Config
from monitor.detection.erasing import erase_from_alert
from monitor.documents.masking import author_hash
from monitor.errors import BabelwatchError
from monitor.http.desk import NO_ENTITY
from monitor.privacy import ERASED, document_hash
from monitor.records import (
    Action,
    EntityStep,
    Erasure,
    Opinion,
    cloud_event,
    decode_alert_event,
    decode_deadletter,
    decode_opinion_message,
    decode_step_message,
    encode,
)
from monitor.settings import secret

Places = dict[TopicPartition, int]
"""The last offset at which something was found, by partition."""

SEGMENT_DAYS = 1
"""A record outlives its retention by its segment's age at most."""


@dataclass
class Found:
    """What one topic holds of the documents."""

    records: int = 0
    newest_ms: int = 0
    places: Places = field(default_factory=dict)

    def add(self, record: ConsumerRecord[bytes, bytes]) -> None:
        """Count a record."""
        self.records += 1
        self.newest_ms = max(self.newest_ms, record.timestamp)
        self.places[TopicPartition(record.topic, record.partition)] = record.offset


@dataclass(frozen=True, slots=True)
class Report:
    """One line for the person: where, how many, and what became of them."""

    topic: str
    records: int
    outcome: str


class Eraser:
    """One run of the command.

    Args:
        config: Where everything is.
        documents: Ids of documents.
        authors: Names of authors, as the documents give them.
    """

    def __init__(self, config: Config, documents: Collection[str], authors: Collection[str]) -> None:
        if config.kafka.embedded:
            raise BabelwatchError("no Kafka is named", where="kafka.bootstrap_servers")
        if not documents and not authors:
            raise BabelwatchError("nothing is named to be erased", hint="--document ID or --author NAME")
        self._config = config
        self._documents = set(documents)
        self._names = set(authors)
        key = secret(config.service.author_salt, config.service.author_salt_file).encode()
        self._authors = {author_hash(author, key) for author in authors}
        self._transactions = False
        self._partitions: dict[str, int] = {}

    async def run(self, *, cut: bool, dry_run: bool) -> list[Report]:
        """Find and erase.

        Args:
            cut: Cut the opinions, alerts and dead letters off behind the last record found, with all that is older;
                alerts are written anew first, without the posts.
            dry_run: Only tell what is there.

        Raises:
            BabelwatchError: the broker refuses.
        """
        topics = self._config.topics
        names = [topics.opinions, topics.incidents, topics.alerts, topics.deadletter, topics.audit]
        self._partitions = await client.patiently(
            "looking up the topics", lambda: client.ensure_topics(self._config.kafka, names)
        )
        self._transactions = await client.has_transactions(self._config.kafka)
        opinions = await self._find_opinions()
        alerts = await self._find_alerts()
        steps = await self._find_steps()
        letters = await self._find_letters()
        if not dry_run:
            await self._order()
        retention = self._config.retention
        plan = (
            (topics.opinions, opinions, retention.opinions_days),
            (topics.incidents, steps, retention.alerts_days),
            (topics.alerts, alerts, retention.alerts_days),
            (topics.deadletter, letters, retention.deadletter_days),
        )
        reports = []
        for topic, found, days in plan:
            outcome = "nothing"
            if found.records and cut and not dry_run:
                if topic == topics.alerts:
                    await self._rewrite_alerts(found)
                outcome = await self._cut(topic, found)
            elif found.records:
                gone = datetime.fromtimestamp(found.newest_ms / 1000 + (days + SEGMENT_DAYS) * 86_400, UTC)
                outcome = f"gone by {gone:%Y-%m-%d} (retention of {days:g} days, if the topic was made with it)"
            reports.append(Report(topic, found.records, outcome))
        evidence = "is written anew by the detect and correlate roles when they come to the order"
        reports.append(Report(topics.state, len(self._documents), "would be written anew" if dry_run else evidence))
        return reports

    # --- finding ----------------------------------------------------------------------------------------------------

    async def _find_opinions(self) -> Found:
        """Opinions of the documents and of the authors, whose documents are known from here on."""
        found = Found()
        async for record in self._read(self._config.topics.opinions):
            try:
                message = decode_opinion_message(record.value or b"")
            except msgspec.DecodeError:
                continue
            if isinstance(message, Opinion) and (
                message.document_id in self._documents or message.author in self._authors
            ):
                self._documents.add(message.document_id)
                found.add(record)
        return found

    async def _find_alerts(self) -> Found:
        found = Found()
        gone = {document_hash(document) for document in self._documents}
        async for record in self._read(self._config.topics.alerts):
            try:
                alert = decode_alert_event(record.value or b"").data
            except msgspec.DecodeError:
                continue
            if erase_from_alert(alert, gone) is not alert:
                found.add(record)
        return found

    async def _find_steps(self) -> Found:
        found = Found()
        gone = {document_hash(document) for document in self._documents}
        async for record in self._read(self._config.topics.incidents):
            try:
                step = decode_step_message(record.value or b"")
            except msgspec.DecodeError:
                continue
            if isinstance(step, EntityStep) and erase_from_alert(step.alert, gone) is not step.alert:
                found.add(record)
        return found

    async def _find_letters(self) -> Found:
        """Dead letters hold what came, unread: whatever holds one of the names counts."""
        found = Found()
        names = self._documents | self._names
        # JSON may escape what is not ASCII.
        wanted = {form.encode() for name in names for form in (name, json.dumps(name)[1:-1]) if form}
        async for record in self._read(self._config.topics.deadletter):
            try:
                letter = decode_deadletter(record.value or b"")
                value = base64.b64decode(letter.value) if letter.encoding == "base64" else letter.value.encode()
            except (msgspec.DecodeError, ValueError):
                value = record.value or b""
            if any(form in value for form in wanted):
                found.add(record)
        return found

    async def _read(self, topic: str) -> AsyncIterator[ConsumerRecord[bytes, bytes]]:
        for number in range(self._partitions[topic]):
            partition = TopicPartition(topic, number)
            batches = read_range(self._config.kafka, partition, start=None, end=None, read_committed=self._transactions)
            async for records in batches:
                for record in records:
                    yield record

    # --- erasing ------------------------------------------------------------------------------------------------------

    async def _order(self) -> None:
        """Tell the detectors, the notify role and the pages."""
        topics = self._config.topics
        hashes = frozenset(document_hash(document) for document in self._documents)
        order = Erasure(documents=hashes, authors=frozenset(self._authors))
        identity = uuid.uuid4().hex
        action = Action(
            id=identity, kind="erase", who=f"{getpass.getuser()} (command line)", at_ms=int(time.time() * 1000),
            changes=tuple(sorted(hashes)), note=f"{len(hashes)} documents, {len(self._authors)} authors",
        )  # fmt: skip
        key = f"erasure|{identity}".encode()
        writes: list[tuple[str, bytes, bytes, int | None]] = [
            (topic, key, encode(order), number)
            for topic in (topics.opinions, topics.incidents)
            for number in range(self._partitions[topic])
        ]
        await self._write([*writes, (topics.audit, NO_ENTITY, encode(action), None)])

    async def _rewrite_alerts(self, found: Found) -> None:
        """Copies of the alerts that will be cut off, without the posts; the notify role leaves them alone."""
        gone = {document_hash(document) for document in self._documents}
        copies: list[tuple[str, bytes, bytes, int | None]] = []
        async for record in self._read(self._config.topics.alerts):
            if record.offset > found.places.get(TopicPartition(record.topic, record.partition), -1):
                continue
            try:
                alert = erase_from_alert(decode_alert_event(record.value or b"").data, gone)
            except msgspec.DecodeError:
                continue
            copies.append((record.topic, record.key or b"", encode(cloud_event(alert)), record.partition))
        await self._write(copies, headers=[(ERASED, b"1")])

    async def _write(
        self, records: Sequence[tuple[str, bytes, bytes, int | None]], headers: Sequence[tuple[str, bytes]] = ()
    ) -> None:
        producer = client.producer(self._config.kafka)
        await client.patiently("connecting", producer.start)
        try:
            for topic, key, value, partition in records:
                await producer.send_and_wait(topic, value, key=key, partition=partition, headers=list(headers))
        except KafkaError as error:
            raise BabelwatchError(f"the broker refused: {client.explain(error)}") from error
        finally:
            await client.stop(producer)

    async def _cut(self, topic: str, found: Found) -> str:
        """Cut partitions off behind what was found, never beyond what a role has still to read."""
        admin = AIOKafkaAdminClient(**client.connection(self._config.kafka))
        await client.patiently("connecting", admin.start)
        try:
            read = await self._read_up_to(admin, topic)
            wanted = {p: offset + 1 for p, offset in found.places.items()}
            allowed = {p: min(end, read.get(p, end)) for p, end in wanted.items()}
            await admin.delete_records({p: RecordsToDelete(end) for p, end in allowed.items() if end > 0})
        except (KafkaError, ValueError, NotImplementedError) as error:
            raise BabelwatchError(
                f"the broker does not cut topics off: {client.explain(error)}", where=topic,
                hint="without --cut, retention erases it",
            ) from error  # fmt: skip
        finally:
            await client.stop(admin)
        late = sum(1 for p, end in wanted.items() if allowed[p] < end)
        return (
            f"cut off, but in {late} partitions a role has still to read it: run it again later" if late else "cut off"
        )

    async def _read_up_to(self, admin: AIOKafkaAdminClient, topic: str) -> Places:
        """The least offset that the groups reading a topic have committed; what none has read yet is at 0."""
        prefix, topics = self._config.kafka.group_prefix, self._config.topics
        groups = {
            topics.opinions: [f"{prefix}.detect"],
            topics.incidents: [f"{prefix}.correlate"],
            topics.alerts: [f"{prefix}.notify.{sink.name}" for sink in self._config.sinks],
        }.get(topic, [])
        least: Places = {}
        for group in groups:
            committed = await admin.list_consumer_group_offsets(group)
            for number in range(self._partitions[topic]):
                partition = TopicPartition(topic, number)
                offset = committed[partition].offset if partition in committed else 0
                least[partition] = min(max(offset, 0), least.get(partition, 1 << 62))
        return least
