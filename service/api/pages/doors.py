"""Doors of the admin pages: as those of the API, with forms checked and errors as pages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final
from urllib.parse import parse_qsl

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException

from service.api.entry import Handler, OrganizationRoute, Scope
from service.api.pages.rendering import base_of, is_part, page
from service.api.problems import Problem, problem_of
from service.api.sessions import CSRF_FIELD, check_csrf
from service.errors import Refused, Retryable

FORM: Final = "application/x-www-form-urlencoded"
MAX_FIELDS: Final = 40


async def read_form(request: Request) -> Mapping[str, str]:
    """The fields of a form, the last of each name. Raises Problem."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != FORM:
        raise Problem(422, "invalid", "The form does not have the expected form.")
    try:
        text = (await request.body()).decode()
        return dict(parse_qsl(text, keep_blank_values=True, max_num_fields=MAX_FIELDS))
    except ValueError:
        raise Problem(422, "invalid", "The form does not have the expected form.") from None


class Instead(Exception):
    """Ends a request with this response, and undoes what it has written."""

    def __init__(self, response: Response) -> None:
        super().__init__("answered")
        self.response = response


class PageErrors(APIRoute):
    """A route whose errors are pages for people."""

    def get_route_handler(self) -> Handler:
        """Put errors as pages around FastAPI's own handling."""
        inner = super().get_route_handler()

        async def handle(request: Request) -> Response:
            try:
                return await inner(request)
            except Instead as answer:
                return answer.response
            except Problem as problem:
                return error_page(request, problem)
            except (Refused, Retryable) as error:
                return error_page(request, problem_of(error))
            except RequestValidationError:
                return error_page(
                    request, Problem(422, "invalid", "The address does not have that form.")
                )
            except HTTPException as error:
                return error_page(
                    request, Problem(error.status_code, "http", "This cannot be shown.")
                )

        return handle


class PageRoute(PageErrors, OrganizationRoute):
    """An admin page: reads."""

    async def check_form(self, request: Request, session: str) -> None:
        """The token is in the form, or in htmx's header."""
        form = await read_form(request)
        check_csrf(request, session, form.get(CSRF_FIELD))


class DetachedPageRoute(PageRoute):
    """An admin page that needs no transaction of its own."""

    attached = False


class LongPageRoute(PageRoute):
    """An admin page: reads that take seconds."""

    is_long = True


class PageWriteRoute(PageRoute):
    """A form of an admin page that changes something."""

    writes = True


FAILED: Final = "That did not work"
_HEADINGS: Final = {
    401: "Sign in",
    403: "For administrators only",
    404: "Nothing here",
    409: "Not possible now",
    503: "One moment",
}

# What ends a page that is open: the session, the rights, the member or the organisation is gone,
# or nothing can be changed any more.
_OVER: Final = frozenset({401, 403, 404, 409})


# What is better said otherwise to somebody at a browser.
_DETAILS: Final = {
    "unauthorized": "Nobody is signed in here, or the session is over. Follow your sign-in link, "
    "or begin where you usually sign in.",
    "cross-site": "This page was opened in another session than the one that is signed in now. "
    "Go back, keep what you have written, load the page again, and send it once more.",
    "invalid-cursor": "That page of the list is not there any more. Begin at the first one.",
}


def error_page(request: Request, problem: Problem) -> Response:
    """A problem as a page; of what was asked for, it says nothing."""
    if problem.status in _OVER and is_part(request):
        # The page as it stands is over: have the browser load it anew, which says why.
        return Response(status_code=problem.status, headers={"HX-Refresh": "true"})
    scope: Scope | None = getattr(request.state, "scope", None)
    values = {
        "heading": FAILED
        if problem.code == "cross-site"
        else _HEADINGS.get(problem.status, FAILED),
        "detail": _DETAILS.get(problem.code, problem.detail),
        "status": problem.status,
        # Only who was let in is told the way back.
        "base": None if scope is None else base_of(scope.org_id),
    }
    response = page("message.html", values, problem.status)
    for name, value in problem.headers.items():
        response.headers[name] = value
    return response
