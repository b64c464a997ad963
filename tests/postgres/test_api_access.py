"""Who gets what: every endpoint and page with every role, and what no role may see."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, NamedTuple

import pytest

from service.texts import is_clean
from tests.api_community import (
    ADMIN,
    DELETED_ADMIN,
    DELETED_ORG,
    IMPLICIT,
    LEFT,
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
    SUSPENDED_ADMIN,
    SUSPENDED_MEMBER,
    SUSPENDED_ORG,
)
from tests.postgres.api_client import Api, running_api

NUMBERS = {
    "highly_engaged_min_events": 4, "moderate_min_events": 2, "activity_window_days": 90,
    "new_member_days": 60, "inactive_after_days": 180,
}  # fmt: skip


class Endpoint(NamedTuple):
    """A call with a body that is fine, and the status that an administrator gets."""

    method: str
    path: str
    ok: int = 200
    body: Any = None
    admin: bool = True
    writes: bool = False


ENDPOINTS = (
    Endpoint("GET", "/me", admin=False),
    Endpoint("GET", "/members"),
    Endpoint("GET", "/members/{user}"),
    Endpoint("GET", "/members/{user}/history"),
    Endpoint("GET", "/summary"),
    Endpoint("GET", "/thresholds"),
    Endpoint("POST", "/thresholds/preview", body=NUMBERS),
    Endpoint("PUT", "/thresholds", body={**NUMBERS, "base_version": 0}, writes=True),
    Endpoint("PUT", "/members/{user}/override", body={"level": "new", "notes": "n"}, writes=True),
    Endpoint("DELETE", "/members/{user}/override", writes=True),
    Endpoint("POST", "/members/{user}/recompute", 202, writes=True),
    Endpoint("DELETE", "/members/{user}"),
)
PAGES = (
    "", "/members", "/members/{user}", "/members/{user}/history",
    "/members/{user}/override/preview", "/thresholds",
)  # fmt: skip
PAGE_FORMS = (
    "/members/{user}/override", "/members/{user}/override/clear", "/members/{user}/recompute",
    "/thresholds", "/thresholds/preview",
)  # fmt: skip
PLAIN_MEMBERS = (MEMBER, SILENT, LOST, NEWCOMER, IMPLICIT, MARKUP)
OUTSIDERS = (STRANGER, LEFT, OTHER_ADMIN, OTHER_MEMBER, DELETED_ADMIN, SUSPENDED_ADMIN)


@pytest.fixture
async def api(database: str) -> AsyncIterator[Api]:
    async with running_api(database) as running:
        yield running


async def call(api: Api, endpoint: Endpoint, user: str | None, org: str, about: str) -> Any:
    return await api.call(
        endpoint.method,
        f"/v1/orgs/{org}{endpoint.path.format(user=about)}",
        user,
        json=endpoint.body,
    )


async def test_the_lists_above_name_every_endpoint_and_page(api: Api) -> None:
    schema = api.app.openapi()
    described = {
        (method.upper(), path.removeprefix("/v1/orgs/{org}"))
        for path, methods in schema["paths"].items()
        for method in methods
        if path.startswith("/v1/")
    }
    assert described == {(e.method, e.path) for e in ENDPOINTS}
    assert {p for p in schema["paths"] if not p.startswith("/v1/")} == {"/session"}


async def test_every_endpoint_with_every_role(api: Api) -> None:
    """What an administrator can do last, so that nothing has changed for the others."""
    for endpoint in ENDPOINTS:
        for user in OUTSIDERS:
            response = await call(api, endpoint, user, ORG, MEMBER)
            assert response.status_code == 404, (endpoint, user, response.text)
        anonymous = await call(api, endpoint, None, ORG, MEMBER)
        assert anonymous.status_code == 401
        assert anonymous.headers["www-authenticate"].startswith("Bearer")
        for user in PLAIN_MEMBERS:
            for about in (user, ADMIN, LOST):
                response = await call(api, endpoint, user, ORG, about)
                expected = 403 if endpoint.admin else 200
                assert response.status_code == expected, (endpoint, user, response.text)
    for endpoint in ENDPOINTS:
        response = await call(api, endpoint, ADMIN, ORG, MEMBER)
        assert response.status_code == endpoint.ok, (endpoint, response.text)


async def test_an_admin_of_one_organisation_is_nobody_in_another(api: Api) -> None:
    for endpoint in ENDPOINTS:
        for user, org in ((ADMIN, OTHER_ORG), (OTHER_ADMIN, ORG), (ADMIN, DELETED_ORG),
                          (DELETED_ADMIN, DELETED_ORG), (ADMIN, "unknown")):  # fmt: skip
            response = await call(api, endpoint, user, org, OTHER_MEMBER)
            assert response.status_code == 404, (endpoint, user, org)


async def test_one_organisation_never_shows_the_members_of_another(api: Api) -> None:
    for path in (f"/members/{OTHER_MEMBER}", f"/members/{OTHER_MEMBER}/history"):
        assert (await api.get(path)).status_code == 404
    put = Endpoint("PUT", "/members/{user}/override", body={"level": "new", "notes": "n"})
    for endpoint in (put, Endpoint("DELETE", "/members/{user}/override"),
                     Endpoint("POST", "/members/{user}/recompute"),
                     Endpoint("DELETE", "/members/{user}")):  # fmt: skip
        assert (await call(api, endpoint, ADMIN, ORG, OTHER_MEMBER)).status_code == 404
    untouched = await api.call("GET", f"/v1/orgs/{OTHER_ORG}/members/{OTHER_MEMBER}", OTHER_ADMIN)
    assert untouched.json()["override"] is None


async def test_a_suspended_organisation_can_be_read_and_erased_from_only(api: Api) -> None:
    for endpoint in ENDPOINTS:
        response = await call(api, endpoint, SUSPENDED_ADMIN, SUSPENDED_ORG, SUSPENDED_MEMBER)
        expected = 409 if endpoint.writes else endpoint.ok
        assert response.status_code == expected, (endpoint, response.text)


async def test_a_demotion_counts_at_once(api: Api) -> None:
    assert (await api.get("/members", SECOND_ADMIN)).status_code == 200
    await api.community.membership(SECOND_ADMIN, role="member")
    assert (await api.get("/members", SECOND_ADMIN)).status_code == 403
    assert (await api.get("/summary", SECOND_ADMIN)).status_code == 403
    await api.community.membership(SECOND_ADMIN, role="admin", status="left")
    assert (await api.get("/members", SECOND_ADMIN)).status_code == 404
    await api.community.organization(ORG, "Riverside Makers", "deleted")
    assert (await api.get("/members", ADMIN)).status_code == 404


async def test_implicit_members_count_only_where_they_do(database: str) -> None:
    async with running_api(database, ENGAGEMENT_IMPLICIT_MEMBERSHIP="false") as api:
        assert (await api.get("/me", IMPLICIT)).status_code == 404
        assert (await api.get("/me", MEMBER)).status_code == 200


async def test_strangers_learn_nothing_from_malformed_requests(api: Api) -> None:
    """Access is decided before anything that was sent is looked at."""
    for user, status in ((None, 401), (STRANGER, 404), (MEMBER, 403)):
        for content in (b"{", b'{"level": "at_risk"}', b"\xff"):
            response = await api.call(
                "PUT", f"/v1/orgs/{ORG}/members/{MEMBER}/override", user, content=content,
                headers={"Content-Type": "application/json"},
            )  # fmt: skip
            assert response.status_code == status
            assert "errors" not in response.json()
        query = await api.call("GET", f"/v1/orgs/{ORG}/members?limit=bad&level=inactive", user)
        assert query.status_code == status


async def test_whatever_a_member_can_fetch_is_kind(api: Api) -> None:
    """Names that hold the words, echoes of them, every endpoint, method, page and error."""
    hurtful = "The In-Active At_Risk Club"
    await api.community.organization(ORG, hurtful)
    await api.community.membership(LOST, name="Ina C. Tive at-risk inactive")
    await api.call("PUT", f"/v1/orgs/{ORG}/members/{SILENT}/override", ADMIN,
                   json={"level": "inactive", "notes": "at risk of being inactive"})  # fmt: skip
    for user in (*PLAIN_MEMBERS, *OUTSIDERS, None):
        for about in ("at_risk", "inactive", LOST):
            for endpoint in ENDPOINTS:
                for path in (
                    f"/v1/orgs/{ORG}{endpoint.path.format(user=about)}",
                    f"/v1/orgs/{ORG}{endpoint.path.format(user=about)}?level=at_risk&q=inactive",
                    f"/v1/orgs/at_risk{endpoint.path.format(user=about)}",
                ):
                    response = await api.call(
                        endpoint.method, path, user, json=endpoint.body,
                        headers={"X-Request-ID": "inactive"},
                    )  # fmt: skip
                    assert is_clean(response.text), (user, path, response.text)
                    assert is_clean(" ".join(response.headers.values())), path
            for page in PAGES:
                path = f"/admin/orgs/{ORG}{page.format(user=about)}"
                response = await api.call("GET", path, user)
                assert response.status_code in (401, 403, 404)
                assert is_clean(response.text), (user, path, response.text)
            for form in PAGE_FORMS:
                path = f"/admin/orgs/{ORG}{form.format(user=about)}"
                response = await api.call(
                    "POST", path, user, content=b"level=at_risk",
                    headers={"Content-Type": "application/x-www-form-urlencoded"},
                )  # fmt: skip
                assert response.status_code in (401, 403, 404)
                assert is_clean(response.text)
    for path in ("/at_risk", "/v1/inactive", "/admin/at_risk", "/sign-in?code=at_risk"):
        assert is_clean((await api.call("GET", path, MEMBER)).text), path
    mine = (await api.get("/me", LOST)).json()
    assert "your organisation" in mine["user_explanation"]


async def test_a_member_sees_neither_notes_nor_the_text_for_administrators(api: Api) -> None:
    await api.call("PUT", f"/v1/orgs/{ORG}/members/{MEMBER}/override", ADMIN,
                   json={"level": "moderate", "notes": "a private remark"})  # fmt: skip
    record = (await api.get(f"/members/{MEMBER}")).json()
    mine = (await api.get("/me", MEMBER)).text
    assert "private remark" not in mine
    assert record["admin_explanation"] not in mine
    assert ADMIN not in mine
