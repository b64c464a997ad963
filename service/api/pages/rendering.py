"""From templates to responses: full pages, and the parts that refresh themselves."""

from __future__ import annotations

import hashlib
import json
import secrets
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import quote, urlencode

import jinja2
from markupsafe import Markup
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from service.api.entry import Scope
from service.api.pages import marks, words
from service.api.pages.marks import REMEMBERED
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


# Takes the place of a digest until it is known; no name or note can hold it.
_DIGEST: Final = secrets.token_hex(16)


def person(display_name: str | None, user_id: str) -> str:
    """A name to show: the display name as plain text, else the id."""
    return (plain_name(display_name) if display_name else "") or user_id


@lru_cache(maxsize=REMEMBERED)
def _path(text: str) -> str:
    return quote(text, safe="")


@cache
def environment() -> jinja2.Environment:
    """The templates; everything is escaped, and a misspelt name is an error."""
    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        auto_reload=False,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters.update(
        day=words.day,
        minute=words.minute,
        number=words.number,
        events=words.events,
        members=words.members,
        level_name=lambda level: words.LEVELS[level],
        level_class=lambda level: words.LEVEL_CLASSES[level],
        path=_path,
        # Filters rather than functions: templates call those several times as fast.
        badge=marks.badge,
        time=marks.time,
        moment=marks.moment,
        soon=marks.soon,
        person=person,
    )
    made.globals.update(
        asset=asset,
        move=marks.move,
        words=words,
        Level=Level,
        status_labels=STATUS_LABELS,
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


def render(template: str, values: dict[str, Any]) -> str:
    """A template as text."""
    return environment().get_template(template).render(values)


def page(template: str, values: dict[str, Any], status: int = 200) -> Response:
    """A page, or a part of one."""
    return HTMLResponse(render(template, values), status, headers={"Vary": "HX-Request"})


class Part(NamedTuple):
    """A part of a page that asks for itself every few seconds, and what it looks like in short."""

    html: Markup
    digest: str


def part(template: str, values: dict[str, Any]) -> Part:
    """Render a part. It holds a digest of itself, which it sends along as `seen`."""
    text = render(template, {**values, "digest": _DIGEST})
    digest = hashlib.sha256(text.encode()).hexdigest()[:16]
    return Part(Markup(text.replace(_DIGEST, digest)), digest)  # noqa: S704 - just rendered


def refreshed(request: Request, rendered: Part, announcement: str = "", also: str = "") -> Response:
    """A part by itself: 204 unless it looks different from what the browser has.

    `announcement` is for those who listen to the page; `also` are parts that go elsewhere in it.
    """
    if request.query_params.get("seen") == rendered.digest:
        return Response(status_code=204)
    text = str(rendered.html) + also
    if announcement:
        text += render("_announcement.html", {"announcement": announcement})
    return HTMLResponse(text, headers={"Vary": "HX-Request"})


def see_other(address: str, **query: str) -> Response:
    """After a change: show the page, so that reloading does not repeat it."""
    return RedirectResponse(f"{address}?{urlencode(query)}" if query else address, 303)
