"""Pages that are empty, refuse, or cannot: each on a desk, in the dark and on a phone."""

from __future__ import annotations

import re

import pytest
from playwright.async_api import Browser, expect

from service.cli.token import sign_in_link
from tests.api_community import (
    ADMIN,
    MEMBER,
    ORG,
    SECOND_ADMIN,
    STRANGER,
    SUSPENDED_ADMIN,
    SUSPENDED_MEMBER,
    SUSPENDED_ORG,
)
from tests.browser.conftest import Stack, Visitor, visiting

REFUSALS = {
    "signed-out": (None, "", "Sign in"),
    "stranger": (STRANGER, "", "Nothing here"),
    "member": (MEMBER, "/members", "For administrators only"),
    "unknown-member": (ADMIN, f"/members/{STRANGER}", "Nothing here"),
    "bad-cursor": (ADMIN, "/members?cursor=abc", "That did not work"),
}
FRESH_ORG, FRESH_ADMIN = "brand-new", "fay.admin"


@pytest.mark.parametrize("name", list(REFUSALS))
async def test_pages_that_say_no(stack: Stack, browser: Browser, name: str) -> None:
    user, path, heading = REFUSALS[name]
    async with visiting(stack, browser, user or ADMIN) as visitor:
        if user is None:
            await visitor.context.clear_cookies()
        page = await visitor.open(path)
        await expect(page.locator("h1")).to_have_text(heading)
        await expect(page).to_have_title(heading)
        await visitor.check_every_look(f"refusal-{name}")


async def test_an_organisation_without_levels_yet(stack: Stack, browser: Browser) -> None:
    await stack.community.organization(FRESH_ORG, "Brand New")
    await stack.community.member(FRESH_ADMIN, org_id=FRESH_ORG, role="admin")
    async with visiting(stack, browser, FRESH_ADMIN, org=FRESH_ORG) as visitor:
        page = await visitor.open()
        await expect(page.get_by_role("heading", name="No members yet")).to_be_visible()
        await visitor.check_every_look("overview-empty")
        await visitor.open("/members")
        await expect(page.get_by_role("heading", name="Nobody here")).to_be_visible()
        await expect(page.locator("#members")).to_contain_text("as soon as memberships or activity")
        await visitor.check_every_look("members-none")
        await visitor.open(f"/members/{FRESH_ADMIN}")
        await expect(page.locator("#now")).to_contain_text("Not evaluated yet")
        await visitor.check_every_look("member-unscored")
        assert visitor.complaints == []


async def test_a_suspended_organisation_says_so(stack: Stack, browser: Browser) -> None:
    async with visiting(stack, browser, SUSPENDED_ADMIN, org=SUSPENDED_ORG) as visitor:
        page = await visitor.open()
        await expect(page.locator("main .notice")).to_contain_text("is suspended")
        await visitor.check_every_look("overview-suspended")
        await visitor.open(f"/members/{SUSPENDED_MEMBER}")
        await expect(page.locator("aside")).to_contain_text("nothing can be changed")
        await expect(page.locator("main button")).to_have_count(0)
        await visitor.check_every_look("member-suspended")
        await visitor.open("/thresholds")
        await page.get_by_label("Events for “Highly engaged”").fill("6")
        await expect(page.locator("#preview .lead")).to_be_visible()
        await expect(page.get_by_role("button", name="Save these thresholds")).to_have_count(0)
        await visitor.check_every_look("thresholds-suspended")
        assert visitor.complaints == []


async def test_an_override_that_lacks_something(stack: Stack, browser: Browser) -> None:
    async with visiting(stack, browser) as visitor:
        page = await visitor.open(f"/members/{SECOND_ADMIN}")
        await page.get_by_role("button", name="Set the override").click()
        summary = page.get_by_role("alert")
        await expect(summary).to_be_focused()
        await expect(page).to_have_title(re.compile("^Not saved: "))
        await summary.get_by_role("link", name="Say why").click()
        await expect(page.locator("#notes")).to_be_focused()
        await expect(page.locator("#notes")).to_have_attribute("aria-invalid", "true")
        await visitor.check_every_look("override-errors")


async def test_a_conflict(stack: Stack, browser: Browser) -> None:
    await stack.someone("kim.contested", "Kim Contested")
    async with visiting(stack, browser) as ada, visiting(stack, browser, SECOND_ADMIN) as grace:
        first, second = [await v.open("/members/kim.contested") for v in (ada, grace)]
        for page, notes in ((first, "Speaks at the fair"), (second, "Moved abroad in May")):
            await page.get_by_label("Highly engaged" if page is first else "At risk").check()
            await page.locator("#notes").fill(notes)
            await page.get_by_role("button", name="Set the override").click()
        await expect(second.locator("#problem")).to_contain_text("changed this member since")
        await expect(second).to_have_title(re.compile("^Not saved: Kim Contested"))
        await grace.check_every_look("conflict")


async def test_thresholds_that_make_no_sense(stack: Stack, browser: Browser) -> None:
    async with visiting(stack, browser) as visitor:
        page = await visitor.open("/thresholds")
        await page.get_by_label("Events for “Highly engaged”").fill("1")
        await expect(page.locator("#preview")).to_contain_text("make no sense together")
        await expect(page.locator("#preview")).to_contain_text("must be at least 2")
        field = page.get_by_label("Events for “Highly engaged”")
        await expect(field).to_have_attribute("aria-invalid", "true")
        await page.locator("#preview a").first.click()
        await expect(page.get_by_label("Events for “Highly engaged”")).to_be_focused()
        await visitor.check_every_look("thresholds-errors")


async def test_the_service_away(visitor: Visitor) -> None:
    page = await visitor.open()
    await visitor.context.set_offline(True)
    await expect(page.locator("#offline")).to_be_visible(timeout=15_000)
    await visitor.check_every_look("offline")
    await visitor.context.set_offline(False)
    await expect(page.locator("#offline")).to_be_hidden(timeout=15_000)
    visitor.complaints.clear()


async def test_signing_in(stack: Stack, browser: Browser) -> None:
    link = await sign_in_link(stack.api.settings, ORG, ADMIN)
    async with visiting(stack, browser) as visitor:
        await visitor.context.clear_cookies()
        page = visitor.page
        await page.goto(link)
        await expect(page.get_by_role("button", name="Sign in")).to_be_focused()
        await visitor.check_every_look("sign-in")
        await page.get_by_role("button", name="Sign in").click()
        await page.get_by_role("button", name="Sign out").click()
        await expect(page.locator("h1")).to_have_text("Signed out")
        await visitor.check_every_look("signed-out")
        await page.goto(link)
        await expect(page.locator("main")).to_contain_text("The link has been used")
        await visitor.check_every_look("sign-in-used")


# A long page, which axe reads three times.
@pytest.mark.timeout(180)
async def test_the_description_of_the_api(stack: Stack, browser: Browser) -> None:
    async with visiting(stack, browser, java_script_enabled=False) as visitor:
        page = visitor.page
        await page.goto(f"{stack.api.address}/docs")
        await expect(page.locator("section.operation")).to_have_count(14)
        contents = page.get_by_role("navigation", name="Endpoints")
        put = "PUT /v1/orgs/{org}/members/{user}/override"
        await contents.get_by_role("link", name=put).click()
        section = page.locator("section.operation", has=page.get_by_role("heading", name=put))
        await expect(section).to_be_in_viewport()
        await section.get_by_text("Body: an example").click()
        await expect(section.locator("pre").first).to_contain_text("Runs the workshop")
        await section.get_by_role("link", name="OverrideRequest").first.click()
        await expect(page.get_by_role("heading", name="OverrideRequest")).to_be_in_viewport()
    async with visiting(stack, browser) as visitor:
        await visitor.page.goto(f"{stack.api.address}/docs")
        for summary in (
            await visitor.page.locator("section.operation").first.locator("summary").all()
        ):
            await summary.click()
        await visitor.check_every_look("docs")
        assert visitor.complaints == []
