"""A Faust worker as its guide shows it, with asyncpg: one upsert per record, or `take` and batches.

Arguments: way (`one` or `take`), bootstrap servers, topic, records, database URL, group,
concurrency (actors of the agent) or batch size.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from datetime import datetime
from operator import attrgetter
from typing import Any

import asyncpg
import faust
import mode.loop

from tests.bench.peers.progress import Progress
from tests.bench.peers.table import CREATE, UPSERT_MANY, UPSERT_ONE, columns

FIELDS = ("id", "org_id", "user_id", "event_id", "status", "occurred_at", "recorded_at")
WITHIN_S = 0.5


class Attendance(faust.Record, coerce=True, serializer="json"):
    """The wire's fields."""

    id: str
    org_id: str
    user_id: str
    event_id: str
    status: str
    occurred_at: datetime
    recorded_at: datetime


as_row = attrgetter(*FIELDS)


class Application(faust.App):
    """Opens its pool before it consumes, as Faust's documentation has it."""

    url: str
    pool: asyncpg.Pool

    async def on_start(self) -> None:
        """Open the pool and make the table."""
        self.pool = await asyncpg.create_pool(self.url, min_size=1, max_size=20)
        await self.pool.execute(CREATE)
        await super().on_start()


def build(arguments: Sequence[str]) -> Application:
    """The application with its agent."""
    way, bootstrap, topic_name, total, url, group, size = arguments
    app = Application(
        group,
        broker=f"kafka://{bootstrap}",
        store="memory://",
        web_enabled=False,
        topic_disable_leader=True,
        consumer_auto_offset_reset="earliest",
        broker_max_poll_records=10_000,
        stream_buffer_maxsize=16_384,
    )
    app.url = url
    topic = app.topic(topic_name, value_type=Attendance)
    progress = Progress(int(total))

    async def upsert_each(stream: Any) -> None:
        async for record in stream:
            await app.pool.execute(UPSERT_ONE, *as_row(record))
            progress.add(1)

    async def upsert_batches(stream: Any) -> None:
        async for records in stream.take(int(size), within=WITHIN_S):
            await app.pool.execute(UPSERT_MANY, *columns(map(as_row, records)))
            progress.add(len(records))

    if way == "one":
        app.agent(topic, concurrency=int(size))(upsert_each)
    else:
        app.agent(topic)(upsert_batches)
    return app


if __name__ == "__main__":
    mode.loop.use("uvloop")
    worker = faust.Worker(build(sys.argv[1:]), loglevel="WARN", quiet=True)
    worker.execute_from_commandline()
