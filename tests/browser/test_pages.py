"""Every page: what it shows, on a desk and a phone, light and dark, and what axe says of it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Browser, expect

from tests.api_community import (
    ADMIN,
    LEFT,
    LOST,
    MARKUP,
    MARKUP_NAME,
    MEMBER,
    SILENT,
    STRANGER,
)
from tests.browser.conftest import DESKTOP, PHONE, Stack, Visitor, visiting

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
LOOKS: dict[str, dict[str, Any]] = {
    "desktop": {"viewport": DESKTOP},
    "dark": {"viewport": DESKTOP, "color_scheme": "dark"},
    "phone": {"viewport": PHONE, "is_mobile": True, "has_touch": True, "device_scale_factor": 2},
}
# Where screenshots go, if they are wanted: docs/screenshots is made with this.
SCREENSHOTS = os.environ.get("TEST_SCREENSHOTS")


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
        assert await visitor.violations() == []
        wide = await page.evaluate(
            "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        )
        assert wide <= 0, "the page scrolls sideways"
        if SCREENSHOTS:
            await _shoot(visitor, name, look)
        assert visitor.complaints == []


async def _shoot(visitor: Visitor, name: str, look: str) -> None:
    path = Path(str(SCREENSHOTS)) / f"{name}-{look}.png"
    await visitor.page.screenshot(path=path, full_page=True)


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


@pytest.mark.parametrize(
    ("user", "path", "heading"),
    [
        (None, "", "Sign in"),
        (STRANGER, "", "Nothing here"),
        (MEMBER, "/members", "For administrators only"),
        (ADMIN, f"/members/{STRANGER}", "Nothing here"),
        (ADMIN, "/members?cursor=abc", "That did not work"),
    ],
)
async def test_pages_that_say_no(
    stack: Stack, browser: Browser, user: str | None, path: str, heading: str
) -> None:
    async with visiting(stack, browser, user or ADMIN) as visitor:
        if user is None:
            await visitor.context.clear_cookies()
        page = await visitor.open(path)
        await expect(page.locator("h1")).to_have_text(heading)
        assert await visitor.violations() == []


async def test_everything_works_by_keyboard(visitor: Visitor) -> None:
    page = await visitor.open()
    await page.keyboard.press("Tab")
    await expect(page.get_by_role("link", name="Skip to content")).to_be_focused()
    await page.keyboard.press("Enter")
    await expect(page.locator("#main")).to_be_focused()
    await page.goto(f"{visitor.base}/members/{LOST}")
    await page.get_by_label("Highly engaged").focus()
    await page.keyboard.press("ArrowDown")
    await expect(page.get_by_label("Moderate", exact=True)).to_be_checked()
    await page.keyboard.press("Tab")
    await page.keyboard.type("By keyboard")
    for _ in range(4):
        await page.keyboard.press("Tab")
        if await page.evaluate("document.activeElement.type") == "submit":
            break
    await page.keyboard.press("Enter")
    await expect(page.locator("#now blockquote")).to_have_text("By keyboard")


async def test_pages_work_without_scripts(stack: Stack, browser: Browser) -> None:
    async with visiting(stack, browser, java_script_enabled=False) as visitor:
        page = await visitor.open("/members?level=at_risk")
        await page.get_by_role("button", name="Show").click()
        await page.goto(f"{visitor.base}/members/{SILENT}")
        await page.get_by_label("Moderate", exact=True).check()
        await page.locator("#notes").fill("Without scripts")
        await page.get_by_role("button", name="Set the override").click()
        assert "The override is set." in await page.content()
        await page.goto(f"{visitor.base}/thresholds")
        await page.locator("#highly_engaged_min_events").fill("5")
        await page.get_by_role("button", name="Show what would change").click()
        assert "would move" in await page.content()


async def test_the_description_of_the_api_is_readable(visitor: Visitor) -> None:
    page = visitor.page
    await page.goto(f"{visitor.stack.api.address}/docs")
    await expect(page.locator(".opblock").first).to_be_visible()
    assert await page.locator(".opblock").count() == 14
