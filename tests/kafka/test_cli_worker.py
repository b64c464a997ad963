"""The worker's process: waiting for its parts, one way like the other, an orderly end."""

from __future__ import annotations

import asyncio
import json
import signal
import urllib.error
import urllib.request
from collections.abc import Sequence

import pytest

from tests.command import done, engagement, settings_for, topic
from tests.servers import KafkaBroker
from tests.worker_process import ENGAGEMENT, FAUST, WorkerProcess

pytestmark = pytest.mark.timeout(180)

GONE = "127.0.0.1:1"


@pytest.fixture
def settings(kafka_broker: KafkaBroker, database: str, topic_prefix: str) -> dict[str, str]:
    return settings_for(bootstrap=kafka_broker.bootstrap, database=database, prefix=topic_prefix)


@pytest.mark.parametrize("command", [ENGAGEMENT, FAUST], ids=["engagement", "faust"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_start_and_end(
    settings: dict[str, str], command: Sequence[str], number: signal.Signals
) -> None:
    done("topics", "apply", settings=settings)
    with WorkerProcess(settings, command) as worker:
        worker.wait_for("worker_started")
        address = f"http://127.0.0.1:{worker.port}/livez"
        with urllib.request.urlopen(address, timeout=10) as answer:
            assert answer.status == 200
        code, took_s = worker.end(number)
        assert code == 0, worker.stderr
        assert took_s < 15
        # Both ways of starting give the same lines.
        events = [line["event"] for line in worker.log]
        assert events[0] == "worker_starting"
        assert events[-1] == "worker_stopped"
        # Ours, and at most what the Kafka client warns of; nothing of Faust's own chatter.
        loggers = {line["logger"].split(".")[0] for line in worker.log}
        assert "streams" in loggers
        assert loggers <= {"streams", "aiokafka"}
        assert not list(worker.cwd.iterdir())
        assert worker.process.stdout is not None
        printed = worker.process.stdout.read()
        # Faust's own command prints a table of its own first.
        assert (printed == "") == (command is ENGAGEMENT)


def test_a_worker_that_is_too_early_waits_and_says_what_to_run(settings: dict[str, str]) -> None:
    with WorkerProcess(settings) as worker:
        reason = worker.wait_for("waiting")["reason"]
        assert "missing topics" in reason
        assert reason.endswith("run `engagement topics apply`")
        done("topics", "apply", settings=settings)
        worker.wait_for("worker_started")
        assert worker.end()[0] == 0


async def test_a_worker_waits_for_the_schema(
    kafka_broker: KafkaBroker, postgres_server: object, topic_prefix: str
) -> None:
    from tests.servers import PostgresServer, run_sql

    server: PostgresServer = postgres_server  # type: ignore[assignment]
    name = f"early_{topic_prefix.strip('.').replace('-', '_')}"
    settings = settings_for(
        bootstrap=kafka_broker.bootstrap, database=server.dsn(name), prefix=topic_prefix
    )
    await asyncio.to_thread(done, "topics", "apply", settings=settings)
    try:
        with WorkerProcess(settings) as worker:
            first = await asyncio.to_thread(worker.wait_for, "waiting")
            assert "does not exist: create it" in first["reason"]
            await run_sql(server, f'CREATE DATABASE "{name}"')
            await asyncio.to_thread(done, "migrate", settings=settings)
            await asyncio.to_thread(worker.wait_for, "worker_started")
            reasons = [line["reason"] for line in worker.log if line["event"] == "waiting"]
            # Said once each, however often it looked.
            assert len(reasons) == len(set(reasons))
            code, _ = await asyncio.to_thread(worker.end)
            assert code == 0
    finally:
        await run_sql(server, f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')


@pytest.mark.parametrize(
    ("missing", "said"),
    [("KAFKA_BOOTSTRAP_SERVERS", "broker: "), ("DATABASE_URL", "database: ")],
)
def test_a_worker_without_its_parts_can_be_ended(
    settings: dict[str, str], missing: str, said: str
) -> None:
    settings[missing] = GONE if missing.startswith("KAFKA") else f"postgresql://a:secret9@{GONE}/b"
    with WorkerProcess(settings) as worker:
        assert said in worker.wait_for("waiting")["reason"]
        # Alive, since ending it would mend nothing, and not ready.
        address = f"http://127.0.0.1:{worker.port}"
        with urllib.request.urlopen(f"{address}/livez", timeout=10) as answer:
            assert answer.status == 200
        with pytest.raises(urllib.error.HTTPError) as unready:
            urllib.request.urlopen(f"{address}/readyz", timeout=10)
        with unready.value as answer:
            assert answer.code == 503
            assert json.load(answer)["checks"] == {"parts": "waiting for database and topics"}
        code, took_s = worker.end()
        assert code == 0, worker.stderr
        assert took_s < 15
        assert "secret9" not in worker.stderr


def test_a_port_that_is_taken_is_named(settings: dict[str, str]) -> None:
    with WorkerProcess(settings) as first:
        first.wait_for("waiting")
        with WorkerProcess({**settings, "ENGAGEMENT_WORKER_OPS_PORT": str(first.port)}) as second:
            assert second.process.wait(30) == 2
            refused = next(line for line in second.log if line["event"] == "worker_refused")
            assert refused["reason"].startswith("ENGAGEMENT_WORKER_OPS_PORT: cannot be bound")
            assert "Traceback" not in second.stderr
        first.end()


async def test_a_schema_that_is_not_ours_is_refused(
    settings: dict[str, str], database: str
) -> None:
    import asyncpg

    connection = await asyncpg.connect(database)
    await connection.execute("UPDATE schema_migrations SET checksum = 'x'")
    await connection.close()
    with WorkerProcess(settings) as worker:
        line = await asyncio.to_thread(worker.wait_for, "worker_refused")
        assert "differs from the one applied" in line["reason"]
        code = await asyncio.to_thread(worker.process.wait, 30)
        assert code == 1


@pytest.mark.parametrize("command", [ENGAGEMENT, FAUST], ids=["engagement", "faust"])
@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("ENGAGEMENT_BATCH_MAX_RECORDS", "many", "ENGAGEMENT_BATCH_MAX_RECORDS"),
        ("ENGAGEMENT_NONSENSE", "1", "unknown setting ENGAGEMENT_NONSENSE"),
        ("KAFKA_BOOTSTRAP_SERVERS", "kafka.example:9092", "KAFKA_BOOTSTRAP_SERVERS: no TLS"),
        ("ENGAGEMENT_DATABASE_SSL_CA_FILE", "/nowhere", "ENGAGEMENT_DATABASE_SSL_CA_FILE: No such"),
    ],
)
def test_wrong_settings_stop_the_start(
    settings: dict[str, str], command: Sequence[str], name: str, value: str, said: str
) -> None:
    with WorkerProcess({**settings, name: value}, command) as worker:
        assert worker.process.wait(60) == 2
        assert said in worker.stderr
        assert "Traceback" not in worker.stderr


def test_topics_are_applied_once(settings: dict[str, str], topic_prefix: str) -> None:
    said = done("topics", "apply", settings=settings).splitlines()
    assert f"created {topic(topic_prefix, 'LEVEL')}" in said
    assert len(said) == 8
    assert done("topics", "apply", settings=settings) == "all topics are there\n"
    found = engagement("topics", "apply", settings={**settings, "KAFKA_BOOTSTRAP_SERVERS": GONE})
    assert (found.returncode, found.stdout) == (1, "")
    assert len(found.stderr.splitlines()) == 1
