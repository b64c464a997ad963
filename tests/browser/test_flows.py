"""What administrators do, from the click to the topic."""

from __future__ import annotations

import asyncio
import json
import re
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx2
import pytest
from aiokafka import AIOKafkaConsumer
from playwright.async_api import Browser, expect

from service.cli.token import sign_in_link
from tests.api_community import ADMIN, NEWCOMER, ORG, SECOND_ADMIN
from tests.browser.conftest import Stack, Visitor, set_override, visiting


async def level_records(stack: Stack, user_id: str) -> list[dict[str, Any]]:
    """Everything on the level topic about a member, in order."""
    settings = stack.api.settings
    consumer = AIOKafkaConsumer(
        settings.topic_level,
        bootstrap_servers=settings.kafka_bootstrap_servers,
        auto_offset_reset="earliest",
        enable_auto_commit=False,
    )
    await consumer.start()
    try:
        batches = await consumer.getmany(timeout_ms=2_000, max_records=100_000)
    finally:
        await consumer.stop()
    key = f"{ORG}:{user_id}".encode()
    return [
        json.loads(record.value)
        for records in batches.values()
        for record in records
        if record.key == key and record.value is not None
    ]


async def until_published(stack: Stack, user_id: str, wanted: Any) -> dict[str, Any]:
    """Wait for the latest level record to be as wanted."""
    latest: dict[str, Any] = {}
    for _ in range(20):
        records = await level_records(stack, user_id)
        latest = records[-1] if records else {}
        if latest and wanted(latest):
            return latest
        await asyncio.sleep(0.3)
    pytest.fail(f"not published: {latest}")


async def test_override_with_expiry_from_click_to_topic_and_back(visitor: Visitor) -> None:
    stack = visitor.stack
    page = await visitor.open(f"/members/{NEWCOMER}")
    watching = await visitor.context.new_page()
    await watching.goto(f"{visitor.base}/members?q={NEWCOMER}")
    until = datetime.now(UTC) + timedelta(seconds=15)
    await page.get_by_label("Highly engaged").check()
    preview = page.locator("#override-preview")
    moved = re.compile(r"New.*Highly engaged", re.DOTALL)
    await expect(preview.locator(".move")).to_have_text(moved)
    await set_override(page, "Highly engaged", "Speaks at the spring fair", until)
    await expect(page.locator("#now .lead .badge").first).to_have_text("Highly engaged")
    await expect(page.locator("#now")).to_contain_text("Ada Admin")
    await expect(page.locator("#now")).to_contain_text("the override ends")

    # In the list, which was open all the time, and on the topic.
    row = watching.locator("#members tbody tr")
    await expect(row).to_contain_text("Highly engaged", timeout=15_000)
    await expect(row).to_contain_text("override until")
    published = await until_published(stack, NEWCOMER, lambda r: r["source"] == "override")
    assert (published["level"], published["computed_level"]) == ("highly_engaged", "new")
    assert "Speaks at the spring fair" not in json.dumps(published)

    # Gone by itself: nobody reloads anything.
    await expect(page.locator("#now .lead .badge").first).to_have_text("New", timeout=25_000)
    await expect(page.locator("#now blockquote")).to_have_count(0)
    await expect(row).not_to_contain_text("override until", timeout=20_000)
    published = await until_published(stack, NEWCOMER, lambda r: r["override"] is None)
    assert published["level"] == "new"
    history = page.locator("#history-rows")
    await expect(history).to_contain_text("The override expired")
    await expect(history).to_contain_text("Speaks at the spring fair")
    assert visitor.complaints == []


async def test_replacing_and_clearing_an_override(visitor: Visitor) -> None:
    await visitor.stack.community.member("rita", name="Rita Replaced", attended=(130,))
    await visitor.stack.community.evaluate([(ORG, "rita")])
    page = await visitor.open("/members/rita")
    await set_override(page, "Moderate", "First reason")
    await expect(page.get_by_role("status").first).to_contain_text("The override is set.")
    await expect(page.locator("#override-preview")).to_contain_text(
        "Replaces the override by Ada Admin"
    )
    await set_override(page, "At risk", "Second reason")
    await expect(page.locator("#now blockquote")).to_have_text("Second reason")
    await page.get_by_label("Why it ends").fill("Was a mistake")
    await page.get_by_role("button", name="Clear the override").click()
    await expect(page.get_by_role("status").first).to_contain_text("The override is cleared")
    history = page.locator("#history-rows")
    for text in ("First reason", "Second reason", "Was a mistake", "cleared the override"):
        await expect(history).to_contain_text(text)
    # Reloading after a change does not repeat it.
    before = await history.locator("tr").count()
    await page.reload()
    await expect(history.locator("tr")).to_have_count(before)


async def test_what_was_entered_stays_when_something_is_missing(visitor: Visitor) -> None:
    page = await visitor.open(f"/members/{SECOND_ADMIN}")
    await page.locator("#notes").fill("No level chosen")
    await page.get_by_role("button", name="Set the override").click()
    await expect(page.locator("#level-error")).to_have_text("Choose a level.")
    await expect(page.locator("#notes")).to_have_value("No level chosen")
    assert await visitor.violations() == []
    past = datetime.now(UTC) - timedelta(days=1)
    await set_override(page, "New", "In the past", past)
    await expect(page.get_by_role("alert").last).to_be_visible()
    await expect(page.locator("#notes")).to_have_value("In the past")
    await expect(page.locator("#now .lead .badge").first).to_have_text("Moderate")
    visitor.complaints = [c for c in visitor.complaints if "422" not in c]


async def test_a_second_administrator_comes_too_late(stack: Stack, browser: Browser) -> None:
    await stack.someone("conny", "Conny Conflict")
    async with visiting(stack, browser) as ada, visiting(stack, browser, SECOND_ADMIN) as grace:
        first, second = await ada.open("/members/conny"), await grace.open("/members/conny")
        await second.get_by_label("New", exact=True).check()
        await second.locator("#notes").fill("Grace's reason")
        await set_override(first, "At risk", "Ada's reason")
        await expect(first.locator("#now blockquote")).to_have_text("Ada's reason")
        await second.get_by_role("button", name="Set the override").click()
        alert = second.locator("#problem")
        await expect(alert).to_contain_text("changed this member since you opened the page")
        await expect(alert).to_be_focused()
        # What is there now, and what Grace had entered.
        await expect(second.locator("#now blockquote")).to_have_text("Ada's reason")
        await expect(second.locator("#notes")).to_have_value("Grace's reason")
        await expect(second.get_by_label("New", exact=True)).to_be_checked()
        assert await grace.violations() == []
        await second.get_by_role("button", name="Replace the override").click()
        await expect(second.locator("#now blockquote")).to_have_text("Grace's reason")
        # Ada's page follows without a reload.
        await expect(first.locator("#now blockquote")).to_have_text("Grace's reason")


async def test_what_was_done_is_said_once(visitor: Visitor) -> None:
    await visitor.stack.someone("olga.once", "Olga Once")
    page = await visitor.open("/members/olga.once")
    done = page.locator(".notice.good")
    await set_override(page, "At risk", "For a moment")
    await expect(done).to_have_text("The override is set.")
    await page.get_by_role("button", name="Clear the override").click()
    await expect(done).to_contain_text("The override is cleared")
    await page.reload()
    await expect(page.locator("#now")).to_be_visible()
    await expect(done).to_have_count(0)
    # Nor that it is set, now that it is cleared.
    await page.go_back()
    await expect(page.locator("#now")).to_be_visible()
    await expect(done).to_have_count(0)


async def test_evaluating_in_an_organisation_just_suspended_says_so(
    stack: Stack, browser: Browser
) -> None:
    community = stack.community
    await community.organization("pausing", "Pausing")
    await community.member("pam.admin", org_id="pausing", role="admin", attended=(1,))
    await community.evaluate([("pausing", "pam.admin")])
    async with visiting(stack, browser, "pam.admin", org="pausing") as visitor:
        page = await visitor.open("/members/pam.admin")
        await community.organization("pausing", "Pausing", "suspended")
        await page.get_by_role("button", name="Evaluate now").click()
        await expect(page.locator("aside")).to_contain_text("nothing can be changed")
        await expect(page.locator("h1")).to_have_text("pam.admin")


async def test_thresholds_are_previewed_then_saved(stack: Stack, browser: Browser) -> None:
    async with visiting(stack, browser) as ada, visiting(stack, browser, SECOND_ADMIN) as grace:
        page = await ada.open("/thresholds")
        await page.get_by_label("Events for “Highly engaged”").fill("0")
        await expect(page.locator("#preview")).to_contain_text("make no sense together")
        await page.get_by_label("Events for “Highly engaged”").fill("40")
        preview = page.locator("#preview")
        await expect(preview.locator(".lead")).to_contain_text("would move")
        matrix = preview.locator("table.matrix")
        cells = [
            int(re.sub(r"\D", "", t))
            for t in await matrix.locator("tbody td:not(.total)").all_inner_texts()
        ]
        assert len(cells) == 25
        total = int(re.sub(r"\D", "", await matrix.locator("tfoot td").last.inner_text()))
        assert sum(cells) == total
        # Nobody attends 40 events in 90 days: only those stay whom an override keeps there.
        kept = await stack.community.connection.fetchval(
            "SELECT count(*) FROM member_engagement"
            " WHERE org_id = $1 AND override_level = 'highly_engaged'",
            ORG,
        )
        assert cells[0] == kept
        assert await ada.violations() == []
        version = await stack.community.connection.fetchval("SELECT count(*) FROM thresholds")
        assert version == 0, "a preview writes nothing"

        late = await grace.open("/thresholds")
        await late.get_by_label("Days that a member is “New”").fill("30")
        await expect(late.locator("#preview .lead")).to_contain_text("would move")

        # Nothing can be saved but what is shown.
        save = page.get_by_role("button", name="Save these thresholds")
        await page.get_by_label("Events for “Highly engaged”").fill("41")
        await expect(save).to_be_disabled()
        await preview.get_by_label("Why").fill("Only those who always come")
        await save.click()
        await expect(page.get_by_role("status").first).to_contain_text("Saved.")
        await expect(page.locator("h1 + .sub")).to_contain_text("Version 1 by Ada Admin")
        await expect(page.get_by_label("Events for “Highly engaged”")).to_have_value("41")
        await expect(page.locator("table").last).to_contain_text("Only those who always come")

        await late.locator("#preview").get_by_label("Why").fill("Spring")
        await late.get_by_role("button", name="Save these thresholds").click()
        await expect(late.locator("#problem")).to_contain_text("Somebody saved other thresholds")
        await expect(late.get_by_label("Days that a member is “New”")).to_have_value("30")
        await late.get_by_role("button", name="Show what would change").click()
        await expect(late.locator("#preview").get_by_label("Why")).to_have_value("Spring")

        # The worker evaluates everybody anew, and the overview follows by itself.
        overview = await ada.open()
        highly = overview.locator(".bars tbody tr").first.locator("td").nth(1)
        await expect(highly).to_have_text(str(kept), timeout=20_000)
        # As it was, for the other tests.
        headers = {"Authorization": f"Bearer {stack.api.token(ADMIN)}"}
        async with httpx2.AsyncClient(base_url=stack.api.address, headers=headers) as client:
            response = await client.put(
                f"/v1/orgs/{ORG}/thresholds",
                json={"highly_engaged_min_events": 3, "moderate_min_events": 1,
                      "activity_window_days": 90, "new_member_days": 60,
                      "inactive_after_days": 180, "base_version": 1},
            )  # fmt: skip
            assert response.status_code == 200, response.text
        await expect(highly).not_to_have_text(str(kept), timeout=20_000)


async def test_evaluate_now(visitor: Visitor) -> None:
    page = await visitor.open(f"/members/{SECOND_ADMIN}")
    await page.get_by_role("button", name="Evaluate now").click()
    await expect(page.get_by_role("status").first).to_contain_text("evaluated within moments")


async def test_the_one_time_link(stack: Stack, browser: Browser) -> None:
    link = await sign_in_link(stack.api.settings, ORG, ADMIN)
    context = await browser.new_context()
    context.set_default_timeout(10_000)
    try:
        page = await context.new_page()
        await page.goto(link)
        await expect(page.locator("main")).to_contain_text(ADMIN)
        await page.get_by_role("button", name="Sign in").click()
        await expect(page).to_have_url(f"{stack.api.address}/admin/orgs/{ORG}")
        await expect(page.locator("h1")).to_have_text("Overview")
        cookie = (await context.cookies())[0]
        assert (cookie["httpOnly"], cookie["sameSite"]) == (True, "Strict")
        again = await context.new_page()
        await again.goto(link)
        await expect(again.locator("main")).to_contain_text("The link has been used")
        await page.get_by_role("button", name="Sign out").click()
        await expect(page.locator("h1")).to_have_text("Signed out")
        await page.goto(f"{stack.api.address}/admin/orgs/{ORG}")
        await expect(page.locator("h1")).to_have_text("Sign in")
    finally:
        await context.close()


async def test_another_site_cannot_use_the_session(visitor: Visitor) -> None:
    """The cookie with forged origins and tokens, as a browser would never let a page do."""
    cookies = {c["name"]: c["value"] for c in await visitor.context.cookies()}
    form = {"level": "new", "notes": "forged", "revision": "1"}
    path = f"/admin/orgs/{ORG}/members/{SECOND_ADMIN}/override"
    async with httpx2.AsyncClient(base_url=visitor.stack.api.address, cookies=cookies) as client:
        for headers in (
            {},
            {"Origin": "https://evil.example"},
            {"Sec-Fetch-Site": "cross-site"},
            {"Sec-Fetch-Site": "same-origin"},
        ):
            response = await client.post(path, data=form, headers=headers)
            assert response.status_code == 403
            # As whoever has signed in anew since the page was opened is told, too.
            assert "opened in another session" in response.text
            api = await client.put(
                f"/v1/orgs/{ORG}/members/{SECOND_ADMIN}/override",
                json={"level": "new", "notes": "forged"}, headers=headers,
            )  # fmt: skip
            assert api.status_code == 403
        assert (await client.get(f"/v1/orgs/{ORG}/members")).status_code == 200
