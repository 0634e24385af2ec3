"""A real Kafka that lets only those in who prove who they are: SASL, TLS, client certificates, access rules."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import NamedTuple

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.protocol.admin import CreateAclsRequest

from tests.support import servers
from tests.support.servers import Server, free_port

PASSWORD = "correct-horse-battery"
"""Of `alice`, who may do everything, of `nobody`, who may do nothing, and of the users that are named as roles."""

USERS = ("alice", "nobody", "classify", "detect", "notify")


KINDS = ("unknown", "any", "topic", "group", "cluster", "transactional id")
OPERATIONS = ("Unknown", "Any", "All", "Read", "Write", "Create", "Delete", "Alter", "Describe")
"""In the order of their numbers in Kafka's protocol."""


class Rule(NamedTuple):
    """Someone may do something."""

    user: str
    operation: str
    kind: str
    name: str
    prefixed: bool = False


class SecureKafka:
    """One broker with a listener for each way in; `ports` by protocol. `folder` holds the certificates.

    The listener EXPIRED shows a certificate of yesteryear; `stranger.pem` is an authority that signed nothing here.
    """

    def __init__(self, home: Path, folder: Path) -> None:
        self.home = home
        self.folder = folder
        self.ports = {name: free_port() for name in ("SASL_PLAINTEXT", "SASL_SSL", "SSL", "EXPIRED")}
        make_certificates(folder)
        base = servers.kafka_ports()
        doors = {"PLAINTEXT": base, **self.ports, "CONTROLLER": base + 100}
        jaas = "org.apache.kafka.common.security"
        lines = [
            "listeners=" + ",".join(f"{name}://127.0.0.1:{port}" for name, port in doors.items()),
            "advertised.listeners="
            + ",".join(f"{name}://127.0.0.1:{port}" for name, port in doors.items() if name != "CONTROLLER"),
            "listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SASL_PLAINTEXT:SASL_PLAINTEXT,"
            "SASL_SSL:SASL_SSL,SSL:SSL,EXPIRED:SSL",
            "sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512",
            "ssl.keystore.type=PEM", f"ssl.keystore.location={folder / 'broker-chain.pem'}",
            "ssl.truststore.type=PEM", f"ssl.truststore.location={folder / 'ca.pem'}",
            "listener.name.ssl.ssl.client.auth=required",
            f"listener.name.expired.ssl.keystore.location={folder / 'expired-chain.pem'}",
            "authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "super.users=User:ANONYMOUS;User:alice;User:CN=alice",
        ]  # fmt: skip
        for door in ("sasl_plaintext", "sasl_ssl"):
            users = " ".join(f'user_{name}="{PASSWORD}"' for name in USERS)
            lines.append(f"listener.name.{door}.plain.sasl.jaas.config={jaas}.plain.PlainLoginModule required {users};")
            for kind in ("256", "512"):
                key = f"listener.name.{door}.scram-sha-{kind}.sasl.jaas.config"
                lines.append(f"{key}={jaas}.scram.ScramLoginModule required;")
        self.server: Server = servers.kafka(home, port=base, extra="\n".join(lines) + "\n")

    def start(self) -> SecureKafka:
        self.server.start()
        # Kafka's own tool, through the one listener that asks nothing; it takes one secret at a time.
        command = ["java", "-cp", f"{self.home / 'libs'}/*", "kafka.admin.ConfigCommand"]
        command += [
            "--bootstrap-server",
            self.server.address,
            "--alter",
            "--entity-type",
            "users",
            "--entity-name",
            "alice",
        ]
        for kind in ("256", "512"):
            secret = f"SCRAM-SHA-{kind}=[iterations=4096,password={PASSWORD}]"
            done = subprocess.run([*command, "--add-config", secret], capture_output=True, text=True)
            assert done.returncode == 0, done.stdout + done.stderr
        return self

    async def allow(self, *rules: Rule) -> None:
        """Add access rules."""
        admin = AIOKafkaAdminClient(bootstrap_servers=self.server.address)
        await admin.start()
        try:
            for rule in rules:
                request = CreateAclsRequest(
                    KINDS.index(rule.kind), rule.name, 4 if rule.prefixed else 3, f"User:{rule.user}", "*",
                    OPERATIONS.index(rule.operation), 3,
                )  # fmt: skip
                answer = await admin._send_request(request)
                assert [code for code, *_ in answer.creation_responses] == [0], answer
        finally:
            await admin.close()

    def stop(self) -> None:
        self.server.stop()


def make_certificates(folder: Path) -> None:
    """An authority, the broker's certificate by it, one that has expired, a client's, and a stranger's authority."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("ca", "stranger"):
        _openssl(
            folder, f"req -x509 -newkey rsa:2048 -nodes -days 2 -keyout {name}.key -out {name}.pem -subj /CN={name}"
        )
    (folder / "san.cnf").write_text("subjectAltName=IP:127.0.0.1,DNS:localhost\n")
    for name in ("broker", "expired", "alice"):
        dates = "-not_before 20200101000000Z -not_after 20200102000000Z" if name == "expired" else "-days 2"
        _openssl(folder, f"req -newkey rsa:2048 -nodes -keyout {name}.key -out {name}.csr -subj /CN={name}")
        _sign(folder, name, dates)
        chain = "".join((folder / part).read_text() for part in (f"{name}.key", f"{name}.pem", "ca.pem"))
        (folder / f"{name}-chain.pem").write_text(chain)


def _sign(folder: Path, name: str, dates: str) -> None:
    if dates.startswith("-days"):
        _openssl(
            folder,
            f"x509 -req -in {name}.csr -CA ca.pem -CAkey ca.key -CAcreateserial -out {name}.pem {dates} -extfile san.cnf",
        )
        return
    # `x509 -req` cannot sign for the past before OpenSSL 3.4; `ca` can, and wants its books.
    (folder / "index.txt").write_text("")
    (folder / "ca.cnf").write_text(
        "[ca]\ndefault_ca=it\n[it]\ndatabase=index.txt\nnew_certs_dir=.\nrand_serial=yes\ndefault_md=sha256\npolicy=any\n"
        "[any]\ncommonName=supplied\n"
    )
    _openssl(
        folder,
        f"ca -batch -config ca.cnf -cert ca.pem -keyfile ca.key -in {name}.csr -out {name}.pem -notext -extfile san.cnf "
        "-startdate 20200101000000Z -enddate 20200102000000Z",
    )


def _openssl(folder: Path, arguments: str) -> None:
    done = subprocess.run(["openssl", *arguments.split()], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
