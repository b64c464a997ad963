"""The members' page: filters, order, pages, search; the table refreshes itself."""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import urlencode

from fastapi import APIRouter, Request, Response
from pydantic import ValidationError

from service.api import cursors
from service.api.contract import InScope
from service.api.pages import words
from service.api.pages.doors import PageRoute
from service.api.pages.rendering import context, is_part, page, part, refreshed
from service.api.problems import Problem
from service.api.routes.members import MemberFilter
from service.api.values import MemberRow, MemberSort

PAGE_SIZE: Final = 50

SORTS: Final = {
    MemberSort.USER_ID: "Id",
    MemberSort.DUE: "Changes soonest",
    MemberSort.CHANGED: "Changed last",
    MemberSort.EVENTS: "Most events",
    MemberSort.EVENTS_ASC: "Fewest events",
    MemberSort.ATTENDED: "Attended last",
    MemberSort.ATTENDED_ASC: "Attended longest ago",
}
DUE: Final = {"": "Any time", "7": "Within 7 days", "30": "Within 30 days", "90": "Within 90 days"}
OVERRIDE: Final = {"": "With or without", "true": "With", "false": "Without"}

reads = APIRouter(route_class=PageRoute, include_in_schema=False)


def parse_filter(request: Request) -> MemberFilter:
    """The filter from the address; empty fields of the form count as not given."""
    query = request.query_params
    given: dict[str, Any] = {
        name: query[name]
        for name in ("q", "override", "due_within_days", "sort", "cursor")
        if query.get(name)
    }
    levels = [level for level in query.getlist("level") if level]
    try:
        return MemberFilter(level=levels, limit=PAGE_SIZE, **given)  # type: ignore[arg-type]
    except ValidationError:
        raise Problem(422, "invalid", "The filter does not have that form: clear it.") from None


def address(filter_: MemberFilter, **changes: Any) -> str:
    """The query that gives this filter, with changes; None takes a part away."""
    parts: dict[str, Any] = {
        "level": [level.value for level in filter_.level],
        "override": None if filter_.override is None else str(filter_.override).lower(),
        "due_within_days": filter_.due_within_days,
        "q": filter_.q or None,
        "sort": None if filter_.sort is MemberSort.USER_ID else filter_.sort.value,
        "cursor": filter_.cursor,
    } | changes
    present = {name: value for name, value in parts.items() if value not in (None, [], "")}
    return "?" + urlencode(present, doseq=True)


@reads.get("/members")
async def members(request: Request, scope: InScope) -> Response:
    """The page, or its table."""
    filter_ = parse_filter(request)
    query = filter_.query()
    rows = list(await scope.organization.members(query))
    shown: list[MemberRow] = rows[: query.limit]
    more = len(rows) > query.limit
    values = context(
        request,
        scope,
        active="members",
        title="Members",
        filter=filter_,
        rows=shown,
        next_page=address(filter_, cursor=cursors.member_cursor(query, shown[-1]))
        if more
        else None,
        first_page=address(filter_, cursor=None) if filter_.cursor else None,
        here=address(filter_),
        shown=_shown(len(shown), later=filter_.cursor is not None, more=more),
        is_filtered=address(filter_, cursor=None, sort=None) != "?",
        now=await scope.organization.clock(),
        sorts=SORTS,
        dues=DUE,
        overrides=OVERRIDE,
    )
    rendered = part("_members.html", values)
    if not is_part(request):
        return page("members.html", {**values, "part": rendered.html})
    if "seen" in request.query_params:
        return refreshed(request, rendered)
    response = refreshed(request, rendered, values["shown"])
    # The reader went somewhere: the address says so, without the form's empty fields. Who asks
    # for the same once more stays there, or the first step back would lead nowhere.
    there = values["base"] + "/members" + address(filter_)
    if not request.headers.get("hx-current-url", "").rstrip("?").endswith(there.rstrip("?")):
        response.headers["HX-Push-Url"] = there
    return response


def _shown(count: int, *, later: bool, more: bool) -> str:
    """How many there are, as far as a page knows."""
    found = words.members(count) if count else "No members"
    if more:
        return f"{found} shown, more on the next page"
    return f"{found} on this last page" if later else found
