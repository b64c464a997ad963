"""From a record being sent to its change on the change topic, at an even rate."""

from __future__ import annotations

import asyncio
import itertools
import sys
import time
from typing import NamedTuple

from aiokafka import AIOKafkaConsumer

from tests.bench.ground import progress
from tests.bench.ground.backlog import produce, records_for
from tests.bench.ground.steady import sent_at_s
from tests.bench.ground.worker import ROOT, Deployment, Stuck

PROBE_SHARE = 0.1
ARRIVAL_TIMEOUT_S = 60.0
READY_TIMEOUT_S = 300.0


class Latencies(NamedTuple):
    """Milliseconds, of so many probes; `producer_late_ms`: how late the producer was at worst."""

    probes: int
    p50_ms: float
    p95_ms: float
    p99_ms: float
    most_ms: float
    producer_late_ms: float


class Arrival(NamedTuple):
    """One probe: when it was sent (monotonic) and how long its change took, seconds."""

    sent_s: float
    took_s: float


def percentile(ordered: list[float], share: float) -> float:
    """The nearest-rank percentile of values in order."""
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


async def measure(
    deployment: Deployment,
    *,
    rate: float,
    seconds: float,
    warm_up_s: float,
    members: int,
    known: int,
) -> Latencies:
    """Send for `warm_up_s` and then `seconds`; of the latter every probe must arrive.

    Before that, and not measured, `known` records make most of the `members` known.
    """
    await _make_known(deployment, known, known + int(rate * (seconds + warm_up_s)), members)
    settings = deployment.settings
    consumer = AIOKafkaConsumer(
        settings.topic_change,
        bootstrap_servers=settings.kafka_bootstrap_servers,
        auto_offset_reset="latest",
        isolation_level="read_committed",
    )
    await consumer.start()
    try:
        # Where to read from is looked up at the first fetch: before anything is sent.
        for partition in consumer.assignment():
            await consumer.position(partition)
        producer = await _start(deployment, rate, seconds + warm_up_s, members, known)
        assert producer.stdin is not None
        began_s = time.monotonic()
        producer.stdin.write(b"\n")
        arrivals: list[Arrival] = []
        listening = asyncio.create_task(_listen(consumer, arrivals))
        try:
            late_s = await _wait_for_all(producer, listening, arrivals, seconds + warm_up_s)
        finally:
            listening.cancel()
        return _summary(arrivals, began_s + warm_up_s, late_s)
    finally:
        await consumer.stop()


async def _make_known(deployment: Deployment, known: int, total: int, members: int) -> None:
    settings = deployment.settings
    before = await progress.applied(deployment, settings.topic_attendance)
    records = itertools.islice(records_for(total, members), known)
    await asyncio.to_thread(
        produce, settings.kafka_bootstrap_servers, settings.topic_attendance, records
    )
    await progress.watch_intake(
        deployment, settings.topic_attendance, before + known, timeout_s=READY_TIMEOUT_S
    )
    await progress.watch_settling(deployment, timeout_s=READY_TIMEOUT_S)


async def _start(
    deployment: Deployment, rate: float, seconds: float, members: int, known: int
) -> asyncio.subprocess.Process:
    settings = deployment.settings
    producer = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", "tests.bench.ground.steady"),
        *(settings.kafka_bootstrap_servers, settings.topic_attendance, str(rate), str(seconds)),
        *(str(PROBE_SHARE), str(members), str(known)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT)},
    )
    assert producer.stdout is not None
    line = await asyncio.wait_for(producer.stdout.readline(), READY_TIMEOUT_S)
    if line.strip() != b"ready":
        raise Stuck("the producer did not start")
    return producer


async def _listen(consumer: AIOKafkaConsumer, arrivals: list[Arrival]) -> None:
    async for record in consumer:
        now_s = time.monotonic()
        sent_s = sent_at_s(record.key.decode().partition(":")[2])
        if sent_s is not None:
            arrivals.append(Arrival(sent_s, now_s - sent_s))


async def _wait_for_all(
    producer: asyncio.subprocess.Process,
    listening: asyncio.Task[None],
    arrivals: list[Arrival],
    seconds: float,
) -> float:
    """Wait until every probe has arrived; by how many seconds the producer was late at worst."""
    assert producer.stdout is not None
    line = await asyncio.wait_for(producer.stdout.readline(), seconds * 3 + READY_TIMEOUT_S)
    await producer.wait()
    _, probes, late_s = line.split()
    deadline = time.monotonic() + ARRIVAL_TIMEOUT_S
    while len(arrivals) < int(probes):
        if listening.done():
            await listening
        if time.monotonic() > deadline:
            raise Stuck(f"{len(arrivals)} changes of {int(probes)} arrived")
        await asyncio.sleep(0.05)
    if len(arrivals) != int(probes):
        raise Stuck(f"{len(arrivals)} changes for {int(probes)} probes")
    return float(late_s)


def _summary(arrivals: list[Arrival], from_s: float, late_s: float) -> Latencies:
    ordered = sorted(each.took_s * 1000 for each in arrivals if each.sent_s >= from_s)
    if not ordered:
        raise Stuck("no probe after the warm-up: take more seconds")
    p50, p95, p99 = (percentile(ordered, share) for share in (0.50, 0.95, 0.99))
    return Latencies(len(ordered), p50, p95, p99, ordered[-1], late_s * 1000)
