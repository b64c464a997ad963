"""Rate and latency as the ledger grows: more facts, more organisations, one very large one."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

from service.demo.input_record import InputRecord
from tests.bench.ground import progress, report
from tests.bench.ground.backlog import produce
from tests.bench.ground.latencies import measure
from tests.bench.ground.ledger import ACTIVE_MEMBERS, Built, Ledger, build, new_records
from tests.bench.ground.rounds import Figures, alternate, spread
from tests.bench.ground.servers import Ground, ground
from tests.bench.ground.worker import Deployment

RATE = 1_000.0
TIMEOUT_S = 900.0
QUICK_SCALE = 1_000
SMALLEST = "0.1 M facts"
LARGEST = "10 M facts"
EVERYBODY = "10 M facts, all members active"

LEDGERS = {
    SMALLEST: Ledger(100_000, 10),
    "1 M facts": Ledger(1_000_000, 10),
    LARGEST: Ledger(10_000_000, 10),
    EVERYBODY: Ledger(10_000_000, 10),
    "1 M facts, 10 000 organisations": Ledger(1_000_000, 10_000),
    "1 M facts, one organisation with 90 %": Ledger(1_000_000, 10, one_large=True),
}


def main(
    json_path: Path | None = None,
    quick: bool = False,
    *,
    records: int | None = None,
    repetitions: int | None = None,
    seconds: float | None = None,
    scale: int | None = None,
    ends: bool = False,
) -> dict[str, Any]:
    """`--scale N` makes the ledgers N times smaller. `--records` is the backlog on top of each.

    `--ends` takes the smallest and the largest ledger only.
    """
    smaller = scale or (QUICK_SCALE if quick else 1)
    count = records or (20_000 if quick else 300_000)
    length_s = seconds or (2.0 if quick else 20.0)
    ledgers = {
        name: Ledger(each.facts // smaller, each.organisations, each.one_large)
        for name, each in LEDGERS.items()
        if name in (SMALLEST, LARGEST) or not ends
    }
    results, built = asyncio.run(_run(ledgers, count, length_s, repetitions or (1 if quick else 3)))
    metrics = {
        "growth.rate_10m_vs_100k": _ratio(results, LARGEST),
        "growth.bytes_per_fact": built[ledgers[LARGEST]].fact_bytes,
        "growth.bytes_per_member": built[ledgers[LARGEST]].member_bytes,
    }
    if EVERYBODY in results:
        metrics["growth.all_active_vs_100k"] = _ratio(results, EVERYBODY)
    return report.report("growth", metrics, tables=[_table(results, smaller, count)])


async def _run(
    ledgers: Mapping[str, Ledger], count: int, seconds: float, repetitions: int
) -> tuple[dict[str, list[Figures]], dict[Ledger, Built]]:
    with ground() as servers:
        built: dict[Ledger, Built] = {}
        contenders = {}
        for name, ledger in ledgers.items():
            if ledger not in built:
                report.say(f"building {name}: {ledger.members:,} members, every one evaluated")
                built[ledger] = await build(servers, ledger)
            active = ledger.members if name == EVERYBODY else ACTIVE_MEMBERS
            records = list(new_records(ledger, count, active))
            contenders[name] = _contender(servers, built[ledger].database, records, seconds)
        results = await alternate(contenders, repetitions, report.say)
        for each in built.values():
            await servers.drop_database(each.database)
        return results, built


def _contender(
    servers: Ground, template: str, records: list[InputRecord], seconds: float
) -> Callable[[int], Awaitable[Figures]]:
    async def run(_: int) -> Figures:
        async with Deployment(servers, servers.fresh("growth"), template=template) as deployment:
            topic = deployment.settings.topic_attendance
            await asyncio.to_thread(produce, servers.bootstrap, topic, records)
            before = servers.cpu_seconds()
            worker = await deployment.start_worker()
            samples = await progress.watch_intake(
                deployment, topic, len(records), timeout_s=TIMEOUT_S
            )
            worker_s = worker.cpu_seconds()
            used = servers.cpu_seconds() - before
            await progress.watch_settling(deployment, timeout_s=TIMEOUT_S)
            known = int(RATE * seconds)
            latencies = await measure(
                deployment,
                rate=RATE,
                seconds=seconds,
                warm_up_s=seconds / 5,
                members=max(1, known // 5),
                known=known,
            )
            return {
                "records_s": progress.rate(samples),
                "worker_cpu_s": worker_s,
                "database_cpu_s": used.database,
                "p50_ms": latencies.p50_ms,
                "p99_ms": latencies.p99_ms,
            }

    return run


def _ratio(results: Mapping[str, list[Figures]], name: str) -> float:
    pairs = zip(results[name], results[SMALLEST], strict=True)
    return spread([large["records_s"] / small["records_s"] for large, small in pairs]).median


def _table(results: Mapping[str, list[Figures]], smaller: int, count: int) -> dict[str, Any]:
    rows = []
    for name, rounds in results.items():
        rates = spread([figures["records_s"] for figures in rounds])
        rest = [
            spread([figures[each] for figures in rounds]).median
            for each in ("worker_cpu_s", "database_cpu_s", "p50_ms", "p99_ms")
        ]
        cpu = [f"{value * 1e6 / count:,.1f}" for value in rest[:2]]
        times = [f"{value:,.0f}" for value in rest[2:]]
        rate = [f"{rates.median:,.0f}", f"{rates.least:,.0f} to {rates.most:,.0f}"]
        rows.append([name, *rate, *cpu, *times])
    columns = ("in the database before", "records/s", "least to most", "worker CPU us/record",
               "database CPU us/record", "p50 ms", "p99 ms")  # fmt: skip
    notes = [
        f"A backlog of {count:,} records about members who are there already.",
        f"They are about {ACTIVE_MEMBERS:,} members unless it says otherwise.",
        f"Latency at {RATE:,.0f} records/s from then on, as in `latency`.",
    ]
    if smaller > 1:
        notes.append(f"Sizes are divided by {smaller:,}.")
    return report.table("growth: the same work on a larger ledger", columns, rows, notes)
