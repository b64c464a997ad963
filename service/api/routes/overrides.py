"""Overrides: show another level than the computed one, for a stated reason."""

from __future__ import annotations

from fastapi import APIRouter, Depends, Response

from service.api.contract import (
    ETAG_HEADER,
    IfMatch,
    InScope,
    OrgId,
    UserId,
    expected_revision,
    no_query,
    problems,
    set_etag,
)
from service.api.entry import AdminWriteRoute, Scope
from service.api.models.actions import ClearRequest, OverrideRequest
from service.api.models.members import Member
from service.api.presenting import members as presenting
from service.api.problems import not_found

writes = APIRouter(route_class=AdminWriteRoute, dependencies=[Depends(no_query)])

_RESPONSES = {**problems(403, 409, 412, 413, 422), 200: ETAG_HEADER}


@writes.put("/members/{user}/override", responses=_RESPONSES, tags=["overrides"])
async def set_override(
    org: OrgId,
    user: UserId,
    body: OverrideRequest,
    scope: InScope,
    response: Response,
    if_match: IfMatch = None,
) -> Member:
    """Show a level until it expires or is cleared; replaces an active override."""
    revision = await _expected(scope, user, if_match)
    await scope.organization.actions.set_override(
        org,
        user,
        level=body.level,
        notes=body.notes,
        expires_at=body.expires_at,
        performed_by=scope.caller.user_id,
        if_revision=revision,
    )
    return await _member(org, user, scope, response)


@writes.delete("/members/{user}/override", responses=_RESPONSES, tags=["overrides"])
async def clear_override(
    org: OrgId,
    user: UserId,
    scope: InScope,
    response: Response,
    body: ClearRequest | None = None,
    if_match: IfMatch = None,
) -> Member:
    """End the active override: the computed level shows again at once."""
    revision = await _expected(scope, user, if_match)
    notes = "" if body is None or body.notes is None else body.notes
    await scope.organization.actions.clear_override(
        org,
        user,
        notes=notes if notes.strip() else None,
        performed_by=scope.caller.user_id,
        if_revision=revision,
    )
    return await _member(org, user, scope, response)


async def _expected(scope: Scope, user: str, if_match: str | None) -> int | None:
    record = await scope.organization.member(user)
    if record is None:
        raise not_found()
    return expected_revision(if_match, record)


async def _member(org: str, user: str, scope: Scope, response: Response) -> Member:
    record = await scope.organization.member(user)
    if record is None:
        raise not_found()
    set_etag(response, record.revision)
    return presenting.member(record, org, scope.standing)
