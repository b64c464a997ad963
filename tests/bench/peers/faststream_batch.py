"""A FastStream batch subscriber with asyncpg upserts.

Its batch of raw values is decoded at once by a decoder of our own, which its documentation offers,
since its own way makes an object per record; commits to Kafka after each batch.

Arguments: bootstrap servers, topic, records, database URL, group, batch size.
"""

from __future__ import annotations

import asyncio
import sys
from datetime import datetime
from typing import Any

import asyncpg
import msgspec
import uvloop
from faststream import AckPolicy, FastStream
from faststream.kafka import KafkaBroker

from tests.bench.peers.progress import Progress
from tests.bench.peers.table import CREATE, UPSERT_MANY, columns


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


async def decode_values(message: Any) -> list[tuple[Any, ...]]:
    """Rows of a batch."""
    return [msgspec.structs.astuple(DECODE(record.value)) for record in message.raw_message]


async def run(bootstrap: str, topic: str, total: int, url: str, group: str, size: int) -> None:
    """Run the application; the benchmark ends it."""
    pool = await asyncpg.create_pool(url, min_size=1, max_size=4)
    await pool.execute(CREATE)
    progress = Progress(total)
    broker = KafkaBroker(bootstrap, apply_types=False, logger=None)

    subscribe = broker.subscriber(
        topic,
        group_id=group,
        auto_offset_reset="earliest",
        batch=True,
        batch_timeout_ms=200,
        max_records=size,
        max_partition_fetch_bytes=4 << 20,
        ack_policy=AckPolicy.ACK,
        decoder=decode_values,
    )

    async def upsert(rows: list[tuple[Any, ...]]) -> None:
        await pool.execute(UPSERT_MANY, *columns(rows))
        progress.add(len(rows))

    subscribe(upsert)
    await FastStream(broker, logger=None).run()


if __name__ == "__main__":
    _, servers, name, records, dsn, consumer_group, batch = sys.argv
    uvloop.install()
    asyncio.run(run(servers, name, int(records), dsn, consumer_group, int(batch)))
