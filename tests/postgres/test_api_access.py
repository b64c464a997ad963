"""Access in time and in detail: demotions, other organisations' members, and words that hurt."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest

from service.api.sessions import csrf_token
from service.texts import is_clean
from tests.api_community import (
    ADMIN,
    IMPLICIT,
    LOST,
    MARKUP,
    MEMBER,
    NEWCOMER,
    ORG,
    OTHER_ADMIN,
    OTHER_MEMBER,
    OTHER_ORG,
    SECOND_ADMIN,
    SILENT,
    STRANGER,
)
from tests.postgres.api_calls import FORM_TYPE, calls_of
from tests.postgres.api_client import Api, running_api

# Whatever sends an organisation or a member may call them so.
HURTFUL_ORG, HURTFUL_MEMBER, HURTFUL_ADMIN = "inactive.club", "at_risk.annie", "in-active.ina"
HURTFUL_NAMES = (
    "The In-Active At_Risk Club",
    "A t  r i s k",
    "in\u200bactive",
    "Ìnáctive",
    "\u0430t r\u0456sk",
)


@pytest.fixture
async def api(database: str) -> AsyncIterator[Api]:
    async with running_api(database) as running:
        yield running


async def test_one_organisation_never_shows_the_members_of_another(api: Api) -> None:
    for call in calls_of(api.app):
        if "{user}" in call.path:
            path = call.at(ORG, OTHER_MEMBER)
            response = await api.call(call.method, path, ADMIN, **call.content())
            assert response.status_code == 404, (call, response.text)
    untouched = await api.call("GET", f"/v1/orgs/{OTHER_ORG}/members/{OTHER_MEMBER}", OTHER_ADMIN)
    assert untouched.json()["override"] is None


async def test_a_demotion_counts_at_once(api: Api) -> None:
    assert (await api.get("/members", SECOND_ADMIN)).status_code == 200
    assert (await api.get("/summary", SECOND_ADMIN)).status_code == 200
    await api.community.membership(SECOND_ADMIN, role="member")
    assert (await api.get("/members", SECOND_ADMIN)).status_code == 403
    assert (await api.get("/summary", SECOND_ADMIN)).status_code == 403, (
        "though it is still at hand"
    )
    await api.community.membership(SECOND_ADMIN, role="admin", status="left")
    assert (await api.get("/members", SECOND_ADMIN)).status_code == 404
    await api.community.organization(ORG, "Riverside Makers", "deleted")
    assert (await api.get("/members", ADMIN)).status_code == 404
    assert (await api.get("/summary", ADMIN)).status_code == 404


async def test_implicit_members_count_only_where_they_do(database: str) -> None:
    async with running_api(database, ENGAGEMENT_IMPLICIT_MEMBERSHIP="false") as api:
        assert (await api.get("/me", IMPLICIT)).status_code == 404
        assert (await api.get("/me", MEMBER)).status_code == 200


async def test_strangers_learn_nothing_from_malformed_requests(api: Api) -> None:
    """Access is decided before anything that was sent is looked at."""
    for user, status in ((None, 401), (STRANGER, 404), (MEMBER, 403)):
        for call in calls_of(api.app):
            if call.is_own:
                continue
            for content in (b"{", b'{"level": "at_risk"}', b"\xff"):
                response = await api.call(
                    call.method, call.at(ORG, MEMBER) + "?limit=bad&level=inactive", user,
                    content=content, headers={"Content-Type": "application/json"},
                )  # fmt: skip
                assert response.status_code == status, call
                assert '"errors"' not in response.text


async def hurtful_names(api: Api) -> None:
    """People and an organisation with ids and names that hold the words, and notes that do."""
    await api.community.organization(ORG, HURTFUL_NAMES[0])
    await api.community.membership(LOST, name="Ina C. Tive at-risk inactive")
    await api.community.member(HURTFUL_MEMBER, name="Inactive", attended=(300,))
    # An organisation without a record is called by its id.
    await api.community.member(HURTFUL_MEMBER, org_id=HURTFUL_ORG, attended=(130,))
    await api.community.member(HURTFUL_ADMIN, org_id=HURTFUL_ORG, role="admin", attended=(1,))
    await api.community.evaluate([(ORG, HURTFUL_MEMBER), (HURTFUL_ORG, HURTFUL_MEMBER)])
    path = f"/v1/orgs/{ORG}/members/{SILENT}/override"
    body = {"level": "inactive", "notes": "at risk of being inactive"}
    assert (await api.call("PUT", path, json=body)).status_code == 200


def assert_kind(response: httpx2.Response, *about: object) -> None:
    assert is_clean(response.text), (*about, response.text)
    assert is_clean(" ".join(response.headers.values())), about


async def test_whatever_a_member_can_fetch_is_kind(api: Api) -> None:
    """Every endpoint and page, every error, for ids and queries that hold the words."""
    await hurtful_names(api)
    people = (MEMBER, SILENT, LOST, NEWCOMER, IMPLICIT, MARKUP, HURTFUL_MEMBER, STRANGER, None)
    for user in people:
        for call in calls_of(api.app):
            for org, about in (
                (ORG, LOST), (ORG, "at_risk"), (HURTFUL_ORG, HURTFUL_MEMBER), ("at_risk", "x"),
            ):  # fmt: skip
                content = call.content()
                headers = content.pop("headers", {}) | {"X-Request-ID": "inactive"}
                for query in ("", "?level=at_risk&q=inactive&cursor=inactive"):
                    path = call.at(org, about) + query
                    response = await api.call(call.method, path, user, headers=headers, **content)
                    assert response.status_code in (200, 401, 403, 404, 422), (call, response.text)
                    assert_kind(response, user, call, path)
        for path in ("/at_risk", "/v1/inactive", "/admin/at_risk", "/static/at_risk.css"):
            for method in ("GET", "PUT", "OPTIONS", "TRACE"):
                assert_kind(await api.call(method, path, user), method, path)


@pytest.mark.parametrize("name", HURTFUL_NAMES)
async def test_an_organisation_with_such_a_name_is_your_organisation(api: Api, name: str) -> None:
    await hurtful_names(api)
    await api.community.organization(ORG, name)
    for user in (MEMBER, SILENT, LOST, NEWCOMER, IMPLICIT, HURTFUL_MEMBER):
        response = await api.get("/me", user)
        assert_kind(response, user)
        assert "your organisation" in response.json()["user_explanation"], response.text
    response = await api.call("GET", f"/v1/orgs/{HURTFUL_ORG}/me", HURTFUL_MEMBER)
    assert_kind(response)
    assert "your organisation" in response.json()["user_explanation"]


async def test_sessions_and_sign_in_are_kind(api: Api) -> None:
    """What belongs to no organisation, with a caller whose id holds the words."""
    opened = await api.call("POST", "/session", HURTFUL_MEMBER)
    assert opened.status_code == 200
    assert_kind(opened)
    link = secrets.token_urlsafe(32)
    await api.community.execute(
        "INSERT INTO http_session VALUES ($1, 'link', $2, now() + interval '1 hour')",
        hashlib.sha256(link.encode()).digest(), HURTFUL_MEMBER,
    )  # fmt: skip
    form = {"Content-Type": FORM_TYPE, "Sec-Fetch-Site": "same-origin"}
    address = f"/sign-in?code={link}&org={HURTFUL_ORG}"
    offered = await api.call("GET", address, None)
    assert offered.status_code == 200
    assert_kind(offered)
    for wrong in ("/sign-in?code=at_risk", f"/sign-in?code={'x' * 43}&org=inactive"):
        for method in ("GET", "POST"):
            assert_kind(await api.call(method, wrong, None, headers=form), wrong)
    entered = await api.call("POST", address, None, headers=form)
    assert (entered.status_code, is_clean(entered.text)) == (303, True)
    cookie = entered.cookies["engagement_session"]
    api.client.cookies.clear()
    for headers in ({}, {"Cookie": f"engagement_session={cookie}"}):
        refused = await api.call("DELETE", "/session", None, headers=headers)
        assert refused.status_code in (401, 403)
        assert_kind(refused)
    headers = form | {"Cookie": f"engagement_session={cookie}"}
    content: Any = f"csrf_token={csrf_token(cookie)}".encode()
    out = await api.call("POST", "/sign-out", None, headers=headers, content=content)
    assert out.status_code == 200
    assert_kind(out)


async def test_a_member_sees_neither_notes_nor_the_text_for_administrators(api: Api) -> None:
    await api.call("PUT", f"/v1/orgs/{ORG}/members/{MEMBER}/override", ADMIN,
                   json={"level": "moderate", "notes": "a private remark"})  # fmt: skip
    record = (await api.get(f"/members/{MEMBER}")).json()
    mine = (await api.get("/me", MEMBER)).text
    assert "private remark" not in mine
    assert record["admin_explanation"] not in mine
    assert ADMIN not in mine
