"""Errors as `application/problem+json` (RFC 9457): one shape for everything that goes wrong.

A problem never repeats what the caller sent: it names the place and the rule, not the value. What a
non-administrator gets is made of fixed sentences only.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from http import HTTPStatus
from typing import Any, Final, NamedTuple

from pydantic import BaseModel, Field

from service.errors import (
    Conflict,
    InvalidInput,
    InvalidThresholds,
    NotFound,
    Refused,
    Retryable,
    Stale,
    plain,
)

MEDIA_TYPE: Final = "application/problem+json"
TYPE_PREFIX: Final = "urn:engagement:problem:"
MAX_ERRORS: Final = 20

NOT_FOUND: Final = "There is nothing here, or nothing that you may see."
INVALID: Final = "The request does not have the expected form."
INTERNAL: Final = "Something went wrong here. It has been logged."
NOT_JSON: Final = "Send the body as JSON, with Content-Type: application/json."
LATE: Final = "The request did not arrive in time."


class FieldProblem(BaseModel):
    """One value at fault: where it is, and the rule that it breaks."""

    location: str = Field(examples=["body.notes"])
    message: str = Field(examples=["must not be blank"])


class ProblemBody(BaseModel):
    """A problem as it is sent. `type` is stable; `detail` is for people."""

    type: str = Field(examples=["urn:engagement:problem:stale"])
    title: str = Field(examples=["Precondition Failed"])
    status: int = Field(examples=[412])
    detail: str = Field(examples=["The member has changed since: read it again."])
    request_id: str = Field(examples=["f4a1c9f0b7d24d0e"])
    errors: list[FieldProblem] | None = None


class Problem(Exception):
    """Ends a request with this answer. `code` completes the problem's type."""

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        *,
        errors: Sequence[FieldProblem] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(f"{status} {code}")
        self.status = status
        self.code = code
        self.detail = detail
        self.errors = list(errors)
        self.headers = dict(headers or {})

    @property
    def title(self) -> str:
        """The status in words."""
        return HTTPStatus(self.status).phrase

    def body(self, request_id: str) -> bytes:
        """The JSON text."""
        body = ProblemBody(
            type=TYPE_PREFIX + self.code,
            title=self.title,
            status=self.status,
            detail=self.detail,
            request_id=request_id,
            errors=self.errors or None,
        )
        return body.model_dump_json(exclude_none=True).encode()


def not_found() -> Problem:
    """The same answer for what does not exist and for what is not the caller's."""
    return Problem(404, "not-found", NOT_FOUND)


def unauthorized(detail: str) -> Problem:
    """No valid credentials."""
    challenge = {"WWW-Authenticate": 'Bearer realm="engagement"'}
    return Problem(401, "unauthorized", detail, headers=challenge)


def unavailable(detail: str = "The service is busy or starting: try again shortly.") -> Problem:
    """Nothing is wrong with the request."""
    return Problem(503, "unavailable", detail, headers={"Retry-After": "2"})


class _Answer(NamedTuple):
    status: int
    code: str


_ANSWERS: Final[tuple[tuple[type[Refused], _Answer], ...]] = (
    (NotFound, _Answer(404, "not-found")),
    (Stale, _Answer(412, "stale")),
    (Conflict, _Answer(409, "conflict")),
    (InvalidThresholds, _Answer(422, "invalid")),
    (InvalidInput, _Answer(422, "invalid")),
    (Refused, _Answer(409, "refused")),
)


def problem_of(error: Refused | Retryable) -> Problem:
    """A use case's refusal, or a part that is away, as an answer to an administrator."""
    if isinstance(error, Retryable):
        return unavailable()
    if isinstance(error, NotFound):
        return not_found()
    answer = next(answer for kind, answer in _ANSWERS if isinstance(error, kind))
    errors: list[FieldProblem] = []
    if isinstance(error, InvalidThresholds):
        errors = [
            FieldProblem(location=f"body.{name}", message=message)
            for name, message in error.problems
        ]
    return Problem(answer.status, answer.code, str(error), errors=errors)


def invalid(errors: Iterable[Mapping[str, Any]]) -> Problem:
    """What validation found, without the values."""
    found = [
        FieldProblem(
            location=".".join(str(part) for part in error["loc"]), message=plain(error["msg"])
        )
        for error in errors
    ]
    return Problem(422, "invalid", INVALID, errors=found[:MAX_ERRORS])
