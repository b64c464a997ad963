"""Overrides set and cleared by administrators, in the caller's transaction.

The member's row lock decides races: whoever comes second sees what the first one wrote, and is
refused if that is not the revision that he looked at.
"""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

from db import due, evaluation, offsets
from db.evaluating import Evaluating, Opinion, decide
from db.evaluation import MemberCase
from db.pool import Connection
from service.errors import Conflict, NotFound, Stale
from service.evaluation import Evaluation, evaluate
from service.expiry import close_ended
from service.levels import Level
from service.overrides import clear_override, set_override
from service.records import Cause
from service.standing import Outcome


class _Opened(NamedTuple):
    """A locked member at the transaction's instant, an expired override closed."""

    member: MemberCase
    closed: Outcome
    at: datetime


class Overriding:
    """Sets and clears overrides; the connection is prepared by `db.evaluation`."""

    def __init__(self, evaluating: Evaluating) -> None:
        self._evaluating = evaluating

    async def set(
        self,
        connection: Connection,
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
        opened = await self._open(connection, org_id, user_id, if_revision)
        begun = set_override(
            opened.closed,
            level,
            notes=notes,
            expires_at=expires_at,
            performed_by=performed_by,
            at=opened.at,
        )
        return await self._finish(connection, opened, begun, Cause.OVERRIDE_SET)

    async def clear(
        self,
        connection: Connection,
        org_id: str,
        user_id: str,
        *,
        notes: str | None,
        performed_by: str,
        if_revision: int | None,
    ) -> int:
        """See `MemberActions.clear_override`."""
        opened = await self._open(connection, org_id, user_id, if_revision)
        # Refuse before anything is asked about the level that shows from now on.
        clear_override(opened.closed, None, notes=notes, performed_by=performed_by)
        bare = opened.member._replace(case=opened.member.case._replace(override=None))
        evaluated = evaluate(bare.case, opened.at)
        opinion = await self._opinion(connection, bare, evaluated)
        judged = opinion.judgement
        begun = clear_override(
            opened.closed,
            None if judged is None else judged.level,
            notes=notes,
            performed_by=performed_by,
        )
        return await self._finish(connection, opened, begun, Cause.OVERRIDE_CLEARED)

    async def _open(
        self, connection: Connection, org_id: str, user_id: str, if_revision: int | None
    ) -> _Opened:
        member_id = await evaluation.lock_one(connection, org_id, user_id)
        if member_id is None:
            raise NotFound("no such member")
        now = await offsets.read_now(connection)
        organizations = await evaluation.read_organizations(connection, {org_id})
        cases = await self._evaluating.reader.read(
            connection, {member_id: org_id}, organizations, now
        )
        member = cases[0]
        standing = member.standing
        if if_revision is not None and if_revision != standing.revision:
            raise Stale(f"the revision is {standing.revision}, not {if_revision}: look again")
        # The transaction may have begun before somebody else's evaluation ended.
        at = max(now, standing.computed_at or now)
        return _Opened(member, close_ended(standing, member.case, at), at)

    async def _opinion(
        self, connection: Connection, member: MemberCase, evaluated: Evaluation
    ) -> Opinion:
        return (await self._evaluating.judge.judge(connection, [(member, evaluated)]))[0]

    async def _finish(
        self, connection: Connection, opened: _Opened, begun: Outcome, cause: Cause
    ) -> int:
        stored = begun.standing.stored_override
        case = opened.member.case._replace(override=None if stored is None else stored.override)
        member = opened.member._replace(case=case)
        evaluated = evaluate(case, opened.at)
        if evaluated.ruling is None:
            raise Conflict("the member has no level at present")
        opinion = await self._opinion(connection, member, evaluated)
        result = decide(member, begun, evaluated, opinion, (), opened.at, forced_cause=cause)
        await self._evaluating.write(connection, [result], opened.at)
        standing = result.outcome.standing
        is_cleared = stored is None and standing.verdict_key is None
        if is_cleared or opened.member.standing.verdict_key != standing.verdict_key:
            # The worker looks the verdict up: under an override Claude is asked nothing, and the
            # marks of what arrived meanwhile are used up. What still moves is the verdict's doing.
            await due.mark_members(connection, [member.member_id], Cause.CLASSIFIER)
        return standing.revision
