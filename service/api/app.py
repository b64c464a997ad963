"""The app: routes, errors as problems, the description of it all."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from fastapi.routing import iter_route_contexts
from pydantic.json_schema import models_json_schema
from starlette.exceptions import HTTPException
from starlette.routing import Match

from service.api.access import is_admin
from service.api.contract import SECURITY_SCHEMES, TO_READ, TO_WRITE
from service.api.entry import Scope
from service.api.examples import ANSWERS
from service.api.middleware import RequestMiddleware, request_id_of
from service.api.pages import description, member, overview, sign_in, thresholds
from service.api.pages import members as member_list
from service.api.problems import (
    INVALID,
    MEDIA_TYPE,
    NOT_JSON,
    Problem,
    ProblemBody,
    invalid,
    not_found,
    problem_of,
)
from service.api.routes import members, organizations, overrides, sessions
from service.api.services import Services
from service.api.sessions import UNSAFE
from service.api.static import StaticAssets
from service.errors import Refused, Retryable

STATIC: Final = Path(__file__).parent / "static"
PREFIX: Final = "/v1/orgs/{org}"
PAGES_PREFIX: Final = "/admin/orgs/{org}"

_DESCRIPTION: Final = """
How engaged the members of an organisation are, why, and when that is about to change.

Send `Authorization: Bearer <token>`. Whoever is no active member of the organisation gets 404;
members see their own status, everything else is for its administrators (403). Errors are
`application/problem+json`; their `type` is stable, their `detail` is for people.

Pages in a browser exchange it: `POST /session` sets a cookie and answers `csrf_token`. With the
cookie alone, whatever is not GET or HEAD has to carry that as `X-CSRF-Token`, and to come from a
page of the same origin, by the `Origin` or `Sec-Fetch-Site` that browsers send (403).
"""


def create_app(services: Services) -> FastAPI:
    """The API and the admin pages. The caller opens and closes what the services need."""
    app = FastAPI(
        title="Engagement scoring",
        version="1",
        description=_DESCRIPTION,
        openapi_url="/openapi.json",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    app.state.services = services
    app.add_middleware(RequestMiddleware)
    _add_error_handlers(app)
    for router in (
        members.own,
        members.reads,
        members.writes,
        members.erasures,
        overrides.writes,
        organizations.detached,
        organizations.reads,
        organizations.previews,
        organizations.writes,
    ):
        app.include_router(router, prefix=PREFIX)
    app.include_router(sessions.router)
    app.include_router(description.router)
    for router in (
        overview.detached,
        member_list.reads,
        member.reads,
        member.writes,
        thresholds.reads,
        thresholds.previews,
        thresholds.writes,
    ):
        app.include_router(router, prefix=PAGES_PREFIX)
    app.include_router(sign_in.router)
    app.mount("/static", StaticAssets(directory=STATIC))
    app.openapi = lambda: _described(app)  # type: ignore[method-assign]
    return app


# ------------------------------------------------------------------------------------- errors


def _add_error_handlers(app: FastAPI) -> None:
    def on(kind: type[Exception], to_problem: Callable[[Request, Any], Problem]) -> None:
        async def handle(request: Request, error: Exception) -> Response:
            return answer(request, to_problem(request, error))

        handler: Callable[[Request, Exception], Awaitable[Response]] = handle
        app.add_exception_handler(kind, handler)

    on(Problem, lambda _, error: error)
    on(Refused, lambda _, error: problem_of(error))
    on(Retryable, lambda _, error: problem_of(error))
    on(RequestValidationError, _of_validation)
    on(HTTPException, _of_http)


def answer(request: Request, problem: Problem) -> Response:
    """A problem as a response."""
    return Response(
        problem.body(request_id_of(request.scope)),
        status_code=problem.status,
        media_type=MEDIA_TYPE,
        headers=problem.headers,
    )


def _of_validation(request: Request, error: RequestValidationError) -> Problem:
    # Details name levels and fields, which only administrators may read.
    scope: Scope | None = getattr(request.state, "scope", None)
    if scope is None or not is_admin(scope.standing):
        return Problem(422, "invalid", INVALID)
    # What was not said to be JSON has not been parsed.
    if isinstance(error.body, bytes):
        return Problem(422, "invalid", NOT_JSON)
    return invalid(error.errors())


def _of_http(request: Request, error: HTTPException) -> Problem:
    if error.status_code == 404:  # noqa: PLR2004 - the router's way to say so
        return not_found()
    if error.status_code == 405:  # noqa: PLR2004 - likewise
        allow = {"Allow": ", ".join(_methods_at(request.app, request.scope["path"]))}
        return Problem(405, "method", "This cannot be done here.", headers=allow)
    if error.status_code == 400:  # noqa: PLR2004 - a body that is no text, or nested too deeply
        return Problem(422, "invalid", INVALID)
    return Problem(error.status_code, "http", "The request cannot be handled.")


def _methods_at(app: FastAPI, path: str) -> list[str]:
    """What can be done at an address. The router tells of the first route alone."""
    scope = {"type": "http", "method": "GET", "path": path}
    found: set[str] = set()
    for route in iter_route_contexts(app.routes):
        if route.matches(scope)[0] is not Match.NONE:
            # A mount has none: it is that of files.
            found |= route.methods or {"GET"}
    return sorted(found | ({"HEAD"} if "GET" in found else set()))


# ---------------------------------------------------------------------------------- description


def _described(app: FastAPI) -> dict[str, Any]:
    if app.openapi_schema is not None:
        return app.openapi_schema
    schema = get_openapi(
        title=app.title,
        version=app.version,
        description=app.description,
        routes=app.routes,
        openapi_version="3.1.0",
    )
    components = schema.setdefault("components", {})
    _, definitions = models_json_schema(
        [(ProblemBody, "serialization")], ref_template="#/components/schemas/{model}"
    )
    schemas = components.setdefault("schemas", {})
    schemas.update(definitions["$defs"])
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    for answer in ANSWERS:
        schemas[type(answer).__name__]["examples"] = [answer.model_dump(mode="json")]
    components["securitySchemes"] = SECURITY_SCHEMES
    schema["security"] = TO_READ
    for methods in schema["paths"].values():
        for method in UNSAFE.intersection(name.upper() for name in methods):
            methods[method.lower()].setdefault("security", TO_WRITE)
    app.openapi_schema = schema
    return schema
