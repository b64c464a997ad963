"""A member's page: level and why, what comes next, both texts, history, and the override."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from urllib.parse import quote

from fastapi import APIRouter, Request, Response

from service.api import cursors, presenting
from service.api.contract import InScope, UserId
from service.api.entry import Scope
from service.api.models import MAX_NOTES
from service.api.pages import words
from service.api.pages.charts import timeline
from service.api.pages.doors import Instead, PageRoute, PageWriteRoute, read_form
from service.api.pages.rendering import (
    base_of,
    context,
    is_part,
    page,
    part,
    refreshed,
    see_other,
)
from service.api.problems import Problem, not_found, problem_of
from service.api.values import MemberRecord
from service.errors import Refused
from service.levels import Level

HISTORY_SIZE: Final = 20

# How long an override may be chosen to last; `at` gives a time of its own.
EXPIRIES: Final = {
    "never": "Until cleared",
    "7": "7 days",
    "30": "30 days",
    "90": "90 days",
    "at": "Until a time (UTC)",
}
DONE: Final = {
    "set": "The override is set.",
    "cleared": "The override is cleared; the computed level shows again.",
    "recompute": "The member will be evaluated within moments.",
}

reads = APIRouter(route_class=PageRoute, include_in_schema=False)
writes = APIRouter(route_class=PageWriteRoute, include_in_schema=False)


@dataclass(frozen=True)
class Draft:
    """What was entered into the override form, and what is wrong with it."""

    level: str = ""
    notes: str = ""
    expiry: str = "never"
    expires_at: str = ""
    revision: int = 0
    problems: tuple[tuple[str, str], ...] = ()

    @property
    def errors(self) -> dict[str, str]:
        """Field to problem."""
        return dict(self.problems)


@reads.get("/members/{user}")
async def member(request: Request, user: UserId, scope: InScope) -> Response:
    """The page, or the part of it that refreshes itself."""
    record = await _known(scope, user)
    values = await _values(request, scope, record)
    if not is_part(request):
        return page("member.html", values)
    level = "none" if record.level is None else words.LEVELS[record.level]
    return refreshed(request, values["rendered"], f"Updated. Level: {level}.")


@reads.get("/members/{user}/history")
async def history(request: Request, user: UserId, scope: InScope) -> Response:
    """More of the history, as rows."""
    cursor = request.query_params.get("cursor", "")
    entries = await scope.organization.history(user, HISTORY_SIZE, cursors.history_position(cursor))
    if entries is None:
        raise not_found()
    values = context(request, scope, user=user, **_history(entries))
    return page("_history_rows.html", values)


@reads.get("/members/{user}/override/preview")
async def preview(request: Request, user: UserId, scope: InScope) -> Response:
    """What the override that is being entered would replace."""
    record = await _known(scope, user)
    draft = _draft(request.query_params)
    now = await scope.organization.clock()
    values = context(
        request,
        scope,
        record=record,
        draft=draft,
        **_outcome(draft, now),
    )
    return page("_override_preview.html", values)


@writes.post("/members/{user}/override")
async def set_override(request: Request, user: UserId, scope: InScope) -> Response:
    """Set an override from the form."""
    record = await _known(scope, user)
    draft = _draft(await read_form(request))
    outcome = _outcome(draft, await scope.organization.clock())
    draft = _checked(draft, outcome)
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
    draft = _draft(await read_form(request))
    try:
        await scope.organization.actions.clear_override(
            scope.org_id,
            user,
            notes=draft.notes or None,
            performed_by=scope.caller.user_id,
            if_revision=draft.revision,
        )
    except Refused as error:
        raise Instead(await _refused(request, scope, user, Draft(), error)) from None
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
        **_history(entries or ()),
    )
    values["title"] = record.display_name or record.user_id
    values["rendered"] = part("_member_now.html", values)
    values["part"] = values["rendered"].html
    values.update(_outcome(values["draft"], now))
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


# ----------------------------------------------------------------------------------- the form


def _draft(form: Mapping[str, str]) -> Draft:
    revision = form.get("revision", "")
    return Draft(
        level=form.get("level", ""),
        notes=form.get("notes", "").replace("\r\n", "\n").strip(),
        expiry=form.get("expiry", "never"),
        expires_at=form.get("expires_at", ""),
        revision=int(revision) if revision.isdecimal() and len(revision) < 18 else -1,  # noqa: PLR2004
    )


def _outcome(draft: Draft, now: datetime) -> dict[str, Any]:
    """The chosen level and expiry, where they make sense."""
    level = Level(draft.level) if draft.level in set(Level) else None
    expires_at = None
    if draft.expiry == "at":
        try:
            expires_at = datetime.fromisoformat(draft.expires_at)
            if expires_at.tzinfo is None:
                expires_at = expires_at.replace(tzinfo=UTC)
        except ValueError:
            expires_at = None
    elif draft.expiry in EXPIRIES and draft.expiry != "never":
        expires_at = now + timedelta(days=int(draft.expiry))
    return {"level": level, "expires_at": expires_at}


def _checked(draft: Draft, outcome: Mapping[str, Any]) -> Draft:
    problems = []
    if outcome["level"] is None:
        problems.append(("level", "Choose a level."))
    if not draft.notes:
        problems.append(("notes", "Say why: those who come after you will want to know."))
    elif len(draft.notes) > MAX_NOTES or "\0" in draft.notes:
        problems.append(("notes", f"At most {MAX_NOTES} characters of plain text."))
    if draft.expiry not in EXPIRIES:
        problems.append(("expiry", "Choose how long."))
    elif draft.expiry == "at" and outcome["expires_at"] is None:
        problems.append(("expires_at", "Give a day and a time."))
    return replace(draft, problems=tuple(problems))
