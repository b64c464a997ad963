"""What a broker takes of a producer is read, however compressed, whatever headers are called."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from typing import Any

import asyncpg
import pytest
from aiokafka import AIOKafkaProducer
from confluent_kafka import Producer

from tests.command import done, settings_for, topic
from tests.record_batches import NAME, READ_AS, with_odd_names
from tests.servers import KafkaBroker
from tests.worker_process import WorkerProcess

pytestmark = pytest.mark.timeout(180)

CODECS = ("none", "gzip", "snappy", "lz4", "zstd")
SELECT_EVENTS = "SELECT event_id FROM attendance ORDER BY event_id"
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


async def until_applied(connection: asyncpg.Connection, events: set[str]) -> None:
    async with asyncio.timeout(30):
        while True:
            if {row[0] for row in await connection.fetch(SELECT_EVENTS)} == events:
                return
            await asyncio.sleep(0.1)


async def test_whatever_a_broker_takes_is_read(
    kafka_broker: KafkaBroker, database: str, topic_prefix: str
) -> None:
    settings = settings_for(
        bootstrap=kafka_broker.bootstrap, database=database, prefix=topic_prefix
    )
    name = topic(topic_prefix, "ATTENDANCE")
    await asyncio.to_thread(done, "topics", "apply", settings=settings)
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
