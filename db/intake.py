"""Apply one decoded batch to the facts and mark who has to be evaluated; the caller's transaction.

Ids of people become surrogate keys first (`db.member_ids`). Then the rows go to the server by the
column (`db.packing`), and one statement merges them: the newest (recorded_at, id) of a natural key
wins, whatever was there. A temporary table in between costs more than it saves, since each commit
truncates its files; and right into the facts COPY can't go: it knows of no conflicts, and
PostgreSQL refuses it for tables with row-level security.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from operator import itemgetter
from typing import Any, Final, NamedTuple

from db import instants, packing
from db.member_ids import Erased, Key, MemberIds, latest_of_unknown, resolve, unknown_in
from db.pool import PLAN_BY_INDEX, Connection
from service.events import InputKind

Row = tuple[Any, ...]

# What the columns of a batch hold, in their order. `line`: text without line ends, which all values
# of a column go as one text for, since an array takes the driver several times as long.
COLUMNS: Final = {
    InputKind.ATTENDANCE: {
        "member_id": "bigint", "message_id": "line", "event_id": "line", "status": "line",
        "occurred_at": "instant", "recorded_at": "instant",
    },
    InputKind.RSVP: {
        "member_id": "bigint", "message_id": "line", "event_id": "line", "response": "line",
        "responded_at": "instant", "recorded_at": "instant",
    },
    InputKind.PROFILE_UPDATE: {
        "message_id": "line", "user_id": "line", "updated_at": "instant", "actor": "line",
        "recorded_at": "instant",
    },
    InputKind.MEMBERSHIP: {
        "member_id": "bigint", "message_id": "line", "status": "line", "role": "line",
        "display_name": "text", "joined_at": "instant", "recorded_at": "instant",
    },
    InputKind.ORGANIZATION: {
        "message_id": "line", "org_id": "line", "name": "text", "status": "line",
        "recorded_at": "instant",
    },
}  # fmt: skip


class _Passed(NamedTuple):
    """How a column travels: its type as a parameter, how it is made, and the SQL that reads it.

    Packed by eight bytes a row it is read at a position, else as a set of rows.
    """

    type_: str
    pack: Callable[[Sequence[Any]], Any]
    read: Callable[[str], str]
    is_packed: bool


_PASSED: Final = {
    "bigint": _Passed("bytea", packing.pack_numbers, packing.number, is_packed=True),
    "instant": _Passed("bytea", packing.pack_instants, packing.instant, is_packed=True),
    "line": _Passed("text", packing.pack_lines, packing.lines, is_packed=False),
    "text": _Passed("text[]", tuple, "unnest({})".format, is_packed=False),
}

# Equal (recorded_at, id) with other content is a clash: the greater canonical body wins. Beyond
# those two, bodies of one natural key differ only in the columns compared after them, which stand
# in the order of the body's sorted keys. Sorted, so that two workers meet in one order.
MERGE_ATTENDANCE: Final = """
WITH merged AS (
    INSERT INTO attendance_fact AS f
        (member_id, event_id, status, occurred_at, recorded_at, message_id)
    SELECT member_id, event_id, status, occurred_at, recorded_at, message_id
    FROM ROWS ORDER BY member_id, event_id
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
    SELECT 'signals', array_agg(member_id), IS_BULK
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
    FROM ROWS ORDER BY member_id, event_id
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
    SELECT 'signals', array_agg(member_id), IS_BULK
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
        (member_id, status, role, display_name, joined_at, recorded_at, message_id, left_at)
    SELECT member_id, status, role, display_name, joined_at, recorded_at, message_id,
           CASE WHEN status = 'left' THEN engagement_now() END AS left_at
    FROM ROWS ORDER BY member_id
    ON CONFLICT (member_id) DO UPDATE
    SET recorded_at = excluded.recorded_at, message_id = excluded.message_id,
        (left_at, status, role, display_name, joined_at) = (
            SELECT CASE WHEN excluded_wins THEN coalesce(excluded.left_at, f.left_at)
                        ELSE f.left_at END,
                   CASE WHEN excluded_wins THEN excluded.status ELSE f.status END,
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
    SELECT 'membership', array_agg(member_id), IS_BULK
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
    FROM ROWS
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
    INSERT INTO organization_fact AS f
        (org_id, name, status, recorded_at, message_id, deleted_at)
    SELECT org_id, name, status, recorded_at, message_id,
           CASE WHEN status = 'deleted' THEN engagement_now() END AS deleted_at
    FROM ROWS ORDER BY org_id
    ON CONFLICT (org_id) DO UPDATE
    SET recorded_at = excluded.recorded_at, message_id = excluded.message_id,
        (deleted_at, name, status) = (
            SELECT CASE WHEN excluded_wins THEN coalesce(excluded.deleted_at, f.deleted_at)
                        ELSE f.deleted_at END,
                   CASE WHEN excluded_wins THEN excluded.name ELSE f.name END,
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


# Columns 1 and 2 of their rows are org_id and user_id.
ABOUT_MEMBERS: Final = (InputKind.ATTENDANCE, InputKind.RSVP, InputKind.MEMBERSHIP)


def parameter_types(kind: InputKind) -> list[str]:
    """Types of the parameters of MERGES."""
    types = [_PASSED[holds].type_ for holds in COLUMNS[kind].values()]
    return [*types, "boolean"] if kind in ABOUT_MEMBERS else types


def _merge(kind: InputKind, merge: str) -> str:
    """A merge with the columns as parameters; if it marks members, the last says if in bulk."""
    rows, names, values = [], [], []
    for n, (name, holds) in enumerate(COLUMNS[kind].items(), 1):
        passed = _PASSED[holds]
        parameter = f"${n}::{passed.type_}"
        if passed.is_packed:
            packed = parameter
            values.append(f"{passed.read(parameter)} AS {name}")
        else:
            rows.append(passed.read(parameter))
            names.append(name)
            values.append(f'{name} COLLATE "C" AS {name}')
    found = f"""(SELECT {", ".join(values)}
        FROM (SELECT {", ".join([packing.positions(packed), *rows])}) AS u (at, {", ".join(names)})
        ) AS s"""  # noqa: S608 - made of constants
    return merge.replace("ROWS", found).replace("IS_BULK", f"${len(values) + 1}::boolean")


MERGES: Final = {
    InputKind.ATTENDANCE: _merge(InputKind.ATTENDANCE, MERGE_ATTENDANCE),
    InputKind.RSVP: _merge(InputKind.RSVP, MERGE_RSVP),
    InputKind.PROFILE_UPDATE: _merge(InputKind.PROFILE_UPDATE, MERGE_PROFILE_UPDATE),
    InputKind.MEMBERSHIP: _merge(InputKind.MEMBERSHIP, MERGE_MEMBERSHIP),
    InputKind.ORGANIZATION: _merge(InputKind.ORGANIZATION, MERGE_ORGANIZATION),
}


_UPSERT: Final = re.compile(
    r"INSERT INTO (?P<table>\w+) AS f\s+\((?P<columns>[^()]+)\)\s+(?P<rows>SELECT .*?)\s+"
    r"ON CONFLICT \((?P<key>[^()]+)\) DO UPDATE\s+SET (?P<set>.*?)\n    WHERE (?P<newer>.*?)\n"
    r"    RETURNING",
    re.DOTALL,
)


def unshared(upsert: str) -> str:
    """The same merge for who expects that nobody else is adding these very rows: 12 % cheaper.

    It looks for a row and then just adds it, without the lock and the second log record that an
    upsert takes for each new one. Should somebody else have added it, the unique index raises.
    """
    found = _UPSERT.search(upsert)
    assert found is not None
    same = " AND ".join(f"f.{name} = excluded.{name}" for name in found["key"].split(", "))
    values = ", ".join(f"excluded.{name}" for name in found["columns"].split(", "))
    merge = f"""MERGE INTO {found["table"]} AS f
    USING ({found["rows"]} OFFSET 0) AS excluded ON {same}
    WHEN NOT MATCHED THEN INSERT ({found["columns"]}) VALUES ({values})
    WHEN MATCHED AND ({found["newer"]}) THEN UPDATE
    SET {found["set"]}
    RETURNING"""  # noqa: S608 - made of constants
    return upsert[: found.start()] + merge + upsert[found.end() :]


# What a steady stream brings in one transaction at most: the marks of more are those of a backlog.
FEW_ROWS: Final = 500


class Applied(NamedTuple):
    """What a batch did: facts written, clashes with stored records, marks made.

    `members`: keys that were looked up or made, to be remembered after the commit under `epoch`.
    """

    written: int
    clashes: int
    marked: int
    members: Mapping[Key, int]
    epoch: int


async def prepare_connection(connection: Connection) -> None:
    """Make a new connection ready for `apply_rows`."""
    await connection.execute(PLAN_BY_INDEX)
    await instants.prepare_connection(connection)


def parameters(kind: InputKind, columns: Sequence[Sequence[Any]]) -> list[Any]:
    """What MERGES take, of columns in the order of COLUMNS."""
    holds = COLUMNS[kind].values()
    passed = [_PASSED[each].pack(values) for each, values in zip(holds, columns, strict=True)]
    return [*passed, len(columns[0]) > FEW_ROWS] if kind in ABOUT_MEMBERS else passed


async def apply_rows(
    connection: Connection, kind: InputKind, rows: Sequence[Row], ids: MemberIds
) -> Applied:
    """Merge rows (the newest per natural key, columns in the order of the wire model's fields).

    In the caller's transaction, from which on erasures are kept out, on a connection prepared by
    `prepare_connection`. Idempotent.
    """
    members: Mapping[Key, int] = {}
    columns: Sequence[Sequence[Any]] = list(zip(*rows, strict=True))
    await ids.begin(connection)
    epoch = ids.epoch
    if rows and kind in ABOUT_MEMBERS:
        columns, members = await _by_member_id(connection, columns, ids)
    if not columns:
        return Applied(0, 0, 0, members, epoch)
    merged = await connection.fetchrow(MERGES[kind], *parameters(kind, columns))
    assert merged is not None
    written, clashes, marked = merged
    return Applied(written, clashes, marked, members, epoch)


async def _by_member_id(
    connection: Connection, columns: Sequence[Sequence[Any]], ids: MemberIds
) -> tuple[Sequence[Sequence[Any]], Mapping[Key, int]]:
    """Columns with member_id in place of the two ids, and the keys that were not remembered.

    Rows that come too late for an erasure are left out; no columns if all do.
    """
    message_ids, org_ids, user_ids, *values = columns
    keys = list(zip(org_ids, user_ids, strict=True))
    found = ids.known(keys)
    if None not in found:
        return [found, message_ids, *values], {}
    people = await resolve(connection, latest_of_unknown(keys, found, values[-1]))
    plain = people.plain
    found = [plain.get(key) if n is None else n for n, key in zip(found, keys, strict=True)]
    if not people.erased:
        return [found, message_ids, *values], plain
    for n in unknown_in(found):
        found[n] = _unless_late(people.erased[keys[n]], values[-1][n])
    # No key is 0.
    kept = filter(itemgetter(0), zip(found, message_ids, *values, strict=True))
    return list(zip(*kept, strict=True)), plain


def _unless_late(erased: Erased, recorded_at: datetime) -> int | None:
    return erased.member_id if recorded_at > erased.accept_after else None
