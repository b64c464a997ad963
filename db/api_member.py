"""One person in one organisation: standing, full record, history and dated facts."""

from __future__ import annotations

from datetime import datetime
from typing import Final

import asyncpg

from db.api_rows import PLAN_NEXT_ANEW, level_or_none
from db.pool import Connection
from service.api.values import (
    HistoryEntry,
    HistoryPosition,
    ImprovementState,
    LevelChangeEntry,
    MemberRecord,
    OrganizationStatus,
    OverrideEntry,
    OverrideState,
    Standing,
    TimelineFacts,
)
from service.levels import Level, Reason
from service.records import Cause, Source
from service.signals import JoinedAtSource, Signals
from service.thresholds import DEFAULT_THRESHOLDS, Thresholds

TIMELINE_DAYS: Final = 400
TIMELINE_FACTS: Final = 200

# The first query of every request; those that follow depend on their values (`db.api_store`).
SELECT_STANDING: Final = f"""
SELECT {PLAN_NEXT_ANEW},
       coalesce(o.name, k.org_id) AS name, coalesce(o.status, 'active') AS status,
       f.status AS membership, f.role,
       f.member_id IS NULL AND m.member_id IS NOT NULL AND (
           EXISTS (SELECT FROM attendance_fact a WHERE a.member_id = m.member_id
                   AND a.status IN ('attended', 'partial') AND a.occurred_at <= engagement_now())
           OR EXISTS (SELECT FROM rsvp_fact r WHERE r.member_id = m.member_id
                      AND r.response = 'going' AND r.responded_at <= engagement_now())
       ) AS has_activity
FROM (SELECT $1::text COLLATE "C" AS org_id) k
LEFT JOIN organization_fact o ON o.org_id = k.org_id
LEFT JOIN member m ON m.org_id = k.org_id AND m.user_id = $2
LEFT JOIN membership_fact f ON f.member_id = m.member_id"""  # noqa: S608 - made of constants

SELECT_MEMBER: Final = """
SELECT v.*, m.user_id AS known_as, f.display_name, f.status AS membership, f.role,
       t.version, t.highly_engaged_min_events, t.moderate_min_events, t.new_member_days,
       t.inactive_after_days, t.activity_window_days AS window_days,
       author.display_name AS overridden_by_name,
       (SELECT count(*) FROM attendance_fact a
        WHERE a.member_id = m.member_id AND a.status IN ('attended', 'partial')
          AND a.occurred_at <= v.next_level_change_at
          AND a.occurred_at > v.next_level_change_at - make_interval(days => v.activity_window_days)
       ) AS events_left,
       f.member_id IS NOT NULL OR v.engagement_id IS NOT NULL
           OR EXISTS (SELECT FROM attendance_fact a WHERE a.member_id = m.member_id)
           OR EXISTS (SELECT FROM rsvp_fact r WHERE r.member_id = m.member_id) AS known
FROM member m
LEFT JOIN membership_fact f ON f.member_id = m.member_id
LEFT JOIN member_engagement v ON v.engagement_id = m.member_id
LEFT JOIN thresholds t ON t.org_id = m.org_id AND t.version = v.thresholds_version
LEFT JOIN member am ON am.org_id = m.org_id AND am.user_id = v.overridden_by
LEFT JOIN membership_fact author ON author.member_id = am.member_id
WHERE m.org_id = $1 AND m.user_id = $2"""

SELECT_MEMBER_ID: Final = """
SELECT m.member_id FROM member m
WHERE m.org_id = $1 AND m.user_id = $2
  AND (EXISTS (SELECT FROM membership_fact f WHERE f.member_id = m.member_id)
       OR EXISTS (SELECT FROM engagement e WHERE e.member_id = m.member_id
                  AND e.computed_at IS NOT NULL)
       OR EXISTS (SELECT FROM attendance_fact a WHERE a.member_id = m.member_id)
       OR EXISTS (SELECT FROM rsvp_fact r WHERE r.member_id = m.member_id))"""

# Both histories as one, newest first. Rows of one instant in the order in which they were written,
# which `step` counts: an override that is over is closed before anything else, and an action comes
# before the change that it makes.
SELECT_HISTORY: Final = """
SELECT * FROM (
    SELECT h.recorded_at AS at, 'level' AS kind,
           CASE h.cause WHEN 'override_expired' THEN 1 ELSE 3 END AS step,
           h.revision AS number, h.effective_at,
           h.from_level, h.to_level, h.cause, h.reason, h.computed_level, h.source,
           NULL AS action, NULL AS notes, NULL AS performed_by, NULL AS performed_by_name,
           NULL::timestamptz AS expires_at
    FROM engagement_level_history h WHERE h.org_id = $1 AND h.member_id = $2
    UNION ALL
    SELECT h.performed_at, 'override', CASE h.action WHEN 'expire' THEN 0 ELSE 2 END,
           h.override_history_id, h.performed_at,
           h.previous_level, h.new_level, NULL, NULL, NULL, NULL,
           h.action, h.notes, h.performed_by, f.display_name, h.expires_at
    FROM engagement_override_history h
    LEFT JOIN member m ON m.org_id = h.org_id AND m.user_id = h.performed_by
    LEFT JOIN membership_fact f ON f.member_id = m.member_id
    WHERE h.org_id = $1 AND h.engagement_id = $2
) h
WHERE $4::timestamptz IS NULL OR (at, step, number) < ($4, $5::integer, $6::bigint)
ORDER BY at DESC, step DESC, number DESC LIMIT $3"""

SELECT_ATTENDED: Final = """
SELECT occurred_at AS at, event_id FROM attendance_fact
WHERE member_id = $1 AND status IN ('attended', 'partial')
  AND occurred_at > engagement_now() - make_interval(days => $2) AND occurred_at <= engagement_now()
ORDER BY occurred_at DESC LIMIT $3"""
SELECT_RESPONDED: Final = """
SELECT responded_at AS at, event_id FROM rsvp_fact
WHERE member_id = $1 AND response = 'going'
  AND responded_at > engagement_now() - make_interval(days => $2)
  AND responded_at <= engagement_now()
ORDER BY responded_at DESC LIMIT $3"""
SELECT_LEVELS: Final = """
SELECT effective_at AS at, to_level FROM engagement_level_history
WHERE org_id = $1 AND member_id = $2 ORDER BY revision DESC LIMIT $3"""


async def read_standing(connection: Connection, org_id: str, user_id: str) -> Standing:
    """See `OrganizationReads.standing`."""
    row = await connection.fetchrow(SELECT_STANDING, org_id, user_id)
    assert row is not None
    return Standing(
        row["name"],
        OrganizationStatus(row["status"]),
        row["membership"],
        row["role"],
        row["has_activity"],
    )


async def read_member(connection: Connection, org_id: str, user_id: str) -> MemberRecord | None:
    """See `OrganizationReads.member`."""
    row = await connection.fetchrow(SELECT_MEMBER, org_id, user_id)
    return _member_record(row) if row is not None and row["known"] else None


async def read_member_id(connection: Connection, org_id: str, user_id: str) -> int | None:
    """The number of a member about whom something is known."""
    member_id: int | None = await connection.fetchval(SELECT_MEMBER_ID, org_id, user_id)
    return member_id


async def read_history(
    connection: Connection,
    org_id: str,
    member_id: int,
    limit: int,
    after: HistoryPosition | None,
) -> list[HistoryEntry]:
    """See `OrganizationReads.history`."""
    rows = await connection.fetch(
        SELECT_HISTORY, org_id, member_id, limit + 1, *(after or (None, None, None))
    )
    return [_history_entry(row) for row in rows]


async def read_timeline(connection: Connection, org_id: str, member_id: int) -> TimelineFacts:
    """See `OrganizationReads.timeline`."""
    attended = await connection.fetch(SELECT_ATTENDED, member_id, TIMELINE_DAYS, TIMELINE_FACTS)
    responded = await connection.fetch(SELECT_RESPONDED, member_id, TIMELINE_DAYS, TIMELINE_FACTS)
    levels = await connection.fetch(SELECT_LEVELS, org_id, member_id, TIMELINE_FACTS)
    return TimelineFacts(
        [(row["at"], row["event_id"]) for row in attended],
        [(row["at"], row["event_id"]) for row in responded],
        [(row["at"], level_or_none(row["to_level"])) for row in levels],
    )


def _member_record(row: asyncpg.Record) -> MemberRecord:
    source = row["source"] if row["level"] is not None else None
    joined_source = row["joined_at_source"]
    return MemberRecord(
        user_id=row["known_as"],
        display_name=row["display_name"],
        membership=row["membership"],
        role=row["role"],
        level=level_or_none(row["level"]),
        computed_level=level_or_none(row["computed_level"]),
        rules_level=level_or_none(row["rules_level"]),
        previous_level=level_or_none(row["previous_level"]),
        level_since=row["level_since"],
        reason=None if row["reason"] is None else Reason(row["reason"]),
        rule=row["rule"],
        source=None if source is None else Source(source),
        signals=Signals(
            row["events_attended_90d"] or 0,
            row["last_attended_at"],
            row["rsvp_count_90d"] or 0,
            row["last_rsvp_at"],
            row["profile_updated_at"],
            row["joined_at"],
            None if joined_source is None else JoinedAtSource(joined_source),
        ),
        thresholds=_thresholds(row),
        counted_event_ids=row["counted_event_ids"] or [],
        improvement=_improvement(row),
        override=_override(row),
        admin_template=row["admin_explanation"],
        user_template=row["user_explanation"],
        next_change_at=row["next_change_at"],
        next_level_change_at=row["next_level_change_at"],
        next_level=level_or_none(row["next_level"]),
        events_left=row["events_left"],
        model_version=row["model_version"],
        computed_at=row["computed_at"],
        revision=row["revision"] or 0,
    )


def _thresholds(row: asyncpg.Record) -> Thresholds:
    if row["version"] is None:
        return DEFAULT_THRESHOLDS
    return Thresholds(
        row["highly_engaged_min_events"],
        row["moderate_min_events"],
        row["window_days"],
        row["new_member_days"],
        row["inactive_after_days"],
        row["version"],
    )


def _improvement(row: asyncpg.Record) -> ImprovementState | None:
    if row["improvement_level"] is None:
        return None
    before: datetime | None = row["improvement_before"]
    return ImprovementState(row["improvement_events"], before, Level(row["improvement_level"]))


def _override(row: asyncpg.Record) -> OverrideState | None:
    if row["override_level"] is None:
        return None
    return OverrideState(
        Level(row["override_level"]),
        row["override_notes"],
        row["overridden_by"],
        row["overridden_by_name"],
        row["overridden_at"],
        row["override_expires_at"],
    )


def _history_entry(row: asyncpg.Record) -> HistoryEntry:
    before, after = level_or_none(row["from_level"]), level_or_none(row["to_level"])
    if row["kind"] == "override":
        return OverrideEntry(
            row["at"],
            row["step"],
            row["number"],
            row["action"],
            before,
            after,
            row["notes"],
            row["performed_by"],
            row["performed_by_name"],
            row["expires_at"],
        )
    return LevelChangeEntry(
        row["at"],
        row["step"],
        row["number"],
        row["effective_at"],
        before,
        after,
        Cause(row["cause"]),
        None if row["reason"] is None else Reason(row["reason"]),
        level_or_none(row["computed_level"]),
        None if row["source"] is None else Source(row["source"]),
    )
