"""What `engagement doctor` asks the database.

Version, backlogs, incidents, and whether the signals of members are what follows from their facts.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final, NamedTuple

from db.pool import Connection

OLDEST_SERVER: Final = 180_000

SELECT_SERVER: Final = """
SELECT current_setting('server_version_num')::int, current_setting('server_version')"""

# Nobody should wait longer than a moment; `overdue` are those whose clock has run out.
SELECT_WAITING: Final = """
SELECT (SELECT count(*) FROM due_member) + (SELECT count(*) FROM due_batch)
           + (SELECT count(*) FROM due_user)
           + (SELECT count(*) FROM due_organization) AS marks,
       (SELECT coalesce(extract(epoch FROM clock_timestamp() - min(marked_at)), 0)::float8
        FROM (SELECT marked_at FROM due_member UNION ALL SELECT marked_at FROM due_batch)
            AS m) AS marks_age_s,
       (SELECT count(*) FROM engagement WHERE wake_at <= engagement_now()) AS overdue,
       (SELECT coalesce(extract(epoch FROM engagement_now() - min(wake_at)), 0)::float8
        FROM engagement WHERE wake_at <= engagement_now()) AS overdue_age_s,
       (SELECT count(*) FROM outbox) AS outbox,
       (SELECT coalesce(extract(epoch FROM clock_timestamp() - min(created_at)), 0)::float8
        FROM outbox) AS outbox_age_s"""

SELECT_INCIDENTS: Final = """
SELECT kind, topic, partition, details::text, created_at FROM incident
WHERE created_at > engagement_now() - make_interval(days => $1)
ORDER BY created_at DESC LIMIT 100"""

# A page of members: what is stored, what the facts give at the same instant, and who is not
# expected to agree: members with a mark, since facts and marks are written together, and members of
# suspended organisations, who wait. Written anew from the definition of the signals, not with what
# the evaluator runs. One statement, so one snapshot.
SELECT_REBUILT: Final = """
SELECT e.member_id, e.org_id, m.user_id, e.computed_at,
       s.status = 'suspended' OR EXISTS (SELECT FROM due_member d WHERE d.member_id = e.member_id)
           OR EXISTS (SELECT FROM due_batch d WHERE e.member_id = ANY (d.member_ids))
           OR EXISTS (SELECT FROM due_user d WHERE d.user_id = m.user_id)
           OR EXISTS (SELECT FROM due_organization d
                      WHERE d.org_id = e.org_id AND d.after_member_id < e.member_id) AS waits,
       e.computed_at IS NULL AND f.member_id IS NULL
           AND NOT EXISTS (SELECT FROM attendance_fact t WHERE t.member_id = e.member_id)
           AND NOT EXISTS (SELECT FROM rsvp_fact t WHERE t.member_id = e.member_id) AS unknown,
       e.events_attended_90d, e.last_attended_at, e.rsvp_count_90d, e.last_rsvp_at,
       e.profile_updated_at, e.joined_at, e.joined_at_source,
       a.counted, a.latest, r.counted, r.latest, p.latest,
       coalesce(f.joined_at, least(a.first, r.first)),
       CASE WHEN f.member_id IS NOT NULL THEN 'membership'
            WHEN least(a.first, r.first) IS NOT NULL THEN 'inferred' END
FROM (SELECT * FROM engagement WHERE member_id > $1 ORDER BY member_id LIMIT $2) e
JOIN member m USING (member_id)
LEFT JOIN organization_fact s ON s.org_id = e.org_id
LEFT JOIN membership_fact f ON f.member_id = e.member_id
CROSS JOIN LATERAL (
    SELECT e.computed_at - make_interval(hours => 24 * e.activity_window_days)
) w (after)
CROSS JOIN LATERAL (
    SELECT count(*) FILTER (WHERE occurred_at > w.after AND occurred_at <= e.computed_at),
           max(occurred_at) FILTER (WHERE occurred_at <= e.computed_at), min(occurred_at)
    FROM attendance_fact t WHERE t.member_id = e.member_id AND t.status IN ('attended', 'partial')
) a (counted, latest, first)
CROSS JOIN LATERAL (
    SELECT count(*) FILTER (WHERE responded_at > w.after AND responded_at <= e.computed_at),
           max(responded_at) FILTER (WHERE responded_at <= e.computed_at), min(responded_at)
    FROM rsvp_fact t WHERE t.member_id = e.member_id AND t.response = 'going'
) r (counted, latest, first)
CROSS JOIN LATERAL (
    SELECT max(updated_at) FILTER (WHERE updated_at <= e.computed_at)
    FROM profile_fact t WHERE t.user_id = m.user_id AND t.actor = 'member'
) p (latest)
ORDER BY e.member_id"""

SIGNALS: Final = (
    "events_attended_90d", "last_attended_at", "rsvp_count_90d", "last_rsvp_at",
    "profile_updated_at", "joined_at", "joined_at_source",
)  # fmt: skip


class Waiting(NamedTuple):
    """Work that waits: marks of due members, members whose clock has come, unsent states."""

    marks: int
    marks_age_s: float
    overdue: int
    overdue_age_s: float
    outbox: int
    outbox_age_s: float


class Incident(NamedTuple):
    """Something that a person has to look at; `details` is JSON text."""

    kind: str
    topic: str | None
    partition: int | None
    details: str
    created_at: datetime


class Difference(NamedTuple):
    """A member whose stored signals do not follow from the facts: signal -> (stored, rebuilt)."""

    org_id: str
    user_id: str
    computed_at: datetime | None
    signals: Mapping[str, tuple[Any, Any]]


class RebuiltPage(NamedTuple):
    """Members looked at; `waiting` of them were left out, since an evaluation is still to come."""

    last_member_id: int
    members: int
    waiting: int
    differences: list[Difference]


async def server(connection: Connection) -> tuple[int, str]:
    """The server's version as a number and as text."""
    row = await connection.fetchrow(SELECT_SERVER)
    assert row is not None
    return row[0], row[1]


async def waiting(connection: Connection) -> Waiting:
    """What waits for the workers."""
    row = await connection.fetchrow(SELECT_WAITING)
    assert row is not None
    return Waiting(*row)


async def incidents(connection: Connection, days: int) -> list[Incident]:
    """The newest first, 100 at most."""
    return [Incident(*row) for row in await connection.fetch(SELECT_INCIDENTS, days)]


async def rebuild_signals(
    connection: Connection, after_member_id: int, limit: int
) -> RebuiltPage | None:
    """Compare a page of members, by number; None behind the last. Writes nothing."""
    rows = await connection.fetch(SELECT_REBUILT, after_member_id, limit)
    if not rows:
        return None
    waits = sum(1 for row in rows if row["waits"])
    looked_at = [_difference(row) for row in rows if not (row["waits"] or row["unknown"])]
    differences = [one for one in looked_at if one.signals]
    return RebuiltPage(rows[-1]["member_id"], len(rows), waits, differences)


def _difference(row: Any) -> Difference:
    values = list(row)[-2 * len(SIGNALS) :]
    stored, rebuilt = values[: len(SIGNALS)], values[len(SIGNALS) :]
    differing = {
        name: (was, should_be)
        for name, was, should_be in zip(SIGNALS, stored, rebuilt, strict=True)
        if was != should_be
    }
    return Difference(row["org_id"], row["user_id"], row["computed_at"], differing)
