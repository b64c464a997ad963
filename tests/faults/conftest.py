"""Servers of the fault tests: always our own, since they are killed, stopped and cut off."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

import pytest

from service.demo.input_record import InputRecord
from service.demo.local import LocalKafka, LocalPostgres
from service.demo.population import load
from tests.faults.reporting import Noted
from tests.faults.scene import Scene
from tests.faults.verifier import Report
from tests.servers import TEMPLATE, cloned_database, run_sql

REDUCED, FULL = 20_000, 200_000


@dataclass(frozen=True)
class Trial:
    """One seed and size of the load; reduced in every run, in full at night."""

    seed: int
    records: int

    @property
    def is_full(self) -> bool:
        """Whether there is time."""
        return self.records == FULL

    def load(self, seed: int = 0) -> Iterator[InputRecord]:
        """Attendance records; 10 % repeated, 10 % shuffled, 2 % corrected. Another `seed`: others.

        They end now, so that every level occurs.
        """
        return load(
            1000 * self.seed + seed, self.records, self.records // 10, ends_at=datetime.now(UTC)
        )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Every trial of a test that asks for one: reduced, and at night in full."""
    if "trial" not in metafunc.fixturenames:
        return
    first: int = metafunc.config.getoption("--first-seed")
    count: int = metafunc.config.getoption("--seeds")
    trials = [
        pytest.param(
            Trial(seed, records), id=f"{records // 1000}k-seed{seed}",
            marks=[pytest.mark.nightly, pytest.mark.timeout(1800)] if records == FULL else [],
        )
        for records in (REDUCED, FULL)
        for seed in range(first, first + count)
    ]  # fmt: skip
    metafunc.parametrize("trial", trials)


class SceneMaker(Protocol):
    """Makes a scene on the fault tests' servers."""

    def __call__(
        self, *, bootstrap: str | None = None, database: Callable[[str], str] | None = None,
        **settings: str,
    ) -> AbstractAsyncContextManager[Scene]:  # fmt: skip
        """`settings` are environment names for the workers.

        Workers reach the broker at `bootstrap` and the database at what `database` makes of its
        URL, while the test itself goes straight there.
        """


@pytest.fixture(scope="session")
def faulty_postgres() -> Iterator[LocalPostgres]:
    """A server that tests may stop and kill; they leave it running."""
    settings = {"fsync": "off", "full_page_writes": "off", "max_connections": "200"}
    with LocalPostgres(settings=settings) as server:
        yield server


@pytest.fixture(scope="session")
def faulty_kafka() -> Iterator[LocalKafka]:
    """A broker that tests may stop and kill; they leave it running."""
    with LocalKafka() as broker:
        yield broker


@pytest.fixture(scope="session")
async def faulty_template(faulty_postgres: LocalPostgres) -> AsyncIterator[str]:
    """A migrated database on that server, for clones."""
    from db.migrate import migrate

    name = f"{TEMPLATE}_{secrets.token_hex(4)}"
    await run_sql(faulty_postgres, f'CREATE DATABASE "{name}"')
    await migrate(faulty_postgres.dsn(name))
    yield name
    await run_sql(faulty_postgres, f'DROP DATABASE "{name}" WITH (FORCE)')


@pytest.fixture
def scene(
    faulty_postgres: LocalPostgres,
    faulty_kafka: LocalKafka,
    faulty_template: str,
    topic_prefix: str,
    tmp_path: Path,
) -> SceneMaker:
    """`async with scene(...) as it`: topics, a database and workers of the test's own."""

    @asynccontextmanager
    async def make(
        *, bootstrap: str | None = None, database: Callable[[str], str] | None = None,
        **settings: str,
    ) -> AsyncIterator[Scene]:  # fmt: skip
        async with cloned_database(faulty_postgres, faulty_template) as url:
            if bootstrap is not None:
                settings["KAFKA_BOOTSTRAP_SERVERS"] = bootstrap
            if database is not None:
                settings["DATABASE_URL"] = database(url)
            async with Scene(faulty_kafka.bootstrap, url, topic_prefix, tmp_path, settings) as made:
                yield made

    return make


class Measured(Protocol):
    """Notes a line for docs/faults.md."""

    def __call__(self, fault: int, report: Report, recovery_s: float | None = None) -> None:
        """What one run of a fault came to."""


@pytest.fixture
def measured(noted: Noted) -> Measured:
    """`measured(fault, report, recovery_s)`: a line for docs/faults.md."""

    def note(fault: int, report: Report, recovery_s: float | None = None) -> None:
        records = FULL if report.records > FULL // 2 else REDUCED
        noted(fault, records=records, lost=report.lost, doubled=report.doubled,
              recovery_s=recovery_s)  # fmt: skip

    return note
