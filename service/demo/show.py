"""The demo from start to end: parts, schema, topics, worker, input, screen, check."""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
from collections.abc import AsyncIterator, Coroutine
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from db import people
from db.migrate import migrate_with
from db.people import Admin
from db.pool import Pool, acquired, open_pool
from service import logs
from service.demo import admin_pages
from service.demo.checking import Report, check
from service.demo.children import Children
from service.demo.fake_claude import FakeClaude
from service.demo.feeding import TRICKLE_PER_S, Feeder
from service.demo.local import folders, servers
from service.demo.local.ports import free_port
from service.demo.local.servers import Servers
from service.demo.picture import Picture
from service.demo.population import Population, Rates
from service.demo.screen import Display, display
from service.demo.trickle import Trickle
from service.demo.watching import wait_until_settled, watch_applied, watch_output
from service.errors import Conflict
from service.settings import Settings, load_settings
from streams.producing import InputProducer
from streams.topics import apply_topics, input_topics

SETTLE_TIMEOUT_S: Final = 240.0
CANCEL_AGAIN_S: Final = 0.5
CHECKED_TRICKLE: Final = 200
CHECKED_TRICKLE_PER_S: Final = 20.0
ERASURES: Final = 0.004
SUMMARY_EVERY_S: Final = 5.0
PROBLEMS_SHOWN: Final = 20


@dataclass(frozen=True)
class Options:
    """What somebody wants to see. `keep`: the data stays for the next time."""

    check: bool = False
    keep: bool = False
    claude: bool = False
    organisations: int = 3
    members: int = 5_000
    days: int = 400
    seed: int = 1


def show(options: Options) -> int:
    """Run the demo; 0 when it was ended by hand or the check found no difference, else 1.

    Raises LocalServerError, EngagementError. Everything that it started ends with it.
    """
    _end_like_ctrl_c()
    picture = Picture()
    with ExitStack() as stack:
        shown = stack.enter_context(display(picture, plain=options.check))
        shown.say("starting Kafka and PostgreSQL, unless they are given")
        data = folders.data_folder() if options.keep else None
        parts = stack.enter_context(servers(os.environ, data))
        environment = _environment(parts) | _classifier(options, stack, shown)
        settings = load_settings(environment)
        children = stack.enter_context(Children(environment))
        log = stack.enter_context(children.log("demo").open("w", encoding="utf-8"))
        logs.configure(settings, stream=log)
        demo = _Demo(options, settings, picture, shown, children)
        try:
            return asyncio.run(demo.run())
        except KeyboardInterrupt:
            if options.check:
                raise
            shown.say("ending")
            return 0


class _Demo:
    """One run, on its event loop."""

    def __init__(
        self,
        options: Options,
        settings: Settings,
        picture: Picture,
        shown: Display,
        children: Children,
    ) -> None:
        self._options = options
        self._settings = settings
        self._picture = picture
        self._shown = shown
        self._children = children

    async def run(self) -> int:
        """All of it. Raises what goes wrong first, wherever that is."""
        settings = self._settings
        self._shown.say("applying migrations and topics")
        await migrate_with(settings)
        await apply_topics(settings)
        async with _opened(settings) as pool:
            is_empty = await self._require_fit(pool)
            self._children.start("worker", "worker")
            work = self._feed_and_look(pool, is_empty=is_empty)
            return await _first_failure(
                work,
                watch_output(settings, self._picture),
                watch_applied(settings, pool, self._picture),
                self._watch_children(),
            )

    async def _require_fit(self, pool: Pool) -> bool:
        """Whether there is nobody yet. Raises Conflict for somebody else's data."""
        async with acquired(pool) as connection:
            is_empty = await people.is_empty(connection)
        if not (is_empty or self._options.keep):
            raise Conflict(
                "DATABASE_URL holds members already: the demo makes people up, so give it a "
                "database of its own, or --keep to add to what is there"
            )
        return is_empty

    async def _feed_and_look(self, pool: Pool, *, is_empty: bool) -> int:
        options = self._options
        now = datetime.now(UTC)
        population = Population(
            options.seed,
            options.organisations,
            options.members,
            options.days,
            ends_at=now,
            rates=Rates(erasures=ERASURES),
        )
        async with InputProducer(self._settings, list(input_topics(self._settings))) as producer:
            feeder = Feeder(self._settings, producer, self._picture)
            if is_empty:
                self._shown.say("sending real attendance: 18 women of 1936, three projects")
                await feeder.real_data(now)
                self._shown.say(
                    f"sending {options.members} made-up members in {options.organisations} "
                    f"organisations, {options.days} days"
                )
                await feeder.population(population)
            self._shown.say("working it off")
            await wait_until_settled(self._settings, pool, SETTLE_TIMEOUT_S)
            self._shown.tick()
            admin = await self._open_admin_pages(pool)
            trickle = Trickle(population, secrets.randbits(32), staying=admin and admin.user_id)
            if not options.check:
                self._shown.say(f"live: {TRICKLE_PER_S:.0f} records a second")
                await feeder.trickle(trickle, None, TRICKLE_PER_S)
            self._shown.say(f"live: {CHECKED_TRICKLE} records")
            await feeder.trickle(trickle, CHECKED_TRICKLE, CHECKED_TRICKLE_PER_S)
        return self._judge(await check(self._settings, pool, self._shown.say))

    async def _open_admin_pages(self, pool: Pool) -> Admin | None:
        """Start the API; who the link signs in, or None when nobody is an administrator."""
        async with acquired(pool) as connection:
            admin = await people.any_admin(connection)
        if admin is None:
            return None
        self._shown.say("starting the API and its admin pages")
        link = await admin_pages.open_for(admin, self._settings, self._children)
        self._picture.links.append(link)
        self._shown.say(f"sign in once as an administrator of {admin.org_id}: {link}")
        return admin

    def _judge(self, report: Report) -> int:
        for line in report.lines:
            self._shown.say(line)
        for problem in report.problems[:PROBLEMS_SHOWN]:
            self._shown.say(f"DIFFERS {problem}")
        self._shown.say("NOT as it should be" if report.problems else "all as it should be")
        return 1 if report.problems else 0

    async def _watch_children(self) -> None:
        """Says where we are now and then; raises LocalServerError when a child has ended."""
        while True:
            await asyncio.sleep(SUMMARY_EVERY_S)
            for name in self._children.expected:
                self._children.require_running(name)
            self._shown.tick()


async def _first_failure(work: Coroutine[Any, Any, int], *beside: Coroutine[Any, Any, None]) -> int:
    """The result of the work, or the first exception of any of them; ends the others."""
    main = asyncio.ensure_future(work)
    tasks = [main, *(asyncio.ensure_future(one) for one in beside)]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
        return await main
    finally:
        pending = set(tasks)
        while pending:
            # Again where it went by: before Python 3.12 wait_for loses a cancellation that comes
            # at the moment at which what it waits for is done.
            for task in pending:
                task.cancel()
            _, pending = await asyncio.wait(pending, timeout=CANCEL_AGAIN_S)


@asynccontextmanager
async def _opened(settings: Settings) -> AsyncIterator[Pool]:
    pool = await open_pool(settings, purpose="demo", size=3)
    try:
        yield pool
    finally:
        pool.terminate()


def _classifier(options: Options, stack: ExitStack, shown: Display) -> dict[str, str]:
    """Who classifies: the rules, Claude, or its stand-in where there is no key."""
    if not options.claude:
        return {"ENGAGEMENT_CLASSIFIER": "rules"}
    if key := os.environ.get("ANTHROPIC_API_KEY"):
        shown.say("Claude explains, with the key that is set; calls cost money")
        base_url = os.environ.get("ANTHROPIC_BASE_URL")
        return {"ANTHROPIC_API_KEY": key} | ({"ANTHROPIC_BASE_URL": base_url} if base_url else {})
    fake = stack.enter_context(FakeClaude())
    shown.say("a stand-in for Claude explains, since no ANTHROPIC_API_KEY is set")
    return {"ANTHROPIC_API_KEY": "stand-in", "ANTHROPIC_BASE_URL": fake.base_url}


def _environment(parts: Servers) -> dict[str, str]:
    """The settings for us and the children: what is set already, and what only we know."""
    ours = {
        name: str(free_port())
        for name in (
            "ENGAGEMENT_WORKER_OPS_PORT",
            "ENGAGEMENT_API_PORT",
            "ENGAGEMENT_API_OPS_PORT",
        )
    }
    # Whoever has this may sign in as anybody, so it is new each time, unless keys are given.
    if not any(name.startswith("ENGAGEMENT_JWT_") for name in os.environ):
        ours["ENGAGEMENT_JWT_DEV_SECRET"] = secrets.token_urlsafe(32)
    given = {name: value for name, value in os.environ.items() if name.startswith("ENGAGEMENT_")}
    return {
        **ours,
        **given,
        "KAFKA_BOOTSTRAP_SERVERS": parts.kafka_bootstrap_servers,
        "DATABASE_URL": parts.database_url,
    }


def _end_like_ctrl_c() -> None:
    """A polite kill and a closed terminal end the demo in the same good order.

    Also where Ctrl-C is ignored, as it is for what a script starts in the background.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: signal.raise_signal(signal.SIGINT))
