"""What a broker takes of a producer is read, however compressed, whatever headers are called."""

from __future__ import annotations

import asyncio
import json
import re
from datetime import UTC, datetime
from typing import Any, Final

import asyncpg
import httpx2
import pytest
from aiokafka import AIOKafkaProducer
from confluent_kafka import Consumer, Message, Producer

from tests.command import done, settings_for, topic
from tests.record_batches import NAME, READ_AS, with_odd_names
from tests.servers import KafkaBroker
from tests.worker_process import WorkerProcess

pytestmark = pytest.mark.timeout(180)

CODECS = ("none", "gzip", "snappy", "lz4", "zstd")
SELECT_EVENTS = "SELECT event_id FROM attendance ORDER BY event_id"
COUNT_PUBLISHED = "SELECT count(published_at) FROM dead_letter"
SELECT_LETTERS = 'SELECT "offset", code, headers FROM dead_letter'


def attendance(event: str, **changed: Any) -> bytes:
    now = datetime.now(UTC).isoformat()
    record = {
        "id": event, "org_id": "club", "user_id": "ada", "event_id": event, "status": "attended",
        "occurred_at": now, "recorded_at": now,
    }  # fmt: skip
    return json.dumps(record | changed).encode()


async def send_with_odd_header(bootstrap: str, name: str, values: list[bytes]) -> None:
    """Records to partition 0 in one batch, each with a header whose name is no UTF-8."""
    async with AIOKafkaProducer(bootstrap_servers=bootstrap) as producer:
        batch = producer.create_batch()
        for value in values:
            batch.append(key=b"club:ada", value=value, timestamp=None, headers=[(NAME, b"1")])
        batch.close()
        batch._buffer = with_odd_names(bytes(batch._build()))
        await (await producer.send_batch(batch, name, partition=0))


@pytest.fixture
async def settings(kafka_broker: KafkaBroker, database: str, topic_prefix: str) -> dict[str, str]:
    """Those of a service whose topics are there."""
    made = settings_for(bootstrap=kafka_broker.bootstrap, database=database, prefix=topic_prefix)
    await asyncio.to_thread(done, "topics", "apply", settings=made)
    return made


async def until_applied(connection: asyncpg.Connection, events: set[str]) -> None:
    async with asyncio.timeout(30):
        while True:
            if {row[0] for row in await connection.fetch(SELECT_EVENTS)} == events:
                return
            await asyncio.sleep(0.1)


async def test_whatever_a_broker_takes_is_read(
    kafka_broker: KafkaBroker, database: str, topic_prefix: str, settings: dict[str, str]
) -> None:
    name = topic(topic_prefix, "ATTENDANCE")
    connection = await asyncpg.connect(database)
    expected = set(CODECS)
    for codec in CODECS:
        producer = Producer(
            {"bootstrap.servers": kafka_broker.bootstrap, "compression.type": codec}
        )
        # Enough that compressing is worth it.
        producer.produce(name, attendance(codec, comment="!" * 2_000), "club:ada", partition=1)
        assert producer.flush(10) == 0
    await send_with_odd_header(
        kafka_broker.bootstrap,
        name,
        [attendance("odd"), attendance("refused", status="unknown"), attendance("neighbour")],
    )
    expected |= {"odd", "neighbour"}
    with WorkerProcess(settings) as worker:
        await until_applied(connection, expected)
        (letter,) = await connection.fetch(SELECT_LETTERS)
        assert (letter["offset"], letter["code"]) == (1, "schema")
        assert READ_AS in letter["headers"]
        assert (await asyncio.to_thread(worker.end))[0] == 0
    # The next one looks at the last record that was applied, which is in that batch.
    with WorkerProcess(settings) as worker:
        await asyncio.to_thread(worker.wait_for, "worker_started")
        await send_with_odd_header(kafka_broker.bootstrap, name, [attendance("later")])
        await until_applied(connection, expected | {"later"})
        assert "records_unreadable" not in worker.stderr
        assert (await asyncio.to_thread(worker.end))[0] == 0
    await connection.close()


async def test_records_of_an_open_transaction_are_no_backlog(
    kafka_broker: KafkaBroker, database: str, topic_prefix: str, settings: dict[str, str]
) -> None:
    """They can't be read yet; a worker with a backlog would leave evaluating for later."""
    name, count = topic(topic_prefix, "ATTENDANCE"), 1_500
    connection = await asyncpg.connect(database)
    async with AIOKafkaProducer(
        bootstrap_servers=kafka_broker.bootstrap, transactional_id=f"{topic_prefix}open"
    ) as producer:
        await producer.begin_transaction()
        for number in range(count):
            await producer.send(name, attendance(f"open-{number}"), b"club:ada", partition=0)
        await producer.flush()
        with WorkerProcess(settings) as worker:
            other = Producer({"bootstrap.servers": kafka_broker.bootstrap})
            other.produce(name, attendance("plain"), "club:ada", partition=1)
            assert other.flush(10) == 0
            await until_applied(connection, {"plain"})
            assert await lag_of(worker, name) == {0: 0.0, 1: 0.0}
            await producer.commit_transaction()
            await until_applied(connection, {"plain", *(f"open-{n}" for n in range(count))})
            assert (await asyncio.to_thread(worker.end))[0] == 0
    await connection.close()


async def lag_of(worker: WorkerProcess, name: str) -> dict[int, float]:
    """Lag by partition, of partitions 0 and 1, once the worker knows where both end."""
    sample = re.compile(rf'engagement_lag_records{{partition="([01])",topic="{name}"}} (\S+)')
    async with asyncio.timeout(30), httpx2.AsyncClient() as client:
        while True:
            text = (await client.get(f"http://127.0.0.1:{worker.port}/metrics")).text
            found = {int(partition): float(lag) for partition, lag in sample.findall(text)}
            if len(found) == 2:
                return found
            await asyncio.sleep(0.2)


BIG: Final = 3_000_000
MANY: Final = [(f"h{number}", b"h" * 1_000) for number in range(3_000)]
# What is sent beside an empty object, and the header that says what was left out of the letter.
TOO_LARGE_LETTERS: Final[dict[str, tuple[dict[str, Any], str | None]]] = {
    "key": ({"key": b"k" * BIG}, "dlq-key-omitted"),
    "header": ({"headers": [("h", b"h" * BIG), ("kept", b"1")]}, "dlq-headers-omitted"),
    "headers": ({"headers": MANY}, "dlq-headers-omitted"),
    "value": ({"value": b"0" * BIG}, "dlq-value-omitted"),
    "much": ({"key": b"k" * BIG, "value": b"0" * BIG}, "dlq-value-omitted"),
    "plain": ({"key": b"club:ada"}, None),
}  # fmt: skip


async def test_a_letter_larger_than_its_topic_takes_keeps_nobody_back(
    kafka_broker: KafkaBroker, database: str, topic_prefix: str, settings: dict[str, str]
) -> None:
    name = topic(topic_prefix, "ATTENDANCE")
    producer = Producer(
        {
            "bootstrap.servers": kafka_broker.bootstrap,
            "compression.type": "gzip",
            "message.max.bytes": 8_000_000,
            "linger.ms": 0,
        }
    )
    for sent, _ in TOO_LARGE_LETTERS.values():
        producer.produce(name, **{"value": b"{}"} | sent, partition=1)
        assert producer.flush(30) == 0
    connection = await asyncpg.connect(database)
    with WorkerProcess(settings) as worker:
        async with asyncio.timeout(60):
            while await connection.fetchval(COUNT_PUBLISHED) < len(TOO_LARGE_LETTERS):  # noqa: ASYNC110
                await asyncio.sleep(0.1)
        assert (await asyncio.to_thread(worker.end))[0] == 0
    await connection.close()
    letters = await asyncio.to_thread(
        letters_by_offset, kafka_broker.bootstrap, topic(topic_prefix, "DEAD_LETTER")
    )
    for offset, (sent, omission) in enumerate(TOO_LARGE_LETTERS.values()):
        letter = letters[offset]
        headers = dict(letter.headers() or [])
        assert {n for n in headers if n.endswith("-omitted")} >= ({omission} if omission else set())
        assert headers["__streams.errors.exception"] in (b"schema", b"too_large")
        # What fits is there as it came.
        assert letter.key() in (None, sent.get("key"))
        assert letter.value() in (None, sent.get("value", b"{}"))
        assert (letter.key() is None) == ("dlq-key-omitted" in headers or "key" not in sent)
        assert (letter.value() is None) == ("dlq-value-omitted" in headers)
    assert dict(letters[1].headers() or [])["kept"] == b"1"
    assert [n for n in dict(letters[5].headers() or []) if n.endswith("-omitted")] == []


def letters_by_offset(bootstrap: str, name: str) -> dict[int, Message]:
    """What is on the topic of dead letters, the last of each by the offset that it had."""
    consumer = Consumer(
        {"bootstrap.servers": bootstrap, "group.id": name, "auto.offset.reset": "earliest"}
    )
    consumer.subscribe([name])
    found: dict[int, Message] = {}
    while len(found) < len(TOO_LARGE_LETTERS):
        message = consumer.poll(20)
        assert message is not None
        assert message.error() is None
        offset = dict(message.headers() or [])["__streams.errors.offset"]
        assert isinstance(offset, bytes)
        found[int(offset)] = message
    consumer.close()
    return found
