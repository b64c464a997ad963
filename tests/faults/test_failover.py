"""The primary dies, vanishes or becomes read-only, and a streaming standby takes over. (Fault 11)

Replication is synchronous: what was acknowledged is on the standby, so nothing of that may be
missing after the promotion. What the intake commits asks for no acknowledgement, and is read again
from Kafka where it is missing.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import ExitStack, suppress
from pathlib import Path

import asyncpg
import pytest

from db.migrate import migrate
from service.demo.local import LocalKafka, LocalPostgres
from tests.faults.claims import Claims
from tests.faults.conftest import Measured, Trial
from tests.faults.proxy import Proxy
from tests.faults.scene import Scene
from tests.servers import run_sql

pytestmark = [pytest.mark.nightly, pytest.mark.timeout(600)]

HOST = "127.0.0.1"
DATABASE = "scene"
REBUILT_WITHIN_S = 30

SYNC_STATE = "SELECT sync_state FROM pg_stat_replication"
CAUGHT_UP = "SELECT replay_lsn = pg_current_wal_lsn() FROM pg_stat_replication"
READ_ONLY = "ALTER SYSTEM SET default_transaction_read_only = on"
SYNCHRONOUS = "ALTER SYSTEM SET synchronous_standby_names = '*'"
RELOAD = "SELECT pg_reload_conf()"
LISTENERS = """
SELECT count(*) FROM pg_stat_activity
WHERE application_name = 'engagement-listen' AND datname = current_database()"""

GONE = (
    OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError,
)  # fmt: skip


class Pair:
    """A primary and its standby, each behind a proxy of its own, and one before the primary's.

    `front` leads to whichever the test says, as a virtual address does.
    """

    def __init__(self, primary: LocalPostgres, standby: LocalPostgres, stack: ExitStack) -> None:
        self.primary, self.standby = primary, standby
        self.ways = [
            stack.enter_context(Proxy((HOST, server.port))) for server in (primary, standby)
        ]
        self.front = stack.enter_context(Proxy((HOST, primary.port)))

    @property
    def both(self) -> str:
        """A URL that names both servers; whoever takes writes is meant."""
        hosts = ",".join(f"{HOST}:{way.port}" for way in self.ways)
        return self._url(hosts) + "?target_session_attrs=read-write"

    @property
    def virtual(self) -> str:
        """A URL of the front."""
        return self._url(f"{HOST}:{self.front.port}")

    def _url(self, hosts: str) -> str:
        login = self.primary.dsn(DATABASE).partition("@")[0]
        return f"{login}@{hosts}/{DATABASE}"


@pytest.fixture
async def pair() -> AsyncIterator[Pair]:
    """A migrated database on a primary that commits nothing that its standby does not have."""
    settings = {"fsync": "off", "full_page_writes": "off", "max_connections": "200"}
    with ExitStack() as stack:
        primary = stack.enter_context(LocalPostgres(settings=settings))
        standby = await asyncio.to_thread(primary.create_standby)
        stack.callback(standby.close)
        await run_sql(primary, SYNCHRONOUS)
        await run_sql(primary, RELOAD)
        await run_sql(primary, f'CREATE DATABASE "{DATABASE}"')
        await migrate(primary.dsn(DATABASE))
        yield Pair(primary, standby, stack)


class Witness:
    """Commits numbers, one after the other, and remembers which were acknowledged."""

    def __init__(self, url: str) -> None:
        self.acknowledged: list[int] = []
        self._url = url

    async def run(self) -> None:
        """Until the server is gone or refuses."""
        connection = await asyncpg.connect(self._url)
        with suppress(*GONE):
            await connection.execute("CREATE TABLE witness (number int PRIMARY KEY)")
            for number in range(1_000_000):
                await connection.execute("INSERT INTO witness VALUES ($1)", number)
                self.acknowledged.append(number)
        connection.terminate()


async def killed(pair: Pair) -> None:
    """Gone, and everybody is told so."""
    await asyncio.to_thread(pair.primary.kill)


async def vanished(pair: Pair) -> None:
    """Gone, and nobody is told: its machine has lost power."""
    pair.ways[0].forget()
    pair.ways[0].holding = True
    await asyncio.to_thread(pair.primary.kill)


@pytest.mark.parametrize("how", [killed, vanished], ids=lambda how: str(how.__name__))
async def test_fault_11_failover(
    pair: Pair, faulty_kafka: LocalKafka, trial: Trial, measured: Measured, topic_prefix: str,
    tmp_path: Path, how: Callable[[Pair], Awaitable[None]],
) -> None:  # fmt: skip
    url = pair.primary.dsn(DATABASE)
    async with Scene(
        faulty_kafka.bootstrap, url, topic_prefix, tmp_path, {"DATABASE_URL": pair.both}
    ) as it:
        assert [row[0] for row in await it.fetch(SYNC_STATE)] == ["sync"]
        workers = await it.ready_workers("one", "two")
        claims = await Claims.of(it)
        witness = Witness(url)
        witnessing = asyncio.create_task(witness.run())
        sending = asyncio.create_task(it.send(trial.load(), rate=trial.records / 20))
        await it.until_applied(trial.records // 10)
        await how(pair)
        await witnessing
        await asyncio.to_thread(pair.standby.promote)
        it.database_url = pair.standby.dsn(DATABASE)
        recovery_s = await it.until_moving()
        await sending
        await it.until_idle()
        assert all(worker.running for worker in workers)
        numbers = [row[0] for row in await it.fetch("SELECT number FROM witness")]
        assert len(witness.acknowledged) > 100
        assert set(numbers) >= set(witness.acknowledged)
        await claims.check(it, workers)
        report = await it.finish()
        measured(11, report, recovery_s)
        assert recovery_s <= REBUILT_WITHIN_S


async def test_fault_11_read_only(
    pair: Pair, faulty_kafka: LocalKafka, trial: Trial, measured: Measured, topic_prefix: str,
    tmp_path: Path,
) -> None:  # fmt: skip
    """The old primary lives on, read-only, and so do all connections to it."""
    url = pair.primary.dsn(DATABASE)
    async with Scene(
        faulty_kafka.bootstrap, url, topic_prefix, tmp_path, {"DATABASE_URL": pair.virtual}
    ) as it:
        workers = await it.ready_workers("one", "two")
        sending = asyncio.create_task(it.send(trial.load(), rate=trial.records / 20))
        await it.until_applied(trial.records // 10)
        await run_sql(pair.primary, READ_ONLY)
        await run_sql(pair.primary, RELOAD)
        for worker in workers:
            await worker.until_said("25006")

        async def caught_up() -> bool:
            return bool(await it.value(CAUGHT_UP))

        await it.until("the standby to have everything", caught_up, 10)
        await asyncio.to_thread(pair.standby.promote)
        pair.front.target = (HOST, pair.standby.port)
        it.database_url = pair.standby.dsn(DATABASE)
        recovery_s = await it.until_moving()

        async def all_listen() -> bool:
            return bool(await it.value(LISTENERS) == len(workers))

        await it.until("all to listen to the new primary", all_listen, REBUILT_WITHIN_S)
        await sending
        await it.until_idle()
        assert all(worker.running for worker in workers)
        report = await it.finish()
        measured(11, report, recovery_s)
        assert sum(worker.said("claim_lost") for worker in workers) == 0, "a commit was lost"
        assert recovery_s <= REBUILT_WITHIN_S
