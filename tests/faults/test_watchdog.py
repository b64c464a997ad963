"""A worker that stands still ends and says why; one that only waits goes on; probes do not flap."""

from __future__ import annotations

import asyncio
import time

import pytest

from service.demo.input_record import InputRecord
from service.demo.local import LocalPostgres
from tests.faults.attended import attended
from tests.faults.conftest import SceneMaker, Trial
from tests.faults.failpoints import Failpoint
from tests.faults.workers import Worker

pytestmark = pytest.mark.timeout(120)

# Everything that ends or fails after a while does so after seconds.
QUICK = {
    "streams.watchdog:LOOK_S": 1.0,
    "streams.watchdog:STUCK_S": 3.0,
    "streams.health:POLL_SILENCE_S": 5.0,
    "streams.health:REBALANCE_S": 5.0,
    "streams.health:UNCLAIMED_S": 5.0,
}
LONG_S = 12.0  # several times that
ALIVE_AND_READY, ALIVE_ONLY = (200, 200), (200, 503)


async def probes(worker: Worker, seconds: float) -> set[tuple[int, int]]:
    """Every pair of answers of `/livez` and `/readyz` within that time."""
    found = set()
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        (alive, _), (ready, _) = await worker.get("/livez"), await worker.get("/readyz")
        found.add((alive, ready))
        await asyncio.sleep(0.2)
    return found


async def test_a_partition_that_does_not_move_ends_the_worker(scene: SceneMaker) -> None:
    async with scene() as it:
        # A batch vanishes on its way: what follows it can not be applied.
        worker = it.worker("one", Failpoint("admit", "drop", 2), constants=QUICK)
        await worker.until_ready()
        await it.send(Trial(1, 2_000).load())
        assert await worker.until_ended() == 1
        ((topic, partition), _), *others = (await it.lagging()).items()
        assert not others
        assert worker.said(f"there are records, but nothing moves: {topic}/{partition}")
        # Whoever started it starts another one.
        await it.ready_workers("two")
        await it.finish()


async def test_a_batch_lost_on_its_way_is_fetched_again_by_the_same_worker(
    scene: SceneMaker,
) -> None:
    """As when something empties the queue of an agent, at the end of a topic or before more."""
    async with scene() as it:
        lossy = [Failpoint("admit", "drop", arrival) for arrival in (2, 20)]
        worker = it.worker("one", *lossy)
        await worker.until_ready()
        await it.send(Trial(1, 2_000).load())
        await worker.until_said("got lost on its way here", timeout_s=30)
        await it.send(Trial(1, 4_000).load())
        await it.until_idle(60)
        assert worker.said("claimed") > 1
        assert worker.running
        await it.finish()


async def test_records_lost_on_their_way_are_fetched_again_though_none_follow(
    scene: SceneMaker,
) -> None:
    """As when a rebalance comes between a fetch and its batch, at the end of a topic."""
    async with scene() as it:
        worker = it.worker("one", Failpoint("fetched", "drop"))
        await worker.until_ready()
        await it.send([attended("ada", "first")])
        await it.finish(timeout_s=20)


async def test_a_rebalance_that_never_ends_ends_the_worker(scene: SceneMaker) -> None:
    async with scene() as it:
        calm, joining = it.worker("calm"), Failpoint("claim", "hold", 2, times=1_000)
        await calm.until_ready()
        worker = it.worker("one", joining, constants=QUICK)
        await worker.until_ready()
        # Somebody joins, and it can not claim what it is given then.
        await it.worker("two").until_ready()
        assert await worker.until_ended() == 1
        assert worker.said("rebalancing for")
        await it.send([attended("ada", "first")])
        await it.finish()


async def test_a_full_disk_is_waited_out(scene: SceneMaker) -> None:
    """Also by the partitions that wait for those that try: for a slot, or for room in memory."""
    async with scene() as it:
        full = Failpoint("upserts", "fail", at=2, times=10_000, detail="53100")
        worker = it.worker("one", full, constants=QUICK)
        await worker.until_ready()
        await it.send(Trial(1, 10_000).load())
        await worker.until_said("53100")
        assert await probes(worker, LONG_S) == {ALIVE_AND_READY}
        assert worker.running
        assert await it.lagging()


async def test_an_absent_database_is_waited_out(
    scene: SceneMaker, faulty_postgres: LocalPostgres
) -> None:
    """Restarting would not mend it, so neither probe looks at it (docs/deploy.md)."""
    async with scene() as it:
        worker = it.worker("one", constants=QUICK)
        await worker.until_ready()
        await it.send(Trial(1, 2_000).load())
        await it.until_applied(1)
        await asyncio.to_thread(faulty_postgres.stop, "immediate")
        try:
            assert await probes(worker, LONG_S) == {ALIVE_AND_READY}
        finally:
            await asyncio.to_thread(faulty_postgres.start)
        await it.finish(timeout_s=60)


async def test_idle_topics_are_healthy(scene: SceneMaker) -> None:
    async with scene() as it:
        worker = it.worker("one", constants=QUICK)
        await worker.until_ready()
        assert await probes(worker, 20) == {ALIVE_AND_READY}
        assert worker.running
        await it.send([attended("ada", "first")])
        await it.finish()


async def test_a_stopped_partition_is_alive_and_not_ready(scene: SceneMaker) -> None:
    async with scene(ENGAGEMENT_DLQ_MAX_CONSECUTIVE="5") as it:
        worker = it.worker("one", constants=QUICK)
        await worker.until_ready()
        good = attended("ada", "first")
        bad = InputRecord(good.kind, good.key, b"{}")
        await it.send([*[bad] * 5, good])
        await worker.until_said("partition_stopped")
        assert await probes(worker, LONG_S) == {ALIVE_ONLY}
        assert worker.running
        assert len(await it.lagging()) == 1
        await it.command("dlq", "resume")
        await worker.until_ready(20)
        assert await probes(worker, 3) == {ALIVE_AND_READY}
        report = await it.finish()
        assert report.dead_letters == 5
