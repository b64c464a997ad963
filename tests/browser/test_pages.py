"""Every page: what it shows, on a desk and a phone, light and dark, and what axe says of it."""

from __future__ import annotations

import pytest
from playwright.async_api import Browser, expect

from tests.api_community import (
    LEFT,
    MARKUP,
    MARKUP_NAME,
    MEMBER,
)
from tests.browser.conftest import LOOKS, Stack, Visitor, visiting
from tests.browser.screenshots import shoot

PAGES = {
    "overview": "",
    "members": "/members",
    "members-filtered": "/members?level=at_risk&level=inactive&sort=due",
    "members-empty": "/members?q=nobody-at-all",
    "member": f"/members/{MEMBER}",
    "member-overridden": "/members?override=true",
    "member-left": f"/members/{LEFT}",
    "thresholds": "/thresholds",
    "thresholds-preview": "/thresholds",
}


@pytest.mark.parametrize("look", list(LOOKS))
@pytest.mark.parametrize("name", list(PAGES))
async def test_page(stack: Stack, browser: Browser, name: str, look: str) -> None:
    async with visiting(stack, browser, **LOOKS[look]) as visitor:
        page = await visitor.open(PAGES[name])
        if name == "member-overridden":
            await page.locator("#members tbody th a").first.click()
        if name == "thresholds-preview":
            await page.get_by_label("Events for “Highly engaged”").fill("6")
            await expect(page.locator("#preview .lead")).to_contain_text("would move")
        await expect(page.locator("h1")).to_be_visible()
        await visitor.check()
        await shoot(page, f"{name}-{look}")
        assert visitor.complaints == []


async def test_overview_counts_what_is_there(visitor: Visitor) -> None:
    page = await visitor.open()
    total = await visitor.stack.community.connection.fetchval(
        "SELECT count(*) FROM member_engagement WHERE org_id = 'riverside' AND level IS NOT NULL"
    )
    await expect(page.locator(".stat-figure").first).to_have_text(str(total))
    rows = page.locator(".bars tbody tr")
    await expect(rows).to_have_count(5)
    figures = [int(t) for t in await rows.locator("td:nth-of-type(2)").all_inner_texts()]
    assert sum(figures) == total
    await page.get_by_text("Numbers by day").click()
    await expect(
        page.get_by_role("table", name="Movements by day").locator("tbody tr")
    ).to_have_count(30)
    await page.get_by_role("link", name="At risk").first.click()
    await expect(page).to_have_url(f"{visitor.base}/members?level=at_risk")
    await expect(page.get_by_role("checkbox", name="At risk")).to_be_checked()


async def test_members_can_be_searched_filtered_sorted_and_paged(visitor: Visitor) -> None:
    page = await visitor.open("/members")
    await expect(page.locator("#members tbody tr")).to_have_count(50)
    first = await page.locator("#members tbody th a").first.inner_text()
    await page.get_by_role("link", name="Next page").click()
    await expect(page.get_by_role("link", name="First page")).to_be_visible()
    assert await page.locator("#members tbody th a").first.inner_text() != first
    await page.go_back()
    await expect(page.locator("#members tbody th a").first).to_have_text(first)

    await page.get_by_label("Search").fill("bob b")
    await expect(page.locator("#members tbody tr")).to_have_count(1)
    await expect(page).to_have_url(f"{visitor.base}/members?q=bob+b")
    await page.reload()
    await expect(page.get_by_label("Search")).to_have_value("bob b")
    await expect(page.locator("#members tbody th")).to_contain_text("Bob Builder")
    await page.get_by_label("Search").fill("nobody at all")
    await expect(page.get_by_role("heading", name="Nobody here")).to_be_visible()
    await page.get_by_role("link", name="Show all members").click()

    await page.get_by_role("checkbox", name="Inactive").check()
    await expect(page).to_have_url(f"{visitor.base}/members?level=inactive")
    await expect(page.locator("#members")).to_contain_text("Ivy Lost")
    badges = page.locator("#members tbody td[data-label=Level] .badge")
    assert set(await badges.all_inner_texts()) == {"Inactive"}
    await page.get_by_role("checkbox", name="Inactive").uncheck()
    await page.get_by_label("Order").select_option("-events_attended_90d")
    await expect(page).to_have_url(f"{visitor.base}/members?sort=-events_attended_90d")
    events = page.locator("#members tbody td[data-label=Events]")
    figures = [int(text) for text in await events.all_inner_texts()]
    assert figures == sorted(figures, reverse=True)


async def test_asking_the_same_twice_is_one_step_back(visitor: Visitor) -> None:
    page = await visitor.open("/members")
    search = page.get_by_label("Search")
    await search.fill("bob b")
    await expect(page).to_have_url(f"{visitor.base}/members?q=bob+b")
    async with page.expect_response(lambda r: "q=bob" in r.url and "seen=" not in r.url):
        await search.press("Enter")
    await expect(page.locator(".htmx-request")).to_have_count(0)
    await page.go_back()
    await expect(page).to_have_url(f"{visitor.base}/members")
    await expect(search).to_have_value("")


async def test_member_page_says_why_and_what_comes(visitor: Visitor) -> None:
    page = await visitor.open(f"/members/{MEMBER}")
    await expect(page.locator("h1")).to_have_text("Bob Builder")
    now = page.locator("#now")
    await expect(now.locator(".lead .badge").first).to_have_text("Moderate")
    await expect(now).to_contain_text("What the member reads")
    await expect(now).to_contain_text("Taking part.")
    await expect(now.locator(".decided")).to_contain_text("Events for “Moderate”: 1")
    await expect(now).to_contain_text("1 event attended before then would keep “Moderate”")
    await expect(now).to_contain_text("2 events more")
    picture = page.get_by_role("img", name="Levels, attendance and responses")
    await expect(picture.locator("circle.attended")).to_have_count(2)
    await expect(picture.locator("circle.responded")).to_have_count(2)
    await page.get_by_text("As a table").click()
    await expect(
        page.get_by_role("table", name="Events of the last year").locator("tbody tr")
    ).to_have_count(4)


async def test_names_and_notes_full_of_markup_stay_text(visitor: Visitor) -> None:
    page = await visitor.open(f"/members/{MARKUP}")
    await expect(page.locator("h1")).to_have_text(MARKUP_NAME)
    notes = (
        "<img src=x onerror=alert(1)>\n</textarea><script>alert(2)</script> {{ 7*7 }} & 'quote\""
    )
    await page.get_by_label("Moderate").check()
    await page.locator("#notes").fill(notes)
    await page.get_by_role("button", name="Set the override").click()
    await expect(page.get_by_role("status").first).to_contain_text("The override is set.")
    shown = page.locator("#now blockquote")
    await expect(shown).to_have_text(notes)
    assert await shown.locator("*").count() == 0
    await page.goto(f"{visitor.base}/members?q=%3Cscript")
    await expect(page.locator("#members tbody th a")).to_have_text(MARKUP_NAME)
    await expect(page.get_by_label("Search")).to_have_value("<script")
