"""Sessions of browsers: a bearer token in exchange for a cookie."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from service.api.contract import (
    BY_BEARER,
    COOKIE_HEADER,
    NOT_BY_SESSION,
    WRITING_BY_SESSION,
    problems,
)
from service.api.entry import credentials
from service.api.models.actions import SessionAnswer
from service.api.problems import unauthorized
from service.api.services import services_of
from service.api.sessions import (
    LIFETIME_S,
    check_csrf,
    csrf_token,
    drop_session_cookie,
    hash_of,
    new_secret,
    session_secret,
    set_session_cookie,
)

router = APIRouter()


@router.post(
    "/session",
    responses={**problems(), 200: COOKIE_HEADER},
    openapi_extra={"security": [BY_BEARER]},
    tags=["sessions"],
)
async def open_session(request: Request, response: Response) -> SessionAnswer:
    """Exchange a bearer token for an HttpOnly cookie that is good for 8 hours."""
    if "authorization" not in request.headers:
        raise unauthorized("Send a bearer token.")
    caller = await credentials(request)
    secret = new_secret()
    await services_of(request).store.open_session(
        hash_of(secret), "session", caller.user_id, LIFETIME_S
    )
    set_session_cookie(request, response, secret)
    # Without the caller's id: whoever sends a token knows it, and ids may hold any word.
    return SessionAnswer(expires_in_s=LIFETIME_S, csrf_token=csrf_token(secret))


@router.delete(
    "/session",
    status_code=204,
    responses={**problems(403), 403: NOT_BY_SESSION},
    openapi_extra={"security": [WRITING_BY_SESSION]},
    tags=["sessions"],
)
async def close_session(request: Request) -> Response:
    """End the session of the cookie; a bearer token ends none."""
    secret = session_secret(request)
    if secret is None:
        raise unauthorized("There is no session.")
    check_csrf(request, secret)
    await services_of(request).store.close_session(hash_of(secret))
    response = Response(status_code=204)
    drop_session_cookie(request, response)
    return response
