"""Parts of the HTTP contract that many endpoints share: parameters, answers, preconditions."""

from __future__ import annotations

import json
import re
from typing import Annotated, Any, Final

from fastapi import Depends, Header, Path, Request, Response

from service.api.access import ADMIN_ONLY, SUSPENDED
from service.api.entry import Scope, scope_of
from service.api.problems import (
    INTERNAL,
    INVALID,
    LATE,
    MEDIA_TYPE,
    FieldProblem,
    Problem,
    invalid,
    not_found,
    unauthorized,
    unavailable,
)
from service.api.sessions import CSRF_HEADER, NO_TOKEN, PLAIN_NAME, SECURE_NAME
from service.api.values import MemberRecord
from service.events import ID_PATTERN

OrgId = Annotated[
    str,
    Path(
        alias="org",
        description="Id of the organisation",
        pattern=f"^{ID_PATTERN}$",
        examples=["riverside"],
    ),
]
UserId = Annotated[
    str,
    Path(
        alias="user",
        description="Id of the member",
        pattern=f"^{ID_PATTERN}$",
        examples=["ada.lovelace"],
    ),
]
_FirstIfMatch = Annotated[
    str | None,
    Header(
        alias="If-Match",
        max_length=500,
        description="The ETag of the state that the caller looked at, or `*`",
        examples=['"7"'],
    ),
]


async def _if_match(request: Request, first: _FirstIfMatch = None) -> str | None:
    """The header, where several lines of it are one list (RFC 9110)."""
    return None if first is None else ", ".join(request.headers.getlist("if-match"))


IfMatch = Annotated[str | None, Depends(_if_match)]
InScope = Annotated[Scope, Depends(scope_of)]


async def no_query(request: Request) -> None:
    """For what changes something: nobody's `?dry_run` may be passed over. Raises Problem."""
    if unknown := dict.fromkeys(request.query_params):
        raise invalid({"loc": ("query", name), "msg": EXTRA} for name in unknown)


# As the lists say it of theirs.
EXTRA: Final = "Extra inputs are not permitted"
_PROBLEM: Final = {"$ref": "#/components/schemas/ProblemBody"}
_MEANINGS: Final = {
    401: "No valid token or session",
    403: "For administrators only; or, by a session's cookie, from elsewhere or without its token",
    404: "Nothing here, or nothing that the caller may see",
    408: "The request did not arrive in time",
    409: "The state does not allow it",
    412: "The state has changed since the caller looked",
    413: "The body is too large",
    422: "The request does not have the expected form, or its values make no sense",
    500: "A fault of the service",
    503: "Busy or starting; try again",
}
_ALWAYS: Final = (401, 404, 422, 500, 503)
_NOTES_FAULT: Final = FieldProblem(location="body.notes", message="Field required")
_EXAMPLES: Final = {
    problem.status: json.loads(problem.body("f4a1c9f0b7d24d0e"))
    for problem in (
        unauthorized("The token has expired."),
        Problem(403, "forbidden", ADMIN_ONLY),
        not_found(),
        Problem(408, "timeout", LATE),
        Problem(409, "suspended", SUSPENDED),
        Problem(412, "stale", "The member has changed since: read it again."),
        Problem(413, "too-large", "The body may have at most 65536 bytes."),
        Problem(422, "invalid", INVALID, errors=[_NOTES_FAULT]),
        Problem(500, "internal", INTERNAL),
        unavailable(),
    )
}


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """What can go wrong at an endpoint, beside what can always go wrong."""
    if 413 in statuses:  # noqa: PLR2004 - bodies that may be too large may be late, too
        statuses += (408,)
    return {
        status: {
            "description": _MEANINGS[status],
            "content": {MEDIA_TYPE: {"schema": _PROBLEM, "example": _EXAMPLES[status]}},
        }
        for status in sorted({*statuses, *_ALWAYS})
    }


# Of what a session alone is asked for.
NOT_BY_SESSION: Final = {
    "description": "From elsewhere, or without the session's token",
    "content": {
        MEDIA_TYPE: {
            "schema": _PROBLEM,
            "example": json.loads(Problem(403, "cross-site", NO_TOKEN).body("f4a1c9f0b7d24d0e")),
        }
    },
}
COOKIE_HEADER: Final = {
    "headers": {
        "Set-Cookie": {
            "description": "The session, out of reach of scripts",
            "schema": {"type": "string"},
        }
    }
}
ETAG_HEADER: Final = {
    "headers": {
        "ETag": {
            "description": "The member's revision, for If-Match",
            "schema": {"type": "string", "examples": ['"7"']},
        }
    }
}


def etag(revision: int) -> str:
    """A revision as an entity tag."""
    return f'"{revision}"'


def set_etag(response: Response, revision: int) -> None:
    """Say which state this is."""
    response.headers["ETag"] = etag(revision)


SECURITY_SCHEMES: Final = {
    "bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"},
    "session": {
        "type": "apiKey",
        "in": "cookie",
        "name": SECURE_NAME,
        "description": f"Set by POST /session; on plain loopback its name is {PLAIN_NAME}",
    },
    "csrf": {
        "type": "apiKey",
        "in": "header",
        "name": CSRF_HEADER,
        "description": "The csrf_token that POST /session answered; beside the cookie alone",
    },
}
Needs = list[dict[str, list[str]]]

BY_BEARER: Final[dict[str, list[str]]] = {"bearer": []}
TO_READ: Final[Needs] = [BY_BEARER, {"session": []}]
WRITING_BY_SESSION: Final[dict[str, list[str]]] = {"session": [], "csrf": []}
TO_WRITE: Final[Needs] = [BY_BEARER, WRITING_BY_SESSION]


_TAG: Final = re.compile(r'"(0|[1-9][0-9]{0,17})"', re.ASCII)


def expected_revision(if_match: str | None, record: MemberRecord | None) -> int | None:
    """The revision that the caller looked at; None when any will do. Raises Problem.

    Of several tags, the one of the present state is taken. Weak tags never match.
    """
    if if_match is None or if_match.strip() == "*":
        return None
    tags = [_TAG.fullmatch(tag.strip()) for tag in if_match.split(",")]
    revisions = [int(tag[1]) for tag in tags if tag is not None]
    if record is not None and record.revision in revisions:
        return record.revision
    if len(revisions) == 1:
        return revisions[0]
    raise Problem(412, "stale", "The member has changed since: read it again.")
