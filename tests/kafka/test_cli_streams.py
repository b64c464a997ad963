"""`import`, `tail` and `dlq replay` on a real broker."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from db import dead_letters
from db.dead_letters import DeadLetterRow
from service.settings import load_settings
from streams.producing import InputProducer
from streams.tailing import Record, extents, has_records, reading
from tests.command import COMMAND, done, engagement, process_environment, settings_for, topic
from tests.servers import KafkaBroker
from tests.worker_process import WorkerProcess

pytestmark = pytest.mark.timeout(180)

DATA = Path(__file__).parents[2] / "service/demo/data"
DAVIS = str(DATA / "davis_southern_women.csv")


@pytest.fixture
def settings(kafka_broker: KafkaBroker, topic_prefix: str) -> dict[str, str]:
    found = settings_for(bootstrap=kafka_broker.bootstrap, prefix=topic_prefix)
    done("topics", "apply", settings=found)
    return found


def tailed(settings: dict[str, str], name: str) -> list[dict[str, Any]]:
    said = done("tail", name, "--from-beginning", "--no-follow", "--json", settings=settings)
    return [json.loads(line) for line in said.splitlines()]


def test_import_and_tail(settings: dict[str, str], topic_prefix: str) -> None:
    assert done("import", "attendance", DAVIS, settings=settings) == (
        "89 records sent, 0 rows refused\n"
    )
    found = tailed(settings, "attendance")
    assert len(found) == 89
    assert {one["topic"] for one in found} == {topic(topic_prefix, "ATTENDANCE")}
    assert len({one["key"] for one in found}) == 18
    evelyn = [one for one in found if one["key"] == "old-city:evelyn-jefferson"]
    assert evelyn[0]["value"] == {
        "id": evelyn[0]["value"]["id"],
        "org_id": "old-city",
        "user_id": "evelyn-jefferson",
        "event_id": "E1",
        "status": "attended",
        "occurred_at": "1936-06-27T20:00:00Z",
        "recorded_at": "1936-06-27T20:00:00Z",
    }
    # One partition per key, so that order holds.
    assert len({one["partition"] for one in evelyn}) == 1
    # Again: the same records.
    done("import", "attendance", DAVIS, settings=settings)
    again = tailed(settings, topic(topic_prefix, "ATTENDANCE"))
    assert len(again) == 178
    assert len({json.dumps(one["value"]) for one in again}) == 89


def test_import_from_standard_input_sends_what_is_right(settings: dict[str, str]) -> None:
    rows = (
        "name,org_id,recorded_at,status\n"
        "The Club,club,2026-01-01T00:00:00Z,active\n"
        "No Club,club,2026-01-01,active\n"
        '"Größer, schöner",other,2026-01-01T00:00:00+01:00,suspended\n'
    )
    found = engagement("import", "organization", "-", settings=settings, stdin=rows)
    assert found.returncode == 1
    assert found.stdout == "2 records sent, 1 rows refused\n"
    assert "standard input: row 3: schema: recorded_at" in found.stderr
    values = [one["value"] for one in tailed(settings, "organization")]
    assert {one["name"] for one in values} == {"The Club", "Größer, schöner"}


def test_a_row_that_is_not_utf_8_keeps_no_other_from_being_sent(
    settings: dict[str, str], tmp_path: Path
) -> None:
    row = "{},The {} Café,active,2026-01-01T00:00:00Z\n"
    path = tmp_path / "organizations.csv"
    path.write_bytes(
        b"org_id,name,status,recorded_at\n"
        + row.format("old", "Old").encode()
        + row.format("latin", "Latin").encode("latin-1")
        + row.format("new", "New").encode()
    )
    found = engagement("import", "organization", str(path), settings=settings)
    assert (found.returncode, found.stdout) == (1, "2 records sent, 1 rows refused\n")
    assert f"{path}: row 3: schema: not UTF-8" in found.stderr.splitlines()
    assert {one["key"] for one in tailed(settings, "organization")} == {"old", "new"}


def test_import_without_its_topic(kafka_broker: KafkaBroker, topic_prefix: str) -> None:
    settings = settings_for(bootstrap=kafka_broker.bootstrap, prefix=topic_prefix)
    found = engagement("import", "attendance", DAVIS, settings=settings)
    assert found.returncode == 1
    name = topic(topic_prefix, "ATTENDANCE")
    assert found.stderr == (f"engagement: missing topics {name}: run `engagement topics apply`\n")


def test_tail_from_now_on_until_ctrl_c(settings: dict[str, str]) -> None:
    done("import", "attendance", DAVIS, settings=settings)
    tail = subprocess.Popen(
        [*COMMAND, "tail", "attendance"],
        env=process_environment(settings),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert tail.stderr is not None
    assert tail.stdout is not None
    try:
        assert tail.stderr.readline().startswith("from now on")
        row = "org_id,user_id,event_id,status,occurred_at\na,b,e,attended,2026-01-01T00:00:00Z\n"
        done("import", "attendance", "-", settings=settings, stdin=row)
        assert " a:b  status=attended " in tail.stdout.readline()
        tail.send_signal(signal.SIGINT)
        assert tail.wait(20) == 0
        assert tail.stdout.read() == ""
    finally:
        tail.kill()
        tail.wait(20)
        tail.stdout.close()
        tail.stderr.close()


def test_tail_counts_and_refuses(settings: dict[str, str]) -> None:
    done("import", "attendance", DAVIS, settings=settings)
    said = done("tail", "attendance", "--from-beginning", "--count", "3", settings=settings)
    assert len(said.splitlines()) == 3
    assert done("tail", "attendance", "--no-follow", settings=settings) == ""
    found = engagement("tail", "__consumer_offsets", settings=settings)
    assert found.returncode == 2
    assert "no topic of ours is called __consumer_offsets" in found.stderr


def test_tail_ends_quietly_with_whoever_read_it(settings: dict[str, str]) -> None:
    done("import", "attendance", DAVIS, settings=settings)
    first = read_a_line_and_go("tail", "attendance", "--from-beginning", settings=settings)
    assert " status=attended " in first


def read_a_line_and_go(*arguments: str, settings: dict[str, str]) -> str:
    """The first line of a command, which has to end quietly when nobody reads the others."""
    command = subprocess.Popen(
        [*COMMAND, *arguments],
        env=process_environment(settings),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # Less than it has to say: else it may be through before the reader is gone.
        pipesize=4096,
    )
    assert command.stderr is not None
    assert command.stdout is not None
    try:
        first = command.stdout.readline()
        command.stdout.close()
        assert command.wait(20) == 1
        assert command.stderr.read() == ""
    finally:
        command.kill()
        command.wait(20)
        command.stderr.close()
    return first


async def test_transactions_are_seen_when_they_are_over(
    settings: dict[str, str], topic_prefix: str
) -> None:
    """Marks of transactions count as offsets, but are no records."""
    from aiokafka import AIOKafkaProducer

    name = topic(topic_prefix, "LEVEL")
    producer = AIOKafkaProducer(
        bootstrap_servers=settings["KAFKA_BOOTSTRAP_SERVERS"],
        transactional_id=f"{topic_prefix}producer",
    )
    await producer.start()
    try:
        async with producer.transaction():
            await producer.send_and_wait(name, b"committed", b"k", partition=0)
        async with producer.transaction() as transaction:
            await producer.send_and_wait(name, b"aborted", b"k", partition=0)
            raise RuntimeError("abort")  # noqa: TRY301 - the way to abort it
    except RuntimeError:
        del transaction
    finally:
        await producer.stop()
    ours = load_settings(settings)
    async with reading(ours, [name], from_beginning=True) as reader:
        records: list[Record] = [one async for one in reader.until_end()]
    assert [one.value for one in records] == [b"committed"]
    extent = (await extents(ours, [name]))[name, 0]
    assert (extent.first, extent.end) == (0, 4)
    assert await has_records(ours, name, 0, 0)
    assert not await has_records(ours, name, 0, 1)
    assert not await has_records(ours, name, 0, 4)


@pytest.mark.parametrize("command", [["import", "attendance", DAVIS], ["tail", "level"]])
def test_a_broker_that_is_not_there(settings: dict[str, str], command: list[str]) -> None:
    gone = {**settings, "KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1"}
    found = engagement(*command, settings=gone)
    assert found.returncode == 1
    last = found.stderr.splitlines()[-1]
    assert last.startswith("engagement: broker: ")
    assert last.endswith("See `engagement doctor`")
    assert "Traceback" not in found.stderr


# dlq replay


async def test_replay(settings: dict[str, str], database: str, topic_prefix: str) -> None:
    settings = {**settings, "DATABASE_URL": database}
    attendance, rsvp = topic(topic_prefix, "ATTENDANCE"), topic(topic_prefix, "RSVP")
    letters = [
        DeadLetterRow(attendance, 0, 4, "rejected", "m", b"club:ada", b'{"a":1}',
                      [("ce_id", b"x"), ("null", None), ("dlq-replay-of", b"older")]),
        DeadLetterRow(attendance, 0, 5, "schema", "m", None, b"{}", []),
        DeadLetterRow(rsvp, 0, 4, "null_value", "m", b"k", None, []),
    ]  # fmt: skip
    connection = await asyncpg.connect(database)
    await dead_letters.insert(connection, letters)
    # Whoever was erased is not brought back.
    await connection.execute(
        'INSERT INTO dead_letter (topic, partition, "offset", code, message, erased_at)'
        " VALUES ($1, 1, 7, 'schema', 'm', now())",
        attendance,
    )

    async def run(*arguments: str) -> list[str]:
        said = await asyncio.to_thread(done, "dlq", "replay", *arguments, settings=settings)
        return said.splitlines()

    assert await run("--all", "--dry-run") == ["3 dead letters would be replayed"]
    assert await run(f"{attendance}/0/4") == [
        f"replayed {attendance}/0/4 (rejected)", "1 dead letters were replayed",
    ]  # fmt: skip
    twice = await asyncio.to_thread(
        engagement, "dlq", "replay", f"{attendance}/0/4", settings=settings
    )
    assert (twice.returncode, twice.stdout) == (1, "0 dead letters were replayed\n")
    assert f"{attendance}/0/4 was replayed at" in twice.stderr
    assert await run("--topic", "rsvp") == [
        f"replayed {rsvp}/0/4 (null_value)", "1 dead letters were replayed",
    ]  # fmt: skip
    assert (await run("--all"))[-1] == "1 dead letters were replayed"
    assert (await run("--all"))[-1] == "0 dead letters were replayed"
    assert (await run("--code", "rejected", "--again"))[-1] == "1 dead letters were replayed"

    async with reading(load_settings(settings), [attendance, rsvp], from_beginning=True) as reader:
        records = [one async for one in reader.until_end()]
    found = sorted((one.topic, one.key or b"", one.value or b"", *one.headers) for one in records)
    first = (
        attendance, b"club:ada", b'{"a":1}', ("ce_id", b"x"), ("null", None),
        ("dlq-replay-of", f"{attendance}/0/4".encode()),
    )  # fmt: skip
    assert found == [
        (attendance, b"", b"{}", ("dlq-replay-of", f"{attendance}/0/5".encode())),
        first,
        first,
        (rsvp, b"k", b"", ("dlq-replay-of", f"{rsvp}/0/4".encode())),
    ]
    marks = await connection.fetch("SELECT replayed_at IS NULL, erased_at IS NULL FROM dead_letter")
    assert sorted(tuple(mark) for mark in marks) == [(False, True)] * 3 + [(True, False)]
    await connection.close()


async def test_replay_ends_quietly_with_whoever_read_it(
    settings: dict[str, str], database: str, topic_prefix: str
) -> None:
    attendance = topic(topic_prefix, "ATTENDANCE")
    connection = await asyncpg.connect(database)
    # More lines than a pipe holds.
    await dead_letters.insert(
        connection,
        [DeadLetterRow(attendance, 0, n, "schema", "m", b"k", b"{}", []) for n in range(3_000)],
    )
    await connection.close()
    settings = {**settings, "DATABASE_URL": database}
    command = ("dlq", "replay", "--all")
    first = await asyncio.to_thread(read_a_line_and_go, *command, settings=settings)
    assert first.startswith(f"replayed {attendance}/")


def test_a_stopped_partition_goes_on_and_doctor_sees_all_of_it(
    settings: dict[str, str], database: str, topic_prefix: str
) -> None:
    settings = {
        **settings, "DATABASE_URL": database, "ENGAGEMENT_DLQ_MAX_CONSECUTIVE": "3",
    }  # fmt: skip
    attendance = topic(topic_prefix, "ATTENDANCE")

    async def send(*values: bytes) -> None:
        async with InputProducer(load_settings(settings), [attendance]) as producer:
            for value in values:
                await producer.send(attendance, b"same-key", value)

    good = json.dumps(
        {"id": "m", "org_id": "club", "user_id": "ada", "event_id": "e", "status": "attended",
         "occurred_at": "2026-01-01T00:00:00Z", "recorded_at": "2026-01-01T00:00:00Z"}
    ).encode()  # fmt: skip
    with WorkerProcess(settings) as worker:
        worker.wait_for("worker_started")
        asyncio.run(send(b"{", b"{}", b"[]", b"null", good))
        stopped = worker.wait_for("partition_stopped")
        assert stopped["level"] == "error"
        assert "engagement dlq resume" in stopped["advice"]
        wait_until(lambda: "3 dead letters" in done("dlq", "list", settings=settings))
        sick = engagement("doctor", settings=settings)
        assert sick.returncode == 1
        assert f"PROBLEM offsets       {attendance}/" in sick.stdout
        assert "stands still" in sick.stdout
        said = done("dlq", "resume", "--topic", "attendance", settings=settings)
        assert "goes on at offset 3" in said
        wait_until(lambda: "club:ada" in done(
            "tail", "level", "--from-beginning", "--no-follow", settings=settings
        ))  # fmt: skip
        assert "4 dead letters" in done("dlq", "list", settings=settings)
        well = done("doctor", "--rebuild", settings=settings)
        assert well.splitlines()[-1] == "all well"
        assert "1 members rebuilt from their facts, 0 differ" in well
        assert "in the last 24 h: 3 schema, 1 not_json" in well
        assert worker.end()[0] == 0


def wait_until(true: Any, timeout_s: float = 60.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.2)
