"""A real Kafka of three nodes, and a network between it and its clients that can be disturbed."""

from __future__ import annotations

import asyncio
import random
import signal
import socket
from pathlib import Path

from aiokafka.client import AIOKafkaClient, CoordinationType

from tests.support import servers
from tests.support.proxy import Proxy
from tests.support.servers import Server

NODES = 3


class Cluster:
    """Three brokers. Clients come in through proxies; the brokers among themselves, and those who watch, do not.

    Args:
        home: The folder that KAFKA_HOME names.
    """

    def __init__(self, home: Path) -> None:
        base = _ports()
        clients = [base + 10 + node for node in range(NODES)]
        outside = [base + 20 + node for node in range(NODES)]
        self.proxies = [Proxy(outside[n], clients[n]) for n in range(NODES)]
        self.brokers: list[Server] = []
        for n in range(NODES):
            internal, controller = base + n, base + 100 + n
            extra = (
                f"listeners=PLAINTEXT://127.0.0.1:{internal},CLIENT://127.0.0.1:{clients[n]},CONTROLLER://127.0.0.1:{controller}\n"
                f"advertised.listeners=PLAINTEXT://127.0.0.1:{internal},CLIENT://127.0.0.1:{outside[n]}\n"
                "listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CLIENT:PLAINTEXT,CONTROLLER:PLAINTEXT\n"
                "group.min.session.timeout.ms=6000\nleader.imbalance.check.interval.seconds=30\n"
            )
            self.brokers.append(servers.kafka(home, node=n + 1, nodes=NODES, port=base, extra=extra))
        self.inside = ",".join(f"127.0.0.1:{base + n}" for n in range(NODES))
        """Addresses for those who watch and must not be disturbed."""
        self.outside = ",".join(f"127.0.0.1:{port}" for port in outside)
        """Addresses for those who are tested."""

    async def start(self) -> None:
        for proxy in self.proxies:
            await proxy.start()
        await asyncio.gather(*(asyncio.to_thread(broker.start) for broker in self.brokers))

    async def stop(self) -> None:
        for proxy in self.proxies:
            await proxy.stop()
        for broker in self.brokers:
            broker.kill(signal.SIGKILL)
        await asyncio.gather(*(asyncio.to_thread(broker.stop) for broker in self.brokers))

    def heal(self) -> None:
        for proxy in self.proxies:
            proxy.heal()

    async def coordinator(self, kind: str, key: str) -> int:
        """Which broker (0 to 2) coordinates a group or a transactional id."""
        client = AIOKafkaClient(bootstrap_servers=self.inside)
        await client.bootstrap()
        try:
            coordination = CoordinationType.GROUP if kind == "group" else CoordinationType.TRANSACTION
            return int(await client.coordinator_lookup(coordination, key)) - 1
        finally:
            await client.close()

    async def whole(self) -> None:
        """Wait until every replica of every partition is in sync again."""
        while True:
            try:
                if await asyncio.wait_for(self._in_sync(), 10):
                    return
            except Exception:  # any: a broker that comes back answers in many ways
                pass
            await asyncio.sleep(0.5)

    async def _in_sync(self) -> bool:
        from aiokafka.admin import AIOKafkaAdminClient

        admin = AIOKafkaAdminClient(bootstrap_servers=self.inside)
        await admin.start()
        try:
            topics = await admin.describe_topics()
        finally:
            await admin.close()
        partitions = [partition for topic in topics for partition in topic["partitions"]]
        return all(len(p["isr"]) == len(p["replicas"]) and not p["error_code"] for p in partitions)


def _ports() -> int:
    """A base with 130 free ports above it, as far as one can tell.

    Below those that outgoing connections take (32768 and up): a broker that is down for a while wants its port back.
    """
    for _ in range(200):
        base = random.SystemRandom().randrange(15_000, 32_000)
        wanted = [base + offset + n for offset in (0, 10, 20, 100) for n in range(NODES)]
        if not any(_taken(port) for port in wanted):
            return base
    raise RuntimeError("no ports are free")


def _taken(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
