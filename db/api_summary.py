"""An organisation as a whole: who stands where, what moved, what is about to."""

from __future__ import annotations

from collections import Counter
from datetime import date, datetime
from typing import Final

from db.api_rows import (
    KEEP_NEXT_PLAN,
    OVERRIDE_ACTIVE,
    OVERRIDE_LAPSED,
    SHOWN_LEVEL,
    level_or_none,
    read_members,
)
from db.pool import Connection
from service.api.values import MemberRow, RunState, Summary
from service.levels import RANK, Direction, Level, direction

DAYS: Final = 30
SHOWN_MEMBERS: Final = 10
JOB: Final = "compute-engagement-scores"

SELECT_NOW: Final = "SELECT engagement_now()"

# By the stored level, which an index answers alone; the few expired overrides are moved after.
COUNT_LEVELS: Final = """
SELECT level, count(*) AS members FROM engagement
WHERE org_id = $1 AND level IS NOT NULL GROUP BY level"""
COUNT_LAPSED: Final = f"""
SELECT e.level, e.computed_level, count(*) AS members FROM engagement e
WHERE e.org_id = $1 AND {OVERRIDE_LAPSED} GROUP BY 1, 2"""  # noqa: S608
COUNT_OVERRIDES: Final = f"""
SELECT count(*) AS overrides,
       count(*) FILTER (WHERE e.override_expires_at <= engagement_now() + make_interval(days => $2))
           AS expiring
FROM engagement e WHERE e.org_id = $1 AND {OVERRIDE_ACTIVE}"""  # noqa: S608

_RANKS: Final = " ".join(f"WHEN '{level}' THEN {rank}" for level, rank in RANK.items())
SELECT_EXPIRING: Final = f"""
SELECT e.member_id, {KEEP_NEXT_PLAN} FROM engagement e
WHERE e.org_id = $1 AND {OVERRIDE_ACTIVE} AND e.computed_at IS NOT NULL
  AND e.override_expires_at <= engagement_now() + make_interval(days => $2)
ORDER BY e.override_expires_at, e.member_id LIMIT $3"""  # noqa: S608

_IS_FALL: Final = f"""e.next_level_change_at <= engagement_now() + make_interval(days => $2)
  AND {SHOWN_LEVEL} IS NOT NULL AND NOT {OVERRIDE_LAPSED}
  AND coalesce(CASE e.next_level {_RANKS} END, -1) < CASE {SHOWN_LEVEL} {_RANKS} END"""
COUNT_FALLS: Final = f"SELECT count(*) FROM engagement e WHERE e.org_id = $1 AND {_IS_FALL}"  # noqa: S608
SELECT_FALLS: Final = f"""
SELECT e.member_id, {KEEP_NEXT_PLAN} FROM engagement e
WHERE e.org_id = $1 AND e.computed_at IS NOT NULL AND {_IS_FALL}
ORDER BY e.next_level_change_at, e.member_id LIMIT $3"""  # noqa: S608

# An effect is never later than its record, so the index by time of record bounds the search.
COUNT_MOVEMENTS: Final = """
SELECT (effective_at AT TIME ZONE 'UTC')::date AS day, from_level, to_level, count(*) AS moves
FROM engagement_level_history
WHERE org_id = $1 AND recorded_at >= $2 AND effective_at >= $2
GROUP BY 1, 2, 3"""

SELECT_LAST_RUN: Final = """
SELECT slot, status, started_at, finished_at FROM batch_run
WHERE job = $1 ORDER BY slot DESC LIMIT 1"""


async def read_summary(connection: Connection, org_id: str) -> Summary:
    """See `OrganizationReads.summary`."""
    now: datetime = await connection.fetchval(SELECT_NOW)
    overrides = await connection.fetchrow(COUNT_OVERRIDES, org_id, DAYS)
    assert overrides is not None
    return Summary(
        as_of=now,
        levels=await _levels(connection, org_id),
        movements=await _movements(connection, org_id, now),
        overrides=overrides["overrides"],
        overrides_expiring_30d=overrides["expiring"],
        expiring=await _rows(connection, SELECT_EXPIRING, org_id),
        falls_due_30d=await connection.fetchval(COUNT_FALLS, org_id, DAYS),
        falls=await _rows(connection, SELECT_FALLS, org_id),
        last_run=await _last_run(connection),
    )


async def _levels(connection: Connection, org_id: str) -> dict[Level, int]:
    counts: Counter[Level] = Counter()
    for row in await connection.fetch(COUNT_LEVELS, org_id):
        counts[Level(row["level"])] += row["members"]
    for row in await connection.fetch(COUNT_LAPSED, org_id):
        for code, members in (
            (row["level"], -row["members"]),
            (row["computed_level"], row["members"]),
        ):
            if code is not None:
                counts[Level(code)] += members
    return {level: counts[level] for level in Level}


async def _movements(
    connection: Connection, org_id: str, now: datetime
) -> dict[tuple[date, Direction], int]:
    first_day = date.fromordinal(now.date().toordinal() - DAYS + 1)
    since = datetime.combine(first_day, datetime.min.time(), now.tzinfo)
    moves: Counter[tuple[date, Direction]] = Counter()
    for row in await connection.fetch(COUNT_MOVEMENTS, org_id, since):
        before, after = level_or_none(row["from_level"]), level_or_none(row["to_level"])
        moves[(row["day"], direction(before, after))] += row["moves"]
    return dict(moves)


async def _rows(connection: Connection, statement: str, org_id: str) -> list[MemberRow]:
    chosen = await connection.fetch(statement, org_id, DAYS, SHOWN_MEMBERS)
    return await read_members(connection, chosen)


async def _last_run(connection: Connection) -> RunState | None:
    row = await connection.fetchrow(SELECT_LAST_RUN, JOB)
    if row is None:
        return None
    return RunState(row["slot"], row["status"], row["started_at"], row["finished_at"])
