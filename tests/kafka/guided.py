"""Whoever follows the pages: a shell after README's first steps, and a look at what came of it."""

from __future__ import annotations

import asyncio
import http.cookiejar
import json
import os
import urllib.request
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import asyncpg
from confluent_kafka import Producer
from prometheus_client.parser import text_string_to_metric_families

from tests.fences import ROOT, Block, blocks_of
from tests.kafka.shell import TIMEOUT_S, Shell
from tests.owners import wait_until

T = TypeVar("T")

RUN = ("sh", "python", "json", "sql")
# Blocks of these headings are not run here.
ELSEWHERE = {
    ("README.md", "Two commands"): "test_demo.py runs the demo; the tests are what runs now",
    ("docs/deploy.md", "Who may do what"): "test_secured.py runs them; they need access lists",
    ("docs/deploy.md", "PostgreSQL", "sql"): "test_secured.py runs it, with logins of the tests'",
    ("docs/deploy.md", "Containers"): "needs an engine; test_compose.py reads what it would run",
}
UNSETTLED = """
SELECT (SELECT count(*) FROM due_member) + (SELECT count(*) FROM due_user)
     + (SELECT count(*) FROM due_organization) + (SELECT count(*) FROM due_batch)
     + (SELECT count(*) FROM outbox)
     + (SELECT count(*) FROM dead_letter WHERE published_at IS NULL)"""


class Guided(Shell):
    """A shell where both servers are named; it can look into the database, too."""

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        """`environment` has KAFKA_BOOTSTRAP_SERVERS and DATABASE_URL, and what else is set."""
        self.environment = dict(environment)
        self.bootstrap = environment["KAFKA_BOOTSTRAP_SERVERS"]
        super().__init__(self.bootstrap, folder, {**home(), **environment})
        self._producer = Producer({"bootstrap.servers": self.bootstrap, "log_level": 0})

    def connected(self, ask: Callable[[asyncpg.Connection], Awaitable[T]]) -> T:
        """What the database answers."""

        async def asked() -> T:
            connection = await asyncpg.connect(self.environment["DATABASE_URL"])
            try:
                return await ask(connection)
            finally:
                await connection.close()

        return asyncio.run(asked())

    def rows(self, query: str, *arguments: Any) -> list[tuple[Any, ...]]:
        """What a query gives."""
        found = self.connected(lambda connection: connection.fetch(query, *arguments))
        return [tuple(row) for row in found]

    def value(self, query: str, *arguments: Any) -> Any:
        """The one value that a query gives."""
        return self.rows(query, *arguments)[0][0]

    def send(self, topic: str, key: str, *bodies: str | dict[str, Any] | None) -> None:
        """Produce with confluent-kafka."""
        failures: list[str] = []
        for body in bodies:
            self._producer.produce(
                topic,
                json.dumps(body) if isinstance(body, dict) else body,
                key,
                on_delivery=lambda error, _: failures.append(str(error)) if error else None,
            )
        assert self._producer.flush(30) == 0
        assert not failures, failures

    def settle(self) -> None:
        """Wait until everything that was applied is evaluated and published."""
        soon(lambda: self.value(UNSETTLED) == 0)

    def assert_followed(self, page: str) -> None:
        """Every block of the page was run, but for what is run elsewhere."""
        wanted = {block for block in blocks_of(ROOT / page) if block.language in RUN}
        left = {block for block in wanted - self.ran if not is_elsewhere(block)}
        assert not left, f"not run: {', '.join(map(str, left))}"


def home() -> dict[str, str]:
    """Where the downloads of the user are."""
    return {name: os.environ[name] for name in ("HOME", "XDG_CACHE_HOME") if name in os.environ}


def soon(true: Callable[[], bool]) -> None:
    """Wait for it, also where other programs keep the machine busy."""
    wait_until(true, TIMEOUT_S)


def is_elsewhere(block: Block) -> bool:
    key = (block.page, block.heading)
    return key in ELSEWHERE or (*key, block.language) in ELSEWHERE


def signed_in(link: str) -> tuple[str, str]:
    """Open a sign-in link as a browser does, press its one button: the address and page behind it.

    Raises urllib.error.HTTPError.
    """
    jar = urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar())
    browser = urllib.request.build_opener(jar)
    with browser.open(link, timeout=TIMEOUT_S) as offer:
        assert "Sign in" in offer.read().decode()
    parts = urlsplit(link)
    press = urllib.request.Request(link, b"", {"Origin": f"{parts.scheme}://{parts.netloc}"})
    with browser.open(press, timeout=TIMEOUT_S) as page:
        return page.url, page.read().decode()


def scraped(url: str) -> str:
    """What Prometheus would get."""
    with urllib.request.urlopen(url, timeout=TIMEOUT_S) as answer:
        text: str = answer.read().decode()
    return text


def kinds_of_metrics(text: str) -> dict[str, str]:
    """Name -> kind of every metric of ours, named as its samples are.

    Without the instants of creation that the library adds to each counter and histogram.
    """
    return {
        family.name + ("_total" if family.type == "counter" else ""): family.type
        for family in text_string_to_metric_families(text)
        if family.name.startswith("engagement_") and not family.name.endswith("_created")
    }
