"""Recompute a block of members from their facts, all at once, and find those who differ.

The signals, and by the six rules the reason, are computed anew for every member of the block by
one statement that reads each table of facts once. Whoever comes out other than stored, or is due,
or was never evaluated, is evaluated one by one afterwards; for all others nothing is written.

The rules stand here a second time on purpose: what the clock of a member foretold is checked by
something that does not know the clock. A test holds that both say the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final, NamedTuple

from db import offsets
from db.pool import PLAN_BY_HASH, Connection
from service.thresholds import DEFAULT_THRESHOLDS

BLOCK_BITS: Final = 18  # as in the function member_block
TIMEOUT_S: Final = 900.0

# Everything is read once, and planned for the block in question.
SETTINGS: Final = f"""{PLAN_BY_HASH};
SET LOCAL work_mem = '64MB';
SET LOCAL statement_timeout = '900s'; SET LOCAL transaction_timeout = '900s'"""

SELECT_WINDOWS: Final = """
SELECT DISTINCT activity_window_days
FROM (SELECT DISTINCT ON (org_id) * FROM thresholds ORDER BY org_id, version DESC) t"""

_RULES: Final = """
WITH rules AS MATERIALIZED (
    SELECT DISTINCT ON (org_id) org_id, version, highly_engaged_min_events AS high,
           moderate_min_events AS low,
           make_interval(hours => 24 * activity_window_days) AS counted_for,
           make_interval(hours => 24 * new_member_days) AS new_for,
           make_interval(hours => 24 * inactive_after_days) AS silent_for
    FROM thresholds ORDER BY org_id, version DESC
)"""

# With more than one length of window, every fact has to know the organisation of its member.
_ONE_WINDOW: Final = ""
_MANY_WINDOWS: Final = """
    JOIN engagement w ON w.member_id = f.member_id AND w.member_id >= $1 AND w.member_id < $2
    LEFT JOIN rules wr ON wr.org_id = w.org_id"""
_ONE_LENGTH: Final = "$5::interval"
_MANY_LENGTHS: Final = "coalesce(wr.counted_for, $5::interval)"

_SURVEY: Final = """
, attended AS (
    SELECT f.member_id,
           count(*) FILTER (WHERE f.occurred_at > $3::timestamptz - {length}
                                  AND f.occurred_at <= $3) AS counted,
           max(f.occurred_at) FILTER (WHERE f.occurred_at <= $3) AS last,
           min(f.occurred_at) AS first
    FROM attendance_fact f{windows}
    WHERE f.member_id >= $1 AND f.member_id < $2 AND f.status IN ('attended', 'partial')
    GROUP BY f.member_id
), responded AS (
    SELECT f.member_id,
           count(*) FILTER (WHERE f.responded_at > $3::timestamptz - {length}
                                  AND f.responded_at <= $3)
               AS counted,
           max(f.responded_at) FILTER (WHERE f.responded_at <= $3) AS last,
           min(f.responded_at) AS first
    FROM rsvp_fact f{windows}
    WHERE f.member_id >= $1 AND f.member_id < $2 AND f.response = 'going'
    GROUP BY f.member_id
), updated AS (
    SELECT f.user_id, max(f.updated_at) AS last
    FROM profile_fact f WHERE f.actor = 'member' AND f.updated_at <= $3 GROUP BY f.user_id
), confirmed AS MATERIALIZED (
    SELECT confirmed_at FROM engagement_confirmation WHERE block = member_block($1)
)
SELECT count(*) FILTER (WHERE d.stale OR d.due),
       array_agg(e.member_id) FILTER (WHERE d.due OR (
           j.events <> e.events_attended_90d
           OR a.last IS DISTINCT FROM e.last_attended_at
           OR coalesce(r.counted, 0) <> e.rsvp_count_90d
           OR r.last IS DISTINCT FROM e.last_rsvp_at
           OR u.last IS DISTINCT FROM e.profile_updated_at
           OR j.joined_at IS DISTINCT FROM e.joined_at
           OR (e.joined_at_source = 'membership') <> (s.member_id IS NOT NULL)
           OR coalesce(t.version, 0) <> e.thresholds_version
           OR e.next_change_at <= $3
           OR CASE
               WHEN j.joined_at IS NULL OR j.joined_at > $3::timestamptz OR o.status = 'deleted'
                   OR s.status = 'left' OR (s.member_id IS NULL AND NOT $6) THEN NULL
               WHEN j.events >= coalesce(t.high, $7) THEN 'frequent_attendance'
               WHEN j.joined_at > $3::timestamptz - coalesce(t.new_for, $9) THEN 'recently_joined'
               WHEN j.events >= coalesce(t.low, $8) THEN 'some_attendance'
               WHEN greatest(a.last, r.last, u.last, j.joined_at)
                   <= $3::timestamptz - coalesce(t.silent_for, $10) THEN 'no_activity'
               WHEN a.last IS NOT NULL THEN 'lapsed'
               ELSE 'never_attended'
           END IS DISTINCT FROM e.reason
           OR (e.reason IS NOT NULL AND CASE
               WHEN $11::bytea IS NULL THEN e.model_version IS DISTINCT FROM $12
               ELSE e.verdict_key IS NULL OR substr(e.verdict_key, 1, length($11)) <> $11
           END)
           OR (e.computed_source = 'claude' AND e.computed_level = 'new'
               AND e.rules_level <> 'new'
               AND j.joined_at <= $3::timestamptz - coalesce(t.new_for, $9))
       ))
FROM engagement e
JOIN member m ON m.member_id = e.member_id AND m.member_id >= $1 AND m.member_id < $2
LEFT JOIN attended a ON a.member_id = e.member_id
LEFT JOIN responded r ON r.member_id = e.member_id
LEFT JOIN updated u ON u.user_id = m.user_id
LEFT JOIN membership_fact s
    ON s.member_id = e.member_id AND s.member_id >= $1 AND s.member_id < $2
LEFT JOIN organization_fact o ON o.org_id = e.org_id
LEFT JOIN rules t ON t.org_id = e.org_id
LEFT JOIN engagement_confirmation_exception x
    ON x.block = member_block($1) AND x.org_id = e.org_id
CROSS JOIN LATERAL (
    SELECT CASE WHEN s.member_id IS NULL THEN least(a.first, r.first) ELSE s.joined_at END,
           coalesce(a.counted, 0)
) AS j (joined_at, events)
CROSS JOIN LATERAL (
    SELECT coalesce(e.wake_at <= $3, false) OR e.computed_at IS NULL,
           greatest(e.computed_at,
                    CASE WHEN x.block IS NULL THEN (SELECT confirmed_at FROM confirmed)
                         ELSE x.confirmed_at END) < $4
) AS d (due, stale)
WHERE e.member_id >= $1 AND e.member_id < $2
  AND o.status IS DISTINCT FROM 'suspended'"""

SURVEY_ONE_WINDOW: Final = _RULES + _SURVEY.format(windows=_ONE_WINDOW, length=_ONE_LENGTH)
SURVEY_MANY_WINDOWS: Final = _RULES + _SURVEY.format(windows=_MANY_WINDOWS, length=_MANY_LENGTHS)

SELECT_SUSPENDED: Final = """
SELECT DISTINCT e.org_id FROM engagement e JOIN organization_fact o ON o.org_id = e.org_id
WHERE e.member_id >= $1 AND e.member_id < $2 AND o.status = 'suspended'"""

# What was confirmed last stays true for organisations that this confirmation leaves out.
ADD_EXCEPTIONS: Final = """
INSERT INTO engagement_confirmation_exception (block, org_id, confirmed_at)
SELECT $1, org_id, (SELECT confirmed_at FROM engagement_confirmation WHERE block = $1)
FROM unnest($2::text[]) AS left_out (org_id)
ON CONFLICT DO NOTHING"""
DROP_EXCEPTIONS: Final = """
DELETE FROM engagement_confirmation_exception WHERE block = $1 AND org_id <> ALL ($2::text[])"""
CONFIRM: Final = """
INSERT INTO engagement_confirmation AS c (block, confirmed_at) VALUES ($1, $2)
ON CONFLICT (block) DO UPDATE SET confirmed_at = greatest(c.confirmed_at, excluded.confirmed_at)"""


class Judging(NamedTuple):
    """What a settled result looks like.

    Made by this version of the rules' texts, or with a current verdict key: it begins with
    `verdict_tag`.
    """

    rules_version: str
    verdict_tag: bytes | None = None


class Survey(NamedTuple):
    """How many members the run is for, and the ids of those to evaluate at `as_of`, ascending.

    Where there are any of the former all of the block were recomputed.
    """

    as_of: datetime
    members: int
    differing: Sequence[int]


async def survey(
    connection: Connection,
    block: int,
    *,
    stale_before: datetime,
    implicit_membership: bool,
    judging: Judging,
) -> Survey:
    """Recompute the members of a block, for those who are due or computed before `stale_before`.

    A transaction of its own, which only reads; takes seconds per block. Suspended organisations
    are left out.
    """
    async with connection.transaction(readonly=True):
        await connection.execute(SETTINGS)
        as_of = await offsets.read_now(connection)
        windows = {row[0] for row in await connection.fetch(SELECT_WINDOWS)}
        one = windows <= {DEFAULT_THRESHOLDS.activity_window_days}
        row = await connection.fetchrow(
            SURVEY_ONE_WINDOW if one else SURVEY_MANY_WINDOWS,
            *_range(block),
            as_of,
            stale_before,
            DEFAULT_THRESHOLDS.window,
            implicit_membership,
            DEFAULT_THRESHOLDS.highly_engaged_min_events,
            DEFAULT_THRESHOLDS.moderate_min_events,
            DEFAULT_THRESHOLDS.new_for,
            DEFAULT_THRESHOLDS.inactive_after,
            judging.verdict_tag,
            judging.rules_version,
            timeout=TIMEOUT_S,
        )
    assert row is not None
    return Survey(as_of, row[0], sorted(row[1] or ()))


async def confirm(
    connection: Connection, block: int, as_of: datetime, left_out: Sequence[str]
) -> None:
    """Say that the block's members were recomputed at `as_of`, in the caller's transaction.

    Not for suspended organisations, nor for those in `left_out`.
    """
    suspended = [row[0] for row in await connection.fetch(SELECT_SUSPENDED, *_range(block))]
    without = sorted({*suspended, *left_out})
    await connection.execute(ADD_EXCEPTIONS, block, without)
    await connection.execute(DROP_EXCEPTIONS, block, without)
    await connection.execute(CONFIRM, block, as_of)


def _range(block: int) -> tuple[int, int]:
    return block << BLOCK_BITS, (block + 1) << BLOCK_BITS
