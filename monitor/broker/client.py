"""Kafka clients made from the settings, and what every client does the same way: connect patiently, say why not."""

from __future__ import annotations

import asyncio
import random
import ssl
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeVar

import structlog
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.conn import collect_hosts, create_conn
from aiokafka.coordinator.assignors.sticky.sticky_assignor import StickyPartitionAssignor
from aiokafka.errors import (
    IllegalStateError,
    IncompatibleBrokerVersion,
    KafkaConnectionError,
    KafkaError,
    SaslAuthenticationFailed,
    TopicAlreadyExistsError,
    TopicAuthorizationFailedError,
    UnknownError,
    UnknownTopicOrPartitionError,
    UnsupportedSaslMechanismError,
    UnsupportedVersionError,
    for_code,
)

from monitor.broker.settings import KafkaSettings
from monitor.errors import BrokerError
from monitor.waiting import told_within

log = structlog.get_logger("monitor.broker")
T = TypeVar("T")

FIRST_RETRY_S, LAST_RETRY_S = 0.5, 15.0
"""Back-off of a connection: soon at first (a broker restarting), then four times a minute (an outage of hours)."""

MAX_REQUEST_BYTES = 1 << 20
"""Kafka's own default for a message; larger documents are dead-lettered before they would be sent on."""


VISIBLE_TRIES = 10
"""A topic that was just made is known to all brokers within a second or two."""

CONNECT_TIMEOUT_S = 30.0
"""For a client to connect and introduce itself; aiokafka itself would wait for a dead coordinator for ever."""


def connection(settings: KafkaSettings) -> dict[str, Any]:
    """Arguments that every aiokafka client takes."""
    arguments: dict[str, Any] = {
        "bootstrap_servers": settings.bootstrap_servers,
        "client_id": settings.client_id,
        "security_protocol": settings.security_protocol,
    }
    if settings.security_protocol in ("SSL", "SASL_SSL"):
        arguments["ssl_context"] = _ssl_context(settings)
    if settings.security_protocol.startswith("SASL"):
        arguments |= {
            "sasl_mechanism": settings.sasl_mechanism,
            "sasl_plain_username": settings.username,
            "sasl_plain_password": settings.secret(),
        }
    return arguments


def _ssl_context(settings: KafkaSettings) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=settings.ca_file)
        if settings.cert_file is not None:
            context.load_cert_chain(settings.cert_file, settings.key_file)
    except (OSError, ssl.SSLError) as error:
        raise BrokerError(
            f"the TLS files cannot be used: {error}",
            where="kafka.ca_file / cert_file / key_file",
            hint="PEM files expected",
        ) from error
    return context


def consumer(settings: KafkaSettings, *, group: str | None, read_committed: bool, **more: Any) -> AIOKafkaConsumer:
    """A consumer that commits only when told to, and starts at the oldest record."""
    arguments: dict[str, Any] = {
        **connection(settings),
        "group_id": group,
        # A timer that knows nothing of processing would commit work that is not done.
        "enable_auto_commit": False,
        "auto_offset_reset": "earliest",
        "isolation_level": "read_committed" if read_committed else "read_uncommitted",
        "session_timeout_ms": int(settings.session_timeout_s * 1000),
        "heartbeat_interval_ms": int(settings.session_timeout_s * 100),
        "fetch_max_wait_ms": 100,
        "max_partition_fetch_bytes": 4 * MAX_REQUEST_BYTES,
    }
    if group:
        # What a member holds stays with it through a rebalance. The assignor keeps its memory on its class: one for each.
        kept = {"member_assignment": None, "generation": StickyPartitionAssignor.DEFAULT_GENERATION_ID}
        arguments["partition_assignment_strategy"] = (type("Sticky", (StickyPartitionAssignor,), kept),)
    if group and settings.instance_id:
        arguments["group_instance_id"] = f"{settings.instance_id}.{group}"
    return AIOKafkaConsumer(**{**arguments, **more})


def producer(
    settings: KafkaSettings, *, transactional_id: str | None = None, idempotent: bool = False
) -> AIOKafkaProducer:
    """A producer that waits for all replicas; `transactional_id` makes it transactional (and so idempotent)."""
    arguments: dict[str, Any] = {
        **connection(settings),
        "acks": "all",
        "linger_ms": 5,
        "max_batch_size": 256 * 1024,
        "max_request_size": 4 * MAX_REQUEST_BYTES,
    }
    if transactional_id:
        # Longer than any commit takes, shorter than a reader of committed records may be kept waiting by a dead writer.
        arguments |= {"transactional_id": transactional_id, "transaction_timeout_ms": 30_000}
    elif idempotent:
        arguments["enable_idempotence"] = True
    return AIOKafkaProducer(**arguments)


async def begin(started: Any, settings: KafkaSettings) -> None:
    """Start a client; when it cannot connect, the error says why, for a person.

    Raises:
        KafkaError, TimeoutError: the broker cannot be reached, or does not let us in.
    """
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            await started.start()
    except KafkaConnectionError as error:
        # aiokafka says only which addresses it tried; the reason went to its log, among much else.
        raise KafkaConnectionError(await _why_not(settings)) from error


async def _why_not(settings: KafkaSettings) -> str:
    """What each of the addresses answers to a connection."""
    arguments = connection(settings)
    answers = []
    for host, port, _ in collect_hosts(arguments.pop("bootstrap_servers")):
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                probe = await create_conn(host, port, **arguments)
            probe.close()
            answers.append(f"{host}:{port} answers now")
        except (KafkaError, OSError, TimeoutError) as error:
            answers.append(f"{host}:{port} {_refusal(error, settings)}")
    return "; ".join(answers)


def _refusal(error: Exception, settings: KafkaSettings) -> str:
    """Why a connection failed, and what to do about it."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return (
            f"has a certificate that is not trusted ({error.verify_message}): check kafka.ca_file and the host's name"
        )
    if isinstance(error, ssl.SSLError):
        return f"does not speak TLS with us ({error.reason}): check kafka.security_protocol, kafka.cert_file and kafka.key_file"
    if isinstance(error, SaslAuthenticationFailed):
        return (
            f"refuses the login of {settings.username!r}: check kafka.username, kafka.password and kafka.sasl_mechanism"
        )
    if isinstance(error, UnsupportedSaslMechanismError):
        return f"does not take {settings.sasl_mechanism}: check kafka.sasl_mechanism"
    if isinstance(error, KafkaConnectionError) and settings.security_protocol != "PLAINTEXT":
        return (
            "closes the connection: check kafka.security_protocol, and whether it wants a certificate (kafka.cert_file)"
        )
    return f"does not answer ({explain(error)})"


async def patiently(what: str, attempt: Callable[[], Awaitable[T]], *, stopping: asyncio.Event | None = None) -> T:
    """Repeat `attempt` until Kafka lets it succeed, saying each time in one line why it did not.

    Raises:
        asyncio.CancelledError: if `stopping` is set while waiting.
    """
    wait_s = FIRST_RETRY_S
    while True:
        try:
            return await attempt()
        except (KafkaError, BrokerError, OSError, TimeoutError, IllegalStateError) as error:
            log.warning("broker.unreachable", doing=what, reason=explain(error), retry_in_s=round(wait_s, 1))
        pause = wait_s * random.uniform(0.7, 1.3)
        if stopping is None:
            await asyncio.sleep(pause)
        elif await told_within(stopping, pause):
            raise asyncio.CancelledError
        wait_s = min(wait_s * 2, LAST_RETRY_S)


def explain(error: BaseException) -> str:
    """One line for a person; never holds a secret, since no Kafka error carries one."""
    text = str(error).strip().splitlines()
    if isinstance(error, BrokerError):
        return text[0]
    return f"{type(error).__name__}: {text[0]}" if text and text[0] else type(error).__name__


async def ensure_topics(
    settings: KafkaSettings,
    names: Sequence[str],
    *,
    configs: Mapping[str, Mapping[str, str]] | None = None,
    like: Mapping[str, str] | None = None,
    single: Sequence[str] = (),
) -> dict[str, int]:
    """Create the topics that are missing, and return the number of partitions of each.

    Args:
        settings: The connection, and what new topics are like.
        names: The topics.
        configs: Kafka's settings of topics that are created.
        like: Topics that get as many partitions as another one has.
        single: Topics that get one partition.

    Raises:
        KafkaError: the broker is not reachable.
        BrokerError: the broker refuses to create a topic.
    """
    admin = AIOKafkaAdminClient(**connection(settings), request_timeout_ms=15_000)
    await begin(admin, settings)
    try:
        existing = set(await admin.list_topics())
        missing = [name for name in dict.fromkeys(names) if name not in existing]
        if missing:
            copied = [source for name, source in (like or {}).items() if name in missing and source in existing]
            counts = {t["topic"]: len(t["partitions"]) for t in await admin.describe_topics(copied)} if copied else {}

            def wide(name: str) -> int:
                source = (like or {}).get(name, name)
                return counts.get(source, 1 if source in single else settings.partitions)

            wanted = [
                NewTopic(
                    name,
                    wide(name),
                    settings.replication_factor
                    if settings.replication_factor > 0
                    else await _default_replication(admin),
                    topic_configs=dict((configs or {}).get(name, {})),
                )
                for name in missing
            ]
            response = await admin.create_topics(wanted)
            for name, code, *detail in response.topic_errors:
                error = for_code(code)
                if error is TopicAuthorizationFailedError:
                    raise BrokerError("not allowed to create the topic", where=name, hint="create it, or grant CREATE")
                if code and error is not TopicAlreadyExistsError:
                    raise error(f"{name}: {detail[0] if detail else ''}")
        for _ in range(VISIBLE_TRIES):
            described = await admin.describe_topics(list(dict.fromkeys(names)))
            if not (unknown := [topic["topic"] for topic in described if not topic["partitions"]]):
                break
            await asyncio.sleep(FIRST_RETRY_S)  # just made, and this broker has not heard of it yet
        else:
            error = next(for_code(topic["error_code"]) for topic in described if topic["topic"] in unknown)
            raise (error if issubclass(error, KafkaError) else UnknownTopicOrPartitionError)(", ".join(unknown))
        return {topic["topic"]: len(topic["partitions"]) for topic in described}
    finally:
        await admin.close()


async def _default_replication(admin: AIOKafkaAdminClient) -> int:
    """Kafka's CreateTopics before v4 has no "broker default": three copies where three brokers are, else what there is."""
    cluster = await admin.describe_cluster()
    return max(1, min(3, len(cluster["brokers"])))


async def has_transactions(settings: KafkaSettings) -> bool:
    """Ask the broker for a producer id: one without transactions (the embedded one) refuses.

    Raises:
        KafkaError, TimeoutError: it cannot answer now. That is no refusal: to go on at least once would repeat records.
    """
    if settings.transactions != "auto":
        return settings.transactions == "on"
    if settings.embedded:
        return False
    probe = producer(settings, transactional_id=f"{settings.group_prefix}.probe")
    try:
        await begin(probe, settings)
    except (IncompatibleBrokerVersion, UnsupportedVersionError, UnknownError) as error:
        log.info("broker.no_transactions", reason=explain(error))
        return False
    finally:
        await stop(probe)
    return True


def hush_orphans(loop: asyncio.AbstractEventLoop) -> None:
    """Keep Kafka errors that lie in futures nobody awaits out of the log.

    A producer that is fenced fails its messages, its transaction and its offsets, each in a future of its own. The first one
    that is awaited ends the lane, and is told there; asyncio would tell all others with a traceback each.
    """

    def handle(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if isinstance(error, KafkaError):
            log.debug("error.orphaned", reason=explain(error))
        else:
            loop.default_exception_handler(context)

    loop.set_exception_handler(handle)


STOP_TIMEOUT_S = 5.0


_stopping: set[asyncio.Task[None]] = set()
"""Clients that are being stopped: an event loop holds its tasks weakly."""


async def stop(client: Any) -> None:
    """Stop a client, whatever state it and its broker are in: it has nothing left to save, and would wait for both.

    In a task of its own, which goes on when the caller is cancelled: aiokafka's clients keep for themselves a cancellation
    that reaches them while they close, and a caller who was cancelled would live on.
    """
    task = asyncio.create_task(_stop(client))
    _stopping.add(task)
    task.add_done_callback(_stopping.discard)
    await asyncio.shield(task)


async def _stop(client: Any) -> None:
    try:
        async with asyncio.timeout(STOP_TIMEOUT_S):
            await client.stop()
    except Exception as error:
        log.debug("cleanup.failed", reason=explain(error))
