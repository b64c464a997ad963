"""The member list: filters, orders and keyset pages.

A page starts after the last row of the one before, by sort value and member number, so rows that
come, go or move meanwhile neither repeat nor hide the others. Orders whose value may be missing
read the rows with a value first and those without after them.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Final, NamedTuple

from db.api_rows import MEMBER_COLUMNS, OVERRIDE_ACTIVE, OVERRIDE_LAPSED, SHOWN_LEVEL, member_row
from db.pool import Connection
from service.api.ports import MemberQuery, MemberRow, MemberSort


class _Order(NamedTuple):
    """An SQL expression with its type, its direction, and whether it may be NULL."""

    expression: str
    type: str
    descending: bool
    nullable: bool


_ORDERS: Final = {
    MemberSort.USER_ID: _Order("m.user_id", "text", False, False),
    MemberSort.USER_ID_DESC: _Order("m.user_id", "text", True, False),
    MemberSort.DUE: _Order("e.next_level_change_at", "timestamptz", False, True),
    MemberSort.CHANGED: _Order("e.level_since", "timestamptz", True, True),
    MemberSort.CHANGED_ASC: _Order("e.level_since", "timestamptz", False, True),
    MemberSort.ATTENDED: _Order("e.last_attended_at", "timestamptz", True, True),
    MemberSort.ATTENDED_ASC: _Order("e.last_attended_at", "timestamptz", False, True),
    MemberSort.EVENTS: _Order("e.events_attended_90d", "integer", True, False),
    MemberSort.EVENTS_ASC: _Order("e.events_attended_90d", "integer", False, False),
}

# $1 org, $2 levels, $3 override, $4 due within, $5 pattern, $6 limit. The stored level finds the
# rows by index; those with an expired override are few, and looked at one by one.
_FILTERS: Final = f"""
FROM engagement e
JOIN member m ON m.member_id = e.member_id AND m.org_id = $1
LEFT JOIN membership_fact f ON f.member_id = e.member_id
WHERE e.org_id = $1 AND e.computed_at IS NOT NULL AND {SHOWN_LEVEL} IS NOT NULL
  AND ($2::text[] IS NULL
       OR (e.level = ANY ($2) AND NOT {OVERRIDE_LAPSED})
       OR (e.computed_level = ANY ($2) AND {OVERRIDE_LAPSED}))
  AND ($3::boolean IS NULL OR {OVERRIDE_ACTIVE} = $3)
  AND ($4::interval IS NULL OR e.next_level_change_at <= engagement_now() + $4)
  AND ($5::text IS NULL OR m.user_id COLLATE pg_c_utf8 ILIKE $5
       OR f.display_name COLLATE pg_c_utf8 ILIKE $5)"""


def _statement(order: _Order) -> str:
    """Rows that have a value, after ($7 value, $8 number) where $8 is given."""
    column, direction = order.expression, "DESC" if order.descending else "ASC"
    compare = "<" if order.descending else ">"
    return f"""SELECT {MEMBER_COLUMNS}, {column} AS sort_value {_FILTERS}
  AND {column} IS NOT NULL
  AND ($8::bigint IS NULL OR ({column} {compare}= $7::{order.type}
       AND ({column} {compare} $7::{order.type} OR e.member_id > $8)))
ORDER BY {column} {direction}, e.member_id LIMIT $6"""


def _statement_without_value(order: _Order) -> str:
    """Rows that have none, after number $7."""
    return f"""SELECT {MEMBER_COLUMNS}, NULL AS sort_value {_FILTERS}
  AND {order.expression} IS NULL AND ($7::bigint IS NULL OR e.member_id > $7)
ORDER BY e.member_id LIMIT $6"""


LIST: Final = {sort: _statement(order) for sort, order in _ORDERS.items()}
LIST_WITHOUT_VALUE: Final = {
    sort: _statement_without_value(order) for sort, order in _ORDERS.items() if order.nullable
}


async def list_members(connection: Connection, org_id: str, query: MemberQuery) -> list[MemberRow]:
    """See `OrganizationReads.members`."""
    after, wanted = query.after, query.limit + 1
    filters = (
        org_id,
        sorted(query.levels) or None,
        query.override,
        None if query.due_within_days is None else timedelta(days=query.due_within_days),
        _pattern(query.text),
    )
    rows = []
    if after is None or after.value is not None:
        value, number = (None, None) if after is None else (after.value, after.number)
        rows = await connection.fetch(LIST[query.sort], *filters, wanted, value, number)
        after = None
    if len(rows) < wanted and query.sort in LIST_WITHOUT_VALUE:
        number = None if after is None else after.number
        statement = LIST_WITHOUT_VALUE[query.sort]
        rows += await connection.fetch(statement, *filters, wanted - len(rows), number)
    return [member_row(row) for row in rows]


def _pattern(text: str) -> str | None:
    """Part of a name or id, taken literally."""
    if not text:
        return None
    escaped = text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    return f"%{escaped}%"
