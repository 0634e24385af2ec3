"""Who may come in: every way in works with the right proof, and the wrong one is told in a line, again and again."""

from __future__ import annotations

import asyncio
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from monitor.broker import client
from monitor.broker.settings import KafkaSettings, TopicSettings
from tests.conftest import ROOT, kafka_home
from tests.support.daemon import Daemon, opinions, send
from tests.support.secure import PASSWORD, Rule, SecureKafka
from tests.support.stream import documents
from tests.support.tiny_bundle import make_tiny_bundle

pytestmark = [pytest.mark.kafka, pytest.mark.xdist_group("secure"), pytest.mark.timeout(400)]

WRONG = "not-the-password"


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecureKafka]:
    home = kafka_home()
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    kafka = SecureKafka(home, tmp_path_factory.mktemp("tls"))
    try:
        yield kafka.start()
    finally:
        kafka.stop()


def settings(secure: SecureKafka, door: str, **more: object) -> KafkaSettings:
    protocol = {"EXPIRED": "SSL"}.get(door, door)
    wanted: dict[str, object] = {"bootstrap_servers": f"127.0.0.1:{secure.ports[door]}", "security_protocol": protocol}
    if "SSL" in protocol:
        wanted["ca_file"] = secure.folder / "ca.pem"
    if protocol.startswith("SASL"):
        wanted |= {"username": "alice", "password": PASSWORD}
    return KafkaSettings.model_validate(wanted | more)


def certificate(secure: SecureKafka) -> dict[str, object]:
    return {"cert_file": secure.folder / "alice.pem", "key_file": secure.folder / "alice.key"}


@pytest.mark.parametrize(
    ("door", "mechanism"),
    [
        ("SASL_PLAINTEXT", "PLAIN"),
        ("SASL_PLAINTEXT", "SCRAM-SHA-256"),
        ("SASL_SSL", "PLAIN"),
        ("SASL_SSL", "SCRAM-SHA-256"),
        ("SASL_SSL", "SCRAM-SHA-512"),
        ("SSL", ""),
    ],
)
async def test_the_right_proof_lets_in(secure: SecureKafka, names: TopicSettings, door: str, mechanism: str) -> None:
    more = {"sasl_mechanism": mechanism} if mechanism else certificate(secure)
    allowed = settings(secure, door, **more)
    assert await client.ensure_topics(allowed, [names.documents]) == {names.documents: allowed.partitions}
    assert await client.has_transactions(allowed)


@pytest.mark.parametrize(
    ("door", "more", "told"),
    [
        ("SASL_PLAINTEXT", {"password": WRONG}, "refuses the login of 'alice'"),
        ("SASL_SSL", {"password": WRONG, "sasl_mechanism": "SCRAM-SHA-512"}, "refuses the login of 'alice'"),
        ("SASL_SSL", {"ca_file": "stranger.pem"}, "certificate that is not trusted"),
        ("SASL_SSL", {"ca_file": None}, "certificate that is not trusted"),
        ("EXPIRED", {}, "certificate has expired"),
        ("SSL", {}, "kafka.cert_file"),
        ("SASL_PLAINTEXT", {"username": "nobody"}, "not allowed to create the topic"),
        ("SSL", {"security_protocol": "PLAINTEXT"}, "does not answer"),
    ],
)
async def test_the_wrong_proof_is_told_in_one_line_and_tried_again(
    secure: SecureKafka, names: TopicSettings, door: str, more: dict[str, object], told: str
) -> None:
    if isinstance(more.get("ca_file"), str):
        more = more | {"ca_file": secure.folder / str(more["ca_file"])}
    refused = settings(secure, door, **more)
    stopping = asyncio.Event()

    async def attempt() -> object:
        await client.ensure_topics(refused, [names.documents])
        return await client.has_transactions(refused)

    with capture_logs() as lines:
        trying = asyncio.create_task(client.patiently("looking up the topics", attempt, stopping=stopping))
        async with asyncio.timeout(120):
            while len([line for line in lines if line["event"] == "broker.unreachable"]) < 2:
                await asyncio.sleep(0.05)
        stopping.set()
        await asyncio.gather(trying, return_exceptions=True)
    said = [line for line in lines if line["event"] == "broker.unreachable"]
    assert all(told in line["reason"] for line in said), said
    assert all("\n" not in line["reason"] for line in said)
    assert WRONG not in str(lines)
    assert PASSWORD not in str(lines)


async def test_the_daemon_works_over_tls_with_scram_and_waits_out_a_wrong_password(
    secure: SecureKafka, names: TopicSettings, tmp_path: Path
) -> None:
    open_door = KafkaSettings(bootstrap_servers=secure.server.address, group_prefix=names.documents.split(".")[0])
    daemon = Daemon(tmp_path / "one", open_door, names, make_tiny_bundle(tmp_path / "bundle"))
    secret = tmp_path / "password"
    secret.write_text(WRONG)
    text = daemon.config.read_text()
    text = text.replace(secure.server.address, f"127.0.0.1:{secure.ports['SASL_SSL']}")
    daemon.config.write_text(
        text.replace(
            "[kafka]",
            f'[kafka]\nsecurity_protocol = "SASL_SSL"\nsasl_mechanism = "SCRAM-SHA-512"\nusername = "alice"\n'
            f'password_file = "{secret}"\nca_file = "{secure.folder / "ca.pem"}"',
        )
    )
    try:
        daemon.start()
        await daemon.until(lambda d: d.log().count("refuses the login") >= 2)
        assert daemon.process is not None
        assert daemon.process.poll() is None
        secret.write_text(PASSWORD)  # as a secret that is mounted anew: read at each attempt
        await daemon.ready()
        sent = await send(open_door, names.documents, documents(minutes=20))
        await daemon.until(lambda d: d.metric("babelwatch_documents_total", result="opinion") >= sent)
        assert await daemon.end() == 0
    finally:
        daemon.kill()
    assert len(await opinions(open_door, names, committed=True)) == sent
    assert "Traceback" not in daemon.log()
    assert WRONG not in daemon.log()
    assert PASSWORD not in daemon.log()


ROLES = ("classify", "detect", "notify")


def documented_rules(topics: TopicSettings, prefix: str) -> list[Rule]:
    """The table of docs/deploy.md, and what stands below it, for a user named as each role."""
    text = (ROOT / "docs" / "deploy.md").read_text().partition("## Kafka's access rules")[2].partition("\n## ")[0]
    rules = []
    for who, reads, writes, groups in re.findall(r"^\| (.+?) \| (.*?) \| (.*?) \| (.*?) ?\|$", text, flags=re.M)[2:]:
        for user in ROLES if who == "every process" else (who.strip("`"),):
            for operation, cell in (("Read", reads), ("Write", writes)):
                rules += [Rule(user, operation, "topic", getattr(topics, t)) for t in re.findall(r"`(.+?)`", cell)]
            for group in re.findall(r"`babelwatch\.(.+?)`", groups):
                rules.append(Rule(user, "Read", "group", f"{prefix}.{group}", prefixed=group.endswith(".")))
    for user in ROLES:
        rules += [Rule(user, operation, "transactional id", f"{prefix}.", True) for operation in ("Write", "Describe")]
        rules += [Rule(user, operation, "topic", f"{prefix}.", True) for operation in ("Create", "Describe")]
    return rules


async def test_each_role_does_its_work_with_the_rights_that_the_documents_name(
    secure: SecureKafka, names: TopicSettings, tmp_path: Path
) -> None:
    prefix = names.documents.split(".")[0]
    open_door = KafkaSettings(bootstrap_servers=secure.server.address, group_prefix=prefix)
    await secure.allow(*documented_rules(names, prefix))
    bundle = make_tiny_bundle(tmp_path / "bundle")
    sink = '[[sinks]]\ntype = "stdout"\nname = "out"'
    made = {role: Daemon(tmp_path / role, open_door, names, bundle, extra=sink) for role in ROLES}
    door = f"127.0.0.1:{secure.ports['SASL_PLAINTEXT']}"
    try:
        for role, daemon in made.items():
            login = f'[kafka]\nsecurity_protocol = "SASL_PLAINTEXT"\nusername = "{role}"\npassword = "{PASSWORD}"'
            text = daemon.config.read_text().replace(secure.server.address, door).replace("[kafka]", login)
            daemon.config.write_text(text)
            daemon.start(role)
        for daemon in made.values():
            await daemon.ready()
        await send(open_door, names.documents, [b"not json", *documents(minutes=420, rise=(360, 420))])
        await made["notify"].until(
            lambda d: d.metric("babelwatch_deliveries_total", sink="out", result="delivered") >= 1
        )
        await made["classify"].until(lambda d: d.metric("babelwatch_dead_letters_total", reason="not_json") == 1)
        for daemon in made.values():
            assert await daemon.end() == 0
            refused = [line for line in daemon.log().splitlines() if "uthoriz" in line]
            assert refused == []
    finally:
        for daemon in made.values():
            daemon.kill()
