"""classify: documents of one partition -> opinions, dead letters and watermarks, in one commit."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

import msgspec
import structlog
from aiokafka.structs import ConsumerRecord, TopicPartition

from monitor.broker.deadletter import deadletter
from monitor.broker.reading import read_range
from monitor.broker.settings import KafkaSettings, TopicSettings
from monitor.broker.writer import Headers, Output
from monitor.documents.duplicates import WINDOW_RECORDS, Duplicates, Kind
from monitor.documents.eventtime import EventClock
from monitor.documents.prepare import Batch, Prepared, Preparer, Raw
from monitor.inference.classifier import Classifier
from monitor.inference.results import Classification, Failure, Outcome
from monitor.metrics import Metrics
from monitor.records import SENTIMENTS, Document, Opinion, Origin, Watermark, encode
from monitor.roles.lane import IDLE_S, Start

log = structlog.get_logger("monitor.classify")

CHUNK = 256
"""Documents per unit of work: some 15 ms to prepare, and a dozen batches of the model."""

EVIDENCE_CHARS = 500
"""Of a text that travel on with its opinion: what an alert shows of it at most."""

TRACE = "traceparent"
"""W3C Trace Context: handed from the document to its opinions as it came."""


class _Promise(NamedTuple):
    """Where the classification of a text will be found."""

    outcomes: asyncio.Future[list[Outcome]]
    place: int


class ClassifyProcessor:
    """The classify role's work on one documents partition.

    Args:
        partition: Of the documents topic.
        document_partitions: Number of partitions of the documents topic: a detector waits for each.
        opinion_partitions: Number of partitions of the opinions topic: each gets the watermarks.
        closed_at: The event time (ms) that is over for a detector at a watermark: only what moves it is told, since each
            watermark goes to every partition of opinions.
        deadly: Finds the places of the texts that no process survives; asked only when processes did not.
    """

    chunk = CHUNK
    idle_s = IDLE_S

    def __init__(
        self,
        partition: TopicPartition,
        *,
        kafka: KafkaSettings,
        topics: TopicSettings,
        document_partitions: int,
        opinion_partitions: int,
        preparer: Preparer,
        classifier: Classifier,
        closed_at: Callable[[int], int],
        deadly: Callable[[Sequence[str]], Awaitable[set[int]]],
        metrics: Metrics,
    ) -> None:
        self._partition = partition
        self._kafka = kafka
        self._topics = topics
        self._document_partitions = document_partitions
        self._opinion_partitions = opinion_partitions
        self._preparer = preparer
        self._classifier = classifier
        self._closed_at = closed_at
        self._deadly = deadly
        self._careful_until = 0
        self._alone = False
        self._metrics = metrics
        self._duplicates = Duplicates()
        self._clock = EventClock()
        self._promised: int | None = None
        self._idle = False
        # What the model said of each text lately. Of the very text: what it says of a repost must not depend on which
        # document was the first, which a process that was restarted has not seen.
        self._said: OrderedDict[bytes, _Promise | Outcome] = OrderedDict()

    async def restore(self, start: Start) -> int | None:
        """Read the window before the committed offset again: repeats are a function of those records.

        Event time is not, and is kept beside the offset: one clock that is half an hour fast is felt for half an hour.
        """
        self._careful_until, self._alone = start.careful_until, start.alone
        if start.memo:
            self._clock = msgspec.json.decode(start.memo, type=EventClock)
        position = start.offset
        if not position:
            return None
        begun = time.monotonic()
        oldest = max(0, position - WINDOW_RECORDS)
        async for records in read_range(self._kafka, self._partition, start=oldest, end=position, read_committed=True):
            batch = await asyncio.to_thread(self._prepare_again, [_raw(record) for record in records])
            if not start.memo:
                for published_ms in batch.times_ms:
                    self._clock.observe(published_ms)
        log.info(
            "window.restored", partition=self._partition.partition, position=position,
            seconds=round(time.monotonic() - begun, 3),
        )  # fmt: skip
        return position

    @property
    def memo(self) -> str:
        """The event clock behind the records taken so far."""
        return msgspec.json.encode(self._clock).decode()

    def _prepare_again(self, raws: Sequence[Raw]) -> Batch:
        """Records of the window; one that cannot be prepared was refused in its time, and is passed over."""
        try:
            return self._preparer.prepare(raws, self._duplicates)
        except Exception:
            return self._preparer.prepare([raw for raw in raws if not _fails(self._preparer, raw)], self._duplicates)

    async def start(self, records: Sequence[ConsumerRecord[bytes, bytes]]) -> Awaitable[list[Output]]:
        """Prepare in order, hand the new texts to the model, and go on while it works."""
        refused: list[Output] = []
        careful = records[0].offset < self._careful_until
        if careful:
            refused, records = await self._take_out_deadly(records)
        batch = await asyncio.to_thread(self._preparer.prepare, [_raw(r) for r in records], self._duplicates)
        texts = [_text(item.document) for item in batch.prepared]
        documents = {text: item.document for text, item in zip(texts, batch.prepared, strict=True)}
        answers = {text: self._said[text] for text in documents if text in self._said}
        new = {text: document for text, document in documents.items() if text not in answers}
        answers |= await self._ask(new, alone=careful and self._alone)
        for text, answer in answers.items():
            self._remember(text, answer)
        wanted = [(text, answers[text]) for text in texts]
        by_offset = {record.offset: record for record in records}
        unread = {item.raw.origin.offset for item in batch.refused}
        read = [offset for offset in by_offset if offset not in unread]
        clocks = {o: self._clock.observe(t) or 0 for o, t in zip(read, batch.times_ms, strict=True)}
        self._idle = False
        return self._outputs(batch, wanted, self._clock.time_ms, by_offset, clocks, refused)

    async def _ask(self, new: dict[bytes, Document], *, alone: bool) -> dict[bytes, _Promise]:
        """Hand texts to the model: all at once, or one after another where some are deadly together."""
        if not alone:
            asked = list(new.values())
            future = await self._classifier.submit([d.text for d in asked], [d.lang for d in asked])
            return {text: _Promise(future, place) for place, text in enumerate(new)}
        promises = {}
        for text, document in new.items():
            future = await self._classifier.submit([document.text], [document.lang])
            promises[text] = _Promise(future, 0)
            await asyncio.wait([future])
        return promises

    async def _take_out_deadly(
        self, records: Sequence[ConsumerRecord[bytes, bytes]]
    ) -> tuple[list[Output], list[ConsumerRecord[bytes, bytes]]]:
        """Dead letters of the records that no process survives, and the others."""
        refused: list[Output] = []
        asked: list[tuple[ConsumerRecord[bytes, bytes], list[str]]] = []
        for record in records:
            try:
                batch = await asyncio.to_thread(self._preparer.prepare, [_raw(record)], Duplicates())
            except Exception as error:  # whatever it is, it is this record's alone
                refused.append(self._refuse("not_preparable", repr(error), record))
                continue
            asked.append((record, [item.document.text for item in batch.prepared]))
        owners = [record for record, texts in asked for _ in texts]
        places = await self._deadly([text for _, texts in asked for text in texts])
        killers = {owners[place].offset for place in places}
        for record, _ in asked:
            if record.offset in killers:
                refused.append(self._refuse("model_crash", "the process ended with this document in the model", record))
        self._metrics.documents.labels("failed").inc(len(refused))
        return refused, [record for record, _ in asked if record.offset not in killers]

    def _remember(self, text: bytes, answer: _Promise | Outcome) -> None:
        self._said[text] = answer
        self._said.move_to_end(text)
        if len(self._said) > WINDOW_RECORDS:
            self._said.popitem(last=False)

    async def _settle(self, text: bytes, answer: _Promise | Outcome) -> Outcome:
        """Wait for an answer, and keep only it: a promise holds on to the answers of its whole batch."""
        if not isinstance(answer, _Promise):
            return answer
        outcome = (await answer.outcomes)[answer.place]
        if isinstance(outcome, Classification):
            outcome = replace(outcome, heads={})
        if self._said.get(text) is answer:
            self._said[text] = outcome
        return outcome

    async def _outputs(
        self,
        batch: Batch,
        answers: list[tuple[bytes, _Promise | Outcome]],
        time_ms: int | None,
        records: dict[int, ConsumerRecord[bytes, bytes]],
        clocks: dict[int, int],
        outputs: list[Output],
    ) -> list[Output]:
        for refused in batch.refused:
            record = records[refused.raw.origin.offset]
            outputs.append(self._refuse(str(refused.rejected.reason), refused.rejected.detail, record))
        for item, (text, answer) in zip(batch.prepared, answers, strict=True):
            outcome = await self._settle(text, answer)
            record = records[item.document.origin.offset]
            if isinstance(outcome, Failure):
                outputs.append(self._refuse(f"model_{outcome.reason}", outcome.detail, record))
                self._metrics.documents.labels("failed").inc()
                self._metrics.model_errors.labels(outcome.reason).inc()
                continue
            self._metrics.documents.labels("opinion").inc()
            outputs += self._opinions(item, outcome, clocks[record.offset], _trace(record))
        self._metrics.documents.labels("rejected").inc(len(batch.refused))
        self._metrics.documents.labels("unmatched").inc(batch.unmatched)
        self._metrics.documents.labels("duplicate").inc(batch.duplicates)
        if records:
            newest = max(record.timestamp for record in records.values())
            self._metrics.document_age.observe(max(0.0, time.time() - newest / 1000))
        return outputs + self._watermarks(time_ms)

    def _opinions(self, item: Prepared, said: Classification, clock_ms: int, headers: Headers) -> list[Output]:
        if item.verdict.kind is Kind.REPOST:
            self._metrics.reposts.inc()
        sentiment = SENTIMENTS[said.sentiment.index(max(said.sentiment))]
        marked = (("document-id", item.document.id.encode()), *headers)
        outputs = []
        for opinion in opinions_of(item, said, clock_ms):
            self._metrics.opinions.labels(opinion.entity, opinion.lang, sentiment).inc()
            if opinion.topic:
                self._metrics.topics.labels(opinion.entity, opinion.topic).inc()
            outputs.append(Output(self._topics.opinions, opinion.entity.encode(), encode(opinion), marked))
        return outputs

    async def idle(self) -> list[Output]:
        """Read to the end and silent: tell the detectors, so that they need not wait for this partition."""
        claims = self._mark(self._clock.time_ms or 0, idle=True, still_idle=self._idle)
        self._idle = True
        return claims

    def _watermarks(self, time_ms: int | None) -> list[Output]:
        """Behind the opinions it covers, when it closes a bucket."""
        if time_ms is None or self._closed_at(time_ms) == self._promised:
            return []
        self._promised = self._closed_at(time_ms)
        return self._mark(time_ms)

    def _mark(self, time_ms: int, *, idle: bool = False, still_idle: bool = False) -> list[Output]:
        """A watermark to every partition of the opinions topic."""
        source = self._partition
        watermark = Watermark(
            topic=source.topic, partition=source.partition, time_ms=time_ms, partitions=self._document_partitions,
            idle=idle, still_idle=still_idle,
        )  # fmt: skip
        key = f"watermark|{source.topic}|{source.partition}".encode()
        value = encode(watermark)
        return [
            Output(self._topics.opinions, key, value, partition=number, latest=True)
            for number in range(self._opinion_partitions)
        ]

    def _refuse(self, reason: str, detail: str, record: ConsumerRecord[bytes, bytes]) -> Output:
        self._metrics.dead_letters.labels("classify", reason).inc()
        origin = Origin(topic=record.topic, partition=record.partition, offset=record.offset)
        return deadletter(self._topics.deadletter, "classify", reason, detail, origin, record.key, record.value)


def opinions_of(item: Prepared, said: Classification, clock_ms: int = 0) -> list[Opinion]:
    """What one classified document says: an opinion for each entity that it names.

    Args:
        item: The document.
        said: What the model said of it.
        clock_ms: The partition's event clock behind it; 0 when there is none.
    """
    document, verdict = item.document, item.verdict
    repost_of = verdict.of if verdict.kind is Kind.REPOST else ""
    embedding = base64.b64encode(said.embedding).decode() if said.embedding is not None else ""
    return [
        Opinion(
            id=f"{document.id}|{entity}", document_id=document.id, entity=entity, published_ms=document.published_ms,
            lang=document.lang, sentiment=said.sentiment, topic=said.topic, text=document.text[:EVIDENCE_CHARS],
            source=document.source, author=document.author, url=document.url, reach=document.reach,
            fingerprint=verdict.fingerprint, repost_of=repost_of, embedding=embedding, bundle=said.bundle,
            origin=document.origin, clock_ms=clock_ms, weight=document.weight,
        )
        for entity in item.entities
    ]  # fmt: skip


def _text(document: Document) -> bytes:
    """Names what the model is asked of a document: its masked text, in its language."""
    return hashlib.blake2b(f"{document.lang}|{document.text}".encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _raw(record: ConsumerRecord[bytes, bytes]) -> Raw:
    origin = Origin(topic=record.topic, partition=record.partition, offset=record.offset)
    return Raw(record.value, origin, record.timestamp)


def _fails(preparer: Preparer, raw: Raw) -> bool:
    try:
        preparer.prepare([raw], Duplicates())
    except Exception:
        return True
    return False


def _trace(record: ConsumerRecord[bytes, bytes]) -> Headers:
    return tuple((name, value) for name, value in record.headers if name == TRACE)
