"""Remove what has served its time: a little at a time, by one worker at a time.

Beside that, the latest run's summary gets what Claude has done since.

Nothing removes rows of the histories or of the thresholds. Texts stay: there are few, shared by
all members.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Final
from uuid import UUID

from db import leases, runs
from db.pool import Connection, Pool, transaction
from db.runs import JOB

LEASE: Final = "housekeeping"
LEASE_TTL: Final = timedelta(minutes=5)
# Rows per statement and turn: short transactions, whatever has piled up.
LIMIT: Final = 5_000

# How long an erasure keeps late records out is decided when it happens (`forget_at`).
DELETE_ERASURES: Final = """
DELETE FROM erasure WHERE subject = ANY (ARRAY(
    SELECT subject FROM erasure WHERE forget_at <= engagement_now() LIMIT $1))"""

# Only what is on its topic; as long as the topic keeps it.
DELETE_DEAD_LETTERS: Final = """
DELETE FROM dead_letter WHERE (topic, partition, "offset") IN (
    SELECT topic, partition, "offset" FROM dead_letter
    WHERE published_at IS NOT NULL AND failed_at <= engagement_now() - interval '30 days'
    LIMIT $1)"""

DELETE_PAGES: Final = f"""
DELETE FROM batch_page p USING batch_run r
WHERE r.job = '{JOB}' AND p.job = r.job AND p.slot = r.slot
  AND r.finished_at <= engagement_now() - interval '14 days'"""  # noqa: S608
DELETE_CHUNKS: Final = DELETE_PAGES.replace("batch_page", "batch_chunk")
DELETE_FAILURES: Final = DELETE_PAGES.replace("batch_page", "batch_failure")
DELETE_RUNS: Final = """
DELETE FROM batch_run r WHERE finished_at <= engagement_now() - interval '400 days'
  AND EXISTS (SELECT FROM batch_run n WHERE n.job = r.job AND n.slot > r.slot)"""

# Answers that no member has and that nobody has asked for in a quarter of a year.
DELETE_VERDICTS: Final = """
DELETE FROM verdict WHERE key = ANY (ARRAY(
    SELECT v.key FROM verdict v
    WHERE v.requested_at <= engagement_now() - interval '90 days'
      AND coalesce(v.settled_at, v.requested_at) <= engagement_now() - interval '90 days'
      AND NOT EXISTS (SELECT FROM engagement e WHERE e.verdict_key = v.key)
    LIMIT $1))"""

# Of a past day nobody writes any more.
FOLD_HITS: Final = """
WITH gone AS (
    DELETE FROM claude_hit WHERE day < (engagement_now() AT TIME ZONE 'UTC')::date - 1
    RETURNING day, hits
), kept AS (
    INSERT INTO claude_usage AS u (day, hits) SELECT day, sum(hits) FROM gone GROUP BY day
    ON CONFLICT (day) DO UPDATE SET hits = u.hits + excluded.hits
)
SELECT FROM gone"""

DELETE_INCIDENTS: Final = """
DELETE FROM incident WHERE incident_id = ANY (ARRAY(
    SELECT incident_id FROM incident WHERE created_at <= engagement_now() - interval '400 days'
    LIMIT $1))"""

DELETE_SESSIONS: Final = """
DELETE FROM http_session WHERE token_hash = ANY (ARRAY(
    SELECT token_hash FROM http_session WHERE expires_at <= engagement_now() LIMIT $1))"""

_LIMITED: Final = {
    "erasure": DELETE_ERASURES,
    "dead_letter": DELETE_DEAD_LETTERS,
    "verdict": DELETE_VERDICTS,
    "incident": DELETE_INCIDENTS,
    "http_session": DELETE_SESSIONS,
}
_WHOLE: Final = {
    "batch_page": DELETE_PAGES,
    "batch_chunk": DELETE_CHUNKS,
    "batch_failure": DELETE_FAILURES,
    "batch_run": DELETE_RUNS,
    "claude_hit": FOLD_HITS,
}


async def housekeep(connection: Connection, limit: int = LIMIT) -> dict[str, int]:
    """Remove what is over; rows by table. In the caller's transaction. Idempotent.

    At most `limit` rows of the tables that may be large: call again while any is full.
    """
    removed = {}
    for table, statement in _LIMITED.items():
        removed[table] = _count(await connection.execute(statement, limit))
    for table, statement in _WHOLE.items():
        removed[table] = _count(await connection.execute(statement))
    return removed


async def housekeep_once(pool: Pool, owner: UUID) -> dict[str, int]:
    """One turn, if no other worker is at it; transactions of its own. Raises Retryable."""
    async with transaction(pool) as connection:
        if await leases.take(connection, LEASE, owner, LEASE_TTL) is None:
            return {}
    async with transaction(pool) as connection:
        await runs.keep_claude_figures(connection)
    async with transaction(pool) as connection:
        return await housekeep(connection)


def _count(status: str) -> int:
    return int(status.rsplit(" ", 1)[1])
