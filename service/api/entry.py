"""The door: who calls, may they enter this organisation, and only then the rest of the request.

Nothing that the caller sent is looked at before that, so what a stranger or a member gets for a
malformed request is the same as for a proper one.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, ClassVar, Final

from fastapi import Request, Response
from fastapi.routing import APIRoute

from service.api.access import admit, admit_writing
from service.api.ports import Organization
from service.api.problems import LATE, Problem, not_found, unauthorized, unavailable
from service.api.services import Services, services_of
from service.api.sessions import UNSAFE, check_csrf, hash_of, session_secret
from service.api.tokens import BadToken
from service.api.values import Standing
from service.events import ID_PATTERN

BODY_TIMEOUT_S: Final = 10.0
TURN_TIMEOUT_S: Final = 15.0
UNKNOWN: Final = ""

_ID: Final = re.compile(ID_PATTERN, re.ASCII)


@dataclass(frozen=True)
class Caller:
    """Somebody who proved who they are; `session` is the secret of a browser's session.

    Before the session has been looked up, `user_id` is UNKNOWN, which is no id.
    """

    user_id: str
    session: str | None = None


@dataclass(frozen=True)
class Scope:
    """A caller inside an organisation that admitted them."""

    caller: Caller
    org_id: str
    standing: Standing
    organization: Organization


SIGN_IN: Final = "Sign in, or send a bearer token."


async def credentials(request: Request) -> Caller:
    """The caller by bearer token, else a session that is still to be looked up. Raises Problem."""
    services = services_of(request)
    headers = request.headers.getlist("authorization")
    if len(headers) > 1:
        # Whatever stands before us may have looked at another one.
        raise unauthorized("Send one bearer token.")
    if headers:
        scheme, _, token = headers[0].partition(" ")
        if scheme.lower() != "bearer" or not token.strip():
            raise unauthorized("Send a bearer token.")
        try:
            claims = await services.verifier.verify(token.strip())
        except BadToken as error:
            raise unauthorized(str(error)) from None
        return Caller(claims.user_id)
    secret = session_secret(request)
    if secret is None:
        raise unauthorized(SIGN_IN)
    return Caller(UNKNOWN, secret)


async def read_body(request: Request) -> None:
    """Have the whole body at hand before a transaction begins. Raises Problem when it is late."""
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            await request.body()
    except TimeoutError:
        raise Problem(408, "timeout", LATE) from None


@asynccontextmanager
async def entered(
    services: Services,
    caller: Caller,
    org_id: str,
    *,
    admin: bool,
    writes: bool,
    while_suspended: bool = False,
) -> AsyncIterator[Scope]:
    """Inside the organisation, in one transaction that commits at the end. Raises Problem."""
    if _ID.fullmatch(org_id) is None:
        raise not_found()
    async with services.store.organization(org_id, writes=writes) as organization:
        if caller.session is not None:
            user_id = await organization.session_user(hash_of(caller.session))
            if user_id is None:
                raise unauthorized(SIGN_IN)
            caller = Caller(user_id, caller.session)
        standing = await organization.standing(caller.user_id)
        admit(standing, admin=admin, implicit_membership=services.implicit_membership)
        if writes and not while_suspended:
            admit_writing(standing)
        yield Scope(caller, org_id, standing, organization)
    if writes:
        services.summaries.forget(org_id)


@asynccontextmanager
async def _turn(services: Services) -> AsyncIterator[None]:
    """Wait until few enough long reads are under way. Raises Problem when that takes too long."""
    try:
        await asyncio.wait_for(services.long_reads.acquire(), TURN_TIMEOUT_S)
    except TimeoutError:
        raise unavailable() from None
    try:
        yield
    finally:
        services.long_reads.release()


Handler = Callable[[Request], Coroutine[Any, Any, Response]]


class OrganizationRoute(APIRoute):
    """A route below an organisation; `request.state.scope` holds the Scope.

    `attached`: the handler runs inside the transaction that admitted the caller. `is_long`: it
    takes seconds, and waits for its turn among its like.
    """

    admin: ClassVar[bool] = True
    writes: ClassVar[bool] = False
    while_suspended: ClassVar[bool] = False
    attached: ClassVar[bool] = True
    is_long: ClassVar[bool] = False

    def get_route_handler(self) -> Handler:
        """Put the door before FastAPI's own handling of the request."""
        inner = super().get_route_handler()

        async def handle(request: Request) -> Response:
            caller = await credentials(request)
            await read_body(request)
            if caller.session is not None and request.method in UNSAFE:
                await self.check_form(request, caller.session)
            response: Response | None = None
            services = services_of(request)
            async with (
                _turn(services) if self.is_long else nullcontext(),
                entered(
                    services,
                    caller,
                    request.path_params["org"],
                    admin=self.admin,
                    writes=self.writes,
                    while_suspended=self.while_suspended,
                ) as scope,
            ):
                request.state.scope = scope
                if self.attached:
                    response = await inner(request)
            return response if response is not None else await inner(request)

        return handle

    async def check_form(self, request: Request, session: str) -> None:
        """Refuse an unsafe request of a session that no page of ours sent. Raises Problem."""
        check_csrf(request, session)


class MemberRoute(OrganizationRoute):
    """For every member, about themselves."""

    admin = False


class AdminRoute(OrganizationRoute):
    """For administrators: reads."""


class LongAdminRoute(OrganizationRoute):
    """For administrators: reads that take seconds."""

    is_long = True


class DetachedAdminRoute(OrganizationRoute):
    """For administrators: reads that need no transaction of their own."""

    attached = False


class AdminWriteRoute(OrganizationRoute):
    """For administrators: changes, not while the organisation is suspended."""

    writes = True


class ErasureRoute(OrganizationRoute):
    """For administrators: what must be possible whatever the state of the organisation."""

    writes = True
    while_suspended = True


# A coroutine, since FastAPI would send a plain function to another thread and wait for it.
async def scope_of(request: Request) -> Scope:
    """The scope that the route opened."""
    scope: Scope = request.state.scope
    return scope
