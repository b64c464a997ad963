"""Apply one decoded batch to the facts and mark who has to be evaluated; the caller's transaction.

Ids of people become surrogate keys first (`db.member_ids`). Then rows go by COPY into a temporary
table of their kind, and one statement merges them: the newest (recorded_at, id) of a natural key
wins, whatever was there. Measured against arrays and `unnest`: 2 times faster.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import Any, Final, NamedTuple

from db.member_ids import Key, MemberIds, Person
from db.pool import Connection
from service.events import InputKind

Row = tuple[Any, ...]

# Plans must not flip with statistics that a temporary table does not have: always look members and
# facts up by index, in the order of the batch.
PLAN_SETTINGS: Final = "SET enable_hashjoin = off; SET enable_mergejoin = off"

CREATE_STAGES: Final = """
CREATE TEMPORARY TABLE stage_attendance (
    member_id bigint, message_id text COLLATE "C",
    event_id text COLLATE "C", status text COLLATE "C",
    occurred_at timestamptz, recorded_at timestamptz
) ON COMMIT DELETE ROWS;
CREATE TEMPORARY TABLE stage_rsvp (
    member_id bigint, message_id text COLLATE "C",
    event_id text COLLATE "C", response text COLLATE "C",
    responded_at timestamptz, recorded_at timestamptz
) ON COMMIT DELETE ROWS;
CREATE TEMPORARY TABLE stage_profile_update (
    message_id text COLLATE "C", user_id text COLLATE "C",
    updated_at timestamptz, actor text COLLATE "C", recorded_at timestamptz
) ON COMMIT DELETE ROWS;
CREATE TEMPORARY TABLE stage_membership (
    member_id bigint, message_id text COLLATE "C",
    status text COLLATE "C", role text COLLATE "C", display_name text COLLATE "C",
    joined_at timestamptz, recorded_at timestamptz
) ON COMMIT DELETE ROWS;
CREATE TEMPORARY TABLE stage_organization (
    message_id text COLLATE "C", org_id text COLLATE "C", name text COLLATE "C",
    status text COLLATE "C", recorded_at timestamptz
) ON COMMIT DELETE ROWS"""

# Equal (recorded_at, id) with other content is a clash: the greater canonical body wins. Beyond
# those two, bodies of one natural key differ only in the columns compared after them, which stand
# in the order of the body's sorted keys. Sorted, so that two workers meet in one order.
MERGE_ATTENDANCE: Final = """
WITH merged AS (
    INSERT INTO attendance_fact AS f
        (member_id, event_id, status, occurred_at, recorded_at, message_id)
    SELECT member_id, event_id, status, occurred_at, recorded_at, message_id
    FROM stage_attendance ORDER BY member_id, event_id
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
    INSERT INTO due_batch (cause, member_ids)
    SELECT 'signals', array_agg(member_id)
    FROM (SELECT member_id, (row_number() OVER () - 1) / 200 AS hundreds
          FROM (SELECT DISTINCT member_id FROM merged) AS d) AS c
    GROUP BY hundreds
    RETURNING cardinality(member_ids) AS members
)
SELECT count(*), count(*) FILTER (WHERE clash),
       (SELECT coalesce(sum(members), 0)::bigint FROM marked)
FROM merged"""

MERGE_RSVP: Final = """
WITH merged AS (
    INSERT INTO rsvp_fact AS f
        (member_id, event_id, response, responded_at, recorded_at, message_id)
    SELECT member_id, event_id, response, responded_at, recorded_at, message_id
    FROM stage_rsvp ORDER BY member_id, event_id
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
    INSERT INTO due_batch (cause, member_ids)
    SELECT 'signals', array_agg(member_id)
    FROM (SELECT member_id, (row_number() OVER () - 1) / 200 AS hundreds
          FROM (SELECT DISTINCT member_id FROM merged) AS d) AS c
    GROUP BY hundreds
    RETURNING cardinality(member_ids) AS members
)
SELECT count(*), count(*) FILTER (WHERE clash),
       (SELECT coalesce(sum(members), 0)::bigint FROM marked)
FROM merged"""

MERGE_MEMBERSHIP: Final = """
WITH merged AS (
    INSERT INTO membership_fact AS f
        (member_id, status, role, display_name, joined_at, recorded_at, message_id)
    SELECT member_id, status, role, display_name, joined_at, recorded_at, message_id
    FROM stage_membership ORDER BY member_id
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
    INSERT INTO due_batch (cause, member_ids)
    SELECT 'membership', array_agg(member_id)
    FROM (SELECT member_id, (row_number() OVER () - 1) / 200 AS hundreds FROM merged) AS c
    GROUP BY hundreds
    RETURNING cardinality(member_ids) AS members
)
SELECT count(*), count(*) FILTER (WHERE clash),
       (SELECT coalesce(sum(members), 0)::bigint FROM marked)
FROM merged"""

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
SELECT count(*), count(*) FILTER (WHERE clash), (SELECT count(*) FROM marked) FROM merged"""

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
SELECT count(*), count(*) FILTER (WHERE clash), (SELECT count(*) FROM marked) FROM merged"""


class _Way(NamedTuple):
    """How rows of a kind get in. `is_about_members`: columns 1 and 2 are org_id and user_id."""

    stage: str
    merge: str
    is_about_members: bool


_WAYS: Final = {
    InputKind.ATTENDANCE: _Way("stage_attendance", MERGE_ATTENDANCE, is_about_members=True),
    InputKind.RSVP: _Way("stage_rsvp", MERGE_RSVP, is_about_members=True),
    InputKind.PROFILE_UPDATE: _Way(
        "stage_profile_update", MERGE_PROFILE_UPDATE, is_about_members=False
    ),
    InputKind.MEMBERSHIP: _Way("stage_membership", MERGE_MEMBERSHIP, is_about_members=True),
    InputKind.ORGANIZATION: _Way("stage_organization", MERGE_ORGANIZATION, is_about_members=False),
}


class Applied(NamedTuple):
    """What a batch did: facts written, clashes with stored records, marks made.

    `people`: keys that were looked up or made, to be remembered after the commit.
    """

    written: int
    clashes: int
    marked: int
    people: Mapping[Key, Person]


async def prepare_connection(connection: Connection) -> None:
    """Make a new connection ready for `apply_rows`."""
    await connection.execute(PLAN_SETTINGS)
    await connection.execute(CREATE_STAGES)


async def apply_rows(
    connection: Connection, kind: InputKind, rows: Sequence[Row], ids: MemberIds
) -> Applied:
    """Merge rows (the newest per natural key, columns in the order of the wire model's fields).

    In the caller's transaction, which holds erasures off, on a connection prepared by
    `prepare_connection`. Idempotent.
    """
    people: Mapping[Key, Person] = {}
    staged: Iterable[Row]
    if not rows:
        return Applied(0, 0, 0, people)
    stage, merge, is_about_members = _WAYS[kind]
    if is_about_members:
        await ids.begin(connection)
        staged, people = await _by_member_id(connection, rows, ids)
    else:
        staged = rows
    await connection.copy_records_to_table(stage, records=staged)
    written, clashes, marked = (await connection.fetch(merge))[0]
    return Applied(written, clashes, marked, people)


async def _by_member_id(
    connection: Connection, rows: Sequence[Row], ids: MemberIds
) -> tuple[Iterable[Row], Mapping[Key, Person]]:
    """Rows with member_id in place of the two ids; those that come too late for an erasure go."""
    message_ids, org_ids, user_ids, *values = zip(*rows, strict=True)
    found = ids.known(zip(org_ids, user_ids, strict=True))
    staged = zip(found, message_ids, *values, strict=True)
    if None not in found:
        return staged, {}
    unknown: dict[Key, list[Row]] = {}
    for row, member_id in zip(rows, found, strict=True):
        if member_id is None:
            unknown.setdefault((row[1], row[2]), []).append(row)
    latest = {key: max(row[-1] for row in theirs) for key, theirs in unknown.items()}
    people = await ids.resolve(connection, latest)
    resolved = [
        (member_id, row[0], *row[3:])
        for key, (member_id, accept_after) in people.items()
        if member_id is not None
        for row in unknown[key]
        if accept_after is None or row[-1] > accept_after
    ]
    return chain((row for row in staged if row[0] is not None), resolved), people
