"""What the API needs from the database, as protocols and plain values; `db` implements them.

`Store.organization` opens one transaction per request. Inside it everything runs as the role
`engagement_api` with row-level security set to that one organisation, so nothing below has to be
trusted with a WHERE. The transaction commits when the block ends and rolls back when it raises.

The actions of this file (`MemberActions`, `ThresholdActions`) work inside that transaction: they
neither begin nor commit, take the organisation's clock from `engagement_now()`, and may be repeated
after a rollback. They check what belongs to their own rules; who may ask, and whether the
organisation is suspended, the API has checked before.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import date, datetime
from enum import StrEnum
from typing import Literal, NamedTuple, Protocol

from service.levels import Direction, Level, Reason
from service.records import Cause, Source
from service.signals import Signals
from service.thresholds import Thresholds


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
    """Where a page of history ended."""

    at: datetime
    kind: Literal["level", "override"]
    number: int


class LevelChangeEntry(NamedTuple):
    """One change of the shown level. `number` is the revision."""

    at: datetime
    number: int
    effective_at: datetime
    from_level: Level | None
    to_level: Level | None
    cause: Cause
    reason: Reason | None
    computed_level: Level | None
    source: Source | None


class OverrideEntry(NamedTuple):
    """One override action. `number` orders actions of one instant."""

    at: datetime
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
    saving would publish. `claude_calls`: distinct situations without a stored answer, 0 without
    Claude. `examples`: at most 20, several moves rather than one kind.
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
    """`removed`: rows by kind of data. `remaining` names what expires by retention."""

    org_id: str
    user_id: str
    erased_at: datetime
    removed: Mapping[str, int]
    remaining: Sequence[Remaining] = ()


class MemberActions(Protocol):
    """Changes to one member, inside the caller's transaction."""

    async def set_override(
        self,
        org_id: str,
        user_id: str,
        *,
        level: Level,
        notes: str,
        expires_at: datetime | None,
        performed_by: str,
        if_revision: int | None,
    ) -> int:
        """Show `level` until `expires_at` or until cleared; return the new revision.

        `notes`: 1 to 2000 characters, not blank, no NUL (checked by the API). An expired override
        is closed first, an active one is replaced; both are in the history. Publishes once.
        Raises NotFound (never heard of), Conflict (not scored), InvalidInput (`expires_at` is not
        after the database's clock), Stale (`if_revision` is not the stored revision under the lock;
        None: not asked). Not idempotent: each call is an action in the history.
        """
        ...

    async def clear_override(
        self,
        org_id: str,
        user_id: str,
        *,
        notes: str | None,
        performed_by: str,
        if_revision: int | None,
    ) -> int:
        """End the active override; return the new revision.

        Raises NotFound (never heard of), Conflict (none active; an expired one is none), Stale.
        """
        ...

    async def request_recompute(self, org_id: str, user_id: str) -> None:
        """Have the member evaluated soon, also when nothing is due. Idempotent.

        Raises NotFound (never heard of).
        """
        ...

    async def erase(self, org_id: str, user_id: str, *, performed_by: str) -> ErasureReceipt:
        """Erase the member from this organisation at the database's time. Idempotent.

        Raises NotFound where nothing about this person was ever known here, which a receipt for an
        earlier erasure is not: repeated, it gives a receipt with nothing more removed.
        """
        ...


class ThresholdActions(Protocol):
    """The organisation's thresholds, inside the caller's transaction."""

    async def preview_thresholds(self, org_id: str, thresholds: Thresholds) -> ThresholdsPreview:
        """What saving would do; writes nothing. `thresholds.version` is ignored.

        Raises InvalidThresholds.
        """
        ...

    async def save_thresholds(
        self, org_id: str, thresholds: Thresholds, *, base_version: int, author: str, note: str
    ) -> Thresholds:
        """Store the next version, mark the organisation's members due, return what is in force.

        `thresholds.version` is ignored. `note`: 0 to 2000 characters. Raises InvalidThresholds,
        Stale (`base_version` is not the version in force, decided under a lock), Conflict (the same
        numbers are in force already).
        """
        ...


class Actions(MemberActions, ThresholdActions, Protocol):
    """Everything that changes something."""


class OrganizationReads(Protocol):
    """Questions about one organisation. None stands for "nothing known here"."""

    async def session_user(self, token_hash: bytes) -> str | None:
        """As `Store.session_user`, without a transaction of its own."""
        ...

    async def standing(self, user_id: str) -> Standing:
        """What the person is here; costs a few index look-ups."""
        ...

    async def clock(self) -> datetime:
        """The database's clock, the same throughout the transaction."""
        ...

    async def member(self, user_id: str) -> MemberRecord | None:
        """One member, also who left; None when nothing is known or everything was erased."""
        ...

    async def members(self, query: MemberQuery) -> Sequence[MemberRow]:
        """Up to `limit` + 1 scored members after the position; one more tells of a next page."""
        ...

    async def history(
        self, user_id: str, limit: int, after: HistoryPosition | None
    ) -> Sequence[HistoryEntry] | None:
        """Up to `limit` + 1 entries, newest first; None when nothing is known of the person."""
        ...

    async def timeline(self, user_id: str) -> TimelineFacts:
        """Dated facts of a member for the picture."""
        ...

    async def summary(self) -> Summary:
        """Counts over the whole organisation; the most expensive read."""
        ...

    async def thresholds(self) -> ThresholdsVersion:
        """The version in force."""
        ...

    async def threshold_versions(self, limit: int) -> Sequence[ThresholdsVersion]:
        """Newest first, version 0 last."""
        ...


class Organization(OrganizationReads, Protocol):
    """One organisation inside one transaction; `actions` only where it was opened for writing."""

    @property
    def actions(self) -> Actions:
        """Changes, inside the same transaction."""
        ...


SessionKind = Literal["session", "link"]


class Store(Protocol):
    """The way in; safe to use from any number of requests at once.

    Sessions are looked up by the SHA-256 of a secret that only the browser, or the link, holds.
    """

    async def open_session(
        self, token_hash: bytes, kind: SessionKind, user_id: str, lifetime_s: int
    ) -> None:
        """Remember a session or a sign-in link; forgets expired ones on the way."""
        ...

    async def session_user(self, token_hash: bytes) -> str | None:
        """Whose session this is; None when unknown or expired."""
        ...

    async def link_user(self, token_hash: bytes, *, use_up: bool) -> str | None:
        """Whom a sign-in link signs in, None when unknown, used or expired; once if `use_up`."""
        ...

    async def close_session(self, token_hash: bytes) -> None:
        """Forget a session. Idempotent."""
        ...

    def organization(
        self, org_id: str, *, writes: bool = False
    ) -> AbstractAsyncContextManager[Organization]:
        """One transaction as `engagement_api` for this organisation, read only unless `writes`.

        Raises Retryable when the database is away or busy.
        """
        ...

    async def check(self) -> Mapping[str, str]:
        """What readiness depends on: name -> "ok" or what is wrong. Does not raise."""
        ...
