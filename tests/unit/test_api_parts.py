"""Small parts of the API: cursors, sessions, access, problems, summaries."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import Request
from starlette.responses import Response

from service.api import cursors, sessions
from service.api.access import admit, admit_writing, is_admin, is_member
from service.api.contract import expected_revision
from service.api.problems import Problem, invalid, problem_of
from service.api.summaries import FRESH_S, PATIENCE_S, USABLE_S, Summaries
from service.api.values import (
    HistoryPosition,
    MemberPosition,
    MemberQuery,
    MemberRow,
    MemberSort,
    OrganizationStatus,
    Standing,
    Summary,
)
from service.errors import Conflict, InvalidThresholds, NotFound, NotReady, Retryable, Stale
from service.levels import Level, Reason
from service.records import Source
from tests.api_values import NOW, record

# --------------------------------------------------------------------------------------- cursors

ROW = MemberRow(
    5, "ada", None, Level.MODERATE, Level.MODERATE, Reason.SOME_ATTENDANCE, Source.RULES, NOW, 2, 0,
    NOW, NOW, None, None, NOW + timedelta(microseconds=1), Level.AT_RISK, NOW, 7,
)  # fmt: skip
VALUES: dict[MemberSort, Any] = {
    MemberSort.USER_ID: "ada", MemberSort.USER_ID_DESC: "ada",
    MemberSort.DUE: NOW + timedelta(microseconds=1), MemberSort.CHANGED: NOW,
    MemberSort.CHANGED_ASC: NOW, MemberSort.ATTENDED: NOW, MemberSort.ATTENDED_ASC: NOW,
    MemberSort.EVENTS: 2, MemberSort.EVENTS_ASC: 2,
}  # fmt: skip


@pytest.mark.parametrize("sort", list(MemberSort))
def test_cursors_come_back_as_they_went(sort: MemberSort) -> None:
    query = MemberQuery(sort=sort)
    cursor = cursors.member_cursor(query, ROW)
    assert cursors.member_position(query, cursor) == MemberPosition(VALUES[sort], 5)
    unknown = ROW._replace(next_level_change_at=None, level_since=None, last_attended_at=None)
    if sort in (MemberSort.DUE, MemberSort.CHANGED, MemberSort.ATTENDED):
        cursor = cursors.member_cursor(query, unknown)
        assert cursors.member_position(query, cursor) == MemberPosition(None, 5)


@pytest.mark.parametrize(
    "other", [{"text": "x"}, {"levels": frozenset({Level.NEW})}, {"override": True},
              {"due_within_days": 3}, {"sort": MemberSort.DUE}],
)  # fmt: skip
def test_a_cursor_is_good_for_its_own_question_only(other: dict[str, Any]) -> None:
    cursor = cursors.member_cursor(MemberQuery(), ROW)
    with pytest.raises(Problem):
        cursors.member_position(replace(MemberQuery(), **other), cursor)


@given(st.text(alphabet="ABCabc019_-", max_size=60))
def test_no_made_up_cursor_breaks_anything(text: str) -> None:
    for sort in MemberSort:
        with pytest.raises(Problem) as caught:
            cursors.member_position(MemberQuery(sort=sort), text)
        assert caught.value.status == 422
    with pytest.raises(Problem):
        cursors.history_position(text)


@pytest.mark.parametrize("sort", [MemberSort.USER_ID, MemberSort.USER_ID_DESC])
@pytest.mark.parametrize("value", ["a\0", "\ud800", "", "a b", "a" * 129, "ada\n"])
def test_a_forged_id_is_no_position(sort: MemberSort, value: str) -> None:
    query = MemberQuery(sort=sort)
    forged = cursors._encode([cursors._fingerprint(query), value, 1])
    with pytest.raises(Problem) as caught:
        cursors.member_position(query, forged)
    assert caught.value.code == "invalid-cursor"


ANYTHING = st.one_of(st.none(), st.integers(), st.text(max_size=8), st.floats(), st.booleans())


@given(st.lists(ANYTHING, min_size=3, max_size=3))
def test_no_forged_position_gets_through_with_wrong_types(parts: list[Any]) -> None:
    query = MemberQuery(sort=MemberSort.EVENTS)
    forged = cursors._encode([cursors._fingerprint(query), *parts[1:]])
    try:
        position = cursors.member_position(query, forged)
    except Problem:
        pass
    else:
        assert position.value is None or type(position.value) is int
        assert type(position.number) is int
    try:
        found = cursors.history_position(cursors._encode(parts))
    except Problem:
        return
    assert isinstance(found, HistoryPosition)


# -------------------------------------------------------------------------------------- sessions


def request(host: str = "127.0.0.1", scheme: str = "http", **headers: str) -> Request:
    raw = [(b"host", host.encode())]
    raw += [(k.replace("_", "-").encode(), v.encode()) for k, v in headers.items()]
    return Request(
        {"type": "http", "method": "POST", "scheme": scheme, "path": "/", "query_string": b"",
         "headers": raw, "server": (host.partition(":")[0], 80)}
    )  # fmt: skip


@pytest.mark.parametrize(
    ("host", "scheme", "name"),
    [
        ("127.0.0.1:8080", "http", "engagement_session"),
        ("localhost", "http", "engagement_session"),
        ("members.example", "http", "__Host-engagement_session"),
        ("members.example", "https", "__Host-engagement_session"),
        ("localhost", "https", "__Host-engagement_session"),
        ("localhost.evil.example", "http", "__Host-engagement_session"),
        ("[localhost", "http", "__Host-engagement_session"),
    ],
)
def test_cookies_are_bound_to_the_host_but_on_loopback(host: str, scheme: str, name: str) -> None:
    response = Response()
    sessions.set_session_cookie(request(host, scheme), response, "x" * 43)
    cookie = response.headers["set-cookie"]
    assert cookie.startswith(f"{name}=")
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    assert "Path=/" in cookie
    assert "Domain" not in cookie
    assert ("Secure" in cookie) is name.startswith("__Host-")
    assert f"Max-Age={8 * 3600}" in cookie


def test_a_plain_cookie_counts_on_loopback_only() -> None:
    secret = sessions.new_secret()
    plain, bound = f"engagement_session={secret}", f"__Host-engagement_session={secret}"
    assert sessions.session_secret(request(cookie=plain)) == secret
    assert sessions.session_secret(request(cookie=bound)) == secret
    assert sessions.session_secret(request("members.example", cookie=plain)) is None
    assert sessions.session_secret(request("members.example", cookie=bound)) == secret
    assert sessions.session_secret(request(cookie="engagement_session=short")) is None


SECRET = "s" * 43
TOKEN = sessions.csrf_token(SECRET)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"sec_fetch_site": "cross-site"},
        {"sec_fetch_site": "same-site"},
        {"sec_fetch_site": "none"},
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"origin": "http://127.0.0.1.evil.example"},
        {"origin": "http://[bad"},
        {"origin": "http://a]b"},
        {"origin": "http://[bad", "sec_fetch_site": "same-origin"},
        {"sec_fetch_site": "same-origin", "origin": "http://evil.example"},
    ],
)
def test_what_another_site_sends_is_refused(headers: dict[str, str]) -> None:
    with pytest.raises(Problem) as caught:
        sessions.check_csrf(request(**headers), SECRET, TOKEN)
    assert caught.value.status == 403
    assert "Origin" in caught.value.detail
    assert "token" not in caught.value.detail


def test_our_own_forms_pass_with_their_token_only() -> None:
    for headers in ({"sec_fetch_site": "same-origin"}, {"origin": "http://127.0.0.1"}):
        sessions.check_csrf(request(**headers), SECRET, TOKEN)
        sessions.check_csrf(request(x_csrf_token=TOKEN, **headers), SECRET)
        for wrong in ("", "é", TOKEN[:-1], sessions.csrf_token("t" * 43)):
            by_header = request(x_csrf_token=wrong, **headers)
            for sent, form_token in ((request(**headers), wrong), (by_header, None)):
                with pytest.raises(Problem) as caught:
                    sessions.check_csrf(sent, SECRET, form_token)
                assert (caught.value.status, caught.value.code) == (403, "cross-site")
                assert "token is missing or wrong" in caught.value.detail
                assert "X-CSRF-Token" in caught.value.detail


def test_a_proxy_has_to_pass_the_host_on() -> None:
    """As the page about deploying says: else forms are foreign, and the cookie is not Secure."""
    behind = request("127.0.0.1:8080", origin="https://members.example")
    with pytest.raises(Problem):
        sessions.check_same_origin(behind)
    response = Response()
    sessions.set_session_cookie(behind, response, SECRET)
    assert "Secure" not in response.headers["set-cookie"]
    passed_on = request("members.example", origin="https://members.example")
    sessions.check_same_origin(passed_on)
    response = Response()
    sessions.set_session_cookie(passed_on, response, SECRET)
    assert "Secure" in response.headers["set-cookie"]


# ---------------------------------------------------------------------------------------- access


def standing(
    membership: Any = "active",
    role: Any = "member",
    status: str = "active",
    *,
    active: bool = False,
) -> Standing:
    return Standing("n", OrganizationStatus(status), membership, role, active)


def test_membership() -> None:
    assert is_member(standing(), implicit_membership=False)
    assert not is_member(standing("left", active=True), implicit_membership=True)
    assert is_member(standing(None, None, active=True), implicit_membership=True)
    assert not is_member(standing(None, None, active=True), implicit_membership=False)
    assert not is_member(standing(None, None), implicit_membership=True)
    assert not is_member(standing(status="deleted"), implicit_membership=True)
    assert is_member(standing(status="suspended"), implicit_membership=True)


def test_administrators() -> None:
    assert is_admin(standing(role="admin"))
    assert not is_admin(standing("left", "admin"))
    assert not is_admin(standing(role="admin", status="deleted"))
    assert not is_admin(standing(None, None, active=True))
    admit(standing(role="admin"), admin=True, implicit_membership=True)
    for who, status in ((standing(), 403), (standing("left", "admin"), 404)):
        with pytest.raises(Problem) as caught:
            admit(who, admin=True, implicit_membership=True)
        assert caught.value.status == status
    with pytest.raises(Problem) as caught:
        admit_writing(standing(role="admin", status="suspended"))
    assert caught.value.status == 409


# -------------------------------------------------------------------------------------- problems


def test_refusals_and_their_statuses() -> None:
    for error, status in (
        (NotFound("x"), 404), (Conflict("x"), 409), (Stale("x"), 412), (Retryable("x"), 503),
        (NotReady("x"), 503), (InvalidThresholds([("moderate_min_events", "is odd")]), 422),
    ):  # fmt: skip
        assert problem_of(error).status == status


def test_validation_says_where_and_not_what() -> None:
    problem = invalid([{"loc": ("body", "notes"), "msg": "too long", "input": "secret"}] * 30)
    text = problem.body("id").decode()
    assert "body.notes" in text
    assert "secret" not in text
    assert len(problem.errors) == 20


@pytest.mark.parametrize(
    ("header", "expected"),
    [(None, None), ("*", None), (' "7" ', 7), ('"8"', 8), ('"1", "7"', 7)],
)
def test_if_match(header: str | None, expected: int | None) -> None:
    assert expected_revision(header, record(revision=7)) == expected


@pytest.mark.parametrize("header", ["", "7", 'W/"7"', '"x"', '"1", "2"', '"-1"', '"07"'])
def test_if_match_that_cannot_hold(header: str) -> None:
    with pytest.raises(Problem) as caught:
        expected_revision(header, record(revision=7))
    assert caught.value.status == 412


# ------------------------------------------------------------------------------------- summaries


class CountingStore:
    """Gives summaries, counts them, and can be slow or broken."""

    def __init__(self) -> None:
        self.calls = 0
        self.fails = False
        self.expiring: tuple[MemberRow, ...] = ()
        self.gate = asyncio.Event()
        self.gate.set()

    @asynccontextmanager
    async def organization(self, org_id: str, *, writes: bool = False) -> AsyncIterator[Any]:
        yield self

    async def summary(self) -> Summary:
        self.calls += 1
        await self.gate.wait()
        if self.fails:
            raise Retryable("away")
        return Summary(NOW, {}, {}, self.calls, 0, self.expiring, 0, (), None)


async def test_many_askers_one_summary() -> None:
    store, clock = CountingStore(), [0.0]
    summaries = Summaries(store, monotonic=lambda: clock[0])  # type: ignore[arg-type]
    store.gate.clear()
    waiting = [asyncio.create_task(summaries.get("org")) for _ in range(20)]
    await asyncio.sleep(0)
    waiting[0].cancel()
    await asyncio.sleep(0)
    store.gate.set()
    done = await asyncio.gather(*waiting[1:])
    assert {s.overrides for s in done} == {1}
    assert (await summaries.get("org")).overrides == 1
    clock[0] += FRESH_S + 0.1
    assert (await summaries.get("org")).overrides == 2, "a new one takes but a moment"
    clock[0] += FRESH_S + 0.1
    store.gate.clear()
    slow = [asyncio.create_task(summaries.get("org")) for _ in range(3)]
    assert {s.overrides for s in await asyncio.gather(*slow)} == {2}, "the new one takes long"
    assert store.calls == 3
    store.gate.set()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert (await summaries.get("org")).overrides == 3
    clock[0] += USABLE_S + 0.1
    assert (await summaries.get("org")).overrides == 4, "too old to be shown"
    summaries.forget("org")
    assert (await summaries.get("org")).overrides == 5
    assert (await summaries.get("other")).overrides == 6


async def test_no_summary_outlives_an_override_that_it_counts() -> None:
    store, clock = CountingStore(), [0.0]
    summaries = Summaries(store, monotonic=lambda: clock[0])  # type: ignore[arg-type]
    store.expiring = (ROW._replace(override_expires_at=NOW + timedelta(seconds=1)),)
    assert (await summaries.get("org")).overrides == 1
    clock[0] = 0.9
    assert (await summaries.get("org")).overrides == 1
    clock[0] = 1.0
    store.gate.clear()
    waiting = asyncio.create_task(summaries.get("org"))
    await asyncio.sleep(PATIENCE_S * 2)
    assert not waiting.done(), "however long the new one takes"
    # Who asks after the expiry is not content with what was begun before it.
    clock[0] = 2.0
    later = asyncio.create_task(summaries.get("org"))
    await asyncio.sleep(0)
    store.gate.set()
    assert (await waiting).overrides == 2
    assert (await later).overrides == 3


async def test_an_old_summary_is_shown_while_new_ones_fail() -> None:
    store, clock = CountingStore(), [0.0]
    summaries = Summaries(store, monotonic=lambda: clock[0])  # type: ignore[arg-type]
    assert (await summaries.get("org")).overrides == 1
    clock[0] = FRESH_S + 0.1
    store.fails = True
    assert (await summaries.get("org")).overrides == 1
    clock[0] = USABLE_S + 0.1
    with pytest.raises(Retryable):
        await summaries.get("org")


async def test_a_failed_summary_is_not_kept() -> None:
    store = CountingStore()
    summaries = Summaries(store)  # type: ignore[arg-type]
    store.fails = True
    with pytest.raises(Retryable):
        await summaries.get("org")
    store.fails = False
    assert (await summaries.get("org")).overrides == 2
