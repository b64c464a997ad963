"""Read everything that decides about a page of members, and write what came of it.

The order within the caller's transaction matters: marks are taken first (`db.due`), then the
members' rows are locked, then facts are read by a later statement, which under READ COMMITTED sees
all that was committed until then.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple

from db.explanations import ExplanationCache
from db.pool import Connection
from service.classifier.templates import override_texts
from service.evaluation import Evaluation
from service.levels import Level, Reason
from service.messages import Message, Subject
from service.records import Source
from service.signals import Activity, Dates, JoinedAtSource, Signals
from service.standing import (
    NOTHING_PUBLISHED,
    Outcome,
    Published,
    Standing,
    StoredOverride,
)
from service.thresholds import DEFAULT_THRESHOLDS, Thresholds
from service.timeline import Case, Override

MAX_EVIDENCE_EVENTS: Final = 20

# Pages are looked up member by member through indexes, whatever statistics say.
PLAN_SETTINGS: Final = "SET enable_hashjoin = off; SET enable_mergejoin = off"

CREATE_STAGE: Final = """
CREATE TEMPORARY TABLE stage_engagement (LIKE engagement) ON COMMIT DELETE ROWS;
GRANT SELECT, INSERT ON stage_engagement TO PUBLIC"""

LOCK: Final = """
SELECT member_id, org_id FROM engagement WHERE member_id = ANY ($1::bigint[])
ORDER BY member_id FOR NO KEY UPDATE SKIP LOCKED"""

LOCK_ONE: Final = """
SELECT e.member_id FROM engagement e JOIN member m USING (member_id)
WHERE m.org_id = $1 AND m.user_id = $2 FOR NO KEY UPDATE OF e"""

SELECT_ORGANIZATIONS: Final = """
SELECT w.org_id, coalesce(o.name, w.org_id), coalesce(o.status, 'active'),
       t.highly_engaged_min_events, t.moderate_min_events, t.activity_window_days,
       t.new_member_days, t.inactive_after_days, t.version
FROM unnest($1::text[]) AS w (org_id)
LEFT JOIN organization_fact o ON o.org_id = w.org_id
LEFT JOIN LATERAL (
    SELECT * FROM thresholds t WHERE t.org_id = w.org_id ORDER BY t.version DESC LIMIT 1
) t ON true"""

# Dates reach back one window before the last evaluation, so that it can be said when a level began.
SELECT_CASES: Final = """
SELECT e.member_id, e.org_id, m.user_id, e.revision, e.computed_at,
       e.level, e.computed_level, e.previous_level, e.level_since, e.reason, e.computed_source,
       e.events_attended_90d, e.last_attended_at, e.rsvp_count_90d, e.last_rsvp_at,
       e.profile_updated_at, e.joined_at, e.joined_at_source,
       e.thresholds_version, e.activity_window_days, e.explanation_id,
       e.override_level, e.overridden_at, e.override_expires_at, e.overridden_by, e.override_notes,
       e.next_change_at, e.next_level_change_at, e.next_level, e.model_version,
       e.rules_level, e.verdict_key,
       s.status, s.joined_at,
       a.recent, a.event_ids, a.before, a.first, r.recent, r.before, r.first, p.recent, p.before
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

UPDATE_FROM_STAGE: Final = """
UPDATE engagement e SET
    revision = s.revision, computed_at = s.computed_at, wake_at = s.wake_at,
    next_change_at = s.next_change_at, next_level_change_at = s.next_level_change_at,
    level_since = s.level_since, last_attended_at = s.last_attended_at,
    last_rsvp_at = s.last_rsvp_at, profile_updated_at = s.profile_updated_at,
    joined_at = s.joined_at, improvement_before = s.improvement_before,
    overridden_at = s.overridden_at, override_expires_at = s.override_expires_at,
    explanation_id = s.explanation_id, override_explanation_id = s.override_explanation_id,
    events_attended_90d = s.events_attended_90d, rsvp_count_90d = s.rsvp_count_90d,
    thresholds_version = s.thresholds_version, activity_window_days = s.activity_window_days,
    improvement_events = s.improvement_events, rule = s.rule, level = s.level,
    computed_level = s.computed_level, rules_level = s.rules_level,
    previous_level = s.previous_level, next_level = s.next_level, reason = s.reason,
    computed_source = s.computed_source, joined_at_source = s.joined_at_source,
    model_version = s.model_version, improvement_level = s.improvement_level,
    counted_event_ids = s.counted_event_ids, verdict_key = s.verdict_key,
    override_level = s.override_level, overridden_by = s.overridden_by,
    override_notes = s.override_notes
FROM stage_engagement s WHERE e.member_id = s.member_id"""

UPDATE_UNCHANGED: Final = """
UPDATE engagement e SET computed_at = $3, wake_at = s.wake_at
FROM unnest($1::bigint[], $2::timestamptz[]) AS s (member_id, wake_at)
WHERE e.member_id = s.member_id"""

SLEEP: Final = "UPDATE engagement SET wake_at = NULL WHERE member_id = ANY ($1::bigint[])"

INSERT_OVERRIDE_ACTION: Final = """
INSERT INTO engagement_override_history
    (engagement_id, org_id, user_id, previous_level, new_level, notes, action, performed_by,
     performed_at, expires_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)"""

_STAGE_COLUMNS: Final = [
    "member_id", "revision", "computed_at", "wake_at", "next_change_at", "next_level_change_at",
    "level_since", "last_attended_at", "last_rsvp_at", "profile_updated_at", "joined_at",
    "improvement_before", "overridden_at", "override_expires_at", "explanation_id",
    "override_explanation_id", "events_attended_90d", "rsvp_count_90d", "thresholds_version",
    "activity_window_days", "improvement_events", "rule", "org_id", "level", "computed_level",
    "rules_level", "previous_level", "next_level", "reason", "computed_source",
    "joined_at_source", "model_version", "improvement_level", "counted_event_ids", "verdict_key",
    "override_level", "overridden_by", "override_notes",
]  # fmt: skip

# Not COPY: PostgreSQL refuses that into tables with row-level security.
INSERT_HISTORY: Final = """
INSERT INTO engagement_level_history
    (id, member_id, revision, effective_at, recorded_at, org_id, user_id, from_level, to_level,
     cause, reason, computed_level, source)
SELECT * FROM unnest($1::uuid[], $2::bigint[], $3::bigint[], $4::timestamptz[], $5::timestamptz[],
                     $6::text[], $7::text[], $8::text[], $9::text[], $10::text[], $11::text[],
                     $12::text[], $13::text[])"""
INSERT_OUTBOX: Final = """
INSERT INTO outbox (member_id, revision, message_key, level_body, change_body)
SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::text[], $4::bytea[], $5::bytea[])"""


class OrganizationState(NamedTuple):
    """What of an organisation decides: name for the texts, state, thresholds in force."""

    name: str
    status: str
    thresholds: Thresholds


class MemberCase(NamedTuple):
    """One member as read: who, what was published, and what decides now."""

    member_id: int
    subject: Subject
    standing: Standing
    case: Case
    has_membership: bool
    has_left: bool
    attended_events: Sequence[tuple[datetime, str]]


class Result(NamedTuple):
    """What has to be written about one member."""

    member: MemberCase
    evaluation: Evaluation
    outcome: Outcome
    messages: Sequence[Message]
    wake_at: datetime | None


async def prepare_connection(connection: Connection) -> None:
    """Make a new connection ready for `read_cases` and `write_results`."""
    await connection.execute(PLAN_SETTINGS)
    await connection.execute(CREATE_STAGE)


async def lock(connection: Connection, member_ids: Collection[int]) -> dict[int, str]:
    """Lock those members that nobody else holds; member_id -> org_id."""
    return {row[0]: row[1] for row in await connection.fetch(LOCK, sorted(member_ids))}


async def lock_one(connection: Connection, org_id: str, user_id: str) -> int | None:
    """Lock one member, waiting for whoever holds it; None when there is no such member."""
    member_id: int | None = await connection.fetchval(LOCK_ONE, org_id, user_id)
    return member_id


async def read_organizations(
    connection: Connection, org_ids: Collection[str]
) -> dict[str, OrganizationState]:
    """Name, state and thresholds; an organisation without a record is active, named by its id."""
    rows = await connection.fetch(SELECT_ORGANIZATIONS, sorted(set(org_ids)))
    return {
        row[0]: OrganizationState(
            row[1],
            row[2],
            DEFAULT_THRESHOLDS if row[8] is None else Thresholds(*row[3:9]),
        )
        for row in rows
    }


class CaseReader:
    """Reads members; knows the texts behind explanation ids and whether implicit members count."""

    def __init__(self, explanations: ExplanationCache, *, implicit_membership: bool) -> None:
        self.explanations = explanations
        self._implicit_membership = implicit_membership

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
        )
        events = list(zip(row[34] or (), row[35] or (), strict=True))
        subject = Subject(org_id, user_id, organization.name)
        return MemberCase(
            member_id, subject, standing, case, has_membership, row[32] == "left", events
        )

    def _standing(self, row: Any) -> Standing:
        computed_at = row[4]
        if computed_at is None:
            return Standing(row[3], None, NOTHING_PUBLISHED)
        stored = None
        if row[21] is not None:
            stored = StoredOverride(Override(Level(row[21]), row[22], row[23]), row[24], row[25])
        published = Published(
            _level(row[5]),
            _level(row[6]),
            _level(row[7]),
            row[8],
            None if row[9] is None else Reason(row[9]),
            None if row[10] is None else Source(row[10]),
            Signals(row[11], row[12], row[13], row[14], row[15], row[16], _source(row[17])),
            row[18],
            row[19],
            None if row[20] is None else self.explanations.texts(row[20]),
            None if stored is None else stored.override,
            row[26],
            row[27],
            _level(row[28]),
            row[29],
        )
        return Standing(row[3], computed_at, published, _level(row[30]), stored, row[31])

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


def _source(value: str | None) -> JoinedAtSource | None:
    return None if value is None else JoinedAtSource(value)


def _level(value: str | None) -> Level | None:
    return None if value is None else Level(value)


async def write_results(
    connection: Connection,
    results: Sequence[Result],
    explanations: Mapping[Any, int],
    recorded_at: datetime,
) -> None:
    """Write standings, histories and messages of a page whose members the transaction holds.

    `explanations`: id of every pair of texts that occurs. Override history goes before the level
    history that follows from it.
    """
    changed = [r for r in results if _differs(r)]
    unchanged = [r for r in results if not _differs(r)]
    for result in changed:
        for action in result.outcome.override_actions:
            member = result.member
            await connection.execute(
                INSERT_OVERRIDE_ACTION,
                member.member_id, member.subject.org_id, member.subject.user_id,
                action.previous_level, action.new_level, action.notes, action.action,
                action.performed_by, recorded_at, action.expires_at,
            )  # fmt: skip
    history, outbox = _publications(changed, recorded_at)
    if history:
        await connection.execute(INSERT_HISTORY, *zip(*history, strict=True))
    if outbox:
        await connection.execute(INSERT_OUTBOX, *zip(*outbox, strict=True))
    if changed:
        await connection.copy_records_to_table(
            "stage_engagement",
            records=[_stage_row(r, explanations) for r in changed],
            columns=_STAGE_COLUMNS,
        )
        await connection.execute(UPDATE_FROM_STAGE)
        await connection.execute("DELETE FROM stage_engagement")
    if unchanged:
        await connection.execute(
            UPDATE_UNCHANGED,
            [r.member.member_id for r in unchanged],
            [r.wake_at for r in unchanged],
            recorded_at,
        )


async def put_to_sleep(connection: Connection, member_ids: Collection[int]) -> None:
    """Members of a suspended organisation wait for it, not for their clock."""
    await connection.execute(SLEEP, list(member_ids))


def _differs(result: Result) -> bool:
    before, after = result.member.standing, result.outcome.standing
    return (
        before.computed_at is None
        or before.published != after.published
        or before.stored_override != after.stored_override
        or before.verdict_key != after.verdict_key
        or before.rules_level != after.rules_level
    )


def _publications(
    results: Sequence[Result], recorded_at: datetime
) -> tuple[list[tuple[Any, ...]], list[tuple[Any, ...]]]:
    history, outbox = [], []
    for member, _, outcome, messages, _ in results:
        org_id, user_id, _ = member.subject
        for publication, message in zip(outcome.publications, messages, strict=True):
            key, level_body, change_body, identity = message
            outbox.append((member.member_id, publication.revision, key, level_body, change_body))
            change, published = publication.change, publication.published
            if change is not None:
                row = (
                    identity, member.member_id, publication.revision, change.effective_at,
                    recorded_at, org_id, user_id, change.from_level, change.to_level,
                    change.cause, published.reason, published.computed_level,
                    publication.shown_source,
                )  # fmt: skip
                history.append(row)
    return history, outbox


def _stage_row(result: Result, explanations: Mapping[Any, int]) -> tuple[Any, ...]:
    member, evaluation, outcome, _, wake_at = result
    standing = outcome.standing
    published, stored = standing.published, standing.stored_override
    signals, improvement, ruling = published.signals, evaluation.improvement, evaluation.ruling
    override = None if stored is None else stored.override
    counted = [
        event
        for at, event in member.attended_events
        if evaluation.as_of - member.case.thresholds.window < at <= evaluation.as_of
    ][-MAX_EVIDENCE_EVENTS:]
    return (
        member.member_id, standing.revision, standing.computed_at, wake_at,
        published.next_change_at, published.next_level_change_at,
        published.level_since, signals.last_attended_at, signals.last_rsvp_at,
        signals.profile_updated_at, signals.joined_at,
        None if improvement is None else improvement.before,
        None if override is None else override.overridden_at,
        None if override is None else override.expires_at,
        None if published.texts is None else explanations[published.texts],
        None if override is None
        else explanations[override_texts(override.level, override.expires_at is not None)],
        signals.events_attended_90d, signals.rsvp_count_90d,
        published.thresholds_version, published.activity_window_days,
        None if improvement is None else improvement.events,
        None if ruling is None else ruling.rule,
        member.subject.org_id, published.level, published.computed_level, standing.rules_level,
        published.previous_level, published.next_level, published.reason,
        published.computed_source, signals.joined_at_source, published.model_version,
        None if improvement is None else improvement.level,
        counted, standing.verdict_key,
        None if override is None else override.level,
        None if stored is None else stored.overridden_by,
        None if stored is None else stored.notes,
    )  # fmt: skip
