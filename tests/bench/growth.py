"""Rate and latency as the ledger grows: more facts, more organisations, one very large one."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.bench.ground import progress, report
from tests.bench.ground.backlog import PARTITIONS, Backlog, produce
from tests.bench.ground.latencies import measure
from tests.bench.ground.ledger import ACTIVE_MEMBERS, Ledger, build, new_records
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


def main(  # noqa: PLR0913 - one parameter for each option of the command line
    json_path: Path | None = None,
    quick: bool = False,
    *,
    records: int | None = None,
    repetitions: int | None = None,
    seconds: float | None = None,
    scale: int | None = None,
) -> dict[str, Any]:
    """`--scale N` makes the ledgers N times smaller. `--records` is the backlog on top of each."""
    smaller = scale or (QUICK_SCALE if quick else 1)
    count = records or (20_000 if quick else 300_000)
    length_s = seconds or (2.0 if quick else 20.0)
    ledgers = {
        name: Ledger(each.facts // smaller, each.organisations, each.one_large)
        for name, each in LEDGERS.items()
    }
    results = asyncio.run(_run(ledgers, count, length_s, repetitions or (1 if quick else 3)))
    return report.report(
        "growth",
        {"growth.rate_10m_vs_100k": _ratio(results, LARGEST), "growth.all_active_vs_100k": _ratio(
            results, EVERYBODY)},
        tables=[_table(results, smaller, count)],
    )


async def _run(
    ledgers: Mapping[str, Ledger], count: int, seconds: float, repetitions: int
) -> dict[str, list[Figures]]:
    with ground() as servers:
        built: dict[Ledger, str] = {}
        contenders = {}
        for name, ledger in ledgers.items():
            if ledger not in built:
                report.say(f"building {name}: {ledger.members:,} members, every one evaluated")
                built[ledger] = await build(servers, ledger)
            active = ledger.members if name == EVERYBODY else ACTIVE_MEMBERS
            backlog = await _backlog(servers, ledger, count, active)
            contenders[name] = _contender(servers, built[ledger], backlog, seconds)
        results = await alternate(contenders, repetitions, report.say)
        for template in built.values():
            await servers.drop_database(template)
        return results


async def _backlog(servers: Ground, ledger: Ledger, count: int, active: int) -> Backlog:
    topic = servers.fresh("backlog")
    await servers.new_topic(topic, PARTITIONS)
    facts = await asyncio.to_thread(
        produce, servers.bootstrap, topic, new_records(ledger, count, active)
    )
    return Backlog(topic, count, ledger.members, facts)


def _contender(servers: Ground, template: str, backlog: Backlog, seconds: float) -> Any:
    async def run(_: int) -> Figures:
        async with Deployment(
            servers, servers.fresh("growth"), attendance_topic=backlog.topic, template=template
        ) as deployment:
            before = servers.cpu_seconds()
            worker = await deployment.start_worker()
            samples = await progress.watch_intake(
                deployment, backlog.topic, backlog.records, timeout_s=TIMEOUT_S
            )
            worker_s = worker.cpu_seconds()
            used = servers.cpu_seconds() - before
            await progress.watch_settling(deployment, timeout_s=TIMEOUT_S)
        latencies = await _latency(servers, template, seconds)
        return {
            "records_s": progress.rate(samples),
            "worker_cpu_s": worker_s,
            "database_cpu_s": used.database,
            **latencies,
        }

    return run


async def _latency(servers: Ground, template: str, seconds: float) -> dict[str, float]:
    async with Deployment(servers, servers.fresh("growth"), template=template) as deployment:
        await deployment.start_worker()
        await progress.watch_claims(deployment)
        known = int(RATE * seconds)
        found = await measure(
            deployment,
            rate=RATE,
            seconds=seconds,
            warm_up_s=seconds / 5,
            members=max(1, known // 5),
            known=known,
        )
        return {"p50_ms": found.p50_ms, "p99_ms": found.p99_ms}


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
        f"A backlog of {count:,} records about members who are there already, {ACTIVE_MEMBERS:,} "
        "of them unless it says otherwise.",
        f"Latency at {RATE:,.0f} records/s from then on, as in `latency`.",
    ]
    if smaller > 1:
        notes.append(f"Sizes are divided by {smaller:,}.")
    return report.table("growth: the same work on a larger ledger", columns, rows, notes)
