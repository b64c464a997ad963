"""Every endpoint and page with every role: what they get, and that nothing else comes along."""

from __future__ import annotations

import hashlib
import json
import re
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, NamedTuple

import httpx2
import pytest

from service.api.sessions import csrf_token
from service.texts import is_clean
from tests.api_community import (
    ADMIN,
    DELETED_ADMIN,
    DELETED_ORG,
    IMPLICIT,
    LEFT,
    LOST,
    MEMBER,
    ORG,
    OTHER_ADMIN,
    OTHER_MEMBER,
    OTHER_ORG,
    SECOND_ADMIN,
    SILENT,
    STRANGER,
    SUSPENDED_ADMIN,
    SUSPENDED_MEMBER,
    SUSPENDED_ORG,
)
from tests.postgres.api_calls import Call, calls_of
from tests.postgres.api_client import Api, running_api

NAMES = {
    ORG: "Riverside Makers", OTHER_ORG: "Hillside Singers", SUSPENDED_ORG: "Sleepers",
    DELETED_ORG: "Gone Club",
}  # fmt: skip
NOTES = "a private remark about somebody"
TABLES = """
SELECT c.relname FROM pg_class c
WHERE c.relnamespace = 'public'::regnamespace AND c.relkind = 'r' AND c.relname <> 'http_session'
ORDER BY 1"""


async def nothing(api: Api) -> None:
    pass


async def demote(api: Api) -> None:
    await api.community.membership(SECOND_ADMIN, name="Grace Admin", role="member")


async def leave(api: Api) -> None:
    await api.community.membership(SECOND_ADMIN, name="Grace Admin", role="admin", status="left")


async def erase(api: Api, user: str) -> None:
    response = await api.call("DELETE", f"/v1/orgs/{ORG}/members/{user}")
    assert response.status_code == 200, response.text


async def suspend(api: Api) -> None:
    await api.community.organization(ORG, "Riverside Makers", "suspended")


async def delete(api: Api) -> None:
    await api.community.organization(ORG, "Riverside Makers", "deleted")


class Role(NamedTuple):
    """Who calls which organisation, after what; and the status for own and for other calls."""

    user: str | None
    own: int
    other: int
    org: str = ORG
    after: Callable[[Api], Awaitable[None]] = nothing
    session_ends: bool = False

    def status(self, call: Call, *, by_session: bool) -> int:
        if by_session and self.session_ends:
            return 401
        return self.own if call.is_own else self.other


ROLES = {
    "anonymous": Role(None, 401, 401),
    "stranger": Role(STRANGER, 404, 404),
    "member": Role(MEMBER, 200, 403),
    "member who is at risk": Role(SILENT, 200, 403),
    "member who is inactive": Role(LOST, 200, 403),
    "member without a record": Role(IMPLICIT, 200, 403),
    "member of another organisation": Role(OTHER_MEMBER, 404, 404),
    "admin of another organisation": Role(OTHER_ADMIN, 404, 404),
    "admin, elsewhere": Role(ADMIN, 404, 404, OTHER_ORG),
    "admin, in one that does not exist": Role(ADMIN, 404, 404, "no-such-organisation"),
    "admin demoted a moment ago": Role(SECOND_ADMIN, 200, 403, after=demote),
    "admin who left a moment ago": Role(SECOND_ADMIN, 404, 404, after=leave),
    "member who left": Role(LEFT, 404, 404),
    "member erased a moment ago": Role(
        MEMBER, 404, 404, after=lambda api: erase(api, MEMBER), session_ends=True
    ),
    "admin erased a moment ago": Role(
        SECOND_ADMIN, 404, 404, after=lambda api: erase(api, SECOND_ADMIN), session_ends=True
    ),
    "member of one just suspended": Role(MEMBER, 200, 403, after=suspend),
    "member of a suspended one": Role(SUSPENDED_MEMBER, 200, 403, SUSPENDED_ORG),
    "admin of a suspended one, elsewhere": Role(SUSPENDED_ADMIN, 404, 404),
    "member of one just deleted": Role(MEMBER, 404, 404, after=delete),
    "admin of one just deleted": Role(ADMIN, 404, 404, after=delete),
    "admin of a deleted one": Role(DELETED_ADMIN, 404, 404, DELETED_ORG),
}


@pytest.fixture
async def api(database: str) -> AsyncIterator[Api]:
    async with running_api(database) as running:
        for about in (SILENT, LOST):
            body = {"level": "moderate", "notes": NOTES}
            set_ = await running.call("PUT", f"/v1/orgs/{ORG}/members/{about}/override", json=body)
            assert set_.status_code == 200, set_.text
        yield running


class Caller:
    """Somebody who calls with a token, or with the session of a browser and what forms need."""

    def __init__(self, api: Api, user: str | None, session: str | None = None) -> None:
        self._api = api
        self._user = user
        self._session = session

    async def __call__(self, call: Call, org: str, about: str) -> httpx2.Response:
        content = call.content()
        headers = content.pop("headers", {})
        user = self._user
        if self._session is not None:
            user = None
            headers |= {
                "Cookie": f"engagement_session={self._session}", "Sec-Fetch-Site": "same-origin",
                "X-CSRF-Token": csrf_token(self._session),
            }  # fmt: skip
            if call.is_page and call.method == "POST":
                content["content"] += f"&csrf_token={csrf_token(self._session)}".encode()
        path = call.at(org, about)
        return await self._api.call(call.method, path, user, headers=headers, **content)


async def signed_in(api: Api, user: str | None) -> Caller:
    """A browser with a session that was opened while its user still was somebody."""
    secret = secrets.token_urlsafe(32)
    if user is not None:
        await api.community.execute(
            "INSERT INTO http_session VALUES ($1, 'session', $2, now() + interval '1 hour')",
            hashlib.sha256(secret.encode()).digest(), user,
        )  # fmt: skip
    return Caller(api, user, secret)


async def not_for(api: Api, role: Role) -> re.Pattern[str]:
    """Everything that the role must not read: all others, and of strangers to it the name, too."""
    rows = await api.community.connection.fetch(
        "SELECT user_id AS word FROM member UNION SELECT display_name FROM membership_fact"
        " UNION SELECT event_id FROM attendance_fact UNION SELECT event_id FROM rsvp_fact"
    )
    words = {row["word"] for row in rows if row["word"] is not None} | {NOTES}
    words |= {name for org, name in NAMES.items() if role.own != 200 or org != role.org}
    return re.compile("|".join(rf"(?<!\w){re.escape(word)}(?!\w)" for word in words))


async def state_of(api: Api) -> str:
    """All tables in short, but for sessions."""
    digest = hashlib.sha256()
    for (table,) in await api.community.connection.fetch(TABLES):
        rows = await api.community.connection.fetch(f'SELECT t::text FROM "{table}" t ORDER BY 1')
        digest.update(json.dumps([table, *(row[0] for row in rows)]).encode())
    return digest.hexdigest()


@pytest.mark.parametrize("name", list(ROLES))
async def test_every_endpoint_and_page_with_every_role(api: Api, name: str) -> None:
    role = ROLES[name]
    calls = calls_of(api.app)
    callers = [Caller(api, role.user), await signed_in(api, role.user)]
    await role.after(api)
    hidden = await not_for(api, role)
    before = await state_of(api)
    for caller, by_session in zip(callers, (False, True), strict=True):
        for call in calls:
            wanted = role.status(call, by_session=by_session)
            for about in {role.user or MEMBER, SILENT, OTHER_MEMBER, STRANGER}:
                response = await caller(call, role.org, about)
                assert response.status_code == wanted, (call, about, response.text)
                assert_says_nothing(response, call, hidden)
    assert await state_of(api) == before, "something was changed"


def assert_says_nothing(response: httpx2.Response, call: Call, hidden: re.Pattern[str]) -> None:
    """No word about anybody else, no hurtful word, and headers as they should be."""
    assert hidden.search(response.text) is None, (call, hidden.search(response.text))
    assert is_clean(response.text), (call, response.text)
    assert is_clean(" ".join(response.headers.values())), call
    assert response.headers["cache-control"] == "no-store"
    assert len(response.headers["x-request-id"]) == 16
    if response.status_code == 200:
        assert set(response.json()) == {
            "status_label", "user_explanation", "computed_at", "next_step",
        }  # fmt: skip
        return
    kind = "text/html" if call.is_page else "application/problem+json"
    assert response.headers["content-type"].startswith(kind)
    if not call.is_page:
        problem = response.json()
        assert set(problem) == {"type", "title", "status", "detail", "request_id"}
        assert problem["status"] == response.status_code
        assert problem["request_id"] == response.headers["x-request-id"]
    if response.status_code == 401:
        assert response.headers["www-authenticate"].startswith("Bearer")


@pytest.mark.parametrize("way", ["token", "session"])
async def test_an_administrator_may_do_all_of_it(api: Api, way: str) -> None:
    """So what others were refused were proper requests."""
    caller = Caller(api, ADMIN) if way == "token" else await signed_in(api, ADMIN)
    for call in calls_of(api.app):
        response = await caller(call, ORG, SILENT)
        if call.is_page and call.writes:
            # Let in; whether the form fits the present state is another matter.
            assert response.status_code in (303, 409, 412), (call, response.text)
        else:
            assert response.status_code in (200, 202), (call, response.text)


def described(api: Api, call: Call) -> Any:
    return api.app.openapi()["paths"][call.path][call.method.lower()]


async def test_what_is_refused_is_described(api: Api) -> None:
    for call in calls_of(api.app):
        if not call.is_page:
            wanted = {"401", "404", "422", "500", "503"} | (set() if call.is_own else {"403"})
            wanted |= {"409"} if call.writes else set()
            assert wanted <= set(described(api, call)["responses"]), call


async def test_a_suspended_organisation_can_be_read_and_erased_from_only(api: Api) -> None:
    calls = calls_of(api.app)
    for caller in (Caller(api, SUSPENDED_ADMIN), await signed_in(api, SUSPENDED_ADMIN)):
        before = await state_of(api)
        for call in calls:
            erases = (call.method, call.path) == ("DELETE", "/v1/orgs/{org}/members/{user}")
            if erases:
                continue
            response = await caller(call, SUSPENDED_ORG, SUSPENDED_MEMBER)
            assert response.status_code == (409 if call.writes else 200), (call, response.text)
        assert await state_of(api) == before
    gone = await api.call(
        "DELETE", f"/v1/orgs/{SUSPENDED_ORG}/members/{SUSPENDED_MEMBER}", SUSPENDED_ADMIN
    )
    assert gone.status_code == 200
