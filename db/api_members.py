"""The member list: filters, orders and keyset pages.

A page starts after the last row of the one before, by sort value and member number, so rows that
come, go or move meanwhile neither repeat nor hide the others. Orders whose value may be missing
read the rows with a value first and those without after them.

The rows of a page are chosen first, from as few tables as will do, by a plan made for the filters;
what is shown of them is read after, by one plan for all.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Final, NamedTuple

from db.api_rows import (
    KEEP_NEXT_PLAN,
    OVERRIDE_ACTIVE,
    OVERRIDE_LAPSED,
    PLAN_NEXT_ANEW,
    SHOWN_LEVEL,
    read_members,
)
from db.pool import Connection
from service.api.values import MemberQuery, MemberRow, MemberSort


class _Order(NamedTuple):
    """An SQL expression with its type, its direction, and when it is known; None: always."""

    expression: str
    type: str
    descending: bool
    known: str | None


_DUE_KNOWN: Final = f"(e.next_level_change_at IS NOT NULL AND NOT {OVERRIDE_LAPSED})"
_SINCE_KNOWN: Final = "(e.level_since IS NOT NULL)"
_ATTENDED_KNOWN: Final = "(e.last_attended_at IS NOT NULL)"
_ORDERS: Final = {
    MemberSort.USER_ID: _Order("m.user_id", "text", False, None),
    MemberSort.USER_ID_DESC: _Order("m.user_id", "text", True, None),
    MemberSort.DUE: _Order("e.next_level_change_at", "timestamptz", False, _DUE_KNOWN),
    MemberSort.CHANGED: _Order("e.level_since", "timestamptz", True, _SINCE_KNOWN),
    MemberSort.CHANGED_ASC: _Order("e.level_since", "timestamptz", False, _SINCE_KNOWN),
    MemberSort.ATTENDED: _Order("e.last_attended_at", "timestamptz", True, _ATTENDED_KNOWN),
    MemberSort.ATTENDED_ASC: _Order("e.last_attended_at", "timestamptz", False, _ATTENDED_KNOWN),
    MemberSort.EVENTS: _Order("e.events_attended_90d", "integer", True, None),
    MemberSort.EVENTS_ASC: _Order("e.events_attended_90d", "integer", False, None),
}

# $1 org, $2 levels, $3 override, $4 due within, $5 limit. The stored level finds the rows by index;
# those with an expired override are few, and looked at one by one.
_FILTERS: Final = f"""
WHERE e.org_id = $1 AND e.computed_at IS NOT NULL AND {SHOWN_LEVEL} IS NOT NULL
  AND ($2::text[] IS NULL
       OR (e.level = ANY ($2) AND NOT {OVERRIDE_LAPSED})
       OR (e.computed_level = ANY ($2) AND {OVERRIDE_LAPSED}))
  AND ($3::boolean IS NULL OR {OVERRIDE_ACTIVE} = $3)
  AND ($4::interval IS NULL
       OR (e.next_level_change_at <= engagement_now() + $4 AND NOT {OVERRIDE_LAPSED}))"""
_MEMBER: Final = "JOIN member m ON m.member_id = e.member_id AND m.org_id = $1"
_NAME: Final = "LEFT JOIN membership_fact f ON f.member_id = e.member_id"
_MATCHES: Final = """
  AND (m.user_id COLLATE pg_c_utf8 ILIKE $8 OR f.display_name COLLATE pg_c_utf8 ILIKE $8)"""


def _statement(order: _Order, *, searched: bool, valued: bool) -> str:
    """One page after ($6 value, $7 number) where $7 is given; `searched` by pattern $8.

    `valued`: the rows whose value is known, else those where it is not.
    """
    column = order.expression
    joins = f"{_MEMBER} {_NAME}" if searched else _MEMBER if column.startswith("m.") else ""
    conditions = _FILTERS + (_MATCHES if searched else "")
    if valued:
        compare = "<" if order.descending else ">"
        direction = "DESC" if order.descending else "ASC"
        conditions += f"""
  AND {order.known or "true"}
  AND ($7::bigint IS NULL OR ({column} {compare}= $6::{order.type}
       AND ({column} {compare} $6::{order.type} OR e.member_id > $7)))"""
        ordered = f"{column} {direction}, e.member_id"
    else:
        conditions += f"""
  AND NOT {order.known} AND $6::text IS NULL AND ($7::bigint IS NULL OR e.member_id > $7)"""
        ordered = "e.member_id"
    return f"""
SELECT e.member_id, {KEEP_NEXT_PLAN} FROM engagement e {joins} {conditions}
ORDER BY {ordered} LIMIT $5"""  # noqa: S608 - made of constants


# By order, whether a name is searched for, and whether the value is known.
LIST: Final = {
    (sort, searched, valued): _statement(order, searched=searched, valued=valued)
    for sort, order in _ORDERS.items()
    for searched in (False, True)
    for valued in ((True, False) if order.known else (True,))
}


async def list_members(connection: Connection, org_id: str, query: MemberQuery) -> list[MemberRow]:
    """See `OrganizationReads.members`."""
    after, wanted = query.after, query.limit + 1
    pattern = _pattern(query.text)
    searched = pattern is not None
    due = None if query.due_within_days is None else timedelta(days=query.due_within_days)
    filters = (org_id, sorted(query.levels) or None, query.override, due)
    search = (pattern,) if searched else ()
    rows = []
    if after is None or after.value is not None:
        value, number = (None, None) if after is None else (after.value, after.number)
        statement = LIST[query.sort, searched, True]
        rows = await connection.fetch(statement, *filters, wanted, value, number, *search)
        after = None
    # Who is due within some days has a date: without one there is nobody to look for.
    has_value = due is not None and query.sort is MemberSort.DUE
    if len(rows) < wanted and not has_value and (query.sort, searched, False) in LIST:
        number = None if after is None else after.number
        statement = LIST[query.sort, searched, False]
        if rows:
            # Those said that all are chosen; these are, too, by filters with a plan of their own.
            await connection.execute(f"SELECT {PLAN_NEXT_ANEW}")
        rows += await connection.fetch(
            statement, *filters, wanted - len(rows), None, number, *search
        )
    return await read_members(connection, rows)


def _pattern(text: str) -> str | None:
    """Part of a name or id, taken literally."""
    if not text:
        return None
    escaped = text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    return f"%{escaped}%"
