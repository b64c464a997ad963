"""Everything an administrator may change in one organisation, inside the API's transaction."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from db import due, erasures
from db import thresholds as versions
from db.evaluating import Evaluating
from db.evaluation import CaseReader
from db.explanations import ExplanationCache
from db.judging import KeepingJudge
from db.overrides import Overriding
from db.pool import Connection
from db.preview import Previewing
from service.api.ports import Actions
from service.api.values import ErasureReceipt, ThresholdsPreview
from service.classifier.choice import uses_claude
from service.errors import NotFound
from service.levels import Level
from service.records import Cause
from service.settings import Settings
from service.thresholds import Thresholds

SELECT_MEMBER: Final = "SELECT member_id FROM member WHERE org_id = $1 AND user_id = $2"


class ActionParts:
    """What the actions of one process share; call it with a connection to get its actions.

    Connections have to be prepared by `prepare`.
    """

    def __init__(self, settings: Settings) -> None:
        implicit = settings.implicit_membership
        reader = CaseReader(ExplanationCache(), implicit_membership=implicit)
        self.prepare = reader.prepare
        self.overriding = Overriding(Evaluating(reader, KeepingJudge()))
        self.previewing = Previewing(implicit_membership=implicit, model=_model(settings))
        self.erasure_memory = timedelta(days=settings.erasure_memory_days)

    def __call__(self, connection: Connection) -> OrganizationActions:
        """The actions on a connection that is inside a transaction."""
        return OrganizationActions(connection, self)


class OrganizationActions(Actions):
    """`Actions` on a connection inside a transaction that somebody else ends."""

    def __init__(self, connection: Connection, parts: ActionParts) -> None:
        self._connection = connection
        self._parts = parts

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
        """See `MemberActions.set_override`."""
        await erasures.keep_author(self._connection, org_id, performed_by)
        return await self._parts.overriding.set(
            self._connection,
            org_id,
            user_id,
            level=level,
            notes=notes,
            expires_at=expires_at,
            performed_by=performed_by,
            if_revision=if_revision,
        )

    async def clear_override(
        self,
        org_id: str,
        user_id: str,
        *,
        notes: str | None,
        performed_by: str,
        if_revision: int | None,
    ) -> int:
        """See `MemberActions.clear_override`."""
        await erasures.keep_author(self._connection, org_id, performed_by)
        return await self._parts.overriding.clear(
            self._connection,
            org_id,
            user_id,
            notes=notes,
            performed_by=performed_by,
            if_revision=if_revision,
        )

    async def request_recompute(self, org_id: str, user_id: str) -> None:
        """See `MemberActions.request_recompute`."""
        member_id = await self._connection.fetchval(SELECT_MEMBER, org_id, user_id)
        if member_id is None:
            raise NotFound("no such member")
        await due.mark_members(self._connection, [member_id], Cause.TIME)

    async def erase(
        self,
        org_id: str,
        user_id: str,
        *,
        performed_by: str,  # noqa: ARG002 - not kept
    ) -> ErasureReceipt:
        """See `MemberActions.erase`. Who asked for it is not kept."""
        erased = await erasures.erase_here(
            self._connection, org_id, user_id, self._parts.erasure_memory
        )
        if not erased.was_known:
            raise NotFound("no such member")
        return erased.receipt

    async def preview_thresholds(self, org_id: str, thresholds: Thresholds) -> ThresholdsPreview:
        """See `ThresholdActions.preview_thresholds`."""
        return await self._parts.previewing.preview(self._connection, org_id, thresholds)

    async def save_thresholds(
        self, org_id: str, thresholds: Thresholds, *, base_version: int, author: str, note: str
    ) -> Thresholds:
        """See `ThresholdActions.save_thresholds`."""
        await erasures.keep_author(self._connection, org_id, author)
        return await versions.save(
            self._connection,
            org_id,
            thresholds,
            base_version=base_version,
            author=author,
            note=note,
        )


def _model(settings: Settings) -> str | None:
    """Whose verdicts a change of thresholds would ask for; None where nobody is asked."""
    return settings.model if uses_claude(settings) else None
