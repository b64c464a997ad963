"""The relay is killed, frozen and replaced; the broker is away; a number is lost. (Fault 20)"""

from __future__ import annotations

import asyncio
import itertools
import signal
import time
from collections import Counter

import pytest

from service.demo.local import LocalKafka
from tests.faults.conftest import Measured, SceneMaker, Trial
from tests.faults.failpoints import Failpoint
from tests.faults.kafka_log import header_of, read_topics
from tests.faults.scene import Scene

pytestmark = pytest.mark.timeout(240)

SHORT_LEASE = {"streams.relay:LEASE_TTL": 3.0, "streams.relay:LEASE_RENEWAL_S": 1.0}
WAITING = "SELECT count(*) FROM outbox"
RELAY_S = 12.0  # until the lease of a relay that is gone has expired
CLAIMED = "[streams.applying] action=claim"


def numbers(trial: Trial) -> dict[str, float]:
    """What workers run with: in full the product's own lease."""
    return {} if trial.is_full else SHORT_LEASE


async def repeats(it: Scene) -> int:
    """How many messages of the level topic came again, by their ids."""
    log = await asyncio.to_thread(read_topics, it.bootstrap, [it.topics["level"]])
    ids = Counter(header_of(one, "ce_id") for one in log.messages[it.topics["level"]])
    return sum(ids.values()) - len(ids)


async def test_fault_20_killed_between_acknowledgement_and_delete(
    scene: SceneMaker, trial: Trial, measured: Measured
) -> None:
    async with scene() as it:
        # Small pages: where the machine is fast, there would not be three of the product's own.
        small = {**numbers(trial), "streams.relay:PAGE": 200}
        victim = it.worker("victim", Failpoint("sent", "kill", 3), constants=small)
        await victim.until_ready()
        heir = it.worker("heir", constants=numbers(trial))
        await heir.until_ready()
        await it.until_settled()
        sending = asyncio.create_task(it.send(trial.load()))
        assert await victim.until_ended() == -signal.SIGKILL
        died_at = time.monotonic()
        await heir.until_said("relay_started")
        recovery_s = time.monotonic() - died_at
        await sending
        report = await it.finish()
        measured(20, report, recovery_s)
        assert recovery_s <= RELAY_S + 10
        # Kafka had them, nobody knew: they came again, and that they are the same was verified.
        assert await repeats(it) > 0


@pytest.mark.parametrize(
    ("place", "arrival"),
    [
        # It has read what to send, and no producer yet: starting one must not make it the newest.
        ("paged", 1),
        pytest.param("send", 3, marks=pytest.mark.nightly),
        pytest.param("sent", 2, marks=pytest.mark.nightly),
    ],
    ids=["paged", "send", "sent"],
)
async def test_fault_20_frozen_beyond_its_lease(
    scene: SceneMaker, trial: Trial, measured: Measured, place: str, arrival: int
) -> None:
    async with scene() as it:
        # However long it sleeps, it goes on where it was; small pages, so that there are some.
        patient = {
            **numbers(trial), "streams.relay:STEP_TIMEOUT_S": 600.0, "streams.relay:PAGE": 200,
        }  # fmt: skip
        zombie = it.worker("zombie", Failpoint(place, "freeze", arrival), constants=patient)
        await zombie.until_ready()
        heir = it.worker("heir", constants=numbers(trial))
        await heir.until_ready()
        await it.until_settled()
        records = trial.load()
        await it.send(itertools.islice(records, 2_000))
        await zombie.until_arrived(place, arrival)
        frozen_at = time.monotonic()
        await heir.until_said("relay_started", timeout_s=60)
        recovery_s = time.monotonic() - frozen_at
        # Newer states of those that the zombie has read.
        await it.send(itertools.islice(records, 2_000))
        await it.until_idle()
        claims = zombie.said(CLAIMED)
        zombie.send(signal.SIGCONT)
        await zombie.until_said(CLAIMED, claims + 1)
        # Of others, so that what the zombie may have done stays.
        await it.send(trial.load(1))
        report = await it.finish()
        measured(20, report, recovery_s)


@pytest.mark.nightly
@pytest.mark.timeout(1800)
async def test_fault_20_broker_down(
    scene: SceneMaker, trial: Trial, measured: Measured, faulty_kafka: LocalKafka
) -> None:
    """Everybody is evaluated while the broker is away: for 120 s in full, 15 s reduced.

    Ten minutes would show no more: the relay's longest pause is five seconds, the client's longest
    timeout 45.
    """
    async with scene() as it:
        waiting = Failpoint("taken", "hold", times=100_000)
        workers = [it.worker(name, waiting) for name in ("one", "two")]
        for worker in workers:
            await worker.until_ready()
        await it.until_settled()
        await it.send(trial.load())
        await it.until_applied(trial.records)
        await asyncio.to_thread(faulty_kafka.stop)
        for worker in workers:
            worker.let_go("taken")
        await asyncio.sleep(120 if trial.is_full else 15)
        backlog = await it.value(WAITING)
        # Everybody who has a level, at least; they were evaluated although nothing could be said.
        assert backlog > trial.records // 20
        assert all(worker.running for worker in workers)
        await asyncio.to_thread(faulty_kafka.start)
        back_at = time.monotonic()
        await it.until("the backlog to drain", lambda: _is_empty(it), 60)
        recovery_s = time.monotonic() - back_at
        report = await it.finish()
        measured(20, report, recovery_s)
        assert recovery_s <= 30


async def _is_empty(it: Scene) -> bool:
    return bool(await it.value(WAITING) == 0)


async def test_fault_20_lost_sequence(scene: SceneMaker, trial: Trial, measured: Measured) -> None:
    async with scene() as it:
        # The broker itself then refuses what comes next: OutOfOrderSequenceNumber.
        lost = [Failpoint("sequence", "drop", number) for number in (5, 60, 61)]
        worker = it.worker("one", *lost)
        await worker.until_ready()
        sending = asyncio.create_task(it.send(trial.load(), rate=trial.records / 6))
        await worker.until_said("OutOfOrderSequenceNumber")
        refused_at = time.monotonic()
        starts = worker.said("relay_started")
        await worker.until_said("relay_started", starts + 1)
        recovery_s = time.monotonic() - refused_at
        await sending
        report = await it.finish()
        measured(20, report, recovery_s)
        assert worker.arrived("sequence", 62)
        assert recovery_s <= 10
