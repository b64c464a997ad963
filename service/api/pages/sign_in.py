"""Signing in by a one-time link, for the demo and development, and signing out."""

from __future__ import annotations

import re
from typing import Final

from fastapi import APIRouter, Request, Response

from service.api.entry import read_body
from service.api.pages.doors import PageErrors, read_form
from service.api.pages.rendering import base_of, page, see_other
from service.api.problems import Problem, not_found
from service.api.services import services_of
from service.api.sessions import (
    CSRF_FIELD,
    LIFETIME_S,
    check_csrf,
    check_same_origin,
    drop_session_cookie,
    hash_of,
    new_secret,
    session_secret,
    set_session_cookie,
)
from service.events import ID_PATTERN
from service.texts import is_clean

router = APIRouter(route_class=PageErrors, include_in_schema=False)

_CODE: Final = re.compile(r"[A-Za-z0-9_-]{43}", re.ASCII)
_ID: Final = re.compile(ID_PATTERN, re.ASCII)


@router.get("/sign-in")
async def offer(request: Request, code: str = "", org: str = "") -> Response:
    """What the link opens: a button, so that nothing but a click uses the link up."""
    user_id = await _link_user(request, code, use_up=False)
    if user_id is None or _ID.fullmatch(org) is None:
        raise _link_over()
    # Members may follow links, too, and ids may hold any word.
    return page("sign_in.html", {"user_id": user_id if is_clean(user_id) else None})


@router.post("/sign-in")
async def sign_in(request: Request, code: str = "", org: str = "") -> Response:
    """Use the link up and open a session. The form is sent to the link itself."""
    await read_body(request)
    check_same_origin(request)
    user_id = await _link_user(request, code, use_up=True)
    if user_id is None or _ID.fullmatch(org) is None:
        raise _link_over()
    secret = new_secret()
    await services_of(request).store.open_session(hash_of(secret), "session", user_id, LIFETIME_S)
    response = see_other(base_of(org))
    set_session_cookie(request, response, secret)
    return response


@router.post("/sign-out")
async def sign_out(request: Request) -> Response:
    """End the session."""
    await read_body(request)
    secret = session_secret(request)
    if secret is not None:
        form = await read_form(request)
        check_csrf(request, secret, form.get(CSRF_FIELD))
        await services_of(request).store.close_session(hash_of(secret))
    values = {
        "heading": "Signed out",
        "detail": "The session is over. You can close this page.",
        "status": 200,
        "base": None,
    }
    response = page("message.html", values)
    drop_session_cookie(request, response)
    return response


def _link_over() -> Problem:
    return Problem(
        401,
        "link-over",
        "The link has been used, or its hour is over. "
        "`engagement token USER --link ORG` prints a new one.",
    )


async def _link_user(request: Request, code: str, *, use_up: bool) -> str | None:
    services = services_of(request)
    if not services.development:
        raise not_found()
    if _CODE.fullmatch(code) is None:
        return None
    return await services.store.link_user(hash_of(code), use_up=use_up)
