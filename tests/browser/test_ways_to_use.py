"""The same flows for everybody: with a keyboard alone, on a phone, without scripts."""

from __future__ import annotations

import re

from playwright.async_api import Browser, Locator, Page, expect

from tests.api_community import ADMIN, ORG
from tests.browser.conftest import LOOKS, Stack, Visitor, visiting


async def tab_to(page: Page, target: Locator, most: int = 80) -> None:
    """Press Tab until the target has the focus, which is seen."""
    for _ in range(most):
        await page.keyboard.press("Tab")
        if await target.evaluate("e => e === document.activeElement"):
            seen = await target.evaluate(
                "e => [e, e.closest('label')].some((x) => x"
                " && getComputedStyle(x).outlineStyle !== 'none')"
            )
            assert seen, "the focus cannot be seen"
            return
    raise AssertionError("the keyboard does not get there")


async def test_an_override_by_keyboard_alone(visitor: Visitor) -> None:
    page = await visitor.open()
    await page.keyboard.press("Tab")
    await expect(page.get_by_role("link", name="Skip to content")).to_be_focused()
    await page.keyboard.press("Enter")
    await expect(page.locator("#main")).to_be_focused()
    await page.reload()
    await tab_to(page, page.get_by_role("link", name="Members", exact=True))
    await page.keyboard.press("Enter")
    await expect(page.locator("h1")).to_have_text("Members")
    await tab_to(page, page.get_by_role("checkbox", name="Inactive"))
    await page.keyboard.press("Space")
    await expect(page).to_have_url(f"{visitor.base}/members?level=inactive")
    await tab_to(page, page.get_by_role("link", name="Ivy Lost"))
    await page.keyboard.press("Enter")
    await expect(page.locator("h1")).to_have_text("Ivy Lost")
    await tab_to(page, page.get_by_label("Highly engaged"))
    await page.keyboard.press("ArrowDown")
    await expect(page.get_by_label("Moderate", exact=True)).to_be_checked()
    await expect(page.locator("#override-preview .move")).to_contain_text("Moderate")
    await tab_to(page, page.locator("#notes"), 2)
    await page.keyboard.type("By keyboard")
    await tab_to(page, page.get_by_label("How long"), 1)
    await page.keyboard.type("30")
    await expect(page.locator("#override-preview")).to_contain_text("until")
    await tab_to(page, page.get_by_role("button", name="Set the override"), 2)
    await page.keyboard.press("Enter")
    await expect(page.locator("#now blockquote")).to_have_text("By keyboard")
    await tab_to(page, page.get_by_role("button", name="Clear the override"))
    await page.keyboard.press("Enter")
    await expect(page.locator("#now blockquote")).to_have_count(0)


async def test_thresholds_by_keyboard_alone(visitor: Visitor) -> None:
    page = await visitor.open("/thresholds")
    await tab_to(page, page.get_by_label("Events for “Highly engaged”"))
    await page.keyboard.press("ArrowUp")
    await expect(page.locator("#preview .lead")).to_be_visible()
    await tab_to(page, page.get_by_role("region", name="Who would move"))
    await tab_to(page, page.get_by_label("Why"))
    await page.keyboard.type("By keyboard")
    await tab_to(page, page.get_by_role("button", name="Save these thresholds"), 1)
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("status").first).to_contain_text("Saved.")
    await page.get_by_label("Events for “Highly engaged”").fill("3")
    await page.get_by_role("button", name="Save these thresholds").click()
    await expect(page.locator("#in-force")).to_contain_text("by Ada Admin")


async def test_an_override_on_a_phone(stack: Stack, browser: Browser) -> None:
    await stack.community.member("phil.phone", name="Phil Phone", attended=(130,))
    await stack.community.evaluate([(ORG, "phil.phone")])
    async with visiting(stack, browser, **LOOKS["phone"]) as visitor:
        page = await visitor.open()
        await page.get_by_role("link", name="Members", exact=True).tap()
        await page.get_by_label("Search").fill("phil")
        await page.get_by_role("link", name="Phil Phone").tap()
        await page.get_by_text("New", exact=True).tap()
        await page.locator("#notes").fill("From the train")
        await page.get_by_label("How long").select_option("7")
        await page.get_by_role("button", name="Set the override").tap()
        await expect(page.get_by_role("status").first).to_be_visible()
        await expect(page.locator("#now .lead .badge").first).to_have_text("New")
        await visitor.check()
        # Fingers need room; what stands in a line of text is excepted.
        small = await page.evaluate(
            """() => [...document.querySelectorAll(
                "button, .button, input:not([type=hidden], [type=radio]), select, textarea,"
                + " .choice, .nav a")].map((e) => [e.innerText, e.getBoundingClientRect().height])
                .filter(([, height]) => height > 0 && height < 30)"""
        )
        assert small == []
        assert visitor.complaints == []


async def test_everything_without_scripts(stack: Stack, browser: Browser) -> None:
    async with visiting(stack, browser, java_script_enabled=False) as visitor:
        page = await visitor.open("/members?level=at_risk")
        await page.get_by_label("Search").fill("sam")
        await page.get_by_role("button", name="Show").click()
        await expect(page.locator("#members tbody tr")).to_have_count(1)
        await page.get_by_role("link", name="Sam Silent").click()
        await page.get_by_role("button", name="Set the override").click()
        await expect(page.locator("#level-error")).to_be_visible()
        await page.get_by_label("Moderate", exact=True).check()
        await page.locator("#notes").fill("Without scripts")
        await page.get_by_role("button", name="Set the override").click()
        await expect(page.locator(".notice.good")).to_have_text("The override is set.")
        await expect(page.locator("#now blockquote")).to_have_text("Without scripts")
        await page.get_by_role("button", name="Clear the override").click()
        await expect(page.locator(".notice.good")).to_contain_text("The override is cleared")
        await page.goto(f"{visitor.base}/thresholds")
        await page.locator("#highly_engaged_min_events").fill("5")
        await page.get_by_role("button", name="Show what would change").click()
        await expect(page.locator("#preview .lead")).to_contain_text("would move")
        await expect(page.get_by_role("button", name="Save these thresholds")).to_be_visible()
        await page.locator("#highly_engaged_min_events").fill("0")
        await page.get_by_role("button", name="Show what would change").click()
        await expect(page.locator("#preview")).to_contain_text("make no sense together")


async def test_a_long_history_with_and_without_scripts(stack: Stack, browser: Browser) -> None:
    await stack.someone("lola.long", "Lola Long")
    await stack.community.execute(
        "INSERT INTO engagement_override_history (engagement_id, performed_at, org_id, user_id,"
        " previous_level, new_level, notes, action, performed_by)"
        " SELECT $1, now() - n * interval '1 day', $2, 'lola.long', 'new', 'moderate',"
        " 'note ' || n, 'override', $3 FROM generate_series(1, 45) n",
        stack.community.members[ORG, "lola.long"], ORG, ADMIN,
    )  # fmt: skip
    async with visiting(stack, browser) as visitor:
        page = await visitor.open("/members/lola.long")
        rows = page.locator("#history-rows tr:not(.more-row)")
        await expect(rows).to_have_count(20)
        await tab_to(page, page.get_by_role("link", name="Show earlier"))
        await page.keyboard.press("Enter")
        await expect(rows).to_have_count(40)
        await expect(page.get_by_role("link", name="Show earlier")).to_be_focused()
        # Until htmx knows a new link, it is one to a page of its own.
        await expect(page.locator(".htmx-added")).to_have_count(0)
        await page.keyboard.press("Enter")
        await expect(rows).to_have_count(46)
        await expect(page.locator("#history")).to_be_focused()
        await visitor.check()
        assert visitor.complaints == []
    async with visiting(stack, browser, java_script_enabled=False) as visitor:
        page = await visitor.open("/members/lola.long")
        for count in (20, 6):
            await page.get_by_role("link", name="Show earlier").click()
            await expect(page.locator("h1")).to_have_text("Earlier history")
            await expect(page.locator("#history-rows tr:not(.more-row)")).to_have_count(count)
        await page.get_by_role("link", name=re.compile("lola")).click()
        await expect(page.locator("h1")).to_have_text("Lola Long")
