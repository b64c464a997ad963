"""What every endpoint answers to an administrator."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx2
import pytest

from service.api import entry
from service.api.models.organizations import ThresholdsBody
from service.api.services import LONG_READS
from service.levels import Level
from tests.api_community import (
    ADMIN,
    IMPLICIT,
    LEFT,
    LOST,
    MEMBER,
    NEWCOMER,
    ORG,
    SECOND_ADMIN,
    SILENT,
    STRANGER,
    SUSPENDED_ADMIN,
    SUSPENDED_ORG,
)
from tests.postgres.api_calls import calls_of
from tests.postgres.api_client import HOST, Api, running_api


@pytest.fixture
async def api(database: str) -> AsyncIterator[Api]:
    async with running_api(database) as running:
        yield running


async def test_member_record_has_evidence_texts_and_etag(api: Api) -> None:
    response = await api.get(f"/members/{MEMBER}")
    assert response.status_code == 200, response.text
    body = response.json()
    assert response.headers["etag"] == f'"{body["revision"]}"'
    assert response.headers["cache-control"] == "no-store"
    assert (body["level"], body["reason"], body["source"]) == (
        "moderate",
        "some_attendance",
        "rules",
    )
    assert body["signals"]["events_attended_90d"] == 1
    assert "Riverside Makers" in body["admin_explanation"]
    assert "Bob Builder" in body["admin_explanation"]
    assert "Riverside Makers" in body["user_explanation"]
    assert "{" not in body["admin_explanation"] + body["user_explanation"]
    evidence = body["evidence"]
    assert evidence["rule"] == 3
    assert [c["met"] for c in evidence["comparisons"]] == [False, False, True]
    assert evidence["counted_events_total"] == len(evidence["counted_event_ids"]) == 1
    assert evidence["improvement"]["events"] == 2
    # One attended event leaves the window after 90 days; one more before then keeps the level.
    assert evidence["prevention"] == {
        "events": 1, "any_activity": False, "before": body["next_level_change_at"],
    }  # fmt: skip
    assert body["next_level"] == "at_risk"


async def test_a_member_who_waits_for_the_first_evaluation(api: Api) -> None:
    await api.community.member("just.arrived", name="Just Arrived", attended=(3,))
    body = (await api.get("/members/just.arrived")).json()
    assert (body["user_id"], body["display_name"]) == ("just.arrived", "Just Arrived")
    assert (body["membership"], body["level"], body["computed_at"]) == ("active", None, None)
    assert (await api.get("/me", "just.arrived")).json()["status_label"] is None
    assert (await api.get("/members/just.arrived/history")).json()["items"] == []
    page = await api.call("GET", f"/admin/orgs/{ORG}/members/just.arrived")
    assert "Not evaluated yet" in page.text
    # An override need not wait: setting it evaluates.
    path = f"/v1/orgs/{ORG}/members/just.arrived/override"
    early = await api.call("PUT", path, json={"level": "new", "notes": "n"})
    assert early.status_code == 200, early.text
    assert (early.json()["level"], early.json()["computed_level"]) == ("new", "moderate")


async def test_levels_of_the_community(api: Api) -> None:
    body = (await api.get("/members", limit=200)).json()
    levels = {item["user_id"]: item["level"] for item in body["items"]}
    assert levels[ADMIN] == "highly_engaged"
    assert levels[SILENT] == "at_risk"
    assert levels[LOST] == "inactive"
    assert levels[NEWCOMER] == "new"
    assert levels[IMPLICIT] == "moderate"
    assert LEFT not in levels
    assert body["next"] is None


@pytest.mark.parametrize(
    "sort",
    ["user_id", "-user_id", "due", "-level_since", "level_since", "-last_attended_at",
     "last_attended_at", "-events_attended_90d", "events_attended_90d"],
)  # fmt: skip
async def test_pages_together_are_the_list_in_every_order(api: Api, sort: str) -> None:
    whole = (await api.get("/members", sort=sort, limit=200)).json()["items"]
    assert len(whole) == 8
    seen: list[str] = []
    cursor: str | None = None
    for _ in range(10):
        query: dict[str, Any] = {"sort": sort, "limit": 3}
        query |= {"cursor": cursor} if cursor else {}
        page = (await api.get("/members", **query)).json()
        seen += [item["user_id"] for item in page["items"]]
        cursor = page["next"]
        if cursor is None:
            break
    assert seen == [item["user_id"] for item in whole]


async def test_pages_are_stable_while_members_come_and_go(api: Api) -> None:
    first = (await api.get("/members", limit=3)).json()
    assert [i["user_id"] for i in first["items"]] == [ADMIN, MEMBER, SECOND_ADMIN]
    await api.community.member("aaron", attended=(3,))
    await api.community.member("zoe", attended=(3,))
    await api.community.evaluate()
    await api.community.execute(
        "DELETE FROM engagement WHERE member_id = $1", api.community.members[ORG, SECOND_ADMIN]
    )
    rest = (await api.get("/members", limit=200, cursor=first["next"])).json()
    assert [i["user_id"] for i in rest["items"]] == [
        LOST, "mallory", IMPLICIT, NEWCOMER, SILENT, "zoe",
    ]  # fmt: skip


async def test_filters(api: Api) -> None:
    async def found(**query: Any) -> set[str]:
        response = await api.get("/members", **query)
        assert response.status_code == 200, response.text
        return {item["user_id"] for item in response.json()["items"]}

    assert await found(level="inactive") == {LOST}
    assert await found(level=["inactive", "new"]) == {LOST, NEWCOMER}
    assert await found(q="BOB b") == {MEMBER}
    assert await found(q="ada.a") == {ADMIN}
    assert await found(q="100%") == set()
    assert await found(q="_") == set()
    assert await found(due_within_days=6) == {SECOND_ADMIN}
    assert await found(override="true") == set()
    assert len(await found(override="false")) == 8


async def test_a_cursor_belongs_to_its_question(api: Api) -> None:
    cursor = (await api.get("/members", limit=2)).json()["next"]
    for query in ({"sort": "due"}, {"level": "new"}, {"q": "x"}):
        response = await api.get("/members", cursor=cursor, **query)
        assert response.status_code == 422
        assert response.json()["type"] == "urn:engagement:problem:invalid-cursor"


async def test_a_changed_cursor_is_refused_by_list_and_page(api: Api) -> None:
    good = (await api.get("/members", limit=1)).json()["next"]
    parts = json.loads(base64.urlsafe_b64decode(good + "=" * (-len(good) % 4)))
    for value in ("a\0", "\ud800"):
        changed = json.dumps([parts[0], value, parts[2]]).encode()
        cursor = base64.urlsafe_b64encode(changed).decode().rstrip("=")
        response = await api.get("/members", limit=1, cursor=cursor)
        assert response.status_code == 422, response.text
        assert response.json()["type"] == "urn:engagement:problem:invalid-cursor"
        page = await api.call("GET", f"/admin/orgs/{ORG}/members", params={"cursor": cursor})
        assert page.status_code == 422
        assert "Begin at the first one." in page.text


async def test_override_life(api: Api) -> None:
    path = f"/v1/orgs/{ORG}/members/{SILENT}/override"
    before = (await api.get(f"/members/{SILENT}")).json()
    body = {"level": "highly_engaged", "notes": "Runs the <b>workshop</b>", "expires_at": None}
    response = await api.call(
        "PUT", path, json=body, headers={"If-Match": f'"{before["revision"]}"'}
    )
    assert response.status_code == 200, response.text
    shown = response.json()
    assert (shown["level"], shown["computed_level"]) == ("highly_engaged", "at_risk")
    assert shown["source"] == "override"
    assert shown["override"]["notes"] == "Runs the <b>workshop</b>"
    assert shown["override"]["overridden_by"] == ADMIN
    assert shown["override"]["overridden_by_name"] == "Ada Admin"
    assert shown["revision"] == before["revision"] + 1
    listed = (await api.get("/members", override="true")).json()["items"]
    assert [(i["user_id"], i["level"], i["override_level"]) for i in listed] == [
        (SILENT, "highly_engaged", "highly_engaged")
    ]
    mine = (await api.get("/me", SILENT)).json()
    assert mine["status_label"] == "Highly engaged"
    # The same level as computed may be set: no change of level, but an action.
    body = {"level": "at_risk", "notes": "n", "expires_at": "2099-01-01T00:00:00+01:00"}
    response = await api.call("PUT", path, user_id=SECOND_ADMIN, json=body)
    assert response.status_code == 200
    assert response.json()["override"]["expires_at"] == "2098-12-31T23:00:00Z"
    response = await api.call("DELETE", path, json={"notes": "over"})
    assert response.status_code == 200, response.text
    assert response.json()["override"] is None
    again = await api.call("DELETE", path)
    assert again.status_code == 409
    history = (await api.get(f"/members/{SILENT}/history")).json()["items"]
    kinds = [(h["kind"], h.get("action") or f"{h['from_level']}>{h['to_level']}") for h in history]
    assert sorted(kinds) == sorted(
        [
            ("override", "override"), ("override", "override"), ("override", "clear"),
            ("level", "None>at_risk"), ("level", "at_risk>highly_engaged"),
            ("level", "highly_engaged>at_risk"),
        ]
    )  # fmt: skip
    assert {h["performed_by"] for h in history if h["kind"] == "override"} == {ADMIN, SECOND_ADMIN}


@pytest.mark.parametrize("body", [{}, {"notes": None}, {"notes": ""}, {"notes": " \n"}])
async def test_an_override_is_cleared_without_notes(api: Api, body: dict[str, Any]) -> None:
    path = f"/v1/orgs/{ORG}/members/{MEMBER}/override"
    await api.call("PUT", path, json={"level": "new", "notes": "n"})
    cleared = await api.call("DELETE", path, json=body)
    assert cleared.status_code == 200, cleared.text
    history = (await api.get(f"/members/{MEMBER}/history")).json()["items"]
    (action,) = [item for item in history if item.get("action") == "clear"]
    assert action["notes"] is None


async def test_override_refusals(api: Api) -> None:
    path = f"/v1/orgs/{ORG}/members/{{}}/override"
    good = {"level": "moderate", "notes": "because"}

    async def put(user: str, body: object, **headers: str) -> int:
        response = await api.call("PUT", path.format(user), json=body, headers=headers)
        assert response.headers["content-type"].startswith("application/problem+json")
        return response.status_code

    past = (datetime.now(UTC) - timedelta(seconds=1)).isoformat()
    assert await put(MEMBER, good | {"expires_at": past}) == 422
    assert await put(MEMBER, good | {"expires_at": "2099-01-01T00:00:00"}) == 422
    assert await put(MEMBER, good | {"notes": ""}) == 422
    assert await put(MEMBER, good | {"notes": " \n\t"}) == 422
    assert await put(MEMBER, good | {"notes": "x" * 2001}) == 422
    assert await put(MEMBER, good | {"notes": "a\0b"}) == 422
    assert await put(MEMBER, good | {"level": "great"}) == 422
    assert await put(MEMBER, good | {"more": 1}) == 422
    assert await put(MEMBER, {"level": "moderate"}) == 422
    assert await put(MEMBER, [good]) == 422
    assert await put(LEFT, good) == 409
    assert await put(STRANGER, good) == 404
    assert await put(MEMBER, good, **{"If-Match": '"99"'}) == 412
    assert await put(MEMBER, good, **{"If-Match": 'W/"1"'}) == 412
    assert await put(MEMBER, good, **{"If-Match": "nonsense"}) == 412
    after = (await api.get(f"/members/{MEMBER}")).json()
    assert after["override"] is None
    accepted = await api.call("PUT", path.format(MEMBER), json=good, headers={"If-Match": "*"})
    assert accepted.status_code == 200


async def test_what_is_wrong_is_said_plainly(api: Api) -> None:
    path = f"/v1/orgs/{ORG}/members/{MEMBER}/override"
    body = {"level": "new", "notes": "n"}
    for wrong, location, message in (
        ({"notes": ""}, "body.notes", "must not be blank"),
        ({"notes": " \n"}, "body.notes", "must not be blank"),
        ({"notes": "a\0"}, "body.notes", "must not hold NUL"),
        ({"expires_at": "2099-01-01T00:00:00"}, "body.expires_at", "must have an offset from UTC"),
    ):
        response = await api.call("PUT", path, json=body | wrong)
        assert response.status_code == 422
        assert response.json()["errors"] == [{"location": location, "message": message}]
    for method, kind in (
        ("PUT", {}), ("PUT", {"Content-Type": "text/plain"}), ("DELETE", {"Content-Type": "x"}),
    ):  # fmt: skip
        response = await api.call(method, path, content=json.dumps(body).encode(), headers=kind)
        assert response.status_code == 422, response.text
        assert "Content-Type: application/json" in response.json()["detail"]


async def test_stale_if_match_of_a_second_admin(api: Api) -> None:
    path = f"/v1/orgs/{ORG}/members/{MEMBER}/override"
    seen = (await api.get(f"/members/{MEMBER}")).headers["etag"]
    body = {"level": "new", "notes": "first"}
    first = await api.call("PUT", path, ADMIN, json=body, headers={"If-Match": seen})
    second = await api.call("PUT", path, SECOND_ADMIN, json=body, headers={"If-Match": seen})
    assert (first.status_code, second.status_code) == (200, 412)
    assert second.json()["type"] == "urn:engagement:problem:stale"


async def test_several_lines_of_a_header(api: Api) -> None:
    """Those of If-Match are one list; of tokens there may be one."""
    path = f"/v1/orgs/{ORG}/members/{MEMBER}/override"
    token = ("Authorization", f"Bearer {api.token(ADMIN)}")
    body = {"level": "new", "notes": "n"}

    async def put(*headers: tuple[str, str]) -> httpx2.Response:
        return await api.client.put(path, json=body, headers=list(headers))

    seen = (await api.get(f"/members/{MEMBER}")).headers["etag"]
    assert (await put(token, ("If-Match", '"98"'), ("If-Match", '"99"'))).status_code == 412
    assert (await put(token, ("If-Match", '"99"'), ("If-Match", seen))).status_code == 200
    for second in (token, ("Authorization", "Bearer x"), ("Authorization", "Basic x")):
        for both in ((token, second), (second, token)):
            refused = await put(*both)
            assert refused.status_code == 401
            assert refused.headers["www-authenticate"]


async def test_expiry_takes_effect_for_reads_without_a_timer(api: Api) -> None:
    path = f"/v1/orgs/{ORG}/members/{LOST}/override"
    soon = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    await api.call("PUT", path, json={"level": "moderate", "notes": "n", "expires_at": soon})
    await api.community.set_clock(days_ago=-1)
    member = (await api.get(f"/members/{LOST}")).json()
    assert (member["level"], member["override"]) == ("inactive", None)
    assert (member["previous_level"], member["level_since"][:16]) == ("moderate", soon[:16])
    listed = (await api.get("/members", level="inactive")).json()["items"]
    assert [i["user_id"] for i in listed] == [LOST]
    assert (await api.get("/members", override="true")).json()["items"] == []
    moderates = (await api.get("/members", level="moderate")).json()["items"]
    assert LOST not in {i["user_id"] for i in moderates}
    summary = (await api.get("/summary")).json()
    assert {row["level"]: row["members"] for row in summary["levels"]}["inactive"] == 1
    assert summary["overrides"] == 0


CLOCKS = ("next_change_at", "next_level_change_at", "next_level")


async def test_the_clocks_of_a_lapsed_override_say_nothing(api: Api) -> None:
    """They foretold what has come: until the next evaluation nobody knows what comes then."""
    soon = (datetime.now(UTC) + timedelta(days=10)).isoformat()
    body = {"level": "highly_engaged", "notes": "n", "expires_at": soon}
    path = f"/v1/orgs/{ORG}/members/{SECOND_ADMIN}"
    shown = (await api.call("PUT", path + "/override", json=body)).json()
    # Her only event leaves the window under the override.
    assert (shown["next_level"], shown["next_level_change_at"][:16]) == ("at_risk", soon[:16])
    assert (await api.get("/summary")).json()["falls_due_30d"] == 1
    await api.community.set_clock(days_ago=-11)
    api.app.state.services.summaries.forget(ORG)
    due = (await api.get("/members", due_within_days=30, limit=200)).json()["items"]
    assert SECOND_ADMIN not in [item["user_id"] for item in due]
    assert (await api.get("/summary")).json()["falls_due_30d"] == len(due)
    member = (await api.get(f"/members/{SECOND_ADMIN}")).json()
    assert [member[name] for name in CLOCKS] == [None, None, None]
    assert member["evidence"]["prevention"] is None
    whole = (await api.get("/members", sort="due", limit=200)).json()["items"]
    (listed,) = [item for item in whole if item["user_id"] == SECOND_ADMIN]
    assert (listed["next_level_change_at"], listed["next_level"]) == (None, None)
    assert await listed_in_pages_of_one(api, sort="due") == [item["user_id"] for item in whole]
    dates = [item["next_level_change_at"] for item in whole]
    assert dates == sorted(dates, key=lambda at: (at is None, at))
    page = await api.call("GET", f"/admin/orgs/{ORG}/members/{SECOND_ADMIN}")
    assert "now due" not in page.text
    view = await api.community.connection.fetchrow(
        "SELECT * FROM member_engagement WHERE user_id = $1", SECOND_ADMIN
    )
    assert view is not None
    assert [view[name] for name in CLOCKS] == [None, None, None]
    # Evaluated, she has clocks again.
    await api.community.evaluate([(ORG, SECOND_ADMIN)])
    member = (await api.get(f"/members/{SECOND_ADMIN}")).json()
    assert (member["level"], member["next_level"]) == ("at_risk", "inactive")


async def listed_in_pages_of_one(api: Api, **query: Any) -> list[str]:
    users: list[str] = []
    query["limit"] = 1
    while True:
        page = (await api.get("/members", **query)).json()
        users += [item["user_id"] for item in page["items"]]
        if page["next"] is None:
            return users
        query["cursor"] = page["next"]


async def test_history_of_a_member_who_left(api: Api) -> None:
    items = (await api.get(f"/members/{LEFT}/history")).json()["items"]
    assert [(i["from_level"], i["to_level"]) for i in items] == [
        ("highly_engaged", None), (None, "highly_engaged"),
    ]  # fmt: skip
    member = (await api.get(f"/members/{LEFT}")).json()
    assert (member["level"], member["membership"]) == (None, "left")
    assert member["admin_explanation"] is None
    first = (await api.get(f"/members/{LEFT}/history", limit=1)).json()
    rest = (await api.get(f"/members/{LEFT}/history", limit=1, cursor=first["next"])).json()
    assert first["items"] + rest["items"] == items
    assert rest["next"] is None
    assert (await api.get(f"/members/{STRANGER}/history")).status_code == 404


async def history_in_pages_of_one(api: Api, user: str) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = []
    query: dict[str, Any] = {"limit": 1}
    while True:
        page = (await api.get(f"/members/{user}/history", **query)).json()
        items += page["items"]
        if page["next"] is None:
            return items
        query["cursor"] = page["next"]


def told(items: list[dict[str, Any]]) -> list[str]:
    return [item.get("action") or item["cause"] for item in items]


async def test_history_of_one_instant_is_newest_first_as_it_was_written(api: Api) -> None:
    """An action is behind the change that it makes, and what is over ends before what begins."""
    path = f"/v1/orgs/{ORG}/members/{LOST}/override"
    soon = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    body = {"level": "moderate", "notes": "n", "expires_at": soon}
    await api.call("PUT", path, json=body)
    await api.community.set_clock(days_ago=-1)
    await api.call("PUT", path, json=body | {"level": "new", "expires_at": None})
    items = (await api.get(f"/members/{LOST}/history")).json()["items"]
    assert told(items) == [
        "override_set", "override", "override_expired", "expire",
        "override_set", "override", "membership",
    ]  # fmt: skip
    assert len({item["recorded_at"] for item in items[:4]}) == 1
    changes = [item for item in items if item["kind"] == "level"]
    assert [c["revision"] for c in changes] == sorted(
        (c["revision"] for c in changes), reverse=True
    )
    assert [c["from_level"] for c in changes[:-1]] == [c["to_level"] for c in changes[1:]]
    assert await history_in_pages_of_one(api, LOST) == items


async def test_history_of_leaving_under_an_override(api: Api) -> None:
    body = {"level": "moderate", "notes": "n"}
    await api.call("PUT", f"/v1/orgs/{ORG}/members/{LOST}/override", json=body)
    await api.community.membership(LOST, name="Ivy Lost", status="left")
    await api.community.evaluate([(ORG, LOST)])
    items = await history_in_pages_of_one(api, LOST)
    assert told(items)[:4] == ["membership", "clear", "override_set", "override"]
    assert items == (await api.get(f"/members/{LOST}/history")).json()["items"]


async def test_summary(api: Api) -> None:
    body = (await api.get("/summary")).json()
    assert {row["level"]: row["members"] for row in body["levels"]} == {
        "highly_engaged": 1, "moderate": 4, "at_risk": 1, "new": 1, "inactive": 1,
    }  # fmt: skip
    assert body["members"] == 8
    assert body["name"] == "Riverside Makers"
    today = datetime.now(UTC).date().isoformat()
    moves = {(m["day"], m["direction"]): m["members"] for m in body["movements"]}
    assert moves == {(today, "entered"): 9, (today, "left"): 1}
    # Grace's event of 85 days ago leaves the window in 5 days.
    assert body["falls_due_30d"] == 1
    assert body["last_run"] is None


async def test_previews_take_turns_and_leave_room_for_others(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One takes seconds in a large organisation, and a few would hold every connection."""
    monkeypatch.setattr(entry, "TURN_TIMEOUT_S", 0.1)
    turns: asyncio.Semaphore = api.app.state.services.long_reads
    path = f"/v1/orgs/{ORG}/thresholds"
    numbers = {
        name: value
        for name, value in (await api.get("/thresholds")).json()["current"].items()
        if name in ThresholdsBody.model_fields
    }
    for _ in range(LONG_READS):
        await turns.acquire()
    late = await api.call("POST", path + "/preview", json=numbers)
    assert (late.status_code, late.headers["Retry-After"]) == (503, "2")
    assert (await api.get("/members")).status_code == 200
    turns.release()
    for _ in range(LONG_READS):
        assert (await api.call("POST", path + "/preview", json=numbers)).status_code == 200


async def test_thresholds_preview_and_save(api: Api) -> None:
    path = f"/v1/orgs/{ORG}/thresholds"
    assert (await api.get("/thresholds")).json()["current"]["version"] == 0
    numbers = {
        "highly_engaged_min_events": 2, "moderate_min_events": 1, "activity_window_days": 200,
        "new_member_days": 60, "inactive_after_days": 300,
    }  # fmt: skip
    preview = await api.call("POST", path + "/preview", json=numbers)
    assert preview.status_code == 200, preview.text
    found = preview.json()
    assert found["members"] == 8
    assert len(found["matrix"]) == 25
    moves = {
        (t["from_level"], t["to_level"]): t["members"]
        for t in found["matrix"]
        if t["members"] and t["from_level"] != t["to_level"]
    }
    assert moves == {("at_risk", "moderate"): 1}
    assert found["members_changed"] == sum(moves.values())
    assert sum(row["members"] for row in found["then"]) == 8
    assert (await api.get("/thresholds")).json()["current"]["version"] == 0
    saved = await api.call("PUT", path, json=numbers | {"base_version": 0, "note": "wider"})
    assert saved.status_code == 200, saved.text
    assert saved.json()["current"]["version"] == 1
    assert saved.json()["current"]["author"] == ADMIN
    stale = await api.call("PUT", path, json=numbers | {"base_version": 0})
    assert stale.status_code == 412
    same = await api.call("PUT", path, json=numbers | {"base_version": 1})
    assert same.status_code == 409
    silly = numbers | {"moderate_min_events": 5, "base_version": 1}
    refused = await api.call("PUT", path, json=silly)
    assert refused.status_code == 422
    assert refused.json()["errors"][0]["location"] == "body.highly_engaged_min_events"


async def test_a_preview_counts_those_whom_the_summary_shows(api: Api) -> None:
    """Also while the organisation is suspended: reads stay."""
    numbers = {
        "highly_engaged_min_events": 2, "moderate_min_events": 1, "activity_window_days": 200,
        "new_member_days": 60, "inactive_after_days": 300,
    }  # fmt: skip
    path = f"/v1/orgs/{SUSPENDED_ORG}"
    summary = (await api.call("GET", path + "/summary", SUSPENDED_ADMIN)).json()
    found = await api.call("POST", path + "/thresholds/preview", SUSPENDED_ADMIN, json=numbers)
    assert found.json()["now"] == summary["levels"]
    assert found.json()["members"] == summary["members"] == 2


async def test_recompute_marks_the_member_due(api: Api) -> None:
    response = await api.call("POST", f"/v1/orgs/{ORG}/members/{MEMBER}/recompute")
    assert (response.status_code, response.json()) == (202, {"status": "accepted"})
    marks = await api.community.connection.fetchval(
        "SELECT count(*) FROM due_member WHERE member_id = $1",
        api.community.members[ORG, MEMBER],
    )
    assert marks == 1
    missing = await api.call("POST", f"/v1/orgs/{ORG}/members/{STRANGER}/recompute")
    assert missing.status_code == 404


async def test_erasure_gives_a_receipt_and_repeats(api: Api) -> None:
    path = f"/v1/orgs/{ORG}/members/{MEMBER}"
    response = await api.call("DELETE", path)
    assert response.status_code == 200, response.text
    receipt = response.json()
    assert receipt["user_id"] == MEMBER
    assert receipt["removed"]["attendances"] == 2
    assert receipt["pseudonymised"]["level changes"] == 2
    assert "level topic" in [one["where"] for one in receipt["remaining"]]
    assert (await api.get(f"/members/{MEMBER}")).status_code == 404
    assert (await api.get(f"/members/{MEMBER}/history")).status_code == 404
    again = await api.call("DELETE", path)
    assert again.status_code == 200
    assert again.json()["removed"] == dict.fromkeys(receipt["removed"], 0)
    assert again.json()["pseudonymised"] == dict.fromkeys(receipt["pseudonymised"], 0)
    unknown = await api.call("DELETE", f"/v1/orgs/{ORG}/members/{STRANGER}")
    assert unknown.status_code == 404


async def test_whoever_asks_for_a_trial_gets_no_change(api: Api) -> None:
    """Nothing that changes anything passes over a parameter that it does not know."""
    for call in calls_of(api.app):
        if not call.writes or call.is_page:
            continue
        path = call.at(ORG, MEMBER) + "?dry_run=true"
        response = await api.call(call.method, path, **call.content())
        assert response.status_code == 422, (call, response.text)
        listed = await api.get("/members", dry_run="true")
        assert response.json()["errors"] == listed.json()["errors"]
    assert (await api.get(f"/members/{MEMBER}")).json()["revision"] == 1
    assert (await api.get("/thresholds")).json()["current"]["version"] == 0


async def test_an_erased_admin_leaves_no_name_behind(api: Api) -> None:
    path = f"/v1/orgs/{ORG}/members/{MEMBER}/override"
    await api.call("PUT", path, SECOND_ADMIN, json={"level": "new", "notes": "n"})
    await api.call("DELETE", f"/v1/orgs/{ORG}/members/{SECOND_ADMIN}")
    for page in (f"/members/{MEMBER}", f"/members/{MEMBER}/history", "/thresholds", "/members"):
        assert SECOND_ADMIN not in (await api.get(page)).text


async def test_me_of_every_member(api: Api) -> None:
    expected = {
        ADMIN: "Highly engaged", MEMBER: "Taking part", SILENT: "We'd love to see you",
        LOST: "Welcome back any time", NEWCOMER: "New here", IMPLICIT: "Taking part",
    }  # fmt: skip
    for user, label in expected.items():
        body = (await api.get("/me", user)).json()
        assert body["status_label"] == label
        assert "Riverside Makers" in body["user_explanation"]
        assert set(body) == {"status_label", "user_explanation", "computed_at", "next_step"}
    assert len(Level) == 5


async def test_unmet_methods_paths_and_bodies_are_problems(api: Api) -> None:
    for method, path, status in (
        ("PATCH", f"/v1/orgs/{ORG}/thresholds", 405),
        ("GET", "/v1/nothing", 404),
        ("GET", f"/v1/orgs/{ORG}/members?limit=0", 422),
        ("GET", f"/v1/orgs/{ORG}/members?colour=red", 422),
        ("GET", f"/v1/orgs/{ORG}/members/!", 422),
        ("GET", "/v1/orgs/!/me", 404),
    ):
        response = await api.call(method, path)
        assert response.status_code == status, (method, path, response.text)
        assert response.headers["content-type"] == "application/problem+json"
        assert response.headers["cache-control"] == "no-store"
        assert response.json()["request_id"] == response.headers["x-request-id"]
    path = f"/v1/orgs/{ORG}/members/{MEMBER}/override"
    for content in (b"{", b"\xff", b"", b"[" * 20_000, b'{"notes": "\\ud800", "level": "new"}'):
        response = await api.call(
            "PUT", path, content=content, headers={"Content-Type": "application/json"}
        )
        assert response.status_code == 422, content[:10]
    huge = await api.call("PUT", path, content=b" " * 70_000)
    assert huge.status_code == 413


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("PATCH", f"/v1/orgs/{ORG}/thresholds", "GET, HEAD, PUT"),
        ("PUT", f"/v1/orgs/{ORG}/members/{MEMBER}", "DELETE, GET, HEAD"),
        ("GET", f"/v1/orgs/{ORG}/members/{MEMBER}/override", "DELETE, PUT"),
        ("HEAD", f"/v1/orgs/{ORG}/members/{MEMBER}/override", "DELETE, PUT"),
        ("POST", "/openapi.json", "GET, HEAD"),
        ("POST", "/docs", "GET, HEAD"),
        ("POST", "/static/admin.css", "GET, HEAD"),
        ("POST", f"/admin/orgs/{ORG}", "GET, HEAD"),
        ("PUT", f"/admin/orgs/{ORG}/thresholds", "GET, HEAD, POST"),
        ("POST", f"/admin/orgs/{ORG}/members/{MEMBER}/history", "GET, HEAD"),
        ("GET", "/sign-out", "POST"),
        ("PUT", "/sign-in", "GET, HEAD, POST"),
        ("GET", "/session", "DELETE, POST"),
    ],
)
async def test_what_is_not_allowed_says_what_is(
    api: Api, method: str, path: str, allowed: str
) -> None:
    response = await api.call(method, path)
    assert response.status_code == 405
    assert response.headers["allow"] == allowed


async def test_head_is_get_without_the_body(api: Api) -> None:
    for path in (
        f"/v1/orgs/{ORG}/members/{MEMBER}", f"/v1/orgs/{ORG}/me", f"/admin/orgs/{ORG}/members",
        "/openapi.json", "/docs", "/static/admin.css", "/v1/nothing", "/v1/orgs/elsewhere/me",
    ):  # fmt: skip
        whole, head = await api.call("GET", path), await api.call("HEAD", path)
        assert head.status_code == whole.status_code, path
        assert (head.content, whole.content != b"") == (b"", True), path
        for name in ("content-type", "etag", "cache-control", "content-security-policy"):
            assert head.headers.get(name) == whole.headers.get(name), (path, name)
    assert (await api.get("/members", None)).status_code == 401
    assert (await api.call("HEAD", f"/v1/orgs/{ORG}/members", None)).status_code == 401
    assert (await api.call("HEAD", f"/v1/orgs/{ORG}/members", MEMBER)).status_code == 403


async def test_what_a_session_opens_is_enough_to_write(api: Api) -> None:
    """By the cookie and the token that `POST /session` gives, as the description says."""
    assert "X-CSRF-Token (header)" in (await api.call("GET", "/docs", None)).text
    opened = await api.call("POST", "/session")
    # The client keeps the cookie.
    token, path = opened.json()["csrf_token"], f"/v1/orgs/{ORG}/members/{MEMBER}/override"
    body = {"level": "new", "notes": "n"}
    for headers, wanted in (
        ({"Origin": HOST}, 403),
        ({"Origin": HOST, "X-CSRF-Token": token[:-1]}, 403),
        ({"Origin": "http://[bad", "X-CSRF-Token": token}, 403),
        ({"X-CSRF-Token": token}, 403),
        ({"Origin": HOST, "X-CSRF-Token": token}, 200),
        ({"Sec-Fetch-Site": "same-origin", "X-CSRF-Token": token}, 200),
    ):
        response = await api.call("PUT", path, None, json=body, headers=headers)
        assert response.status_code == wanted, (headers, response.text)
    by_bearer = await api.call("DELETE", "/session", headers={"Cookie": ""})
    assert by_bearer.status_code == 401, "a bearer token ends no session"
    headers = {"Origin": HOST, "X-CSRF-Token": token}
    assert (await api.call("DELETE", "/session", None, headers=headers)).status_code == 204


async def test_an_expiry_of_the_year_10000_hides_nobody(api: Api) -> None:
    """There may be some from before they were refused."""
    path = f"/v1/orgs/{ORG}/members/{SILENT}"
    body = {"level": "moderate", "notes": "n", "expires_at": "2099-01-01T00:00:00Z"}
    assert (await api.call("PUT", path + "/override", json=body)).status_code == 200
    number = api.community.members[ORG, SILENT]
    await api.community.execute(
        "UPDATE engagement SET override_expires_at = '10000-01-01 11:59+00',"
        " next_change_at = '10000-01-01 11:59+00', next_level_change_at = '10000-01-01 11:59+00'"
        " WHERE member_id = $1", number,
    )  # fmt: skip
    await api.community.execute(
        "INSERT INTO engagement_override_history (engagement_id, org_id, user_id, previous_level,"
        " new_level, notes, action, performed_by, performed_at, expires_at) VALUES ($1, $2, $3,"
        " 'moderate', 'moderate', 'n', 'override', 'x', now(), '10000-01-01 11:59+00')",
        number, ORG, SILENT,
    )  # fmt: skip
    last = "9999-12-31T23:59:59.999999Z"
    assert (await api.get(f"/members/{SILENT}")).json()["override"]["expires_at"] == last
    history = (await api.get(f"/members/{SILENT}/history")).json()["items"]
    assert last in [item.get("expires_at") for item in history]
    (listed,) = (await api.get("/members", override="true")).json()["items"]
    assert listed["override_expires_at"] == last
    assert (await api.call("GET", f"/admin/orgs/{ORG}/members/{SILENT}")).status_code == 200
    assert (await api.call("DELETE", path + "/override")).status_code == 200


async def test_an_expiry_that_nobody_could_read_again_is_no_expiry(api: Api) -> None:
    """The form takes an offset, too: with one, the last minute of all lies in the year 10000."""
    token = (await api.call("POST", "/session")).json()["csrf_token"]
    revision = (await api.get(f"/members/{SILENT}")).json()["revision"]
    draft = {
        "level": "moderate", "notes": "n", "expiry": "at", "csrf_token": token,
        "revision": str(revision), "expires_at": "9999-12-31T23:59-12:00",
    }  # fmt: skip
    path = f"/admin/orgs/{ORG}/members/{SILENT}/override"
    headers = {"Origin": HOST, "Sec-Fetch-Site": "same-origin"}
    response = await api.client.post(path, data=draft, headers=headers)
    assert response.status_code == 422
    assert "Give a day and a time." in response.text
    assert (await api.get("/members")).status_code == 200
