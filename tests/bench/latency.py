"""From a record being produced to the change of level on `engagement.change.v1`."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from tests.bench.contenders import ours
from tests.bench.ground import backlog as backlogs
from tests.bench.ground import progress, report
from tests.bench.ground.latencies import PROBE_SHARE, Latencies, measure
from tests.bench.ground.rounds import spread
from tests.bench.ground.servers import Ground, ground
from tests.bench.ground.worker import Deployment

RATE = 1_000.0
SHARE_OF_MAXIMUM = 0.7
RECORDS_BEFORE = 100_000
QUICK_BEFORE = 2_000
MEMBERS_PER_RECORD = 4
Runs = list[Latencies]


def main(
    json_path: Path | None = None,
    quick: bool = False,
    *,
    seconds: float | None = None,
    repetitions: int | None = None,
    maximum: float | None = None,
    records: int | None = None,
) -> dict[str, Any]:
    """`--maximum` gives the rate that 70 % is taken of, instead of measuring it on a backlog."""
    length_s = seconds or (4.0 if quick else 60.0)
    known = QUICK_BEFORE if quick else RECORDS_BEFORE
    count = records or (24_000 if quick else 60_000)
    steady, busy, most = asyncio.run(
        _run(length_s, known, repetitions or (1 if quick else 3), maximum, count)
    )
    metrics = {"latency.p50_ms": spread([run.p50_ms for run in steady]).median}
    metrics["latency.p99_ms"] = spread([run.p99_ms for run in steady]).median
    metrics["latency.busy_p50_ms"] = spread([run.p50_ms for run in busy]).median
    metrics["latency.busy_p99_ms"] = spread([run.p99_ms for run in busy]).median
    metrics["latency.maximum_records_s"] = most
    rows = [
        *(_row(f"{RATE:,.0f} records/s", run) for run in steady),
        *(_row(f"{SHARE_OF_MAXIMUM * most:,.0f} records/s", run) for run in busy),
    ]
    columns = ("rate", "probes", "p50 ms", "p95 ms", "p99 ms", "max ms", "producer late ms")
    notes = [
        f"{PROBE_SHARE:.0%} of the records are first records of new people: one change each.",
        "The others are about known members: a new level record each, a change now and then.",
        f"The second rate is {SHARE_OF_MAXIMUM:.0%} of what one worker takes from a backlog",
        "to the last level record, if hardly two records are about one member.",
        "The producer shares the machine.",
    ]
    table = report.table("latency: record sent to change on its topic", columns, rows, notes)
    return report.report("latency", metrics, tables=[table])


async def _run(
    seconds: float, known: int, repetitions: int, maximum: float | None, count: int
) -> tuple[Runs, Runs, float]:
    with ground() as servers:
        most = maximum or await _maximum(servers, count)
        report.say(f"one worker takes {most:,.0f} records/s to the last level record")
        steady: Runs = []
        busy: Runs = []
        for number in range(repetitions):
            for rate, runs in ((RATE, steady), (SHARE_OF_MAXIMUM * most, busy)):
                runs.append(await _one(servers, rate, seconds, known))
                report.say(f"round {number + 1}/{repetitions}  {rate:,.0f}/s  {runs[-1]}")
        return steady, busy, most


async def _maximum(servers: Ground, count: int) -> float:
    """Records/s to the last level record, where hardly two are about one member.

    As in a steady stream, where one evaluation does not serve a dozen records.
    """
    name = servers.fresh("backlog")
    backlog = await backlogs.fill(servers, name, count, members=MEMBERS_PER_RECORD * count)
    figures = await ours(servers, backlog, {})(0)
    return figures["e2e_records_s"]


async def _one(servers: Ground, rate: float, seconds: float, known: int) -> Latencies:
    async with Deployment(servers, servers.fresh("latency")) as deployment:
        await deployment.start_worker()
        await progress.watch_claims(deployment)
        warm_up_s = max(1.0, seconds / 10)
        return await measure(
            deployment,
            rate=rate,
            seconds=seconds,
            warm_up_s=warm_up_s,
            members=max(1, known // 5),
            known=known,
        )


def _row(name: str, run: Latencies) -> list[str]:
    return [
        name,
        f"{run.probes:,}",
        *(f"{value:,.0f}" for value in (run.p50_ms, run.p95_ms, run.p99_ms, run.most_ms)),
        f"{run.producer_late_ms:,.0f}",
    ]
