"""One organisation inside one transaction of the API: questions answered, actions at hand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Final

from db.api_member import (
    read_history,
    read_member,
    read_member_id,
    read_standing,
    read_timeline,
)
from db.api_members import list_members
from db.api_sessions import read_session_user
from db.api_summary import read_summary
from db.api_thresholds import read_versions
from db.pool import Connection
from service.api.ports import Actions, Organization
from service.api.values import (
    HistoryEntry,
    HistoryPosition,
    MemberQuery,
    MemberRecord,
    MemberRow,
    Standing,
    Summary,
    ThresholdsVersion,
    TimelineFacts,
)

ActionsFactory = Callable[[Connection], Actions]

SELECT_NOW: Final = "SELECT engagement_now()"


class ApiOrganization(Organization):
    """`Organization` on a connection inside a transaction that somebody else ends."""

    def __init__(self, connection: Connection, org_id: str, actions: ActionsFactory) -> None:
        self._connection = connection
        self._org_id = org_id
        self._actions = actions

    @property
    def actions(self) -> Actions:
        """See `Organization.actions`."""
        return self._actions(self._connection)

    async def session_user(self, token_hash: bytes) -> str | None:
        """See `OrganizationReads.session_user`."""
        return await read_session_user(self._connection, token_hash, "session")

    async def standing(self, user_id: str) -> Standing:
        """See `OrganizationReads.standing`."""
        return await read_standing(self._connection, self._org_id, user_id)

    async def clock(self) -> datetime:
        """See `OrganizationReads.clock`."""
        now: datetime = await self._connection.fetchval(SELECT_NOW)
        return now

    async def member(self, user_id: str) -> MemberRecord | None:
        """See `OrganizationReads.member`."""
        return await read_member(self._connection, self._org_id, user_id)

    async def members(self, query: MemberQuery) -> Sequence[MemberRow]:
        """See `OrganizationReads.members`."""
        return await list_members(self._connection, self._org_id, query)

    async def history(
        self, user_id: str, limit: int, after: HistoryPosition | None
    ) -> Sequence[HistoryEntry] | None:
        """See `OrganizationReads.history`."""
        member_id = await read_member_id(self._connection, self._org_id, user_id)
        if member_id is None:
            return None
        return await read_history(self._connection, self._org_id, member_id, limit, after)

    async def timeline(self, user_id: str) -> TimelineFacts:
        """See `OrganizationReads.timeline`."""
        member_id = await read_member_id(self._connection, self._org_id, user_id)
        if member_id is None:
            return TimelineFacts((), (), ())
        return await read_timeline(self._connection, self._org_id, member_id)

    async def summary(self) -> Summary:
        """See `OrganizationReads.summary`."""
        return await read_summary(self._connection, self._org_id)

    async def thresholds(self) -> ThresholdsVersion:
        """See `OrganizationReads.thresholds`."""
        return (await self.threshold_versions(1))[0]

    async def threshold_versions(self, limit: int) -> Sequence[ThresholdsVersion]:
        """See `OrganizationReads.threshold_versions`."""
        return await read_versions(self._connection, self._org_id, limit)
