"""The database restarts, is killed, cut off, slow, full, or another one. (Faults 8 to 12)"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator

import pytest

from service.demo.local import LocalPostgres
from tests.faults.claims import Claims
from tests.faults.conftest import Measured, SceneMaker, Trial
from tests.faults.failpoints import Failpoint
from tests.faults.proxy import Proxy, through
from tests.faults.scene import IDLE_TIMEOUT_S

pytestmark = pytest.mark.timeout(240)


@pytest.fixture
def proxy(faulty_postgres: LocalPostgres) -> Iterator[Proxy]:
    """On the way to the database."""
    with Proxy(("127.0.0.1", faulty_postgres.port)) as made:
        yield made


@pytest.mark.parametrize("how", ["immediate", "killed"])
async def test_fault_08_postgres_restarted(
    scene: SceneMaker, trial: Trial, measured: Measured, faulty_postgres: LocalPostgres, how: str
) -> None:
    async with scene() as it:
        workers = await it.ready_workers("one", "two")
        claims = await Claims.of(it)
        sending = asyncio.create_task(it.send(trial.load(), rate=trial.records / 12))
        await it.until_applied(trial.records // 10)
        if how == "immediate":
            await asyncio.to_thread(faulty_postgres.stop, "immediate")
        else:
            await asyncio.to_thread(faulty_postgres.kill)
        await asyncio.sleep(3)
        await asyncio.to_thread(faulty_postgres.start)
        recovery_s = await it.until_moving()
        await sending
        await it.until_idle()
        assert all(worker.running for worker in workers)
        await claims.check(it, workers)
        report = await it.finish()
        measured(8, report, recovery_s)
        assert recovery_s <= 20


async def test_fault_09_cut_at_commit(
    scene: SceneMaker, trial: Trial, measured: Measured, proxy: Proxy
) -> None:
    async with scene(database=through(proxy), ENGAGEMENT_BATCH_MAX_RECORDS="100") as it:
        workers = await it.ready_workers("one", "two")
        proxy.commits_to_cut = 100
        await it.send(trial.load())
        await it.until("100 cuts", _done(proxy), 120)
        recovery_s = await it.until_moving()
        report = await it.finish()
        measured(9, report, recovery_s)
        # Both kinds occurred, and were told apart.
        assert sum(worker.said("batch_was_applied") for worker in workers) > 5
        assert sum(worker.said("batch_retried") for worker in workers) > 10
        assert sum(worker.said("claim_lost") for worker in workers) == 0


def _done(proxy: Proxy) -> Callable[[], Awaitable[bool]]:
    async def done() -> bool:
        return proxy.commits_to_cut == 0

    return done


@pytest.mark.nightly
@pytest.mark.timeout(1800)
async def test_fault_12_disk_full(scene: SceneMaker, trial: Trial, measured: Measured) -> None:
    async with scene() as it:
        attempts = 60 if trial.is_full else 12
        full = [
            Failpoint(place, "fail", at=4, times=attempts, detail="53100")
            for place in ("upserts", "evaluated")
        ]
        workers = [it.worker("one", *full), it.worker("two", *full)]
        for worker in workers:
            await worker.until_ready()
        await it.send(trial.load())
        for worker in workers:
            await worker.until_arrived("upserts", 4 + attempts, timeout_s=400)
        recovery_s = await it.until_moving()
        # Evaluators may still have most of their attempts before them, at most 5 s apart.
        report = await it.finish(max(IDLE_TIMEOUT_S, 5.0 * attempts))
        measured(12, report, recovery_s)
        assert all(worker.said("53100") for worker in workers)
        assert not report.dead_letters
