"""Apply one decoded batch to the facts and mark who has to be evaluated; the caller's transaction.

Rows go by COPY into a temporary table of their kind, then one statement merges them: the newest
(recorded_at, id) of a natural key wins, whatever was there. Ids become surrogate keys on the way;
people who are not known yet are added first. Measured against arrays and `unnest`: 2 times faster.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from db.pool import Connection
from service.events import InputKind

Row = tuple[Any, ...]

# Plans must not flip with statistics that a temporary table does not have: always look members and
# facts up by index, in the order of the batch.
PLAN_SETTINGS: Final = "SET enable_hashjoin = off; SET enable_mergejoin = off"

CREATE_STAGES: Final = """
CREATE TEMPORARY TABLE stage_attendance (
    message_id text COLLATE "C", org_id text COLLATE "C", user_id text COLLATE "C",
    event_id text COLLATE "C", status text COLLATE "C",
    occurred_at timestamptz, recorded_at timestamptz
) ON COMMIT DELETE ROWS;
CREATE TEMPORARY TABLE stage_rsvp (
    message_id text COLLATE "C", org_id text COLLATE "C", user_id text COLLATE "C",
    event_id text COLLATE "C", response text COLLATE "C",
    responded_at timestamptz, recorded_at timestamptz
) ON COMMIT DELETE ROWS;
CREATE TEMPORARY TABLE stage_profile_update (
    message_id text COLLATE "C", user_id text COLLATE "C",
    updated_at timestamptz, actor text COLLATE "C", recorded_at timestamptz
) ON COMMIT DELETE ROWS;
CREATE TEMPORARY TABLE stage_membership (
    message_id text COLLATE "C", org_id text COLLATE "C", user_id text COLLATE "C",
    status text COLLATE "C", role text COLLATE "C", display_name text COLLATE "C",
    joined_at timestamptz, recorded_at timestamptz
) ON COMMIT DELETE ROWS;
CREATE TEMPORARY TABLE stage_organization (
    message_id text COLLATE "C", org_id text COLLATE "C", name text COLLATE "C",
    status text COLLATE "C", recorded_at timestamptz
) ON COMMIT DELETE ROWS"""

# People seen for the first time. Sorted, so that two workers meet in one order. Whoever was erased
# goes on with the revision and without the older records; those alone bring nobody back. Hashing a
# subject costs 12 us, so it is only done where it can matter.
ADD_FROM_ATTENDANCE: Final = """
WITH missing AS (
    SELECT s.org_id, s.user_id, max(s.recorded_at) AS latest FROM stage_attendance s
    WHERE NOT EXISTS (SELECT FROM member m WHERE m.org_id = s.org_id AND m.user_id = s.user_id)
    GROUP BY 1, 2 ORDER BY 1, 2
), added AS (
    INSERT INTO member (org_id, user_id, accept_after)
    SELECT n.org_id, n.user_id, e.erased_at FROM missing n
    LEFT JOIN erasure e ON e.subject = CASE WHEN (SELECT EXISTS (SELECT FROM erasure))
        THEN erasure_subject(n.org_id || ':' || n.user_id) END
    WHERE e.erased_at IS NULL OR e.erased_at < n.latest
    ON CONFLICT (org_id, user_id) DO NOTHING
    RETURNING member_id, org_id, user_id, accept_after
)
INSERT INTO engagement (member_id, org_id, revision)
SELECT a.member_id, a.org_id, coalesce(e.revision, 0) FROM added a
LEFT JOIN erasure e ON e.subject = CASE WHEN a.accept_after IS NOT NULL
    THEN erasure_subject(a.org_id || ':' || a.user_id) END"""

ADD_FROM_RSVP: Final = ADD_FROM_ATTENDANCE.replace("stage_attendance", "stage_rsvp")
ADD_FROM_MEMBERSHIP: Final = ADD_FROM_ATTENDANCE.replace("stage_attendance", "stage_membership")

# Equal (recorded_at, id) with other content is a clash: the greater canonical body wins. Beyond
# those two, bodies of one natural key differ only in the columns compared after them, which stand
# in the order of the body's sorted keys.
MERGE_ATTENDANCE: Final = """
WITH incoming AS MATERIALIZED (
    SELECT m.member_id, m.accept_after, s.*
    FROM stage_attendance s JOIN member m ON m.org_id = s.org_id AND m.user_id = s.user_id
    ORDER BY m.member_id, s.event_id
), merged AS (
    INSERT INTO attendance_fact AS f
        (member_id, event_id, status, occurred_at, recorded_at, message_id)
    SELECT member_id, event_id, status, occurred_at, recorded_at, message_id FROM incoming
    WHERE accept_after IS NULL OR recorded_at > accept_after
    ON CONFLICT (member_id, event_id) DO UPDATE
    SET recorded_at = excluded.recorded_at, message_id = excluded.message_id,
        (occurred_at, status) = (
            SELECT CASE WHEN excluded_wins THEN excluded.occurred_at ELSE f.occurred_at END,
                   CASE WHEN excluded_wins THEN excluded.status ELSE f.status END
            FROM (VALUES ((f.recorded_at, f.message_id, f.occurred_at, f.status)
                < (excluded.recorded_at, excluded.message_id, excluded.occurred_at,
                   excluded.status))) AS w (excluded_wins))
    WHERE (f.recorded_at, f.message_id) < (excluded.recorded_at, excluded.message_id)
       OR ((f.recorded_at, f.message_id) = (excluded.recorded_at, excluded.message_id)
           AND (f.occurred_at, f.status) <> (excluded.occurred_at, excluded.status))
    RETURNING f.member_id,
        coalesce(old.recorded_at = new.recorded_at AND old.message_id = new.message_id, false)
            AS clash
), marked AS (
    INSERT INTO due_member (member_id, cause) SELECT DISTINCT member_id, 'signals' FROM merged
    RETURNING 1
)
SELECT (SELECT count(*) FROM incoming), (SELECT count(*) FROM merged),
       (SELECT count(*) FROM merged WHERE clash), (SELECT count(*) FROM marked)"""

MERGE_RSVP: Final = """
WITH incoming AS MATERIALIZED (
    SELECT m.member_id, m.accept_after, s.*
    FROM stage_rsvp s JOIN member m ON m.org_id = s.org_id AND m.user_id = s.user_id
    ORDER BY m.member_id, s.event_id
), merged AS (
    INSERT INTO rsvp_fact AS f
        (member_id, event_id, response, responded_at, recorded_at, message_id)
    SELECT member_id, event_id, response, responded_at, recorded_at, message_id FROM incoming
    WHERE accept_after IS NULL OR recorded_at > accept_after
    ON CONFLICT (member_id, event_id) DO UPDATE
    SET recorded_at = excluded.recorded_at, message_id = excluded.message_id,
        (responded_at, response) = (
            SELECT CASE WHEN excluded_wins THEN excluded.responded_at ELSE f.responded_at END,
                   CASE WHEN excluded_wins THEN excluded.response ELSE f.response END
            FROM (VALUES ((f.recorded_at, f.message_id, f.responded_at, f.response)
                < (excluded.recorded_at, excluded.message_id, excluded.responded_at,
                   excluded.response))) AS w (excluded_wins))
    WHERE (f.recorded_at, f.message_id) < (excluded.recorded_at, excluded.message_id)
       OR ((f.recorded_at, f.message_id) = (excluded.recorded_at, excluded.message_id)
           AND (f.responded_at, f.response) <> (excluded.responded_at, excluded.response))
    RETURNING f.member_id,
        coalesce(old.recorded_at = new.recorded_at AND old.message_id = new.message_id, false)
            AS clash
), marked AS (
    INSERT INTO due_member (member_id, cause) SELECT DISTINCT member_id, 'signals' FROM merged
    RETURNING 1
)
SELECT (SELECT count(*) FROM incoming), (SELECT count(*) FROM merged),
       (SELECT count(*) FROM merged WHERE clash), (SELECT count(*) FROM marked)"""

MERGE_MEMBERSHIP: Final = """
WITH incoming AS MATERIALIZED (
    SELECT m.member_id, m.accept_after, s.*
    FROM stage_membership s JOIN member m ON m.org_id = s.org_id AND m.user_id = s.user_id
    ORDER BY m.member_id
), merged AS (
    INSERT INTO membership_fact AS f
        (member_id, status, role, display_name, joined_at, recorded_at, message_id)
    SELECT member_id, status, role, display_name, joined_at, recorded_at, message_id FROM incoming
    WHERE accept_after IS NULL OR recorded_at > accept_after
    ON CONFLICT (member_id) DO UPDATE
    SET recorded_at = excluded.recorded_at, message_id = excluded.message_id,
        (status, role, display_name, joined_at) = (
            SELECT CASE WHEN excluded_wins THEN excluded.status ELSE f.status END,
                   CASE WHEN excluded_wins THEN excluded.role ELSE f.role END,
                   CASE WHEN excluded_wins THEN excluded.display_name ELSE f.display_name END,
                   CASE WHEN excluded_wins THEN excluded.joined_at ELSE f.joined_at END
            FROM (VALUES ((f.recorded_at, f.message_id,
                    coalesce(to_json(f.display_name)::text, 'null') COLLATE "C",
                    f.joined_at, f.role, f.status)
                < (excluded.recorded_at, excluded.message_id,
                    coalesce(to_json(excluded.display_name)::text, 'null') COLLATE "C",
                    excluded.joined_at, excluded.role, excluded.status))) AS w (excluded_wins))
    WHERE (f.recorded_at, f.message_id) < (excluded.recorded_at, excluded.message_id)
       OR ((f.recorded_at, f.message_id) = (excluded.recorded_at, excluded.message_id)
           AND (f.display_name, f.joined_at, f.role, f.status) IS DISTINCT FROM
               (excluded.display_name, excluded.joined_at, excluded.role, excluded.status))
    RETURNING f.member_id,
        coalesce(old.recorded_at = new.recorded_at AND old.message_id = new.message_id, false)
            AS clash
), marked AS (
    INSERT INTO due_member (member_id, cause) SELECT DISTINCT member_id, 'membership' FROM merged
    RETURNING 1
)
SELECT (SELECT count(*) FROM incoming), (SELECT count(*) FROM merged),
       (SELECT count(*) FROM merged WHERE clash), (SELECT count(*) FROM marked)"""

# Profile updates belong to a user, not to a member; who is due is found when the mark is taken.
MERGE_PROFILE_UPDATE: Final = """
WITH merged AS (
    INSERT INTO profile_fact AS f (user_id, message_id, updated_at, actor, recorded_at)
    SELECT s.user_id, s.message_id, s.updated_at, s.actor, s.recorded_at
    FROM stage_profile_update s
    WHERE NOT EXISTS (SELECT FROM erasure e WHERE e.subject = erasure_subject(s.user_id)
                      AND e.erased_at >= s.recorded_at)
    ORDER BY s.user_id, s.message_id
    ON CONFLICT (user_id, message_id) DO UPDATE
    SET recorded_at = excluded.recorded_at,
        (actor, updated_at) = (
            SELECT CASE WHEN excluded_wins THEN excluded.actor ELSE f.actor END,
                   CASE WHEN excluded_wins THEN excluded.updated_at ELSE f.updated_at END
            FROM (VALUES ((f.recorded_at, f.actor, f.updated_at)
                < (excluded.recorded_at, excluded.actor, excluded.updated_at)))
                AS w (excluded_wins))
    WHERE f.recorded_at < excluded.recorded_at
       OR (f.recorded_at = excluded.recorded_at
           AND (f.actor, f.updated_at) <> (excluded.actor, excluded.updated_at))
    RETURNING f.user_id, coalesce(old.recorded_at = new.recorded_at, false) AS clash
), marked AS (
    INSERT INTO due_user (user_id) SELECT DISTINCT user_id FROM merged RETURNING 1
)
SELECT (SELECT count(*) FROM stage_profile_update), (SELECT count(*) FROM merged),
       (SELECT count(*) FROM merged WHERE clash), (SELECT count(*) FROM marked)"""

# Only a change of state concerns the members; a new name is seen when texts are read.
MERGE_ORGANIZATION: Final = """
WITH merged AS (
    INSERT INTO organization_fact AS f (org_id, name, status, recorded_at, message_id)
    SELECT org_id, name, status, recorded_at, message_id FROM stage_organization ORDER BY org_id
    ON CONFLICT (org_id) DO UPDATE
    SET recorded_at = excluded.recorded_at, message_id = excluded.message_id,
        (name, status) = (
            SELECT CASE WHEN excluded_wins THEN excluded.name ELSE f.name END,
                   CASE WHEN excluded_wins THEN excluded.status ELSE f.status END
            FROM (VALUES ((f.recorded_at, f.message_id,
                    to_json(f.name)::text COLLATE "C", f.status)
                < (excluded.recorded_at, excluded.message_id,
                    to_json(excluded.name)::text COLLATE "C", excluded.status)))
                AS w (excluded_wins))
    WHERE (f.recorded_at, f.message_id) < (excluded.recorded_at, excluded.message_id)
       OR ((f.recorded_at, f.message_id) = (excluded.recorded_at, excluded.message_id)
           AND (f.name, f.status) <> (excluded.name, excluded.status))
    RETURNING f.org_id, coalesce(old.status, 'active') <> new.status AS turned,
        coalesce(old.recorded_at = new.recorded_at AND old.message_id = new.message_id, false)
            AS clash
), marked AS (
    INSERT INTO due_organization (org_id, cause)
    SELECT org_id, 'membership' FROM merged WHERE turned RETURNING 1
)
SELECT (SELECT count(*) FROM stage_organization), (SELECT count(*) FROM merged),
       (SELECT count(*) FROM merged WHERE clash), (SELECT count(*) FROM marked)"""


class _Statements(NamedTuple):
    stage: str
    add_members: str | None
    merge: str


_STATEMENTS: Final = {
    InputKind.ATTENDANCE: _Statements("stage_attendance", ADD_FROM_ATTENDANCE, MERGE_ATTENDANCE),
    InputKind.RSVP: _Statements("stage_rsvp", ADD_FROM_RSVP, MERGE_RSVP),
    InputKind.PROFILE_UPDATE: _Statements("stage_profile_update", None, MERGE_PROFILE_UPDATE),
    InputKind.MEMBERSHIP: _Statements("stage_membership", ADD_FROM_MEMBERSHIP, MERGE_MEMBERSHIP),
    InputKind.ORGANIZATION: _Statements("stage_organization", None, MERGE_ORGANIZATION),
}


class Applied(NamedTuple):
    """What a batch did: facts written, clashes with stored records, marks made."""

    written: int
    clashes: int
    marked: int


async def prepare_connection(connection: Connection) -> None:
    """Make a new connection ready for `apply_rows`."""
    await connection.execute(PLAN_SETTINGS)
    await connection.execute(CREATE_STAGES)


class Intake:
    """Applies rows; remembers whether new people are common at the moment, to save a look-up."""

    def __init__(self) -> None:
        self._expect_new_members = True

    async def apply_rows(
        self, connection: Connection, kind: InputKind, rows: Sequence[Row]
    ) -> Applied:
        """Merge rows (the newest per natural key, columns in the order of the wire model's fields).

        In the caller's transaction, on a connection prepared by `prepare_connection`. Idempotent.
        """
        if not rows:
            return Applied(0, 0, 0)
        stage, add_members, merge = _STATEMENTS[kind]
        await connection.copy_records_to_table(stage, records=rows)
        if add_members is None:
            return (await self._merge(connection, merge))[1]
        if self._expect_new_members:
            await self._add_members(connection, add_members)
        found, applied = await self._merge(connection, merge)
        if found < len(rows):
            await self._add_members(connection, add_members)
            _, more = await self._merge(connection, merge)
            applied = Applied(*(a + b for a, b in zip(applied, more, strict=True)))
        return applied

    async def _merge(self, connection: Connection, statement: str) -> tuple[int, Applied]:
        rows = await connection.fetch(statement)
        found, written, clashes, marked = rows[0]
        return found, Applied(written, clashes, marked)

    async def _add_members(self, connection: Connection, statement: str) -> None:
        status = await connection.execute(statement)
        self._expect_new_members = status != "INSERT 0 0"
