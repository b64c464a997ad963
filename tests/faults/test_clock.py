"""Clocks that are wrong and jump; crashes at the slot; everybody down over it. (Fault 18)

The slots are those of the database's clock, which the tests set: 04:00 UTC on a day in spring when
Europe changes its clocks, and on the days around it. Worker processes are real, and so is the time
that passes.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import signal
import time
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

import pytest

from service.demo.input_record import InputRecord
from service.demo.population import load
from tests.faults.conftest import Measured, SceneMaker, Trial
from tests.faults.database_clock import DatabaseClock
from tests.faults.failpoints import Failpoint
from tests.faults.overriding import ACTIONS, check_expired_once, override_some
from tests.faults.scene import Scene
from tests.faults.workers import Worker

nightly = pytest.mark.nightly
pytestmark = pytest.mark.timeout(600)

# Clocks go forward in Europe this day, at 01:00 UTC.
CHANGE_DAY = datetime(2027, 3, 28, 4, tzinfo=UTC)
DAY, SECOND = timedelta(days=1), timedelta(seconds=1)
TWO_HOURS_S = 7200.0
EASTERN = "EST5EDT,M3.2.0,M11.1.0"
CENTRAL_EUROPEAN = "CET-1CEST,M3.5.0,M10.5.0/3"
OVERRIDDEN = 20
RECOMPUTED_WITHIN_S = 60

RUNS = "SELECT slot, status, summary::json ->> 'failed' AS failed FROM batch_run ORDER BY slot"
NOT_RECOMPUTED = """
SELECT count(*) FROM member_engagement WHERE level IS NOT NULL AND computed_at < $1"""
SHOWN = "SELECT org_id, user_id, level, override_level, computed_level FROM member_engagement"


def load_until(trial: Trial, at: datetime) -> Iterable[InputRecord]:
    """The trial's records, as if they had happened up to an instant of the database's clock."""
    return load(1000 * trial.seed, trial.records, trial.records // 10, ends_at=at)


async def slots_done(it: Scene) -> list[datetime]:
    """The slots that were run, each of them once and to its end."""
    rows = await it.fetch(RUNS)
    assert {(row["status"], row["failed"]) for row in rows} <= {("done", "0")}, rows
    return [row["slot"] for row in rows]


async def until_recomputed(it: Scene, trial: Trial, slot: datetime) -> float:
    """Wait until a slot's run has ended and everybody was recomputed for it; seconds."""

    async def done() -> bool:
        rows = await it.fetch(RUNS)
        return any(row["slot"] == slot and row["status"] == "done" for row in rows)

    # In full 20,000 members are due at once, on a machine that may run other tests besides.
    within_s = 3 * RECOMPUTED_WITHIN_S if trial.is_full else RECOMPUTED_WITHIN_S
    waited_s = await it.until(f"the run of {slot}", done, within_s)
    assert await it.value(NOT_RECOMPUTED, slot - timedelta(hours=23)) == 0
    return waited_s


async def test_a_relay_whose_clock_is_ahead_publishes(scene: SceneMaker) -> None:
    """Brokers refuse records that are dated an hour ahead of their own clock."""
    async with scene() as it:
        ahead = it.worker("ahead", clock=[(0, TWO_HOURS_S)])
        await ahead.until_ready()
        await it.send(Trial(1, 500).load())
        await it.send([InputRecord("attendance", b"a:b", b"{"), InputRecord("rsvp", None, None)])
        await it.until_idle(20)
        report = await it.finish()
        assert report.changes > 0
        assert report.dead_letters == 2


@nightly
async def test_fault_18_workers_with_wrong_clocks(
    scene: SceneMaker, trial: Trial, measured: Measured
) -> None:
    rng = random.Random(trial.seed)
    jumps = [(2.0 * n, rng.choice((-TWO_HOURS_S, 0.0, TWO_HOURS_S))) for n in range(500)]
    slots = [CHANGE_DAY - DAY, CHANGE_DAY, CHANGE_DAY + DAY]
    async with scene() as it:
        clock = DatabaseClock(it)
        await clock.set(slots[0] - timedelta(minutes=10))
        records = iter(load_until(trial, clock.now()))
        # The first one is the relay.
        ahead = it.worker("ahead", clock=[(0, TWO_HOURS_S)], environment={"TZ": CENTRAL_EUROPEAN})
        await ahead.until_ready()
        workers = [
            ahead,
            it.worker("behind", clock=[(0, -TWO_HOURS_S)], environment={"TZ": EASTERN}),
            it.worker("jumping", clock=jumps),
        ]
        for worker in workers:
            await worker.until_ready()
        await it.send(itertools.islice(records, trial.records // 2))
        await it.until_idle()
        expires_at = slots[0] + timedelta(seconds=5)
        members = await override_some(it, OVERRIDDEN, expires_at)
        await it.until_idle()
        await clock.set(slots[0] - timedelta(seconds=10))
        sending = asyncio.create_task(it.send(records, rate=trial.records / 40))
        await clock.until(slots[0] - timedelta(seconds=1))
        assert await slots_done(it) == []
        recovery_s = 0.0
        for number, slot in enumerate(slots):
            if slot > clock.now():
                await clock.set(slot - timedelta(seconds=5))
            await clock.until(slot)
            recovery_s = max(recovery_s, await until_recomputed(it, trial, slot))
            assert await slots_done(it) == slots[: number + 1]
            await sending
            await it.until_idle()
        await check_expired_once(it, members, expires_at, expires_at + timedelta(seconds=10))
        assert all(worker.running for worker in workers)
        report = await it.finish()
        measured(18, report, recovery_s)
        assert ahead.said("relay_started")
        assert await slots_done(it) == slots


@nightly
async def test_fault_18_killed_around_the_slot(
    scene: SceneMaker, trial: Trial, measured: Measured
) -> None:
    """Within a second of 04:00, before it or after it, and at work on the run."""
    rng = random.Random(trial.seed)
    slots = [CHANGE_DAY + number * DAY for number in range(3)]
    places = ("survey", "close", "")
    async with scene() as it:
        clock = DatabaseClock(it)
        await clock.set(slots[0] - timedelta(minutes=10))
        records = iter(load_until(trial, clock.now()))
        recovery_s = 0.0
        for number, (slot, place) in enumerate(zip(slots, places, strict=True)):
            at_work = [Failpoint(place, "kill")] if place else []
            victims = [it.worker(f"{number}-{which}", *at_work) for which in ("a", "b")]
            for worker in victims:
                await worker.until_ready()
            await it.send(itertools.islice(records, trial.records // 3))
            await it.until_idle()
            await clock.set(slot - timedelta(seconds=3))
            await asyncio.gather(
                *(kill_at(clock, slot + rng.uniform(-1, 1) * SECOND, one) for one in victims)
            )
            heirs = await it.ready_workers(f"{number}-heir")
            recovery_s = max(recovery_s, await until_recomputed(it, trial, slot))
            assert await slots_done(it) == slots[: number + 1]
            for worker in heirs:
                await asyncio.to_thread(worker.stop)
        await it.ready_workers("calm")
        report = await it.finish()
        measured(18, report, recovery_s)
        assert await slots_done(it) == slots


async def kill_at(clock: DatabaseClock, at: datetime, worker: Worker) -> None:
    """Kill a worker at an instant of the database's clock, unless it has died at its work."""
    await clock.until(at)
    if worker.running:
        worker.send(signal.SIGKILL)
    assert await worker.until_ended() == -signal.SIGKILL


@nightly
async def test_fault_18_everybody_down_over_the_slot(
    scene: SceneMaker, trial: Trial, measured: Measured
) -> None:
    slot, minute = CHANGE_DAY, timedelta(minutes=1)
    async with scene() as it:
        clock = DatabaseClock(it)
        await clock.set(slot - 20 * minute)
        records = iter(load_until(trial, clock.now()))
        await it.ready_workers("before", "too")
        await it.send(itertools.islice(records, trial.records // 2))
        await it.until_idle()
        members = await override_some(it, OVERRIDDEN, slot + 10 * minute)
        await it.until_idle()
        await clock.set(slot - 10 * minute)
        await it.until_idle()
        await it.stop_workers()
        await clock.set(slot + 15 * minute)
        # Nobody has worked since, yet who looks sees that the overrides are over.
        shown = {(row["org_id"], row["user_id"]): row for row in await it.fetch(SHOWN)}
        assert all(shown[one]["override_level"] is None for one in members)
        assert all(shown[one]["level"] == shown[one]["computed_level"] for one in members)
        assert [row["action"] for row in await it.fetch(ACTIONS)] == ["override"] * OVERRIDDEN
        await it.send(records)
        await clock.set(slot + 30 * minute)
        began = time.monotonic()
        await it.ready_workers("after", "next")
        await until_recomputed(it, trial, slot)
        recovery_s = time.monotonic() - began
        await it.until_idle()
        await check_expired_once(it, members, slot + 10 * minute, slot + 32 * minute)
        await it.stop_workers()
        # Starting once more finds nothing to catch up with; after days it is the latest slot alone.
        await it.ready_workers("again")
        await asyncio.sleep(5)
        assert await slots_done(it) == [slot]
        await it.stop_workers()
        await clock.set(slot + 3.5 * DAY)
        await it.ready_workers("later")
        await until_recomputed(it, trial, slot + 3 * DAY)
        report = await it.finish()
        measured(18, report, recovery_s)
        assert await slots_done(it) == [slot, slot + 3 * DAY]
