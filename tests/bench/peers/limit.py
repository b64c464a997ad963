"""The limit of the parts: fetch, decode, COPY into a table with one primary key; nothing else.

No merging, no members, no due marks, no offsets, no dead letters, no protection from repeats: what
remains if everything that the service is for is left out. As many transactions are in flight as the
service has.

Arguments: bootstrap servers, topic, records, database URL, group (not used), key (text or offset),
batch size, batches in flight.
"""

from __future__ import annotations

import asyncio
import sys
from datetime import datetime
from typing import Any

import asyncpg
import msgspec
from aiokafka import AIOKafkaConsumer

from tests.bench.peers.progress import Progress

COLUMNS = """org_id text COLLATE "C", user_id text COLLATE "C", event_id text COLLATE "C",
    status text COLLATE "C", occurred_at timestamptz, recorded_at timestamptz"""
# Message ids repeat, since producers repeat; with the offset they are unique and just as scattered.
TABLES = {
    "text": f'CREATE TABLE copied (message_id text COLLATE "C" PRIMARY KEY, {COLUMNS})',
    "offset": f"""CREATE TABLE copied (message_id text COLLATE "C", partition integer,
        "offset" bigint, {COLUMNS}, PRIMARY KEY (partition, "offset"))""",
}


class Attendance(msgspec.Struct, gc=False):
    """The wire's fields."""

    id: str
    org_id: str
    user_id: str
    event_id: str
    status: str
    occurred_at: datetime
    recorded_at: datetime


DECODE = msgspec.json.Decoder(Attendance).decode


def rows_of(key: str, records: list[Any]) -> list[tuple[Any, ...]]:
    """Rows in the order of the table's columns."""
    rows = []
    for record in records:
        e = DECODE(record.value)
        head: tuple[Any, ...]
        if key == "text":
            head = (f"{e.id}/{record.offset}",)
        else:
            head = (e.id, record.partition, record.offset)
        rows.append(
            (*head, e.org_id, e.user_id, e.event_id, e.status, e.occurred_at, e.recorded_at)
        )
    return rows


async def run(
    bootstrap: str, topic: str, total: int, url: str, key: str, batch: int, in_flight: int
) -> None:
    """Consume the whole backlog."""
    pool = await asyncpg.create_pool(url, min_size=in_flight, max_size=in_flight)
    await pool.execute(TABLES[key])
    consumer = AIOKafkaConsumer(
        topic,
        bootstrap_servers=bootstrap,
        auto_offset_reset="earliest",
        max_partition_fetch_bytes=4 << 20,
    )
    await consumer.start()
    progress = Progress(total)
    finished = asyncio.Event()

    async def copy(records: list[Any]) -> None:
        rows = rows_of(key, records)
        async with pool.acquire() as connection:
            await connection.copy_records_to_table("copied", records=rows)
        if progress.add(len(rows)):
            finished.set()

    running: set[asyncio.Task[None]] = set()
    while not finished.is_set():
        if len(running) < in_flight:
            fetched = await consumer.getmany(timeout_ms=200, max_records=batch)
            running |= {asyncio.create_task(copy(records)) for records in fetched.values()}
        if running:
            done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
    await consumer.stop()
    await pool.close()


if __name__ == "__main__":
    _, servers, name, records, dsn, _, kind, size, lanes = sys.argv
    asyncio.run(run(servers, name, int(records), dsn, kind, int(size), int(lanes)))
