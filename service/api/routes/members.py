"""Members: one's own page, the list, one member, the history, recompute and erasure."""

from __future__ import annotations

from typing import Annotated, Final

from fastapi import APIRouter, Depends, Query, Response
from pydantic import BaseModel, ConfigDict, Field

from service.api import cursors
from service.api.contract import (
    ETAG_HEADER,
    InScope,
    OrgId,
    UserId,
    no_query,
    problems,
    set_etag,
)
from service.api.entry import AdminRoute, AdminWriteRoute, ErasureRoute, MemberRoute
from service.api.models.actions import Accepted, Receipt
from service.api.models.members import HistoryPage, Me, Member, MemberPage
from service.api.presenting import members as presenting
from service.api.presenting import own as presenting_own
from service.api.problems import not_found
from service.api.values import MemberQuery, MemberSort
from service.levels import Level

MAX_LIMIT: Final = 200
MAX_SEARCH: Final = 200
MAX_DUE_DAYS: Final = 3650

Limit = Annotated[int, Field(ge=1, le=MAX_LIMIT, description="Rows of a page")]
Cursor = Annotated[
    str | None,
    Field(
        max_length=cursors.MAX_LENGTH,
        pattern=cursors.PATTERN,
        description="`next` of the page before",
    ),
]


class MemberFilter(BaseModel):
    """Which members, in which order. Filters are joined by "and"."""

    model_config = ConfigDict(extra="forbid")

    level: list[Level] = Field([], description="Shown level; repeat for several")
    override: bool | None = Field(None, description="With, or without, an active override")
    due_within_days: int | None = Field(
        None, ge=0, le=MAX_DUE_DAYS, description="The shown level changes by itself within"
    )
    q: str = Field(
        "", max_length=MAX_SEARCH, pattern=r"^[^\u0000]*$", description="Part of name or id"
    )
    sort: MemberSort = MemberSort.USER_ID
    limit: Limit = 50
    cursor: Cursor = None

    def query(self) -> MemberQuery:
        """The filter as a question. Raises Problem for a cursor of another one."""
        fields = {
            "levels": frozenset(self.level),
            "override": self.override,
            "due_within_days": self.due_within_days,
            "text": self.q.strip(),
            "sort": self.sort,
            "limit": self.limit,
        }
        query = MemberQuery(**fields)  # type: ignore[arg-type]
        if self.cursor is None:
            return query
        return MemberQuery(**fields, after=cursors.member_position(query, self.cursor))  # type: ignore[arg-type]


class HistoryFilter(BaseModel):
    """Which part of the history."""

    model_config = ConfigDict(extra="forbid")

    limit: Limit = 50
    cursor: Cursor = None


own = APIRouter(route_class=MemberRoute)
reads = APIRouter(route_class=AdminRoute)
writes = APIRouter(route_class=AdminWriteRoute, dependencies=[Depends(no_query)])
erasures = APIRouter(route_class=ErasureRoute, dependencies=[Depends(no_query)])


@own.get("/me", responses=problems(), tags=["member"])
async def read_own_status(org: OrgId, scope: InScope) -> Me:
    """How the caller stands in this organisation, in words for the caller."""
    del org
    record = await scope.organization.member(scope.caller.user_id)
    return presenting_own.me(record, scope.standing.org_name)


@reads.get("/members", responses=problems(403, 422), tags=["members"])
async def list_members(
    org: OrgId, scope: InScope, filter_: Annotated[MemberFilter, Query()]
) -> MemberPage:
    """Scored members. Pages neither repeat nor skip anybody who stays put meanwhile."""
    del org
    query = filter_.query()
    rows = list(await scope.organization.members(query))
    page = rows[: query.limit]
    return MemberPage(
        items=presenting.member_items(page),
        next=cursors.member_cursor(query, page[-1]) if len(rows) > query.limit else None,
    )


@reads.get("/members/{user}", responses={**problems(403, 422), 200: ETAG_HEADER}, tags=["members"])
async def read_member(org: OrgId, user: UserId, scope: InScope, response: Response) -> Member:
    """Everything about a member, with the numbers that decided; also of members who left."""
    record = await scope.organization.member(user)
    if record is None:
        raise not_found()
    set_etag(response, record.revision)
    return presenting.member(record, org, scope.standing)


@reads.get("/members/{user}/history", responses=problems(403, 422), tags=["members"])
async def read_history(
    org: OrgId, user: UserId, scope: InScope, filter_: Annotated[HistoryFilter, Query()]
) -> HistoryPage:
    """Level changes and override actions, newest first; also of members who left."""
    del org
    after = None if filter_.cursor is None else cursors.history_position(filter_.cursor)
    entries = await scope.organization.history(user, filter_.limit, after)
    if entries is None:
        raise not_found()
    page = list(entries)[: filter_.limit]
    return HistoryPage(
        items=[presenting.history_item(entry) for entry in page],
        next=cursors.history_cursor(page[-1]) if len(entries) > filter_.limit else None,
    )


@writes.post(
    "/members/{user}/recompute",
    status_code=202,
    responses=problems(403, 409, 422),
    tags=["members"],
)
async def recompute_member(org: OrgId, user: UserId, scope: InScope) -> Accepted:
    """Have the member evaluated now rather than when due."""
    await scope.organization.actions.request_recompute(org, user)
    return Accepted()


@erasures.delete("/members/{user}", responses=problems(403, 409, 422), tags=["members"])
async def erase_member(org: OrgId, user: UserId, scope: InScope) -> Receipt:
    """Erase the member from this organisation, for good.

    Repeating it does no harm: it erases what has come since.
    """
    performed_by = scope.caller.user_id
    receipt = await scope.organization.actions.erase(org, user, performed_by=performed_by)
    return presenting.receipt(receipt)
