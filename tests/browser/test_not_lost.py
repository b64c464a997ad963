"""What somebody presses, writes or asks for is not lost, whatever comes in between."""

from __future__ import annotations

import asyncio

from playwright.async_api import Browser, Route, expect

from tests.api_community import SECOND_ADMIN
from tests.browser.conftest import Stack, Visitor, elsewhere, set_override, visiting


async def test_a_found_member_opens_at_the_first_click_however_slow_the_finger(
    visitor: Visitor,
) -> None:
    """The press takes the focus from the search: the list under the finger stays."""
    page = await visitor.open("/members")
    await page.get_by_label("Search").fill("bob b")
    await expect(page.locator("#members tbody tr")).to_have_count(1)
    await page.get_by_role("link", name="Bob Builder").click(delay=500)
    await expect(page.locator("h1")).to_have_text("Bob Builder")


async def test_a_link_that_is_being_pressed_is_not_replaced(visitor: Visitor) -> None:
    path = await visitor.stack.someone("petra.pressed", "Petra Pressed")
    page = await visitor.open("/members?q=petra.pressed")
    link = page.get_by_role("link", name="Petra Pressed")
    await link.hover()
    await page.mouse.down()
    body = {"level": "new", "notes": "While somebody presses"}
    await elsewhere(visitor.stack, "PUT", f"{path}/override", body)
    for _ in range(2):  # the second was asked for after the change, and has been taken in
        async with page.expect_response(lambda r: "seen=" in r.url and r.status == 200):
            pass
    await expect(page.locator("#members")).not_to_contain_text("override")
    await page.mouse.up()
    await expect(page.locator("h1")).to_have_text("Petra Pressed")


async def test_a_button_stays_where_it_is_pressed(visitor: Visitor) -> None:
    """The preview above it is of another height, and comes while the button is down."""
    await visitor.stack.someone("pia.press", "Pia Press")
    page = await visitor.open("/members/pia.press")
    await visitor.slow_down("**/override/preview*", 0.6)
    await page.locator("#notes").fill("Pressed slowly")
    await page.get_by_label("At risk", exact=True).check()
    button = page.get_by_role("button", name="Set the override")
    await button.click(position={"x": 20, "y": 30}, delay=1500)
    await expect(page.locator("#now blockquote")).to_have_text("Pressed slowly")


async def test_a_preview_that_came_while_something_was_pressed_is_shown_after(
    visitor: Visitor,
) -> None:
    page = await visitor.open(f"/members/{SECOND_ADMIN}")
    heading = page.get_by_role("heading", name="Override")
    await heading.scroll_into_view_if_needed()
    box = await heading.bounding_box()
    assert box is not None
    await page.get_by_label("At risk", exact=True).focus()
    await page.mouse.move(box["x"] + 5, box["y"] + 5)
    await page.mouse.down()
    async with page.expect_response(lambda r: "/override/preview" in r.url):
        await page.get_by_label("At risk", exact=True).press("Space")
    await page.mouse.up()
    await expect(page.locator("#override-preview .move")).to_contain_text("At risk")


async def test_a_second_click_while_the_first_is_on_its_way_changes_nothing(
    visitor: Visitor,
) -> None:
    await visitor.stack.someone("dora.double", "Dora Double")
    page = await visitor.open("/members/dora.double")
    await visitor.slow_down("**/override", 0.6)
    await page.get_by_label("Moderate", exact=True).check()
    await page.locator("#notes").fill("Clicked twice")
    button = page.get_by_role("button", name="Set the override")
    await button.scroll_into_view_if_needed()
    box = await button.bounding_box()
    assert box is not None
    # By hand, since a locator's click waits for what the one before has set off.
    for _ in range(2):
        await page.mouse.click(box["x"] + 20, box["y"] + 10)
        await asyncio.sleep(0.2)
    await expect(page.get_by_role("status").first).to_contain_text("The override is set.")
    await expect(page.locator("#now blockquote")).to_have_text("Clicked twice")
    await expect(page.locator("#problem")).to_have_count(0)


async def test_a_reason_for_clearing_outlives_a_refusal(stack: Stack, browser: Browser) -> None:
    await stack.someone("clea.cleared", "Clea Cleared")
    async with visiting(stack, browser) as ada, visiting(stack, browser, SECOND_ADMIN) as grace:
        first = await ada.open("/members/clea.cleared")
        await set_override(first, "New", "First reason")
        second = await grace.open("/members/clea.cleared")
        why = second.get_by_label("Why it ends")
        await why.fill("Back to normal")
        await set_override(first, "Moderate", "Second reason")
        await expect(first.locator("#now blockquote")).to_have_text("Second reason")
        await second.get_by_role("button", name="Clear the override").click()
        await expect(second.locator("#problem")).to_contain_text("with what you entered")
        await expect(why).to_have_value("Back to normal")
        await expect(second.locator("#notes")).to_have_value("")
        await second.get_by_role("button", name="Clear the override").click()
        await expect(second.locator("#history-rows")).to_contain_text("Back to normal")


async def test_a_reason_outlives_the_numbers_that_it_was_written_for(
    stack: Stack, browser: Browser
) -> None:
    async with visiting(stack, browser) as visitor:
        page = await visitor.open("/thresholds")
        numbers = page.get_by_label("Events for “Highly engaged”")
        why = page.locator("#preview").get_by_label("Why")
        await numbers.fill("20")
        await why.fill("Only those who always come")
        await numbers.fill("0")
        await expect(page.locator("#preview")).to_contain_text("make no sense together")
        await numbers.fill("30")
        await expect(why).to_have_value("Only those who always come")
        await numbers.fill("40")
        await why.press("End")
        await why.press_sequentially(", written meanwhile", delay=60)
        await expect(page.get_by_role("button", name="Save these thresholds")).to_be_enabled()
        await expect(why).to_have_value("Only those who always come, written meanwhile")


async def test_evaluating_leaves_what_was_written(visitor: Visitor) -> None:
    page = await visitor.open(f"/members/{SECOND_ADMIN}")
    await page.get_by_label("At risk", exact=True).check()
    await page.locator("#notes").fill("Half a sentence")
    await page.get_by_role("button", name="Evaluate now").click()
    await expect(page.get_by_role("status").first).to_contain_text("evaluated within moments")
    await expect(page.locator("#notes")).to_have_value("Half a sentence")
    await expect(page.get_by_label("At risk", exact=True)).to_be_checked()


async def test_a_session_that_ends_leaves_what_was_written(stack: Stack, browser: Browser) -> None:
    path = await stack.someone("sissy.session", "Sissy Session")
    async with visiting(stack, browser) as visitor:
        reading, writing = await visitor.open(path), await visitor.context.new_page()
        await writing.goto(f"{visitor.base}{path}")
        await expect(writing.locator("#session-over")).to_be_hidden()
        await writing.locator("#notes").fill("A long and careful reason")
        await visitor.context.clear_cookies()
        await expect(writing.locator("#session-over")).to_be_visible()
        await expect(writing.locator("#notes")).to_have_value("A long and careful reason")
        await expect(writing.locator("#offline")).to_be_hidden()
        # Where there is nothing to lose, nothing stays to be read.
        await reading.bring_to_front()
        await expect(reading.locator("h1")).to_have_text("Sign in")


async def test_going_back_shows_every_field_that_was_filled(visitor: Visitor) -> None:
    page = await visitor.open(f"/members/{SECOND_ADMIN}")
    await page.get_by_label("How long").select_option("at")
    await page.get_by_label("Until").fill("2031-05-01T12:00")
    await page.get_by_role("link", name="Overview").click()
    await expect(page.locator("h1")).to_have_text("Overview")
    await page.go_back()
    await expect(page.get_by_label("How long")).to_have_value("at")
    await expect(page.get_by_label("Until")).to_be_visible()
    await expect(page.get_by_label("Until")).to_have_value("2031-05-01T12:00")


async def test_nothing_can_be_saved_but_the_newest_numbers(stack: Stack, browser: Browser) -> None:
    """An answer about the numbers before comes when others have been entered already."""
    async with visiting(stack, browser) as visitor:
        page = await visitor.open("/thresholds")
        numbers = page.get_by_label("Events for “Highly engaged”")
        answer = asyncio.Semaphore(0)

        async def slowly(route: Route) -> None:
            response = await route.fetch()
            await answer.acquire()
            await route.fulfill(response=response)

        await page.route("**/thresholds/preview", slowly)
        told = page.locator("#preview input[name=highly_engaged_min_events]")
        save = page.get_by_role("button", name="Save these thresholds")
        async with page.expect_request("**/thresholds/preview"):
            await numbers.fill("30")
        await numbers.fill("40")
        await asyncio.sleep(0.7)  # is asked for, too
        answer.release()
        await expect(told).to_have_value("30")
        await expect(save).to_be_disabled()
        answer.release()
        await expect(told).to_have_value("40")
        await expect(save).to_be_enabled()


async def test_what_was_asked_while_the_service_was_away_is_asked_again(visitor: Visitor) -> None:
    page = await visitor.open("/members")
    await visitor.context.set_offline(True)
    await page.get_by_label("Search").fill("bob b")
    await expect(page.locator("#offline")).to_be_visible()
    await visitor.context.set_offline(False)
    await expect(page.locator("#offline")).to_be_hidden()
    await expect(page).to_have_url(f"{visitor.base}/members?q=bob+b")
    await expect(page.locator("#members tbody tr")).to_have_count(1)
    await visitor.open("/thresholds")
    await visitor.context.set_offline(True)
    await page.get_by_label("Events for “Highly engaged”").fill("6")
    await expect(page.locator("#offline")).to_be_visible()
    await visitor.context.set_offline(False)
    await expect(page.locator("#preview .lead")).to_contain_text("would move")
    visitor.complaints.clear()
