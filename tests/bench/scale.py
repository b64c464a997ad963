"""What a record costs in CPU time with one, two and four workers.

Wall-clock rates would only show how many cores this machine has; CPU seconds of worker, broker and
database each show whether more workers make a record dearer. From claimed partitions to the last
level record on its topic. The workers stand still while the backlog is sent: four of them would
leave its producer so little that they get a stream instead, which is dearer. Idlers keep the
processors busy throughout: what a CPU second gets done would else depend on how much of the machine
the others leave unused, which is less with four.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from service.demo.input_record import InputRecord
from tests.bench.ground import backlog as backlogs
from tests.bench.ground import progress, report
from tests.bench.ground.idlers import idlers
from tests.bench.ground.rounds import Figures, alternate, spread
from tests.bench.ground.servers import WAL_BYTES, Ground, ground
from tests.bench.ground.worker import Deployment

RECORDS = 600_000
QUICK_RECORDS = 20_000
WORKERS = (1, 2, 4)
TIMEOUT_S = 900.0
SIDES = ("worker", "broker", "database")


def main(
    json_path: Path | None = None,
    quick: bool = False,
    *,
    records: int | None = None,
    repetitions: int | None = None,
) -> dict[str, Any]:
    """`--records` is how many the backlog has."""
    count = records or (QUICK_RECORDS if quick else RECORDS)
    results = asyncio.run(_run(count, repetitions or (1 if quick else 3)))
    metrics = {"scale.cpu_per_record_4w_vs_1w": _ratio(results, "4", "total")}
    for side in SIDES:
        for name, rounds in results.items():
            metrics[f"scale.{side}_cpu_s_per_million_{name}w"] = _median(rounds, side)
    metrics["scale.wal_bytes_per_record"] = _median(results["1"], "wal_bytes")
    return report.report("scale", metrics, tables=[_table(results, count)])


async def _run(count: int, repetitions: int) -> dict[str, list[Figures]]:
    records = list(backlogs.records_for(count, max(1, count // backlogs.RECORDS_PER_MEMBER)))
    with ground() as servers, idlers(servers):
        contenders = {str(number): _contender(servers, number, records) for number in WORKERS}
        if repetitions > 1:
            # A broker that has just started still compiles its code.
            await _contender(servers, 1, records[: count // 5])(0)
        return await alternate(contenders, repetitions, report.say)


def _contender(servers: Ground, workers: int, records: list[InputRecord]) -> Any:
    async def run(_: int) -> Figures:
        async with Deployment(servers, servers.fresh("scale")) as deployment:
            for _number in range(workers):
                await deployment.start_worker()
            await progress.watch_claims(deployment, owners=workers)
            # Starting up is not the point.
            connection = await deployment.connect()
            before, wal_before = servers.cpu_seconds(), await connection.fetchval(WAL_BYTES)
            workers_before = sum(worker.cpu_seconds() for worker in deployment.workers)
            topic = deployment.settings.topic_attendance
            for worker in deployment.workers:
                worker.freeze()
            await asyncio.to_thread(backlogs.produce, servers.bootstrap, topic, records)
            for worker in deployment.workers:
                worker.thaw()
            await progress.watch_intake(deployment, topic, len(records), timeout_s=TIMEOUT_S)
            await progress.watch_settling(deployment, timeout_s=TIMEOUT_S)
            used = servers.cpu_seconds() - before
            worker_s = sum(worker.cpu_seconds() for worker in deployment.workers) - workers_before
            figures = {"worker": worker_s, "broker": used.broker, "database": used.database}
            figures["total"] = sum(figures.values())
            per_million = {name: value * 1e6 / len(records) for name, value in figures.items()}
            written = await connection.fetchval(WAL_BYTES) - wal_before
            return {**per_million, "wal_bytes": written / len(records)}

    return run


def _median(rounds: list[Figures], figure: str) -> float:
    return spread([figures[figure] for figures in rounds]).median


def _ratio(results: Mapping[str, list[Figures]], workers: str, figure: str) -> float:
    pairs = zip(results[workers], results["1"], strict=True)
    return spread([many[figure] / one[figure] for many, one in pairs]).median


def _table(results: Mapping[str, list[Figures]], count: int) -> dict[str, Any]:
    rows = []
    for name, rounds in results.items():
        totals = spread([figures["total"] for figures in rounds])
        sides = [f"{_median(rounds, side):,.1f}" for side in SIDES]
        together = [f"{totals.median:,.1f}", f"{totals.least:,.1f} to {totals.most:,.1f}"]
        rows.append([name, *sides, *together, f"{_median(rounds, 'wal_bytes'):,.0f}"])
    columns = ("workers", *SIDES, "together", "least to most", "WAL bytes/record")
    notes = ["CPU seconds per million records, evaluating and publishing included."]
    return report.table(f"scale: {count:,} records", columns, rows, notes)
