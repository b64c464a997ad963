"""A deployment as docs/deploy.md describes it: TLS, passwords, access lists, roles with few rights.

The broker lets nobody do anything that its access lists do not name, the database is behind TLS,
and every program logs in as somebody who may do little. The lists and the roles are those that the
page tells people to make.
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._scram import (
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialAlteration,
    UserScramCredentialUpsertion,
)

from service.api.tokens import development_token
from service.demo.local import LocalKafka
from service.demo.local.ports import free_port
from service.settings import load_settings
from tests.certificates import Authority, Issued
from tests.fences import ROOT, blocks
from tests.kafka.shell import Shell
from tests.owners import wait_until
from tests.servers import PostgresServer, run_sql
from tests.tls_proxy import HOST, TlsProxy, tls_proxy

pytestmark = pytest.mark.timeout(240)

PASSWORD = "open sesame, 1+1=2 & more"
USERS = ("engagement-worker", "check-in", "newsletter")
SCRAM = "org.apache.kafka.common.security.scram.ScramLoginModule required;"
RECORD = {
    "id": "a1", "org_id": "club", "user_id": "ada", "event_id": "e1", "status": "attended",
}  # fmt: skip


@dataclass(frozen=True)
class Secured:
    """The servers, and how each of us gets in."""

    kafka: LocalKafka
    authority: Authority
    ours: Issued
    proxy: TlsProxy
    owner_url: str

    def login(self, user: str, **more: str) -> dict[str, Any]:
        """librdkafka's settings for one of USERS."""
        return {
            "bootstrap.servers": self.kafka.bootstrap_of("SECURE"),
            "security.protocol": "SASL_SSL",
            "sasl.mechanism": "SCRAM-SHA-512",
            "sasl.username": user,
            "sasl.password": PASSWORD,
            "ssl.ca.location": str(self.authority.ca_file),
            "log_level": 0,
            **more,
        }

    def database_url(self, user: str, password: str) -> str:
        """The database by a login of its own, through the proxy."""
        parts = urlsplit(self.proxy.url(self.owner_url))
        address = parts.netloc.rpartition("@")[2]
        return parts._replace(netloc=f"{user}:{password}@{address}").geturl()

    def environment(self, **more: str) -> dict[str, str]:
        """Settings of a worker with SASL_SSL and a login with few rights; `more` wins."""
        return {
            "PATH": os.environ["PATH"],
            "KAFKA_BOOTSTRAP_SERVERS": self.kafka.bootstrap_of("SECURE"),
            "ENGAGEMENT_KAFKA_SECURITY_PROTOCOL": "SASL_SSL",
            "ENGAGEMENT_KAFKA_SASL_USERNAME": "engagement-worker",
            "ENGAGEMENT_KAFKA_SASL_PASSWORD": PASSWORD,
            "ENGAGEMENT_KAFKA_SSL_CA_FILE": str(self.authority.ca_file),
            "DATABASE_URL": self.database_url("scoring_worker", "change-me-too"),
            "ENGAGEMENT_DATABASE_SSL_CA_FILE": str(self.authority.ca_file),
            **more,
        }


def engagement(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "service.cli.main", *arguments],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


@pytest.fixture(scope="module")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[LocalKafka, Authority]]:
    """Two closed doors beside the open one, which is the administrator's."""
    folder = tmp_path_factory.mktemp("kafka")
    authority = Authority(folder)
    broker = authority.issue("broker")
    properties = {
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": str(broker.both),
        "ssl.truststore.type": "PEM",
        "ssl.truststore.location": str(authority.ca_file),
        "listener.name.secure.sasl.enabled.mechanisms": "SCRAM-SHA-512",
        "listener.name.secure.scram-sha-512.sasl.jaas.config": SCRAM,
        "listener.name.mutual.ssl.client.auth": "required",
        "listener.name.mutual.ssl.principal.mapping.rules": "RULE:^CN=(.*?)$/$1/,DEFAULT",
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "super.users": "User:ANONYMOUS",
    }
    doors = {"SECURE": "SASL_SSL", "MUTUAL": "SSL"}
    with LocalKafka(extra_properties=properties, extra_listeners=doors) as cluster:
        give_passwords(cluster)
        shell = Shell(cluster.bootstrap, folder / "bin", {})
        for block in blocks("docs/deploy.md", "sh", "Who may do what"):
            shell.run_block(block)
        yield cluster, authority


def give_passwords(cluster: LocalKafka) -> None:
    admin = AdminClient({"bootstrap.servers": cluster.bootstrap, "log_level": 0})
    scram = ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, 8192)
    wanted: list[UserScramCredentialAlteration] = [
        UserScramCredentialUpsertion(user, scram, PASSWORD.encode(), secrets.token_bytes(16))
        for user in USERS
    ]
    for done in admin.alter_user_scram_credentials(wanted).values():
        done.result(30)


@pytest.fixture(scope="module")
async def owner_url(postgres_server: PostgresServer) -> AsyncIterator[str]:
    """A database whose owner is no superuser but may make roles."""
    owner, name = f"owner_{secrets.token_hex(4)}", f"secured_{secrets.token_hex(4)}"
    # The roles of the schema belong to the whole server: other tests' owners may have made them.
    await run_sql(postgres_server, f"CREATE ROLE {owner} LOGIN CREATEROLE PASSWORD 'mine'")
    for role in ("engagement_worker", "engagement_api", "engagement_eraser"):
        await run_sql(postgres_server, GRANT_IF_THERE.format(role=role, owner=owner))
    await run_sql(postgres_server, f"CREATE DATABASE {name} OWNER {owner}")
    parts = urlsplit(postgres_server.dsn(name))
    address = parts.netloc.rpartition("@")[2]
    yield parts._replace(netloc=f"{owner}:mine@{address}").geturl()
    await run_sql(postgres_server, f"DROP DATABASE {name} WITH (FORCE)")
    for role in ("scoring_worker", "scoring_api"):
        await run_sql(postgres_server, f"DROP ROLE IF EXISTS {role}")


GRANT_IF_THERE = """
DO $$ BEGIN
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = '{role}') THEN
        GRANT {role} TO {owner} WITH ADMIN TRUE, INHERIT TRUE, SET TRUE;
    END IF;
END $$"""


@pytest.fixture(scope="module")
async def secured(
    kafka: tuple[LocalKafka, Authority],
    owner_url: str,
) -> AsyncIterator[Secured]:
    """All of it, migrated by the owner, with the topics made."""
    cluster, authority = kafka
    with tls_proxy(owner_url, authority.issue("postgres")) as proxy:
        ours = authority.issue("engagement-worker")
        found = Secured(cluster, authority, ours, proxy, owner_url)
        done = engagement(found.environment(DATABASE_URL=proxy.url(owner_url)), "migrate")
        assert done.returncode == 0, done.stderr
        connection = await asyncpg.connect(owner_url)
        for block in blocks("docs/deploy.md", "sql", "PostgreSQL"):
            await connection.execute(block.text)
        await connection.close()
        administrator = {
            "KAFKA_BOOTSTRAP_SERVERS": cluster.bootstrap,
            "ENGAGEMENT_TOPIC_PARTITIONS": "2",
        }
        done = engagement(administrator, "topics", "apply")
        assert done.returncode == 0, done.stderr
        yield found


@contextmanager
def running(
    command: str, environment: dict[str, str], log: Path
) -> Iterator[subprocess.Popen[bytes]]:
    """A worker or an API, ended in good order."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "service.cli.main", command],
            cwd=ROOT, env=environment, stdout=output, stderr=output,
        )  # fmt: skip
        try:
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(10)


def produce(login: dict[str, Any], topic: str, key: str, value: str) -> None:
    """Raises KafkaException when the broker refuses it."""
    errors: list[KafkaError] = []

    def note(error: KafkaError | None, _: object) -> None:
        if error is not None:
            errors.append(error)

    producer = Producer({**login, "message.timeout.ms": 15_000})
    producer.produce(topic, value, key, on_delivery=note)
    assert producer.flush(20) == 0
    if errors:
        raise KafkaException(errors[0])


def first_level_of(login: dict[str, Any], user: str, log: Path) -> dict[str, Any]:
    consumer = Consumer({**login, "group.id": "newsletter", "auto.offset.reset": "earliest"})
    consumer.subscribe(["engagement.level.v1"])
    deadline = time.monotonic() + 90
    try:
        while time.monotonic() < deadline:
            message = consumer.poll(1.0)
            if message is None or message.error():
                continue
            body: dict[str, Any] = json.loads(message.value() or b"{}")
            if body.get("user_id") == user:
                return body
    finally:
        consumer.close()
    raise AssertionError(f"no level of {user}:\n{log.read_text()[-6000:]}")


def attended(user: str) -> str:
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() - 60))
    return json.dumps({**RECORD, "user_id": user, "occurred_at": now, "recorded_at": now})


def test_from_producer_to_consumer_with_passwords(secured: Secured, tmp_path: Path) -> None:
    log = tmp_path / "worker.log"
    environment = secured.environment(ENGAGEMENT_WORKER_OPS_PORT=str(free_port(HOST)))
    with running("worker", environment, log):
        produce(secured.login("check-in"), "community.attendance.v1", "club:ada", attended("ada"))
        level = first_level_of(secured.login("newsletter"), "ada", log)
    assert level["level"] == "new"
    assert secured.proxy.encrypted > 3
    assert secured.proxy.plain == 0
    text = log.read_text()
    assert PASSWORD not in text
    assert "change-me-too" not in text
    assert "Traceback" not in text


def test_from_producer_to_consumer_with_certificates(secured: Secured, tmp_path: Path) -> None:
    log = tmp_path / "worker.log"
    environment = secured.environment(
        KAFKA_BOOTSTRAP_SERVERS=secured.kafka.bootstrap_of("MUTUAL"),
        ENGAGEMENT_KAFKA_SECURITY_PROTOCOL="SSL",
        ENGAGEMENT_KAFKA_SSL_CERT_FILE=str(secured.ours.certificate),
        ENGAGEMENT_KAFKA_SSL_KEY_FILE=str(secured.ours.key),
        ENGAGEMENT_WORKER_OPS_PORT=str(free_port(HOST)),
    )
    with running("worker", environment, log):
        produce(secured.login("check-in"), "community.attendance.v1", "club:bob", attended("bob"))
        level = first_level_of(secured.login("newsletter"), "bob", log)
    assert level["level"] == "new"


async def test_the_api_works_as_a_login_with_few_rights(secured: Secured, tmp_path: Path) -> None:
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() - 60))
    admin = {**RECORD, "user_id": "zoe", "status": "active", "role": "admin"}
    admin |= {"joined_at": now, "recorded_at": now}
    open_door = {"bootstrap.servers": secured.kafka.bootstrap, "log_level": 0}
    produce(open_door, "community.membership.v1", "club:zoe", json.dumps(admin))
    log = tmp_path / "worker.log"
    environment = secured.environment(ENGAGEMENT_WORKER_OPS_PORT=str(free_port(HOST)))
    with running("worker", environment, log):
        first_level_of(secured.login("newsletter"), "zoe", log)
    ports = {"ENGAGEMENT_API_PORT": free_port(HOST), "ENGAGEMENT_API_OPS_PORT": free_port(HOST)}
    environment = secured.environment(
        DATABASE_URL=secured.database_url("scoring_api", "and-me"),
        ENGAGEMENT_JWT_DEV_SECRET="only in this test, and long enough",
        **{name: str(port) for name, port in ports.items()},
    )
    token = development_token(load_settings(environment), "zoe", timedelta(minutes=5))
    api, ops = (f"http://{HOST}:{port}" for port in ports.values())
    with running("api", environment, tmp_path / "api.log"):
        wait_until(lambda: status(f"{ops}/readyz") == 200)
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        assert status(f"{api}/v1/orgs/club/members", headers) == 200
        assert status(f"{api}/v1/orgs/other/members", headers) == 404
        override = json.dumps({"level": "moderate", "notes": "a call"}).encode()
        url = f"{api}/v1/orgs/club/members/zoe/override"
        assert status(url, headers, "PUT", override) == 200, (tmp_path / "api.log").read_text()
        assert status(f"{api}/v1/orgs/club/summary", headers) == 200


def status(
    url: str, headers: dict[str, str] | None = None, method: str = "GET", body: bytes | None = None
) -> int:
    request = urllib.request.Request(url, body, headers or {}, method=method)
    try:
        with urllib.request.urlopen(request, timeout=10) as response:
            code: int = response.status
            return code
    except urllib.error.HTTPError as error:
        with error:
            return error.code
    except OSError:
        return 0


@pytest.mark.parametrize("topic", ["community.membership.v1", "engagement.level.v1"])
def test_a_producer_can_write_nothing_but_its_own_topic(secured: Secured, topic: str) -> None:
    with pytest.raises(KafkaException, match="TOPIC_AUTHORIZATION_FAILED"):
        produce(secured.login("check-in"), topic, "club:eve", "{}")


def test_the_worker_can_not_write_the_inputs(secured: Secured, tmp_path: Path) -> None:
    table = tmp_path / "attendance.csv"
    table.write_text(
        "org_id,user_id,event_id,status,occurred_at\nclub,eve,e1,attended,2026-01-01T00:00:00Z\n"
    )
    done = engagement(secured.environment(), "import", "attendance", str(table))
    assert done.returncode == 1
    assert "TopicAuthorizationFailed" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"ENGAGEMENT_KAFKA_SASL_PASSWORD": "wrong"}, "check ENGAGEMENT_KAFKA_SASL_USERNAME"),
        ({"ENGAGEMENT_KAFKA_SSL_CA_FILE": ""}, "certificate verify failed"),
        ({"ENGAGEMENT_KAFKA_SECURITY_PROTOCOL": "SASL_PLAINTEXT"}, "broker: "),
    ],
)
def test_whoever_comes_in_the_wrong_way_is_told(
    secured: Secured, change: dict[str, str], said: str
) -> None:
    done = engagement({**secured.environment(), **change}, "topics", "apply")
    assert done.returncode == 1
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) == 1


async def test_nobody_but_the_owner_can_change_the_schema_or_the_histories(
    secured: Secured,
) -> None:
    refused = (asyncpg.InsufficientPrivilegeError,)
    worker = await asyncpg.connect(secured.database_url("scoring_worker", "change-me-too"))
    api = await asyncpg.connect(secured.database_url("scoring_api", "and-me"))
    try:
        for connection in (worker, api):
            for statement in (
                "CREATE TABLE public.mine (it int)",
                "DROP TABLE member",
                "UPDATE engagement_level_history SET to_level = 'new'",
                "DELETE FROM engagement_override_history",
                "TRUNCATE thresholds",
                "SET ROLE engagement_eraser",
            ):
                with pytest.raises(refused):
                    await connection.execute(statement)
        for table in ("dead_letter", "stream_offset", "erasure", "erasure_key", "incident"):
            with pytest.raises(refused):
                await api.execute(f"SELECT FROM {table}")
        # What it may read, it sees nothing of before it was let into an organisation.
        assert await worker.fetchval("SELECT count(*) FROM member") > 0
        assert await api.fetchval("SELECT count(*) FROM member") == 0
        await api.execute("SELECT set_config('engagement.org_id', 'club', false)")
        assert await api.fetchval("SELECT count(*) FROM member") > 0
        await api.execute("SELECT set_config('engagement.org_id', 'other', false)")
        assert await api.fetchval("SELECT count(*) FROM member_engagement") == 0
    finally:
        await worker.close()
        await api.close()
