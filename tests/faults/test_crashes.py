"""Workers that are killed, stopped, frozen, and that come and go. (Faults 1 to 5)"""

from __future__ import annotations

import asyncio
import itertools
import random
import signal
import time
from collections.abc import Callable

import pytest

from tests.faults.conftest import Measured, SceneMaker, Trial
from tests.faults.failpoints import Failpoint
from tests.faults.scene import Scene
from tests.faults.workers import Worker

pytestmark = pytest.mark.timeout(240)

SESSION_S = 6.0
CLAIMED = "[streams.applying] action=claim"
# With batches of so few records those of several partitions share a transaction, all the time.
LARGE, SMALL = "500", "100"


async def send_until(it: Scene, trial: Trial, struck: Callable[[], bool]) -> None:
    """Keep work coming until a failpoint has struck: which worker does what is chance."""
    for more in range(1, 200):
        if struck():
            return
        await it.send(itertools.islice(trial.load(more), 200))
        await asyncio.sleep(0.3)
    raise AssertionError("the failpoint was never reached")


@pytest.mark.parametrize(
    ("places", "batch"),
    [(("fence", "upserts", "commit"), LARGE), (("sent", "committed", "evaluated"), SMALL)],
    ids=["fence-upserts-commit", "sent-committed-evaluated"],
)
async def test_fault_01_killed_at_a_failpoint(
    scene: SceneMaker, trial: Trial, measured: Measured, places: tuple[str, ...], batch: str
) -> None:
    async with scene(ENGAGEMENT_BATCH_MAX_RECORDS=batch) as it:
        victims = []
        for place in places:
            victims.append(it.worker(f"{place}-victim", Failpoint(place, "kill", 2)))
            # One after the other: the first one has the relay's lease.
            await victims[-1].until_ready()
        await it.ready_workers("survivor")
        await it.send(trial.load())
        await send_until(it, trial, lambda: not any(victim.running for victim in victims))
        assert {victim.exit_code(5) for victim in victims} == {-signal.SIGKILL}
        recovery_s = await it.until_moving()
        report = await it.finish()
        measured(1, report, recovery_s)
        assert recovery_s <= SESSION_S + 15


async def test_fault_03_rolling_restart(
    scene: SceneMaker, trial: Trial, measured: Measured
) -> None:
    async with scene() as it:
        watched = [Failpoint("fence", "watch"), Failpoint("committed", "watch")]
        old = [it.worker(f"old{number}", *watched) for number in range(3)]
        for worker in old:
            await worker.until_ready()
        sending = asyncio.create_task(it.send(trial.load(), rate=trial.records / 15))
        await it.until_applied(trial.records // 20)
        recovery_s = 0.0
        for number, worker in enumerate(old):
            await asyncio.to_thread(worker.stop, 15.0)
            recovery_s = max(recovery_s, await it.until_moving())
            await it.worker(f"new{number}", *watched).until_ready()
        await sending
        report = await it.finish()
        measured(3, report, recovery_s)
        for worker in it.workers:
            begun, done = (
                len(list(worker.folder.glob(f"{at}.*"))) for at in ("fence", "committed")
            )
            assert begun == done, f"{worker.name} began {begun} batches and committed {done}"


@pytest.mark.parametrize(
    ("place", "batch"), [("fence", LARGE), ("commit", SMALL)], ids=["fence", "commit"]
)
async def test_fault_04_frozen_in_a_transaction(
    scene: SceneMaker, trial: Trial, measured: Measured, place: str, batch: str
) -> None:
    async with scene(ENGAGEMENT_BATCH_MAX_RECORDS=batch) as it:
        zombie = it.worker("zombie", Failpoint(place, "freeze", 2))
        await zombie.until_ready()
        (heir,) = await it.ready_workers("heir")
        await it.send(trial.load())
        await send_until(it, trial, lambda: zombie.arrived(place, 2))
        frozen_at = time.monotonic()
        # The session times out, and the server ends the transaction that holds the offset's row:
        # after 10 s if it is idle, after 30 s if it is in the middle of a statement. With the
        # default session timeout of 45 s that is over before anybody else is given the partition.
        recovery_s = await it.until_moving()
        assert recovery_s <= 30 + 15
        if trial.is_full:
            await asyncio.sleep(max(0.0, frozen_at + 90 - time.monotonic()))
        else:
            await it.until_idle()
        moves = await it.value(MOVES_OF_ZOMBIE)
        claims = zombie.said(CLAIMED)
        zombie.send(signal.SIGCONT)
        # It learns that it is out of the group, and joins anew.
        await zombie.until_said(CLAIMED, claims + 1)
        assert await it.value(MOVES_OF_ZOMBIE) == moves
        await it.send(itertools.islice(trial.load(1), 1000))
        report = await it.finish()
        measured(4, report, recovery_s)
        assert await it.value(MOVES_OF_ZOMBIE) > moves
        assert heir.said("claim_lost") == 0


MOVES_OF_ZOMBIE = """
SELECT count(*) FROM test_audit WHERE who LIKE '%-zombie' AND new_epoch = old_epoch"""


@pytest.mark.nightly
@pytest.mark.timeout(1800)
async def test_fault_02_all_killed_again_and_again(
    scene: SceneMaker, trial: Trial, measured: Measured
) -> None:
    rng = random.Random(trial.seed)
    async with scene() as it:
        sending = asyncio.create_task(it.send(trial.load(), rate=trial.records / 280))
        calm_at = time.monotonic() + (300 if trial.is_full else 30)
        number = 0
        while time.monotonic() < calm_at:
            workers = [it.worker(f"mortal{number}-{which}") for which in range(2)]
            number += 1
            # Half of them while they still start, half of them at work.
            if rng.random() < 0.7:
                await _ready_or_dead(workers)
            await asyncio.sleep(rng.uniform(0.1, 6.0))
            for worker in workers:
                worker.kill()
        await sending
        calmed_at = time.monotonic()
        await it.ready_workers("calm")
        await it.until("no lag", lambda: _no_lag(it), 60)
        recovery_s = time.monotonic() - calmed_at
        report = await it.finish()
        measured(2, report, recovery_s)


async def _no_lag(it: Scene) -> bool:
    return not await it.lagging()


async def _ready_or_dead(workers: list[Worker]) -> None:
    for worker in workers:
        await worker.until_ready()


@pytest.mark.nightly
@pytest.mark.timeout(1800)
async def test_fault_05_rebalance_storm(
    scene: SceneMaker, trial: Trial, measured: Measured
) -> None:
    rng = random.Random(trial.seed)
    length_s = 300 if trial.is_full else 40
    async with scene(ENGAGEMENT_TOPIC_PARTITIONS="2") as it:
        await it.ready_workers("resident")
        sending = asyncio.create_task(it.send(trial.load(), rate=trial.records / length_s))
        calm_at = time.monotonic() + length_s
        guests: list[Worker] = []
        while time.monotonic() < calm_at:
            guests.append(it.worker(f"guest{len(it.workers)}"))
            # Ten partitions; up to a dozen workers.
            if len(guests) > rng.randint(1, 11):
                leaving = guests.pop(rng.randrange(len(guests)))
                if rng.random() < 0.5:
                    leaving.kill()
                else:
                    await leaving.until_ready()
                    await asyncio.to_thread(leaving.stop)
            await asyncio.sleep(5)
        await sending
        recovery_s = await it.until_moving()
        report = await it.finish()
        measured(5, report, recovery_s)
        assert await it.value(LONGEST_PAUSE_S) < 60


LONGEST_PAUSE_S = """
SELECT coalesce(max(extract(epoch FROM pause)), 0) FROM (
    SELECT at - lag(at) OVER (PARTITION BY topic, partition ORDER BY number) AS pause
    FROM test_audit WHERE topic LIKE '%attendance') AS p"""
