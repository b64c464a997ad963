"""Browser sessions: a random secret in a cookie, its hash in the database, and what CSRF needs."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from typing import Final
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import Response

from service.api.problems import Problem

LIFETIME_S: Final = 8 * 3600
LINK_LIFETIME_S: Final = 3600
SECURE_NAME: Final = "__Host-engagement_session"
PLAIN_NAME: Final = "engagement_session"
CSRF_FIELD: Final = "csrf_token"
CSRF_HEADER: Final = "X-CSRF-Token"
LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})
UNSAFE: Final = frozenset({"POST", "PUT", "PATCH", "DELETE"})

FOREIGN: Final = (
    "By its Origin or Sec-Fetch-Site, this request did not come from a page of this service: "
    "load the page again."
)
NO_TOKEN: Final = (
    f"The session's token is missing or wrong: load the page again, or send the {CSRF_FIELD} of "
    f"POST /session as {CSRF_HEADER}."
)

_SECRET: Final = re.compile(r"[A-Za-z0-9_-]{43}", re.ASCII)


def new_secret() -> str:
    """256 random bits as text."""
    return secrets.token_urlsafe(32)


def hash_of(secret: str) -> bytes:
    """What the database keeps."""
    return hashlib.sha256(secret.encode()).digest()


def is_plain_loopback(request: Request) -> bool:
    """Whether the browser talks to this machine without TLS, where Secure cookies cannot work."""
    try:
        return request.url.scheme == "http" and request.url.hostname in LOOPBACK
    except ValueError:
        # A malformed Host, which names no machine.
        return False


def session_secret(request: Request) -> str | None:
    """The secret from the cookie, when it has the right form."""
    value = request.cookies.get(SECURE_NAME)
    if value is None and is_plain_loopback(request):
        value = request.cookies.get(PLAIN_NAME)
    return value if value is not None and _SECRET.fullmatch(value) else None


def set_session_cookie(request: Request, response: Response, secret: str) -> None:
    """Give the browser the session."""
    plain = is_plain_loopback(request)
    response.set_cookie(
        PLAIN_NAME if plain else SECURE_NAME,
        secret,
        max_age=LIFETIME_S,
        path="/",
        secure=not plain,
        httponly=True,
        samesite="strict",
    )


def drop_session_cookie(request: Request, response: Response) -> None:
    """Take the session away from the browser."""
    plain = is_plain_loopback(request)
    response.delete_cookie(
        PLAIN_NAME if plain else SECURE_NAME,
        path="/",
        secure=not plain,
        httponly=True,
        samesite="strict",
    )


def csrf_token(secret: str) -> str:
    """The token that forms of this session carry."""
    return hashlib.sha256(b"csrf:" + secret.encode()).hexdigest()


def check_same_origin(request: Request) -> None:
    """Refuse what another site made the browser send. Raises Problem.

    Browsers say where a request comes from in Sec-Fetch-Site or, older ones, in Origin; one of
    them is required.
    """
    site = request.headers.get("sec-fetch-site")
    origin = request.headers.get("origin")
    if site is not None and site != "same-origin":
        raise _foreign()
    if origin is not None:
        if _host_of(origin) != request.headers.get("host", ""):
            raise _foreign()
    elif site is None:
        raise _foreign()


def check_csrf(request: Request, secret: str, form_token: str | None = None) -> None:
    """Refuse an unsafe request that a page of ours did not send. Raises Problem."""
    check_same_origin(request)
    given = form_token if form_token is not None else request.headers.get(CSRF_HEADER, "")
    if not hmac.compare_digest(given.encode(), csrf_token(secret).encode()):
        raise Problem(403, "cross-site", NO_TOKEN)


def _host_of(origin: str) -> str | None:
    """The host and port of an origin; None, which is nobody's, where it is malformed."""
    try:
        return urlsplit(origin).netloc or None
    except ValueError:
        return None


def _foreign() -> Problem:
    return Problem(403, "cross-site", FOREIGN)
