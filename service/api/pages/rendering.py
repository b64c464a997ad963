"""From templates to responses: full pages, and the parts that refresh themselves."""

from __future__ import annotations

import hashlib
import json
from functools import cache
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, urlencode

import jinja2
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from service.api.entry import Scope
from service.api.pages import words
from service.api.services import services_of
from service.api.sessions import CSRF_FIELD, CSRF_HEADER, csrf_token
from service.api.static import asset
from service.levels import STATUS_LABELS, Level
from service.texts import plain_name

TEMPLATES: Final = Path(__file__).parent / "templates"

# htmx without eval, inline styles or stored pages; refusals are shown where the answer goes.
HTMX_CONFIG: Final = {
    "allowEval": False,
    "includeIndicatorStyles": False,
    "selfRequestsOnly": True,
    "historyCacheSize": 0,
    "refreshOnHistoryMiss": True,
    "timeout": 20_000,
    "responseHandling": [
        {"code": "204", "swap": False},
        {"code": "[23]..", "swap": True},
        {"code": "4(09|12|22)", "swap": True, "error": False},
        {"code": "[45]..", "swap": False, "error": True},
    ],
}


def person(display_name: str | None, user_id: str) -> str:
    """A name to show: the display name as plain text, else the id."""
    return (plain_name(display_name) if display_name else "") or user_id


@cache
def environment() -> jinja2.Environment:
    """The templates; everything is escaped, and a misspelt name is an error."""
    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters.update(
        day=words.day,
        minute=words.minute,
        number=words.number,
        events=words.events,
        members=words.members,
        iso=lambda at: at.isoformat().replace("+00:00", "Z"),
        level_name=lambda level: words.LEVELS[level],
        level_class=lambda level: words.LEVEL_CLASSES[level],
        path=lambda text: quote(text, safe=""),
    )
    made.globals.update(
        asset=asset,
        words=words,
        Level=Level,
        status_labels=STATUS_LABELS,
        person=person,
        csrf_field=CSRF_FIELD,
        htmx_config=json.dumps(HTMX_CONFIG),
    )
    return made


def is_part(request: Request) -> bool:
    """Whether a part of a page is asked for, by htmx, and not as a step back in its history."""
    return (
        request.headers.get("hx-request") == "true"
        and request.headers.get("hx-history-restore-request") != "true"
    )


def base_of(org_id: str) -> str:
    """Where the pages of an organisation begin."""
    return f"/admin/orgs/{quote(org_id, safe='')}"


def context(request: Request, scope: Scope, **values: Any) -> dict[str, Any]:
    """What every template of an organisation needs, and `values`."""
    session = scope.caller.session
    token = "" if session is None else csrf_token(session)
    return {
        "request": request,
        "base": base_of(scope.org_id),
        "org_id": scope.org_id,
        "org_name": plain_name(scope.standing.org_name) or scope.org_id,
        "org_status": scope.standing.org_status.value,
        "user_id": scope.caller.user_id,
        "csrf_token": token,
        "csrf_headers": json.dumps({CSRF_HEADER: token}),
        "development": services_of(request).development,
        **values,
    }


def page(template: str, values: dict[str, Any], status: int = 200) -> Response:
    """A page, or a part of one."""
    text = environment().get_template(template).render(values)
    return HTMLResponse(text, status_code=status, headers={"Vary": "HX-Request"})


def refreshed(request: Request, template: str, values: dict[str, Any]) -> Response:
    """A part that asks for itself every few seconds: 204 unless it would look different.

    The part carries a digest of itself, and sends it along as `seen`.
    """
    digest = digest_of(template, values)
    if request.query_params.get("seen") == digest:
        return Response(status_code=204)
    return page(template, {**values, "digest": digest, "is_refresh": True})


def digest_of(template: str, values: dict[str, Any]) -> str:
    """What a part looks like, in 16 characters."""
    text = (
        environment().get_template(template).render({**values, "digest": "", "is_refresh": False})
    )
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def see_other(address: str, **query: str) -> Response:
    """After a change: show the page, so that reloading does not repeat it."""
    return RedirectResponse(f"{address}?{urlencode(query)}" if query else address, 303)
