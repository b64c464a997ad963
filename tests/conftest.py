"""Fixtures for all tiers. A test's tier is its folder; it gets the marker of the same name."""

from __future__ import annotations

import os
import secrets
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path

import hypothesis
import pytest

from tests.servers import (
    TEMPLATE,
    GivenKafka,
    GivenPostgres,
    KafkaBroker,
    PostgresServer,
    cloned_database,
    run_sql,
)

# Properties are about values; how long an example takes depends on what else the machine does.
hypothesis.settings.register_profile(
    "project", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("project")


pytest_plugins = ["tests.faults.reporting"]

HERE = Path(__file__).parent
# In the order that they run in. The last has many short files, so that all processes end together.
TIERS = ("unit", "contract", "postgres", "kafka", "bench", "faults", "browser")
WITHOUT_SERVERS = {"unit", "contract"}
SERVERS = {"postgres_server", "kafka_broker"}
FOREIGN = ("KAFKA_", "ENGAGEMENT_", "ANTHROPIC_", "DATABASE_URL", "PG")


def pytest_configure() -> None:
    """Tests never see the developer's own settings, nor do the processes that they start.

    Nor do they inherit that Ctrl-C or the end of a terminal is ignored, as a script's & and nohup
    have it: some tests end processes that way.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
    for name in list(os.environ):
        if name.startswith(FOREIGN):
            del os.environ[name]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark each test with its tier, put quick tiers first, keep servers out of the first two."""
    for item in items:
        tier = tier_of(item)
        item.add_marker(tier)
        wanted = SERVERS.intersection(getattr(item, "fixturenames", ()))
        if tier in WITHOUT_SERVERS and wanted:
            message = f"{item.nodeid} is in tier {tier} and uses {', '.join(sorted(wanted))}"
            raise pytest.UsageError(message)
    items.sort(key=lambda item: TIERS.index(tier_of(item)))


def pytest_collection_finish(session: pytest.Session) -> None:
    """Fetch what servers are made of before a test's time limit runs; the first time it takes."""
    if all(tier_of(item) in WITHOUT_SERVERS for item in session.items):
        return
    from service.demo.local import LocalServerError
    from service.demo.local.kafka_startup import make_startup_cache

    # Whoever needs them then fails, and says why.
    with suppress(LocalServerError):
        make_startup_cache()


def tier_of(item: pytest.Item) -> str:
    """The folder below tests."""
    tier = item.path.relative_to(HERE).parts[0]
    if tier not in TIERS:
        message = f"{item.path} is in no tier: move it into one of {', '.join(TIERS)}"
        raise pytest.UsageError(message)
    return tier


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """One server for the session (each parallel worker has its own), without fsync."""
    if url := os.environ.get("TEST_DATABASE_URL"):
        yield GivenPostgres(url)
        return
    from service.demo.local import LocalPostgres

    settings = {"fsync": "off", "full_page_writes": "off", "max_connections": "200"}
    with LocalPostgres(settings=settings) as server:
        yield server


@pytest.fixture(scope="session")
async def template_database(postgres_server: PostgresServer) -> AsyncIterator[str]:
    """The name of a migrated database that nobody connects to: for clones only."""
    from db.migrate import migrate

    name = f"{TEMPLATE}_{secrets.token_hex(4)}"
    await run_sql(postgres_server, f'CREATE DATABASE "{name}"')
    await migrate(postgres_server.dsn(name))
    yield name
    await run_sql(postgres_server, f'DROP DATABASE "{name}" WITH (FORCE)')


@pytest.fixture
async def database(postgres_server: PostgresServer, template_database: str) -> AsyncIterator[str]:
    """The URL of a migrated, empty database of the test's own."""
    async with cloned_database(postgres_server, template_database) as url:
        yield url


@pytest.fixture(scope="session")
def kafka_broker() -> Iterator[KafkaBroker]:
    """One broker for the session (each parallel worker has its own): mind `topic_prefix`."""
    if bootstrap := os.environ.get("TEST_KAFKA_BOOTSTRAP_SERVERS"):
        yield GivenKafka(bootstrap)
        return
    from service.demo.local import LocalKafka

    with LocalKafka() as broker:
        yield broker


@pytest.fixture
def topic_prefix() -> str:
    """A start for names of topics and consumer groups that no other test uses."""
    return f"test-{secrets.token_hex(5)}."
