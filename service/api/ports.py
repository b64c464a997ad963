"""What the API needs from the database, as protocols; `db` implements them.

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
from datetime import datetime
from typing import Protocol

from service.api.values import (
    ErasureReceipt,
    HistoryEntry,
    HistoryPosition,
    MemberQuery,
    MemberRecord,
    MemberRow,
    SessionKind,
    Standing,
    Summary,
    ThresholdsPreview,
    ThresholdsVersion,
    TimelineFacts,
)
from service.levels import Level
from service.thresholds import Thresholds


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
