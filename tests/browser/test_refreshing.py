"""Pages that follow what happens elsewhere, and leave their reader alone while they do."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from playwright.async_api import Browser, Error, Route, expect

from tests.api_community import ADMIN, ORG
from tests.browser.conftest import Stack, Visitor, elsewhere, visiting

NUMBERS = {
    "highly_engaged_min_events": 3, "moderate_min_events": 1, "activity_window_days": 90,
    "new_member_days": 60, "inactive_after_days": 180,
}  # fmt: skip


async def test_a_members_page_follows_level_history_and_picture(visitor: Visitor) -> None:
    path = await visitor.stack.someone("fiona.followed", "Fiona Followed")
    page = await visitor.open(path)
    rows = page.locator("#history-rows tr")
    await expect(rows).to_have_count(1)
    await page.get_by_text("As a table").click()
    await page.get_by_text("1 event counted").click()
    body = {"level": "at_risk", "notes": "Said so on the phone"}
    await elsewhere(visitor.stack, "PUT", f"{path}/override", body)
    await expect(page.locator("#now blockquote")).to_have_text("Said so on the phone")
    await expect(rows).to_have_count(3)
    await expect(page.locator("#history-rows")).to_contain_text("Grace Admin set an override")
    await expect(page.locator("#announce")).to_have_text("Updated. Level: At risk.")
    # What the reader had unfolded stays so.
    await expect(page.locator("#counted")).to_have_attribute("open", "")
    await expect(page.locator("#year-table")).to_have_attribute("open", "")
    # Nor is anything that was typed lost.
    await page.locator("#notes").fill("half a sentence")
    await elsewhere(visitor.stack, "DELETE", f"{path}/override", {})
    await expect(page.locator("#now blockquote")).to_have_count(0)
    await expect(page.locator("#notes")).to_have_value("half a sentence")


async def test_a_search_is_answered_while_the_list_asks_for_news(visitor: Visitor) -> None:
    """The list's answer, which comes first, must not take the place of what the search finds."""
    path = await visitor.stack.someone("polly.passed", "Polly Passed")
    page = await visitor.open("/members?q=polly.passed&override=false")
    has_news, has_searched = asyncio.Event(), asyncio.Event()

    async def slowly(route: Route) -> None:
        response = await route.fetch()
        if "seen=" not in route.request.url:
            has_searched.set()
            await asyncio.sleep(0.5)
        elif response.status == 200:
            has_news.set()
            await has_searched.wait()
        with suppress(Error):  # nobody waits for it any more
            await route.fulfill(response=response)

    await page.route("**/members?*", slowly)
    body = {"level": "new", "notes": "While somebody searches"}
    await elsewhere(visitor.stack, "PUT", f"{path}/override", body)
    await asyncio.wait_for(has_news.wait(), 15)
    await page.get_by_label("Search").fill("bob b")
    await expect(page).to_have_url(f"{visitor.base}/members?override=false&q=bob+b")
    await expect(page.locator("#members tbody tr")).to_have_count(1)


async def test_a_search_is_answered_while_another_page_is_awaited(visitor: Visitor) -> None:
    page = await visitor.open("/members")

    async def slowly(route: Route) -> None:
        response = await route.fetch()
        if "seen=" not in route.request.url:
            await asyncio.sleep(1.5 if "q=" in route.request.url else 1.0)
        await route.fulfill(response=response)

    await page.route("**/members?*", slowly)
    await page.get_by_role("link", name="Next page").click()
    await page.get_by_label("Search").fill("bob b")
    await expect(page).to_have_url(f"{visitor.base}/members?q=bob+b")
    await expect(page.locator("#members tbody tr")).to_have_count(1)


async def test_the_keyboards_place_in_the_list_is_kept(visitor: Visitor) -> None:
    path = await visitor.stack.someone("kay.keyboard", "Kay Keyboard")
    page = await visitor.open("/members?q=kay.keyboard")
    link = page.get_by_role("link", name="Kay Keyboard")
    await link.focus()
    body = {"level": "new", "notes": "While somebody reads"}
    await elsewhere(visitor.stack, "PUT", f"{path}/override", body)
    await expect(page.locator("#members tbody")).to_contain_text("override")
    await expect(link).to_be_focused()
    await page.keyboard.press("Enter")
    await expect(page.locator("h1")).to_have_text("Kay Keyboard")


async def test_paging_by_keyboard_stays_at_the_pager(visitor: Visitor) -> None:
    page = await visitor.open("/members")
    following = page.get_by_role("link", name="Next page")
    await following.focus()
    first = await page.locator("#members tbody th a").first.inner_text()
    await page.keyboard.press("Enter")
    await expect(page.locator("#members tbody th a").first).not_to_have_text(first)
    for _ in range(10):
        if await following.count() == 0:
            break
        await expect(following).to_be_focused()
        first = await page.locator("#members tbody th a").first.inner_text()
        await page.keyboard.press("Enter")
        await expect(page.locator("#members tbody th a").first).not_to_have_text(first)
    await expect(page.locator("#announce")).to_contain_text("on this last page")
    await expect(page.locator("#members")).to_be_focused()


async def test_what_a_filter_finds_is_said(visitor: Visitor) -> None:
    page = await visitor.open("/members")
    await expect(page.locator(".pager p")).to_have_text("50 members shown, more on the next page")
    await page.get_by_label("Search").fill("bob b")
    await expect(page.locator("#announce")).to_have_text("1 member")
    await page.get_by_label("Search").fill("nobody at all")
    await expect(page.locator("#announce")).to_have_text("No members")
    await expect(page.get_by_label("Search")).to_be_focused()


async def test_what_is_marked_stays_marked(visitor: Visitor) -> None:
    """Who marks a text means to copy it, and needs a few seconds."""
    page = await visitor.open()
    label = page.locator(".stat-label").first
    await label.select_text()
    for _ in range(2):
        async with page.expect_response(lambda r: "seen=" in r.url and r.status == 200):
            pass
    assert await page.evaluate("String(getSelection())") == await label.inner_text()
    # Afterwards the page follows again.
    seen = await page.locator("#overview").get_attribute("hx-get")
    assert seen is not None
    await page.locator("h1").click()
    await expect(page.locator("#overview")).not_to_have_attribute("hx-get", seen)


async def test_the_page_of_somebody_erased_says_that_nobody_is_there(
    stack: Stack, browser: Browser
) -> None:
    path = await stack.someone("erna.erased", "Erna Erased")
    async with visiting(stack, browser) as visitor:
        page = await visitor.open(path)
        await elsewhere(stack, "DELETE", path, None)
        await expect(page.locator("h1")).to_have_text("Nothing here")
        await expect(page.locator("main")).not_to_contain_text("Erna")


async def test_who_is_no_administrator_any_more_sees_no_more(
    stack: Stack, browser: Browser
) -> None:
    await stack.community.member("will.was", name="Will Was", role="admin", attended=(20,))
    await stack.community.evaluate([(ORG, "will.was")])
    async with visiting(stack, browser, "will.was") as visitor:
        page = await visitor.open("/members")
        await stack.community.membership("will.was", name="Will Was")
        await expect(page.locator("h1")).to_have_text("For administrators only")


async def test_thresholds_saved_elsewhere_are_seen(stack: Stack, browser: Browser) -> None:
    async with visiting(stack, browser) as visitor:
        page = await visitor.open("/thresholds")
        current = await stack.community.connection.fetchval(
            "SELECT coalesce(max(version), 0) FROM thresholds WHERE org_id = $1", ORG
        )
        await page.get_by_label("Days that a member is “New”").fill("45")
        await expect(page.locator("#preview .lead")).to_contain_text("would move")
        more = {"base_version": current, "note": "Seen at once"}
        await elsewhere(stack, "PUT", "/thresholds", NUMBERS | {"new_member_days": 50} | more)
        await expect(page.locator("#versions")).to_contain_text("Seen at once")
        await expect(page.locator("#in-force")).to_contain_text("by Grace Admin")
        await expect(page.locator("#new_member_days-hint")).to_contain_text("In force: 50.")
        await expect(page.get_by_label("Days that a member is “New”")).to_have_value("45")
        await expect(page.locator("#announce")).to_have_text(f"Version {current + 1} is in force.")
        assert visitor.complaints == []
        back = {"base_version": current + 1, "note": ""}
        await elsewhere(stack, "PUT", "/thresholds", NUMBERS | back)


async def test_nothing_is_sent_while_nothing_changes(stack: Stack, browser: Browser) -> None:
    async with visiting(stack, browser, ADMIN) as visitor:
        page = await visitor.open("/thresholds")
        async with page.expect_response(lambda r: "seen=" in r.url) as first:
            pass
        async with page.expect_response(lambda r: "seen=" in r.url) as second:
            pass
        assert {(await first.value).status, (await second.value).status} == {204}
        assert visitor.complaints == []
