"""Rows of the API's queries as the values of its ports."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import asyncpg

from db.pool import Connection
from service.api.values import MemberRow
from service.levels import Level, Reason
from service.records import Source

# What is shown now. The stored level may still be that of an override which has expired; the stored
# clocks are then as old, and say nothing.
OVERRIDE_ACTIVE: Final = """(e.override_level IS NOT NULL AND e.computed_level IS NOT NULL
    AND (e.override_expires_at IS NULL OR e.override_expires_at > engagement_now()))"""
OVERRIDE_LAPSED: Final = """(e.override_level IS NOT NULL AND e.computed_level IS NOT NULL
    AND e.override_expires_at IS NOT NULL AND e.override_expires_at <= engagement_now())"""
SHOWN_LEVEL: Final = f"""(CASE WHEN {OVERRIDE_ACTIVE}
    THEN e.override_level ELSE e.computed_level END)"""

# Parts of a query, for the next one of the transaction: its plan is kept, or made for its values.
KEEP_NEXT_PLAN: Final = "set_config('plan_cache_mode', 'force_generic_plan', true)"
PLAN_NEXT_ANEW: Final = "set_config('plan_cache_mode', 'force_custom_plan', true)"

# What members look like in lists, in the order of their numbers in $1: with names, and what the
# daily run has confirmed without writing the row. Six tables with policies take some 3 ms to plan,
# always to the same plan, so it is kept.
SELECT_MEMBERS: Final = f"""
SELECT {PLAN_NEXT_ANEW},
    e.member_id, m.user_id, f.display_name, {SHOWN_LEVEL} AS level, e.computed_level, e.reason,
    CASE WHEN {OVERRIDE_ACTIVE} THEN 'override' ELSE e.computed_source END AS source,
    e.level_since, e.events_attended_90d, e.rsvp_count_90d, e.last_attended_at, e.joined_at,
    CASE WHEN {OVERRIDE_ACTIVE} THEN e.override_level END AS override_level,
    CASE WHEN {OVERRIDE_ACTIVE} THEN e.override_expires_at END AS override_expires_at,
    CASE WHEN NOT {OVERRIDE_LAPSED} THEN e.next_level_change_at END AS next_level_change_at,
    CASE WHEN NOT {OVERRIDE_LAPSED} THEN e.next_level END AS next_level, e.revision,
    greatest(e.computed_at, CASE WHEN cx.block IS NULL THEN c.confirmed_at ELSE cx.confirmed_at END)
        AS computed_at
FROM unnest($1::bigint[]) WITH ORDINALITY AS w (member_id, place)
JOIN engagement e ON e.member_id = w.member_id
JOIN member m ON m.member_id = w.member_id
LEFT JOIN membership_fact f ON f.member_id = e.member_id
LEFT JOIN engagement_confirmation c ON c.block = member_block(e.member_id)
LEFT JOIN engagement_confirmation_exception cx
    ON cx.block = member_block(e.member_id) AND cx.org_id = e.org_id
ORDER BY w.place"""  # noqa: S608 - made of constants

_LEVELS: Final = {level.value: level for level in Level}
_REASONS: Final = {reason.value: reason for reason in Reason}
_SOURCES: Final = {source.value: source for source in Source}


def level_or_none(code: str | None) -> Level | None:
    """A stored code as a level."""
    return None if code is None else _LEVELS[code]


async def read_members(connection: Connection, chosen: Sequence[asyncpg.Record]) -> list[MemberRow]:
    """Scored members by `member_id`, in this order; what chose them also said KEEP_NEXT_PLAN."""
    if not chosen:
        return []
    rows = await connection.fetch(SELECT_MEMBERS, [row["member_id"] for row in chosen])
    return [_member_row(row) for row in rows]


def _member_row(row: asyncpg.Record) -> MemberRow:
    """A row of SELECT_MEMBERS."""
    return MemberRow(
        row["member_id"],
        row["user_id"],
        row["display_name"],
        _LEVELS[row["level"]],
        _LEVELS[row["computed_level"]],
        _REASONS[row["reason"]],
        _SOURCES[row["source"]],
        row["level_since"],
        row["events_attended_90d"],
        row["rsvp_count_90d"],
        row["last_attended_at"],
        row["joined_at"],
        level_or_none(row["override_level"]),
        row["override_expires_at"],
        row["next_level_change_at"],
        level_or_none(row["next_level"]),
        row["computed_at"],
        row["revision"],
    )
