"""Read everything that decides about a page of members, and write what came of it.

The order within the caller's transaction matters: marks are taken first (`db.due`), then the
members' rows are locked, then facts are read by a later statement, which under READ COMMITTED sees
all that was committed until then.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple

from db import instants
from db.explanations import ExplanationCache
from db.pool import PLAN_BY_INDEX, Connection
from service.levels import Level, Reason
from service.messages import Subject
from service.records import Source
from service.signals import Activity, Dates, JoinedAtSource, Signals
from service.standing import (
    NOTHING_PUBLISHED,
    Published,
    Standing,
    StoredOverride,
)
from service.thresholds import DEFAULT_THRESHOLDS, Thresholds
from service.timeline import Case, Override

# What an evaluation changes of a member. `db.results` gives whole rows to one statement, since one
# column holds arrays, and there are no arrays of arrays of several lengths. The table stays empty:
# it is there for the type of its row.
RESULT_COLUMNS: Final = (
    "member_id", "revision", "computed_at", "wake_at", "next_change_at", "next_level_change_at",
    "level_since", "last_attended_at", "last_rsvp_at", "profile_updated_at", "joined_at",
    "improvement_before", "overridden_at", "override_expires_at", "explanation_id",
    "override_explanation_id", "events_attended_90d", "rsvp_count_90d", "thresholds_version",
    "activity_window_days", "improvement_events", "rule", "level", "computed_level", "rules_level",
    "previous_level", "next_level", "reason", "computed_source", "joined_at_source",
    "model_version", "improvement_level", "counted_event_ids", "verdict_key", "override_level",
    "overridden_by", "override_notes",
)  # fmt: skip
# What is published of it beside, if anything is: the key and the bodies, and of a change what
# history tells.
MESSAGE_COLUMNS: Final = {
    "message_key": "text", "level_body": "bytea", "change_body": "bytea", "change_id": "uuid",
    "org_id": "text", "user_id": "text", "effective_at": "timestamptz", "from_level": "text",
    "cause": "text", "source": "text",
}  # fmt: skip
CREATE_RESULT_ROW: Final = f"""
CREATE TEMPORARY TABLE result_row AS
SELECT {", ".join(RESULT_COLUMNS)},
       {", ".join(f"NULL::{type_} AS {name}" for name, type_ in MESSAGE_COLUMNS.items())}
FROM engagement WITH NO DATA"""  # noqa: S608 - made of constants

LOCK_ONE: Final = """
SELECT e.member_id FROM engagement e JOIN member m USING (member_id)
WHERE m.org_id = $1 AND m.user_id = $2 FOR NO KEY UPDATE OF e"""

_ORGANIZATION: Final = """
       coalesce(o.name, w.org_id), coalesce(o.status, 'active'), o.deleted_at,
       t.highly_engaged_min_events, t.moderate_min_events, t.activity_window_days,
       t.new_member_days, t.inactive_after_days, t.version"""
_OF_ORGANIZATION: Final = """
LEFT JOIN organization_fact o ON o.org_id = w.org_id
LEFT JOIN LATERAL (
    SELECT * FROM thresholds t WHERE t.org_id = w.org_id ORDER BY t.version DESC LIMIT 1
) t ON true"""

SELECT_ORGANIZATIONS: Final = f"""
SELECT w.org_id, {_ORGANIZATION}
FROM unnest($1::text[]) AS w (org_id) {_OF_ORGANIZATION}"""  # noqa: S608 - made of constants

LOCK: Final = """
SELECT member_id, org_id, engagement_now() FROM engagement WHERE member_id = ANY ($1::bigint[])
ORDER BY member_id FOR NO KEY UPDATE SKIP LOCKED"""

# Dates reach back one window before the last evaluation, so that it can be said when a level began.
SELECT_CASES: Final = r"""
SELECT e.member_id, e.org_id, m.user_id, e.revision, e.computed_at,
       e.level, e.computed_level, e.previous_level, e.level_since, e.reason, e.computed_source,
       e.events_attended_90d, e.last_attended_at, e.rsvp_count_90d, e.last_rsvp_at,
       e.profile_updated_at, e.joined_at, e.joined_at_source,
       e.thresholds_version, e.activity_window_days, e.explanation_id,
       e.override_level, e.overridden_at, e.override_expires_at, e.overridden_by, e.override_notes,
       e.next_change_at, e.next_level_change_at, e.next_level, e.model_version,
       e.rules_level, e.verdict_key,
       s.status, s.joined_at,
       a.recent, a.event_ids, a.before, a.first, r.recent, r.before, r.first, p.recent, p.before,
       s.left_at, coalesce(array_to_string(e.counted_event_ids, E'\n'), '')
FROM unnest($1::bigint[], $2::interval[]) AS w (member_id, history)
JOIN engagement e ON e.member_id = w.member_id
JOIN member m ON m.member_id = w.member_id
LEFT JOIN membership_fact s ON s.member_id = w.member_id
CROSS JOIN LATERAL (SELECT least($3::timestamptz, e.computed_at) - w.history) AS h (horizon)
CROSS JOIN LATERAL (
    SELECT array_agg(f.occurred_at ORDER BY f.occurred_at, f.event_id)
               FILTER (WHERE f.occurred_at > h.horizon) AS recent,
           array_agg(f.event_id ORDER BY f.occurred_at, f.event_id)
               FILTER (WHERE f.occurred_at > h.horizon) AS event_ids,
           max(f.occurred_at) FILTER (WHERE f.occurred_at <= h.horizon) AS before,
           min(f.occurred_at) AS first
    FROM attendance_fact f
    WHERE f.member_id = w.member_id AND f.status IN ('attended', 'partial')
) a
CROSS JOIN LATERAL (
    SELECT array_agg(f.responded_at ORDER BY f.responded_at)
               FILTER (WHERE f.responded_at > h.horizon) AS recent,
           max(f.responded_at) FILTER (WHERE f.responded_at <= h.horizon) AS before,
           min(f.responded_at) AS first
    FROM rsvp_fact f WHERE f.member_id = w.member_id AND f.response = 'going'
) r
CROSS JOIN LATERAL (
    SELECT array_agg(f.updated_at ORDER BY f.updated_at)
               FILTER (WHERE f.updated_at > h.horizon) AS recent,
           max(f.updated_at) FILTER (WHERE f.updated_at <= h.horizon) AS before
    FROM profile_fact f WHERE f.user_id = m.user_id AND f.actor = 'member'
) p"""

SLEEP: Final = "UPDATE engagement SET wake_at = NULL WHERE member_id = ANY ($1::bigint[])"


class OrganizationState(NamedTuple):
    """What of an organisation decides: name for the texts, state, thresholds in force.

    `deleted_at`: when the service last learned that it was deleted; it may be back since.
    """

    name: str
    status: str
    thresholds: Thresholds
    deleted_at: datetime | None


class MemberCase(NamedTuple):
    """One member as read: who, what was published, and what decides now.

    `evidence`: ids of the counted events as stored, a line each.
    """

    member_id: int
    subject: Subject
    standing: Standing
    case: Case
    has_membership: bool
    has_left: bool
    attended_events: Sequence[tuple[datetime, str]]
    evidence: str


async def prepare_connection(connection: Connection) -> None:
    """Make a new connection ready for `CaseReader` and `db.results`."""
    await connection.execute(PLAN_BY_INDEX)
    await connection.execute(CREATE_RESULT_ROW)
    await instants.prepare_connection(connection)


class Locked(NamedTuple):
    """Members that are locked (member_id -> org_id), their organisations, the database's clock."""

    members: Mapping[int, str]
    organizations: Mapping[str, OrganizationState]
    now: datetime


async def lock(connection: Connection, member_ids: Collection[int]) -> Locked | None:
    """Lock those members that nobody else holds; None where there is nobody.

    Their organisations are read by a statement of its own, which sees all that whoever held a
    member before has seen: the one that locks gets newer rows of members than of anything else.
    """
    rows = await connection.fetch(LOCK, sorted(member_ids))
    if not rows:
        return None
    members = {row[0]: row[1] for row in rows}
    return Locked(members, await read_organizations(connection, members.values()), rows[0][2])


async def lock_one(connection: Connection, org_id: str, user_id: str) -> int | None:
    """Lock one member, waiting for whoever holds it; None when there is no such member."""
    member_id: int | None = await connection.fetchval(LOCK_ONE, org_id, user_id)
    return member_id


async def read_organizations(
    connection: Connection, org_ids: Collection[str]
) -> dict[str, OrganizationState]:
    """Name, state and thresholds; an organisation without a record is active, named by its id."""
    rows = await connection.fetch(SELECT_ORGANIZATIONS, sorted(set(org_ids)))
    return {row[0]: _organization(row[1:]) for row in rows}


def _organization(row: Sequence[Any]) -> OrganizationState:
    name, status, deleted_at, *thresholds = row
    known = thresholds[-1] is not None
    return OrganizationState(
        name, status, Thresholds(*thresholds) if known else DEFAULT_THRESHOLDS, deleted_at
    )


class CaseReader:
    """Reads members; knows the texts behind explanation ids and whether implicit members count."""

    def __init__(self, explanations: ExplanationCache, *, implicit_membership: bool) -> None:
        self.explanations = explanations
        self._implicit_membership = implicit_membership

    async def prepare(self, connection: Connection) -> None:
        """Make a new connection ready, and forget what may not be true of where it leads."""
        self.explanations.forget()
        await prepare_connection(connection)

    async def read(
        self,
        connection: Connection,
        members: Mapping[int, str],
        organizations: Mapping[str, OrganizationState],
        as_of: datetime,
    ) -> list[MemberCase]:
        """The cases of `members` (member_id -> org_id), facts as committed by now."""
        ids = sorted(members)
        windows = [organizations[members[m]].thresholds.window for m in ids]
        rows = await connection.fetch(SELECT_CASES, ids, windows, as_of)
        await self.explanations.load(connection, {row[20] for row in rows if row[20] is not None})
        return [self._case(row, organizations[row[1]]) for row in rows]

    def _case(self, row: Any, organization: OrganizationState) -> MemberCase:
        member_id, org_id, user_id = row[0], row[1], row[2]
        standing = self._standing(row)
        activity, has_membership, is_active = self._activity(row)
        stored = standing.stored_override
        case = Case(
            activity,
            organization.thresholds,
            is_active and organization.status == "active",
            None if stored is None else stored.override,
            _later(row[43], organization.deleted_at),
        )
        events = list(zip(row[34] or (), row[35] or (), strict=True))
        subject = Subject(org_id, user_id, organization.name)
        return MemberCase(
            member_id, subject, standing, case, has_membership, row[32] == "left", events, row[44]
        )

    def _standing(self, row: Any) -> Standing:
        computed_at = row[4]
        if computed_at is None:
            return Standing(row[3], None, NOTHING_PUBLISHED)
        stored = None
        if row[21] is not None:
            stored = StoredOverride(Override(Level(row[21]), row[22], row[23]), row[24], row[25])
        published = Published(
            _LEVELS[row[5]],
            _LEVELS[row[6]],
            _LEVELS[row[7]],
            row[8],
            _REASONS[row[9]],
            _SOURCES[row[10]],
            Signals(row[11], row[12], row[13], row[14], row[15], row[16], _JOINED[row[17]]),
            row[18],
            row[19],
            None if row[20] is None else self.explanations.texts(row[20]),
            None if stored is None else stored.override,
            row[26],
            row[27],
            _LEVELS[row[28]],
            row[29],
        )
        return Standing(row[3], computed_at, published, _LEVELS[row[30]], stored, row[31])

    def _activity(self, row: Any) -> tuple[Activity, bool, bool]:
        """(activity, has a membership record, membership allows scoring)."""
        status, joined_at = row[32], row[33]
        attended = Dates(row[34] or (), row[36])
        rsvps = Dates(row[38] or (), row[39])
        profile = Dates(row[41] or (), row[42])
        source: JoinedAtSource | None = JoinedAtSource.MEMBERSHIP
        if status is None:
            firsts = [at for at in (row[37], row[40]) if at is not None]
            joined_at = min(firsts, default=None)
            source = None if joined_at is None else JoinedAtSource.INFERRED
        is_active = status == "active" or (status is None and self._implicit_membership)
        activity = Activity(attended, rsvps, profile, joined_at, source)
        return activity, status is not None, is_active


def _later(one: datetime | None, other: datetime | None) -> datetime | None:
    return max((at for at in (one, other) if at is not None), default=None)


# Looking a member of an enumeration up by its value costs 0.5 us, several times a member.
_LEVELS: Final[dict[str | None, Level | None]] = {None: None, **{v.value: v for v in Level}}
_REASONS: Final[dict[str | None, Reason | None]] = {None: None, **{v.value: v for v in Reason}}
_SOURCES: Final[dict[str | None, Source | None]] = {None: None, **{v.value: v for v in Source}}
_JOINED: Final[dict[str | None, JoinedAtSource | None]] = {
    None: None,
    **{v.value: v for v in JoinedAtSource},
}


async def put_to_sleep(connection: Connection, member_ids: Collection[int]) -> None:
    """Members of a suspended organisation wait for it, not for their clock."""
    await connection.execute(SLEEP, list(member_ids))
