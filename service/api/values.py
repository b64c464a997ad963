"""What goes between the API and the database: plain values, no behaviour.

Instants are aware UTC. None stands for what is not known, or not there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from enum import StrEnum
from typing import Literal, NamedTuple

from service.levels import Direction, Level, Reason
from service.records import Cause, Source
from service.signals import Signals
from service.thresholds import Thresholds

SessionKind = Literal["session", "link"]


class OrganizationStatus(StrEnum):
    """State of an organisation; one without a record is active."""

    ACTIVE = "active"
    SUSPENDED = "suspended"
    DELETED = "deleted"


class Standing(NamedTuple):
    """What a person is in an organisation at this moment.

    `membership` and `role` are of the current record, None without one; `has_activity` says that
    an attendance or a `going` response counts for the person, which makes an implicit member.
    """

    org_name: str
    org_status: OrganizationStatus
    membership: Literal["active", "left"] | None
    role: Literal["member", "admin"] | None
    has_activity: bool


class OverrideState(NamedTuple):
    """An override that is active now; `performed_by` is a user id."""

    level: Level
    notes: str
    performed_by: str
    performed_by_name: str | None
    overridden_at: datetime
    expires_at: datetime | None


class ImprovementState(NamedTuple):
    """`events` more attended before `before` (None: any time) give `level`."""

    events: int
    before: datetime | None
    level: Level


@dataclass(frozen=True)
class MemberRecord:
    """Everything known about one member now. `level` None: not scored; texts are templates.

    `revision` 0: nothing was published yet. `computed_at` None: never evaluated. `signals` and
    `thresholds` are those of the last evaluation. `membership` None: no membership record.
    `events_left` is how many counted events are still within the window at `next_level_change_at`.
    """

    user_id: str
    display_name: str | None
    membership: Literal["active", "left"] | None
    role: Literal["member", "admin"] | None
    level: Level | None
    computed_level: Level | None
    rules_level: Level | None
    previous_level: Level | None
    level_since: datetime | None
    reason: Reason | None
    rule: int | None
    source: Source | None
    signals: Signals
    thresholds: Thresholds
    counted_event_ids: Sequence[str]
    improvement: ImprovementState | None
    override: OverrideState | None
    admin_template: str | None
    user_template: str | None
    next_change_at: datetime | None
    next_level_change_at: datetime | None
    next_level: Level | None
    events_left: int
    model_version: str | None
    computed_at: datetime | None
    revision: int


class MemberSort(StrEnum):
    """Orders of the member list; a leading minus descends. Unknown values come last."""

    USER_ID = "user_id"
    USER_ID_DESC = "-user_id"
    DUE = "due"
    CHANGED = "-level_since"
    CHANGED_ASC = "level_since"
    ATTENDED = "-last_attended_at"
    ATTENDED_ASC = "last_attended_at"
    EVENTS = "-events_attended_90d"
    EVENTS_ASC = "events_attended_90d"


class MemberPosition(NamedTuple):
    """Where a page ended: the sort value of its last row (None: unknown) and the row's number."""

    value: str | int | datetime | None
    number: int


@dataclass(frozen=True)
class MemberQuery:
    """Filters are joined by "and". `levels` empty: every level. `text`: part of name or id.

    `override`: None either way. `due_within_days`: the shown level falls or rises within.
    """

    levels: frozenset[Level] = frozenset()
    override: bool | None = None
    due_within_days: int | None = None
    text: str = ""
    sort: MemberSort = MemberSort.USER_ID
    limit: int = 50
    after: MemberPosition | None = None


class MemberRow(NamedTuple):
    """One scored member in the list. `number` breaks ties between equal sort values."""

    number: int
    user_id: str
    display_name: str | None
    level: Level
    computed_level: Level
    reason: Reason
    source: Source
    level_since: datetime | None
    events_attended_90d: int
    rsvp_count_90d: int
    last_attended_at: datetime | None
    joined_at: datetime | None
    override_level: Level | None
    override_expires_at: datetime | None
    next_level_change_at: datetime | None
    next_level: Level | None
    computed_at: datetime
    revision: int


class HistoryPosition(NamedTuple):
    """Where a page of history ended: see the entries."""

    at: datetime
    step: int
    number: int


class LevelChangeEntry(NamedTuple):
    """One change of the shown level. `number` is the revision. `step` as with an action."""

    at: datetime
    step: int
    number: int
    effective_at: datetime
    from_level: Level | None
    to_level: Level | None
    cause: Cause
    reason: Reason | None
    computed_level: Level | None
    source: Source | None


class OverrideEntry(NamedTuple):
    """One override action. `step`, then `number`, order rows of one instant."""

    at: datetime
    step: int
    number: int
    action: Literal["override", "clear", "expire"]
    previous_level: Level | None
    new_level: Level | None
    notes: str | None
    performed_by: str
    performed_by_name: str | None
    expires_at: datetime | None


HistoryEntry = LevelChangeEntry | OverrideEntry


class TimelineFacts(NamedTuple):
    """Dated facts for the picture on the member's page; newest 200 of each within 400 days."""

    attended: Sequence[tuple[datetime, str]]
    responded: Sequence[tuple[datetime, str]]
    levels: Sequence[tuple[datetime, Level | None]]


class RunState(NamedTuple):
    """The latest daily recompute, which is one for all organisations."""

    slot: datetime
    status: str
    started_at: datetime
    finished_at: datetime | None


@dataclass(frozen=True)
class Summary:
    """An organisation at `as_of`. Days are UTC days of `effective_at`."""

    as_of: datetime
    levels: Mapping[Level, int]
    movements: Mapping[tuple[date, Direction], int]
    overrides: int
    overrides_expiring_30d: int
    expiring: Sequence[MemberRow]
    falls_due_30d: int
    falls: Sequence[MemberRow]
    last_run: RunState | None


class ThresholdsVersion(NamedTuple):
    """One immutable version. Version 0, the defaults, has neither author nor time."""

    thresholds: Thresholds
    author: str | None
    author_name: str | None
    note: str
    created_at: datetime | None


class PreviewExample(NamedTuple):
    """A member whom a change of thresholds would move."""

    user_id: str
    display_name: str | None
    from_level: Level
    to_level: Level


@dataclass(frozen=True)
class ThresholdsPreview:
    """What other thresholds would do to the shown levels at `as_of`, by the rules.

    `matrix[(from, to)]` counts members and includes those who stay, so it sums to `members`.
    A member under an active override stays. `level_records` and `change_records`: messages that
    saving would publish, none of the numbers in force. `claude_calls`: distinct situations without
    a stored answer, 0 without Claude. `examples`: at most 20, several moves rather than one kind.
    """

    base_version: int
    as_of: datetime
    members: int
    members_changed: int
    matrix: Mapping[tuple[Level, Level], int]
    examples: Sequence[PreviewExample]
    level_records: int
    change_records: int
    claude_calls: int


class Remaining(NamedTuple):
    """What an erasure cannot remove at once: where it is, and until when it may stay."""

    where: str
    until: str


@dataclass(frozen=True)
class ErasureReceipt:
    """Rows by kind of data. `pseudonymised` are kept, with a random token for the person.

    `remaining` names what expires by retention.
    """

    org_id: str
    user_id: str
    erased_at: datetime
    removed: Mapping[str, int]
    pseudonymised: Mapping[str, int]
    remaining: Sequence[Remaining] = ()
