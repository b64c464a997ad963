"""A member's page: level and why, what comes next, both texts, history, and the override."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final
from urllib.parse import quote

from fastapi import APIRouter, Request, Response

from service.api import cursors
from service.api.contract import InScope, UserId
from service.api.entry import Scope
from service.api.models.common import MAX_NOTES
from service.api.pages import words
from service.api.pages.charts import timeline
from service.api.pages.doors import Instead, PageRoute, PageWriteRoute, read_form
from service.api.pages.override_form import EXPIRIES, Draft, checked, draft_of, outcome_of
from service.api.pages.rendering import (
    base_of,
    context,
    is_part,
    page,
    part,
    refreshed,
    render,
    see_other,
)
from service.api.presenting import members as presenting
from service.api.problems import Problem, not_found, problem_of
from service.api.values import MemberRecord
from service.errors import Refused

HISTORY_SIZE: Final = 20

DONE: Final = {
    "set": "The override is set.",
    "cleared": "The override is cleared; the computed level shows again.",
    "recompute": "The member will be evaluated within moments.",
}

reads = APIRouter(route_class=PageRoute, include_in_schema=False)
writes = APIRouter(route_class=PageWriteRoute, include_in_schema=False)


@reads.get("/members/{user}")
async def member(request: Request, user: UserId, scope: InScope) -> Response:
    """The page, or the part of it that refreshes itself."""
    record = await _known(scope, user)
    values = await _values(request, scope, record)
    if not is_part(request):
        return page("member.html", values)
    level = "none" if record.level is None else words.LEVELS[record.level]
    values["refreshing"] = True
    also = render("_member_past.html", values)
    if values["done"]:
        also += render("_done.html", values)
    announcement = values["done"] or f"Updated. Level: {level}."
    return refreshed(request, values["rendered"], announcement, also)


@reads.get("/members/{user}/history")
async def history(request: Request, user: UserId, scope: InScope) -> Response:
    """More of the history: as rows, or as a page where there are no scripts."""
    cursor = request.query_params.get("cursor")
    after = cursors.history_position(cursor) if cursor else None
    entries = await scope.organization.history(user, HISTORY_SIZE, after)
    if entries is None:
        raise not_found()
    values = context(
        request, scope, active="members", title="Earlier history", user=user, **_history(entries)
    )
    return page("_history_rows.html" if is_part(request) else "history.html", values)


@reads.get("/members/{user}/override/preview")
async def preview(request: Request, user: UserId, scope: InScope) -> Response:
    """What the override that is being entered would replace."""
    record = await _known(scope, user)
    draft = draft_of(request.query_params)
    now = await scope.organization.clock()
    values = context(
        request,
        scope,
        record=record,
        draft=draft,
        **outcome_of(draft, now),
    )
    return page("_override_preview.html", values)


@writes.post("/members/{user}/override")
async def set_override(request: Request, user: UserId, scope: InScope) -> Response:
    """Set an override from the form."""
    record = await _known(scope, user)
    draft = draft_of(await read_form(request))
    outcome = outcome_of(draft, await scope.organization.clock())
    draft = checked(draft, outcome)
    if draft.problems:
        return await _again(request, scope, record, draft, 422)
    try:
        await scope.organization.actions.set_override(
            scope.org_id,
            user,
            level=outcome["level"],
            notes=draft.notes,
            expires_at=outcome["expires_at"],
            performed_by=scope.caller.user_id,
            if_revision=draft.revision,
        )
    except Refused as error:
        raise Instead(await _refused(request, scope, user, draft, error)) from None
    return see_other(_address(scope, user), done="set")


@writes.post("/members/{user}/override/clear")
async def clear_override(request: Request, user: UserId, scope: InScope) -> Response:
    """Clear the override."""
    draft = draft_of(await read_form(request))
    try:
        await scope.organization.actions.clear_override(
            scope.org_id,
            user,
            notes=draft.notes or None,
            performed_by=scope.caller.user_id,
            if_revision=draft.revision,
        )
    except Refused as error:
        kept = Draft(clear_notes=draft.notes)
        raise Instead(await _refused(request, scope, user, kept, error)) from None
    return see_other(_address(scope, user), done="cleared")


@writes.post("/members/{user}/recompute")
async def recompute(user: UserId, scope: InScope) -> Response:
    """Have the member evaluated now."""
    await scope.organization.actions.request_recompute(scope.org_id, user)
    return see_other(_address(scope, user), done="recompute")


# ------------------------------------------------------------------------------------- parts


async def _known(scope: Scope, user: str) -> MemberRecord:
    record = await scope.organization.member(user)
    if record is None:
        raise not_found()
    return record


async def _values(
    request: Request, scope: Scope, record: MemberRecord, draft: Draft | None = None
) -> dict[str, Any]:
    now = await scope.organization.clock()
    entries = await scope.organization.history(record.user_id, HISTORY_SIZE, None)
    facts = await scope.organization.timeline(record.user_id)
    shown = presenting.member(record, scope.org_id, scope.standing)
    due = record.next_level_change_at
    values = context(
        request,
        scope,
        active="members",
        user=record.user_id,
        record=record,
        member=shown,
        now=now,
        is_overdue=due is not None and due <= now,
        timeline=timeline(
            facts,
            now,
            record.thresholds.activity_window_days,
            None if due is None else (due, record.next_level),
        ),
        facts=facts,
        draft=draft or Draft(revision=record.revision),
        expiries=EXPIRIES,
        max_notes=MAX_NOTES,
        done=DONE.get(request.query_params.get("done", "")),
        problem=None,
        refreshing=False,
        **_history(entries or ()),
    )
    values["title"] = record.display_name or record.user_id
    values["rendered"] = part("_member_now.html", values)
    values["part"] = values["rendered"].html
    values.update(outcome_of(values["draft"], now))
    return values


def _history(entries: Any) -> dict[str, Any]:
    rows = list(entries)
    shown = rows[:HISTORY_SIZE]
    more = cursors.history_cursor(shown[-1]) if len(rows) > HISTORY_SIZE else None
    return {"entries": [presenting.history_item(entry) for entry in shown], "more": more}


async def _again(
    request: Request,
    scope: Scope,
    record: MemberRecord,
    draft: Draft,
    status: int,
    problem: Problem | None = None,
) -> Response:
    """The page as it is now, with what was entered and what is wrong."""
    values = await _values(request, scope, record, draft)
    values["problem"] = problem
    values["title"] = f"Not saved: {values['title']}"
    return page("member.html", values, status)


async def _refused(
    request: Request, scope: Scope, user: str, draft: Draft, error: Refused
) -> Response:
    record = await _known(scope, user)
    fresh = replace(draft, revision=record.revision)
    problem = problem_of(error)
    return await _again(request, scope, record, fresh, problem.status, problem)


def _address(scope: Scope, user: str) -> str:
    return f"{base_of(scope.org_id)}/members/{quote(user, safe='')}"
