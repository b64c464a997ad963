"""Members by the million, made by the database itself: activity on one weekday, at noon.

All dates lie a whole number of weeks before `BASE`. So what time alone does (an event leaves a
window of 90 days, newness ends after 60, silence begins after 180) falls on few days of the week,
and the nights after Monday, Tuesday and Wednesday (`BASE` is a Sunday) are quiet ones.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

import asyncpg

BASE: Final = datetime(2026, 1, 4, 12, tzinfo=UTC)
ORGANISATIONS: Final = 200
FACTS_PER_MEMBER: Final = 5
# One large organisation, as there is in every database; the others share the rest.
LARGE_SHARE: Final = 0.1

SEED: Final = "SELECT setseed(0.42)"

FILL_MEMBERS: Final = """
WITH people AS (
    INSERT INTO member (org_id, user_id)
    SELECT 'org-' || lpad((CASE WHEN i <= $1 * $2::float8 THEN 0
                                ELSE 1 + i % ($3::bigint - 1) END)::text, 4, '0'),
           'user-' || lpad(i::text, 9, '0')
    FROM generate_series(1, $1::bigint) AS i
    RETURNING member_id, org_id
)
INSERT INTO engagement (member_id, org_id) SELECT member_id, org_id FROM people"""

# Everybody has an age of silence in weeks: 15 of 100 were last seen more than half a year ago.
FILL_MEMBERSHIPS: Final = """
INSERT INTO membership_fact
    (member_id, joined_at, recorded_at, message_id, status, role, display_name)
SELECT member_id, at, at, 'join-' || member_id, 'active',
       CASE WHEN random() < 0.01 THEN 'admin' ELSE 'member' END, 'Member ' || member_id
FROM (
    SELECT member_id, $1::timestamptz - interval '1 week'
        * ((CASE WHEN member_id % 20 < 3 THEN 30 ELSE 1 END) + floor(random() * 100)) AS at
    FROM member WHERE random() < 0.8
) AS m"""

_DATED: Final = """
    SELECT i, member_id, $1::timestamptz - interval '1 week'
        * ((CASE WHEN member_id % 20 < 3 THEN 30 ELSE 0 END) + floor(power(random(), 1.5) * 22))
        AS at
    FROM (SELECT i, 1 + floor(power(random(), 1.3) * $2::float8)::bigint AS member_id
          FROM generate_series(1, ($2::float8 * $3::float8)::bigint) AS i) AS p"""

FILL_ATTENDANCE: Final = f"""
INSERT INTO attendance_fact (member_id, occurred_at, recorded_at, event_id, status, message_id)
SELECT member_id, at, at, 'event-' || lpad(i::text, 9, '0'),
       (ARRAY['attended', 'attended', 'attended', 'partial', 'absent'])[1 + floor(random() * 5)],
       'attended-' || i
FROM ({_DATED}) AS f"""

FILL_RSVPS: Final = f"""
INSERT INTO rsvp_fact (member_id, responded_at, recorded_at, event_id, response, message_id)
SELECT member_id, at, at, 'event-' || lpad(i::text, 9, '0'),
       (ARRAY['going', 'going', 'maybe', 'declined'])[1 + floor(random() * 4)], 'answered-' || i
FROM ({_DATED}) AS f"""

FILL_PROFILES: Final = f"""
INSERT INTO profile_fact (updated_at, recorded_at, user_id, message_id, actor)
SELECT at, at, 'user-' || lpad(member_id::text, 9, '0'), 'updated-' || i,
       CASE WHEN random() < 0.8 THEN 'member' ELSE 'admin' END
FROM ({_DATED}) AS f"""

# Five facts a member in all: memberships are not counted.
SHARES: Final = {FILL_ATTENDANCE: 3.6, FILL_RSVPS: 1.2, FILL_PROFILES: 0.2}


async def fill(connection: asyncpg.Connection, members: int) -> None:
    """Fill an empty database of the product; takes a minute for a million."""
    await connection.execute(SEED)
    await connection.execute(FILL_MEMBERS, members, LARGE_SHARE, ORGANISATIONS, timeout=1_800)
    await connection.execute(FILL_MEMBERSHIPS, BASE, timeout=1_800)
    for statement, share in SHARES.items():
        await connection.execute(statement, BASE, members, share, timeout=1_800)
    await connection.execute("VACUUM ANALYZE", timeout=1_800)
