"""How far a deployment is, and the rate that follows from it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import NamedTuple

import asyncpg

from db import due, outbox
from tests.bench.ground.worker import Deployment, until

POLL_S = 0.02
SETTLE_POLL_S = 0.05

APPLIED = "SELECT coalesce(sum(next_offset), 0)::bigint FROM stream_offset WHERE topic = $1"
CLAIMED = "SELECT count(*), count(DISTINCT owner) FROM stream_offset WHERE owner IS NOT NULL"
INPUT_TOPICS = 5


class Sample(NamedTuple):
    """So many records were committed at this monotonic time."""

    at_s: float
    records: int


def rate(samples: Sequence[Sample], end_s: float | None = None) -> float:
    """Records/s between the first sample and the last (or `end_s`).

    Samples begin with the first commit, and what it held does not count, since nobody saw it
    begin: so starting up, joining the group and the first fetch are nobody's advantage.
    """
    first, last = samples[0], samples[-1]
    elapsed_s = (end_s or last.at_s) - first.at_s
    if elapsed_s <= 0:
        raise ValueError("everything was committed at once: take more records")
    return (last.records - first.records) / elapsed_s


async def applied(deployment: Deployment, topic: str) -> int:
    """Records of a topic that are applied by now."""
    connection = await deployment.connect()
    return int(await connection.fetchval(APPLIED, topic))


async def watch_intake(
    deployment: Deployment, topic: str, total: int, *, timeout_s: float
) -> list[Sample]:
    """Samples until `total` records of the topic are applied."""
    connection = await deployment.connect()
    samples: list[Sample] = []

    async def all_applied() -> bool:
        records = await connection.fetchval(APPLIED, topic)
        if records > (samples[-1].records if samples else 0):
            samples.append(Sample(time.monotonic(), records))
        return int(records) >= total

    await until(
        all_applied,
        timeout_s=timeout_s,
        every_s=POLL_S,
        workers=deployment.workers,
        what=f"{total} records of {topic} applied",
    )
    return samples


async def watch_settling(deployment: Deployment, *, timeout_s: float) -> float:
    """When nobody was due any more and everything was on its topic (monotonic)."""
    connection = await deployment.connect()

    async def settled() -> bool:
        # Cheap questions: what they cost the database counts as the service's.
        return not (await due.any_due(connection) or await outbox.any_waiting(connection))

    return await until(
        settled,
        timeout_s=timeout_s,
        every_s=SETTLE_POLL_S,
        workers=deployment.workers,
        what="due marks and outbox empty",
    )


async def facts_in(connection: asyncpg.Connection, table: str) -> int:
    """Rows of a table of facts."""
    return int(await connection.fetchval(f"SELECT count(*) FROM {table}"))


async def watch_claims(
    deployment: Deployment, *, owners: int = 1, timeout_s: float = 60.0
) -> float:
    """When so many workers had claimed all partitions of the input topics (monotonic)."""
    connection = await deployment.connect()
    wanted = INPUT_TOPICS * deployment.partitions

    async def claimed() -> bool:
        claims, claimants = (await connection.fetch(CLAIMED))[0]
        return int(claims) >= wanted and int(claimants) == owners

    return await until(
        claimed,
        timeout_s=timeout_s,
        every_s=SETTLE_POLL_S,
        workers=deployment.workers,
        what="partitions claimed",
    )
