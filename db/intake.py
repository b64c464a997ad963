"""Apply one decoded batch to the facts and mark who has to be evaluated; the caller's transaction.

Ids of people become surrogate keys first (`db.member_ids`). Then rows go by COPY into a temporary
table of their kind, or as arrays if they are few, and one statement merges them: the newest
(recorded_at, id) of a natural key wins, whatever was there. For many, COPY is 2 times faster; right
into the facts it can't go, since PostgreSQL refuses COPY into tables with row-level security.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from operator import itemgetter
from typing import Any, Final, NamedTuple

from db.member_ids import Key, MemberIds, People, latest_of_unknown
from db.pool import PLAN_BY_INDEX, Connection
from service.events import InputKind

Row = tuple[Any, ...]

STAGES: Final = {
    InputKind.ATTENDANCE: {
        "member_id": "bigint", "message_id": "text", "event_id": "text", "status": "text",
        "occurred_at": "timestamptz", "recorded_at": "timestamptz",
    },
    InputKind.RSVP: {
        "member_id": "bigint", "message_id": "text", "event_id": "text", "response": "text",
        "responded_at": "timestamptz", "recorded_at": "timestamptz",
    },
    InputKind.PROFILE_UPDATE: {
        "message_id": "text", "user_id": "text", "updated_at": "timestamptz", "actor": "text",
        "recorded_at": "timestamptz",
    },
    InputKind.MEMBERSHIP: {
        "member_id": "bigint", "message_id": "text", "status": "text", "role": "text",
        "display_name": "text", "joined_at": "timestamptz", "recorded_at": "timestamptz",
    },
    InputKind.ORGANIZATION: {
        "message_id": "text", "org_id": "text", "name": "text", "status": "text",
        "recorded_at": "timestamptz",
    },
}  # fmt: skip


def _stage(kind: InputKind) -> str:
    return f"stage_{kind.value.replace('-', '_')}"


def _create_stage(kind: InputKind) -> str:
    columns = ", ".join(
        f'{name} {type_} COLLATE "C"' if type_ == "text" else f"{name} {type_}"
        for name, type_ in STAGES[kind].items()
    )
    return f"CREATE TEMPORARY TABLE {_stage(kind)} ({columns}) ON COMMIT DELETE ROWS"


CREATE_STAGES: Final = ";\n".join(map(_create_stage, InputKind))

# Equal (recorded_at, id) with other content is a clash: the greater canonical body wins. Beyond
# those two, bodies of one natural key differ only in the columns compared after them, which stand
# in the order of the body's sorted keys. Sorted, so that two workers meet in one order.
MERGE_ATTENDANCE: Final = """
WITH merged AS (
    INSERT INTO attendance_fact AS f
        (member_id, event_id, status, occurred_at, recorded_at, message_id)
    SELECT member_id, event_id, status, occurred_at, recorded_at, message_id
    FROM stage_attendance AS s ORDER BY member_id, event_id COLLATE "C"
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
    INSERT INTO due_batch (cause, member_ids, is_bulk)
    SELECT 'signals', array_agg(member_id), true
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
    FROM stage_rsvp AS s ORDER BY member_id, event_id COLLATE "C"
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
    INSERT INTO due_batch (cause, member_ids, is_bulk)
    SELECT 'signals', array_agg(member_id), true
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
    FROM stage_membership AS s ORDER BY member_id
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
    INSERT INTO due_batch (cause, member_ids, is_bulk)
    SELECT 'membership', array_agg(member_id), true
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
    FROM stage_profile_update AS s
    WHERE NOT EXISTS (SELECT FROM erasure e WHERE e.subject = erasure_subject(s.user_id)
                      AND e.erased_at >= s.recorded_at)
    ORDER BY s.user_id COLLATE "C", s.message_id COLLATE "C"
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
    SELECT org_id, name, status, recorded_at, message_id
    FROM stage_organization AS s ORDER BY org_id COLLATE "C"
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


MERGES: Final = {
    InputKind.ATTENDANCE: MERGE_ATTENDANCE,
    InputKind.RSVP: MERGE_RSVP,
    InputKind.PROFILE_UPDATE: MERGE_PROFILE_UPDATE,
    InputKind.MEMBERSHIP: MERGE_MEMBERSHIP,
    InputKind.ORGANIZATION: MERGE_ORGANIZATION,
}
# Columns 1 and 2 of their rows are org_id and user_id.
ABOUT_MEMBERS: Final = (InputKind.ATTENDANCE, InputKind.RSVP, InputKind.MEMBERSHIP)


def _merge_few(kind: InputKind) -> str:
    arrays = ", ".join(f"${n}::{type_}[]" for n, type_ in enumerate(STAGES[kind].values(), 1))
    rows = f"unnest({arrays}) AS s ({', '.join(STAGES[kind])})"
    merge = MERGES[kind].replace("array_agg(member_id), true", "array_agg(member_id), false")
    return merge.replace(f"{_stage(kind)} AS s", rows)


# Up to so many rows go as arrays: emptying the temporary tables truncates files in every commit,
# which takes longer than applying what a steady stream brings in one batch. Nor are their marks
# those of a backlog (`is_bulk`).
FEW_ROWS: Final = 500
MERGES_OF_FEW: Final = {kind: _merge_few(kind) for kind in InputKind}


class Applied(NamedTuple):
    """What a batch did: facts written, clashes with stored records, marks made.

    `members`: keys that were looked up or made, to be remembered after the commit under `epoch`.
    """

    written: int
    clashes: int
    marked: int
    members: Mapping[Key, int]
    epoch: int


_EPOCH: Final = datetime(2000, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


def _encode_instant(instant: datetime) -> tuple[int]:
    return ((instant - _EPOCH) // _MICROSECOND,)


def _decode_instant(value: tuple[int]) -> datetime:
    return _EPOCH + value[0] * _MICROSECOND


async def prepare_connection(connection: Connection) -> None:
    """Make a new connection ready for `apply_rows`."""
    await connection.execute(PLAN_BY_INDEX)
    await connection.execute(CREATE_STAGES)
    # The driver compares each instant with the two that stand for infinity. They have no time zone,
    # so that both offsets are asked for: more than half of the time that it took to copy a row.
    await connection.set_type_codec(
        "timestamptz", schema="pg_catalog", format="tuple",
        encoder=_encode_instant, decoder=_decode_instant,
    )  # fmt: skip


async def apply_rows(
    connection: Connection, kind: InputKind, rows: Sequence[Row], ids: MemberIds
) -> Applied:
    """Merge rows (the newest per natural key, columns in the order of the wire model's fields).

    In the caller's transaction, from which on erasures are kept out, on a connection prepared by
    `prepare_connection`. Idempotent.
    """
    members: Mapping[Key, int] = {}
    staged: Iterable[Row] = rows
    await ids.begin(connection)
    epoch = ids.epoch
    if rows and kind in ABOUT_MEMBERS:
        staged, members = await _by_member_id(connection, rows, ids)
    if len(rows) <= FEW_ROWS:
        columns = list(zip(*staged, strict=True))
        if not columns:
            return Applied(0, 0, 0, members, epoch)
        merged = await connection.fetch(MERGES_OF_FEW[kind], *columns)
    else:
        await connection.copy_records_to_table(_stage(kind), records=staged)
        merged = await connection.fetch(MERGES[kind])
    written, clashes, marked = merged[0]
    return Applied(written, clashes, marked, members, epoch)


async def _by_member_id(
    connection: Connection, rows: Sequence[Row], ids: MemberIds
) -> tuple[Iterable[Row], Mapping[Key, int]]:
    """Rows with member_id in place of the two ids, and the keys that were not remembered.

    Rows that come too late for an erasure are left out.
    """
    message_ids, org_ids, user_ids, *values = zip(*rows, strict=True)
    keys = list(zip(org_ids, user_ids, strict=True))
    found = ids.known(keys)
    staged = zip(found, message_ids, *values, strict=True)
    if None not in found:
        return staged, {}
    people = await ids.resolve(connection, latest_of_unknown(keys, found, values[-1]))
    for n, member_id in enumerate(found):
        if member_id is None:
            found[n] = _resolved(people, keys[n], values[-1][n])
    # No key is 0.
    return filter(itemgetter(0), staged) if people.erased else staged, people.plain


def _resolved(people: People, key: Key, recorded_at: datetime) -> int | None:
    member_id = people.plain.get(key)
    if member_id is None:
        erased = people.erased[key]
        if recorded_at > erased.accept_after:
            return erased.member_id
    return member_id
