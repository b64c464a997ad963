"""One whole service for the tier (PostgreSQL, Kafka, worker, API), and a browser."""

from __future__ import annotations

import asyncio
import hashlib
import re
import secrets
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx2
import pytest
from playwright.async_api import (
    Browser,
    BrowserContext,
    ConsoleMessage,
    Error,
    Page,
    Route,
    async_playwright,
    expect,
)

from service.demo.local.ports import free_port
from tests.api_community import ADMIN, ORG, SECOND_ADMIN, Community, populate, settle
from tests.api_process import ApiProcess, api_process
from tests.browser.chromium import NoChromium, find_or_install
from tests.browser.screenshots import shoot
from tests.servers import KafkaBroker, PostgresServer, cloned_database

# Lists ask for news every 5 s, which is also how long Playwright waits by itself.
expect.set_options(timeout=20_000)

AXE = Path(__file__).parent / "vendor" / "axe.min.js"
DESKTOP = {"width": 1280, "height": 900}
PHONE = {"width": 390, "height": 844}
LOOKS: dict[str, dict[str, Any]] = {
    "desktop": {"viewport": DESKTOP},
    "dark": {"viewport": DESKTOP, "color_scheme": "dark"},
    "phone": {"viewport": PHONE, "is_mobile": True, "has_touch": True, "device_scale_factor": 2},
}
STOP_TIMEOUT_S = 30.0
TOPICS = (
    "ATTENDANCE",
    "RSVP",
    "PROFILE_UPDATE",
    "MEMBERSHIP",
    "ORGANIZATION",
    "LEVEL",
    "CHANGE",
    "DEAD_LETTER",
)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Have a Chromium before a test's time limit runs; the first time it takes a while."""
    if any("browser" in item.path.parts for item in session.items):
        # Whoever needs it then fails, and says what to run.
        with suppress(NoChromium):
            find_or_install()


@dataclass
class Stack:
    """The running service and its community."""

    api: ApiProcess
    community: Community
    dsn: str

    async def session(self, user_id: str) -> str:
        """A browser's session for somebody, as signing in would open it."""
        secret = secrets.token_urlsafe(32)
        await self.community.execute(
            "INSERT INTO http_session VALUES ($1, 'session', $2, now() + interval '1 hour')",
            hashlib.sha256(secret.encode()).digest(), user_id,
        )  # fmt: skip
        return secret

    async def someone(self, user_id: str, name: str) -> str:
        """One more member, who came to an event 20 days ago, with a level; the path of the page."""
        await self.community.member(user_id, name=name, attended=(20,))
        await self.community.evaluate([(ORG, user_id)])
        return f"/members/{user_id}"


@asynccontextmanager
async def worker_process(environment: dict[str, str]) -> AsyncIterator[None]:
    """`engagement topics apply`, then `engagement worker` until the end of the block."""
    command = [sys.executable, "-m", "service.cli.main"]
    apply = await asyncio.create_subprocess_exec(*command, "topics", "apply", env=environment)
    assert await asyncio.wait_for(apply.wait(), 60) == 0
    worker = await asyncio.create_subprocess_exec(*command, "worker", env=environment)
    try:
        yield
    finally:
        if worker.returncode is None:
            worker.send_signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(worker.wait(), STOP_TIMEOUT_S)
        except TimeoutError:
            worker.kill()
            await worker.wait()


@pytest.fixture(scope="session")
def chromium() -> Path:
    """The browser's program; without one every test of the tier fails and says what to run."""
    return find_or_install()


@pytest.fixture(scope="session")
async def stack(
    chromium: Path,  # first: without it there is no need to start anything
    postgres_server: PostgresServer,
    template_database: str,
    kafka_broker: KafkaBroker,
) -> AsyncIterator[Stack]:
    """The whole service, with a community that has a year behind it."""
    prefix = f"pages-{secrets.token_hex(4)}."
    async with cloned_database(postgres_server, template_database) as dsn:
        community = await settle(dsn, begin_days_ago=330)
        await populate(community, 60)
        await community.live_through([*range(330, 45, -30), *range(45, 0, -3)])
        topics = {
            f"ENGAGEMENT_TOPIC_{name}": f"{prefix}{name.lower().replace('_', '-')}"
            for name in TOPICS
        }
        more = {
            "KAFKA_BOOTSTRAP_SERVERS": kafka_broker.bootstrap,
            "ENGAGEMENT_CONSUMER_GROUP": f"{prefix}group",
            "ENGAGEMENT_TOPIC_PARTITIONS": "2",
            "ENGAGEMENT_WORKER_OPS_PORT": str(free_port()),
            **topics,
        }
        try:
            async with api_process(dsn, wait=True, **more) as api, worker_process(api.environment):
                await set_overrides(api, community)
                yield Stack(api, community, dsn)
        finally:
            await community.connection.close()


async def set_overrides(api: ApiProcess, community: Community) -> None:
    """A few, so that the pages have something to show."""
    headers = {"Authorization": f"Bearer {api.token(ADMIN)}"}
    chosen = [user for org, user in community.members if org == ORG and "." in user][5:45:13]
    async with httpx2.AsyncClient(base_url=api.address, headers=headers) as client:
        for number, user in enumerate(chosen):
            expires_at = datetime.now(UTC) + timedelta(days=9 + 5 * number)
            response = await client.put(
                f"/v1/orgs/{ORG}/members/{user}/override",
                json={
                    "level": "highly_engaged",
                    "notes": "Builds the stage for every concert and never signs in at the door.",
                    "expires_at": expires_at.isoformat(),
                },
            )
            assert response.status_code in (200, 409), response.text


@pytest.fixture(scope="session")
async def browser(chromium: Path) -> AsyncIterator[Browser]:
    """Chromium, running."""
    async with async_playwright() as playwright:
        running = await playwright.chromium.launch(executable_path=chromium)
        yield running
        await running.close()


class Visitor:
    """Somebody at a browser. Console errors and foreign requests are collected."""

    def __init__(self, stack: Stack, context: BrowserContext, page: Page, org: str = ORG) -> None:
        self.stack = stack
        self.context = context
        self.page = page
        self.complaints: list[str] = []
        self.base = f"{stack.api.address}/admin/orgs/{org}"
        page.on("console", self._listen)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("request", lambda r: self._watch(r.url))

    def _listen(self, message: ConsoleMessage) -> None:
        if message.type == "error":
            self.complaints.append(message.text)

    def _watch(self, url: str) -> None:
        if not url.startswith((self.stack.api.address, "data:")):
            self.complaints.append(f"foreign: {url}")

    async def open(self, path: str = "") -> Page:
        await self.page.goto(f"{self.base}{path}")
        return self.page

    async def slow_down(self, addresses: str, seconds: float) -> None:
        """What is asked for at these addresses is answered so much later than the service does."""

        async def slowly(route: Route) -> None:
            response = await route.fetch(max_redirects=0)
            await asyncio.sleep(seconds)
            with suppress(Error):  # the page may be gone
                await route.fulfill(response=response)

        await self.page.route(addresses, slowly)

    async def check(self) -> None:
        """Nothing that axe finds wrong, and nothing wider than the window."""
        found = await self.violations()
        assert found == [], "\n".join(map(str, found))
        wide = await self.page.evaluate(
            "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        )
        assert wide <= 0, "the page scrolls sideways"

    async def check_every_look(self, name: str) -> None:
        """The page as it is on a desk, in the dark and on a phone; pictures if they are wanted."""
        for look, options in LOOKS.items():
            await self.page.set_viewport_size(options["viewport"])
            await self.page.emulate_media(color_scheme=options.get("color_scheme", "light"))
            await self.check()
            await shoot(self.page, f"{name}-{look}")

    async def violations(self) -> list[Any]:
        """What axe finds wrong with the page as it is, by WCAG 2.2 A and AA."""
        await self.page.evaluate(AXE.read_text())
        found: list[Any] = await self.page.evaluate(
            """async () => {
                const runOnly = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa",
                                 "best-practice"];
                const result = await axe.run(document, {runOnly});
                return result.violations.map(
                    (v) => [v.id, v.help, v.nodes.map((n) => n.html).slice(0, 3)]);
            }"""
        )
        return found


@asynccontextmanager
async def visiting(
    stack: Stack, browser: Browser, user_id: str = ADMIN, *, org: str = ORG, **options: Any
) -> AsyncIterator[Visitor]:
    """A fresh browser window, signed in, for the pages of one organisation."""
    context = await browser.new_context(**({"viewport": DESKTOP} | options))
    try:
        await context.add_cookies(
            [{"name": "engagement_session", "value": await stack.session(user_id),
              "url": stack.api.address, "httpOnly": True, "sameSite": "Strict"}]
        )  # fmt: skip
        context.set_default_timeout(10_000)
        yield Visitor(stack, context, await context.new_page(), org)
    finally:
        await context.close()


@pytest.fixture
async def visitor(stack: Stack, browser: Browser) -> AsyncIterator[Visitor]:
    """An administrator at a browser; in the end nothing may have been complained about."""
    async with visiting(stack, browser) as somebody:
        yield somebody
        assert somebody.complaints == []


async def elsewhere(stack: Stack, method: str, path: str, body: object) -> None:
    """Another administrator does something, with other means."""
    headers = {"Authorization": f"Bearer {stack.api.token(SECOND_ADMIN)}"}
    async with httpx2.AsyncClient(base_url=stack.api.address, headers=headers) as client:
        response = await client.request(method, f"/v1/orgs/{ORG}{path}", json=body)
        assert response.status_code == 200, response.text


async def set_override(page: Page, level: str, notes: str, until: datetime | None = None) -> None:
    """Fill in the override form of a member's page, and send it."""
    await page.get_by_label(level, exact=True).check()
    await page.locator("#notes").fill(notes)
    if until is not None:
        await page.get_by_label("How long").select_option("at")
        await page.get_by_label("Until").fill(until.strftime("%Y-%m-%dT%H:%M:%S"))
    await page.get_by_role("button", name=re.compile("override")).first.click()
