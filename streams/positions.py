"""Compares where a partition is applied with what the broker still has.

Records lost to retention cannot be brought back: the partition goes on at the first one left, and
an incident says what is missing. A topic that ends before our offset was truncated or made anew:
nothing is safe to assume, so the partition stops until somebody decides.
"""

from __future__ import annotations

import json

import structlog

from db import offsets
from db.offsets import Claim
from db.pool import Pool, transaction

log = structlog.get_logger(__name__)


async def check_claim(pool: Pool, claim: Claim, available: tuple[int, int]) -> Claim:
    """The claim, moved or stopped where the broker's records do not reach it. Never silent."""
    first, end = available
    details = json.dumps({"next_offset": claim.next_offset, "first": first, "end": end})
    if first <= claim.next_offset <= end:
        return claim
    if claim.next_offset > end:
        log.error("topic_shorter", action="stop", topic=claim.topic, partition=claim.partition,
                  next_offset=claim.next_offset, end=end,
                  advice="the topic was truncated or made anew: see docs/runbook.md")  # fmt: skip
        async with transaction(pool) as connection:
            await offsets.record_incident(
                connection, "topic_shorter", claim.topic, claim.partition, details
            )
            stopped_at = await offsets.stop(connection, claim)
        return claim._replace(stopped_at=stopped_at)
    log.error(
        "records_lost", action="skip", topic=claim.topic, partition=claim.partition,
        next_offset=claim.next_offset, first=first, lost=first - claim.next_offset,
    )  # fmt: skip
    async with transaction(pool) as connection:
        await offsets.record_incident(
            connection, "records_lost", claim.topic, claim.partition, details
        )
        await offsets.move(connection, claim, first)
    return claim._replace(next_offset=first)
