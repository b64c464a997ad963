"""What a worker holds on to, sampled while it runs: memory, connections, threads, files, lag."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import NamedTuple

import asyncpg
import psutil

from db import due
from tests.bench.ground import report
from tests.bench.ground.worker import Worker

SAY_EVERY_S = 60.0
WORKERS_SESSIONS = """
SELECT count(*) FROM pg_stat_activity
WHERE datname = current_database() AND application_name LIKE 'engagement-%'"""
APPLIED = "SELECT coalesce(sum(next_offset), 0)::bigint FROM stream_offset"
WAITING = """
SELECT (SELECT count(*) FROM due_member) + (SELECT count(*) FROM due_batch)
     + (SELECT count(*) FROM due_user) + (SELECT count(*) FROM due_organization)
     + (SELECT count(*) FROM outbox)"""


class Vitals(NamedTuple):
    """At one moment, `at_s` by the monotonic clock.

    `connections` are the worker's own, to anybody; `sessions` those that PostgreSQL has of it.
    `lag` is records that were sent and are not applied, `waiting` marks and rows of the outbox,
    `oldest_s` the age of the oldest mark.
    """

    at_s: float
    resident_mb: float
    connections: int
    sessions: int
    threads: int
    files: int
    lag: int
    waiting: int
    oldest_s: float


async def sample(
    worker: Worker, database: asyncpg.Connection, sent: Callable[[], int], every_s: float
) -> list[Vitals]:
    """Take samples until cancelled, which gives them; raises Stuck when the worker ends.

    `sent`: how many records have been sent by now. Says one every minute.
    """
    samples: list[Vitals] = []
    due_s = said_s = time.monotonic()
    try:
        while True:
            worker.require_alive()
            samples.append(await _look(worker, database, sent()))
            if samples[-1].at_s - said_s >= SAY_EVERY_S:
                said_s = samples[-1].at_s
                report.say(str(samples[-1]))
            due_s = max(due_s + every_s, time.monotonic())
            await asyncio.sleep(due_s - time.monotonic())
    except asyncio.CancelledError:
        return samples


async def applied(database: asyncpg.Connection) -> int:
    """How many offsets all partitions have moved."""
    return int(await database.fetchval(APPLIED))


async def _look(worker: Worker, database: asyncpg.Connection, sent: int) -> Vitals:
    process = worker.process
    return Vitals(
        time.monotonic(),
        worker.resident_mb(),
        sum(one.status == psutil.CONN_ESTABLISHED for one in process.net_connections(kind="inet")),
        int(await database.fetchval(WORKERS_SESSIONS)),
        process.num_threads(),
        process.num_fds(),
        max(0, sent - await applied(database)),
        int(await database.fetchval(WAITING)),
        (await due.backlog(database)).oldest_age_s,
    )
