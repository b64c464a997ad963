"""The thresholds' page: what is in force, and what other numbers would do before they are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from fastapi import APIRouter, Request, Response
from pydantic import ValidationError

from service.api.contract import InScope
from service.api.entry import Scope
from service.api.models.organizations import ThresholdsBody, ThresholdsRequest
from service.api.pages.charts import distribution
from service.api.pages.doors import Instead, LongPageRoute, PageRoute, PageWriteRoute, read_form
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
from service.api.presenting import organizations as presenting
from service.api.problems import Problem, problem_of
from service.api.routes.organizations import numbers
from service.errors import InvalidThresholds, Refused
from service.levels import RANK, Level

FIELDS: Final = tuple(ThresholdsBody.model_fields)
VERSIONS: Final = 20

reads = APIRouter(route_class=PageRoute, include_in_schema=False)
previews = APIRouter(route_class=LongPageRoute, include_in_schema=False)
writes = APIRouter(route_class=PageWriteRoute, include_in_schema=False)


@reads.get("/thresholds")
async def thresholds(request: Request, scope: InScope) -> Response:
    """The numbers in force, a form to try others, and the versions before; these refresh."""
    values = await _values(request, scope)
    if not is_part(request):
        return page("thresholds.html", values)
    also = render("_in_force.html", values)
    version = values["current"].version
    return refreshed(request, values["rendered"], f"Version {version} is in force.", also)


@previews.post("/thresholds/preview")
async def preview(request: Request, scope: InScope) -> Response:
    """What the entered numbers would do; writes nothing."""
    form = await read_form(request)
    entered = {name: form.get(name, "") for name in FIELDS}
    note = form.get("note", "")
    values: dict[str, Any] = {"entered": entered, "note": note, "errors": {}, "preview": None}
    try:
        body = ThresholdsBody(**{name: _number(text) for name, text in entered.items()})
        found = await scope.organization.actions.preview_thresholds(scope.org_id, numbers(body))
        values["preview"] = presenting.preview(found)
    except ValidationError as error:
        values["errors"] = {str(e["loc"][0]): _reworded(e["msg"]) for e in error.errors()}
    except InvalidThresholds as error:
        values["errors"] = dict(error.problems)
    status = 422 if values["errors"] else 200
    if is_part(request):
        shown = {**await _versions(scope), **values, **_matrix(values["preview"])}
        return page("_preview.html", context(request, scope, **shown), status)
    return page("thresholds.html", await _values(request, scope, **values), status)


@writes.post("/thresholds")
async def save(request: Request, scope: InScope) -> Response:
    """Put the previewed numbers in force."""
    form = await read_form(request)
    entered = {name: form.get(name, "") for name in FIELDS}
    note = form.get("note", "").replace("\r\n", "\n").strip()
    not_saved = {"title": "Not saved: Thresholds", "entered": entered, "note": note}
    try:
        body = ThresholdsRequest(
            **{name: _number(text) for name, text in entered.items()},
            base_version=_number(form.get("base_version", "")),
            note=note,
        )
        await scope.organization.actions.save_thresholds(
            scope.org_id,
            numbers(body),
            base_version=body.base_version,
            author=scope.caller.user_id,
            note=note,
        )
    except ValidationError as error:
        errors = {str(e["loc"][0]): _reworded(e["msg"]) for e in error.errors()}
        values = await _values(request, scope, **not_saved, errors=errors)
        return page("thresholds.html", values, 422)
    except Refused as error:
        problem = problem_of(error)
        values = await _values(request, scope, **not_saved, problem=problem)
        raise Instead(page("thresholds.html", values, problem.status)) from None
    return see_other(f"{base_of(scope.org_id)}/thresholds", done="saved")


async def _values(request: Request, scope: Scope, **given: Any) -> dict[str, Any]:
    versions = await _versions(scope)
    current = versions["current"]
    problem: Problem | None = None
    values = {
        "active": "thresholds",
        "title": "Thresholds",
        "entered": {name: str(getattr(current, name)) for name in FIELDS},
        "errors": {},
        "preview": None,
        "note": "",
        "problem": problem,
        "done": request.query_params.get("done") == "saved",
        **versions,
    } | given
    values = context(request, scope, **values, **_matrix(values["preview"]))
    values["rendered"] = part("_versions.html", values)
    return {**values, "part": values["rendered"].html}


async def _versions(scope: Scope) -> dict[str, Any]:
    answer = presenting.thresholds_answer(await scope.organization.threshold_versions(VERSIONS))
    return {"current": answer.current, "versions": answer.versions, "fields": FIELDS}


def _matrix(preview: Any) -> dict[str, Any]:
    if preview is None:
        return {"matrix": {}, "now_bars": [], "then_bars": [], "rank": RANK}
    return {
        "matrix": {(t.from_level, t.to_level): t.members for t in preview.matrix},
        "now_bars": distribution(_counts(preview.now)),
        "then_bars": distribution(_counts(preview.then)),
        "rank": RANK,
    }


def _counts(rows: Any) -> Mapping[Level, int]:
    return {row.level: row.members for row in rows}


def _number(text: str) -> Any:
    """A number as entered in a field; anything else is left for the check to refuse."""
    text = text.strip()
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 10 else text  # noqa: PLR2004


_PLAINER: Final = (
    ("Input should be", "must be"),
    ("greater than or equal to", "at least"),
    ("less than or equal to", "at most"),
    ("a valid integer", "a whole number"),
)


def _reworded(message: str) -> str:
    for formal, plain in _PLAINER:
        message = message.replace(formal, plain)
    return message
