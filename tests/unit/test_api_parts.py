"""Small parts of the API: cursors, sessions, problems, summaries, charts, texts, vendored files."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import Request
from starlette.responses import Response

from service.api import cursors, presenting, sessions
from service.api.access import admit, admit_writing, is_admin, is_member
from service.api.contract import expected_revision
from service.api.middleware import CONTENT_SECURITY_POLICY
from service.api.pages import charts, words
from service.api.problems import Problem, invalid, problem_of
from service.api.summaries import FRESH_S, USABLE_S, Summaries
from service.api.values import (
    HistoryPosition,
    MemberPosition,
    MemberQuery,
    MemberRecord,
    MemberRow,
    MemberSort,
    OrganizationStatus,
    Standing,
    Summary,
    TimelineFacts,
)
from service.errors import Conflict, InvalidThresholds, NotFound, NotReady, Retryable, Stale
from service.levels import Direction, Level, Reason
from service.records import Source
from service.signals import JoinedAtSource, Signals
from service.texts import is_clean
from service.thresholds import DEFAULT_THRESHOLDS

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
STATIC = Path(__file__).parents[2] / "service" / "api" / "static"

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
        {"sec_fetch_site": "same-origin", "origin": "http://evil.example"},
    ],
)
def test_what_another_site_sends_is_refused(headers: dict[str, str]) -> None:
    with pytest.raises(Problem) as caught:
        sessions.check_csrf(request(**headers), SECRET, TOKEN)
    assert caught.value.status == 403


def test_our_own_forms_pass_with_their_token_only() -> None:
    for headers in ({"sec_fetch_site": "same-origin"}, {"origin": "http://127.0.0.1"}):
        sessions.check_csrf(request(**headers), SECRET, TOKEN)
        sessions.check_csrf(request(x_csrf_token=TOKEN, **headers), SECRET)
        for wrong in ("", "é", TOKEN[:-1], sessions.csrf_token("t" * 43)):
            with pytest.raises(Problem):
                sessions.check_csrf(request(**headers), SECRET, wrong)


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
        return Summary(NOW, {}, {}, self.calls, 0, (), 0, (), None)


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
    assert (await summaries.get("org")).overrides == 1, "the old one, while a new one is made"
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert (await summaries.get("org")).overrides == 2
    clock[0] += USABLE_S + 0.1
    assert (await summaries.get("org")).overrides == 3, "too old to be shown"
    summaries.forget("org")
    assert (await summaries.get("org")).overrides == 4
    assert (await summaries.get("other")).overrides == 5


async def test_a_failed_summary_is_not_kept() -> None:
    store = CountingStore()
    summaries = Summaries(store)  # type: ignore[arg-type]
    store.fails = True
    with pytest.raises(Retryable):
        await summaries.get("org")
    store.fails = False
    assert (await summaries.get("org")).overrides == 2


# ---------------------------------------------------------------------------------------- charts


@given(
    st.dictionaries(
        st.tuples(st.integers(0, 40), st.sampled_from(list(Direction))), st.integers(1, 10**6)
    )
)
def test_bars_of_movements_stay_in_the_picture(moves: dict[tuple[int, Direction], int]) -> None:
    today = NOW.date()
    by_day = {(today - timedelta(days=n), d): count for (n, d), count in moves.items()}
    chart = charts.movement_chart(by_day, today)
    assert len(chart.rows) == 30
    assert chart.rows[-1].day == today
    for rect in chart.rects:
        assert rect.y >= 7.9
        assert rect.y + rect.height <= charts.MOVEMENT_HEIGHT - 23.9
        assert 0 <= rect.x <= charts.MOVEMENT_WIDTH
        above = rect.direction is Direction.RISE
        assert rect.y + rect.height <= chart.zero + 0.02 if above else rect.y >= chart.zero - 0.02
    assert chart.totals[Direction.FALL] == sum(
        count for (n, d), count in moves.items() if d is Direction.FALL and n < 30
    )


def test_distribution_shares() -> None:
    bars = charts.distribution({Level.MODERATE: 200, Level.NEW: 1, Level.AT_RISK: 100})
    assert [b.level for b in bars] == list(words.ORDER)
    by_level = {b.level: b for b in bars}
    assert by_level[Level.MODERATE].width == 100
    assert by_level[Level.AT_RISK].width == 50
    assert by_level[Level.NEW].share == "<1\u202f%"
    assert all(b.width == 0 for b in charts.distribution({}))


def test_the_timeline_shows_a_year_and_what_is_ahead() -> None:
    day = timedelta(days=1)
    facts = TimelineFacts(
        [(NOW - 10 * day, "e3"), (NOW - 200 * day, "e2"), (NOW - 390 * day, "e1")],
        [(NOW - 11 * day, "e3")],
        [(NOW - 5 * day, Level.MODERATE), (NOW - 100 * day, None), (NOW - 500 * day, Level.NEW)],
    )
    picture = charts.timeline(facts, NOW, 90, (NOW + 60 * day, Level.AT_RISK))
    assert [mark.what for mark in picture.attended] == ["e2", "e3"]
    assert [band.level for band in picture.bands] == [Level.NEW, Level.MODERATE]
    assert picture.bands[0].x == 0
    assert picture.bands[1].x + picture.bands[1].width == pytest.approx(picture.now, abs=0.1)
    assert picture.next_change is not None
    assert picture.now < picture.next_change.x < charts.TIMELINE_WIDTH
    far = charts.timeline(facts, NOW, 90, (NOW + 3000 * day, None))
    assert far.next_change is None
    assert charts.timeline(TimelineFacts((), (), ()), NOW, 90, None).bands == []


def test_dates_and_numbers_in_words() -> None:
    assert words.day(NOW) == "23 Nov 2026"
    assert words.minute(NOW) == "23 Nov 2026, 12:00 UTC"
    assert words.day(None) == words.minute(None) == "\N{EN DASH}"
    assert words.month(date(2027, 1, 1)) == "Jan 2027"
    assert words.number(1234567) == "1\u202f234\u202f567"
    assert words.share(0, 0) == "0\u202f%"
    assert (words.events(1), words.members(2)) == ("1 event", "2 members")


# ----------------------------------------------------------------------------------------- texts


def record(**changes: Any) -> MemberRecord:
    base = MemberRecord(
        user_id="ada", display_name="Ada", membership="active", role="member",
        level=Level.MODERATE, computed_level=Level.MODERATE, rules_level=Level.MODERATE,
        previous_level=None, level_since=NOW, reason=Reason.SOME_ATTENDANCE, rule=3,
        source=Source.RULES,
        signals=Signals(1, NOW, 0, None, None, NOW, JoinedAtSource.MEMBERSHIP),
        thresholds=DEFAULT_THRESHOLDS, counted_event_ids=["e"], improvement=None, override=None,
        admin_template="{member} at {org}", user_template="You at {org}", next_change_at=None,
        next_level_change_at=None, next_level=None, events_left=0, model_version="rules-1",
        computed_at=NOW, revision=3,
    )  # fmt: skip
    return replace(base, **changes)


@given(
    st.sampled_from(list(Level)), st.sampled_from([None, *Level]), st.integers(0, 5),
    st.sampled_from(["Riverside", "The Inactive Club", "At-Risk", "A t r i s k", "inac\u200btive"]),
)  # fmt: skip
def test_a_member_reads_kind_words_only(
    level: Level, then: Level | None, left: int, org: str
) -> None:
    found = presenting.me(
        record(level=level, next_level=then, next_level_change_at=NOW, events_left=left), org
    )
    assert is_clean(found.model_dump_json())
    assert found.status_label is not None
    assert "Ada" not in (found.user_explanation or "")


def test_nothing_to_say_yet() -> None:
    for unknown in (None, record(level=None), record(user_template=None)):
        assert presenting.me(unknown, "Riverside").model_dump() == {
            "status_label": None, "user_explanation": None, "computed_at": None, "next_step": None,
        }  # fmt: skip


@pytest.mark.parametrize(
    ("level", "then", "left", "events", "any_activity"),
    [
        (Level.HIGHLY_ENGAGED, Level.MODERATE, 2, 1, False),
        (Level.HIGHLY_ENGAGED, Level.AT_RISK, 0, 3, False),
        (Level.MODERATE, Level.AT_RISK, 0, 1, False),
        (Level.NEW, Level.AT_RISK, 0, 1, False),
        (Level.AT_RISK, Level.INACTIVE, 0, 1, True),
    ],
)
def test_what_would_prevent_a_fall(
    level: Level, then: Level, left: int, events: int, any_activity: bool
) -> None:
    found = presenting.prevention(
        record(level=level, next_level=then, next_level_change_at=NOW, events_left=left)
    )
    assert found is not None
    assert (found.events, found.any_activity, found.before) == (events, any_activity, NOW)


def test_nothing_prevents_what_is_no_fall() -> None:
    for then, at in ((Level.HIGHLY_ENGAGED, NOW), (Level.NEW, NOW), (None, None)):
        assert presenting.prevention(record(next_level=then, next_level_change_at=at)) is None


# ----------------------------------------------------------------------------------------- files


def test_vendored_files_are_those_that_were_published() -> None:
    folder = STATIC / "vendor"
    lines = (folder / "SHA256SUMS").read_text().splitlines()
    assert len(lines) == 3
    for line in lines:
        digest, name = line.split()
        plain = folder / name
        content = (
            plain.read_bytes()
            if plain.exists()
            else gzip.decompress((folder / f"{name}.gz").read_bytes())
        )
        assert hashlib.sha256(content).hexdigest() == digest, name


def test_pages_load_nothing_from_elsewhere() -> None:
    templates = STATIC.parent / "pages" / "templates"
    for path in [*templates.glob("*.html"), *STATIC.glob("*.*")]:
        text = path.read_text()
        for foreign in ("http://", "https://", "//cdn", "<style", " style=", "onclick", "hx-on"):
            allowed = foreign == "http://" and path.name == "icon.svg"
            assert allowed or foreign not in text, (path.name, foreign)
    assert "unsafe" not in CONTENT_SECURITY_POLICY


def test_what_anybody_may_load_names_no_hurtful_level() -> None:
    for path in STATIC.glob("*.*"):
        assert is_clean(path.read_text()), path.name
