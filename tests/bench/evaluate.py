"""Deciding alone: everybody is due, nothing comes in; until every level record is on its topic."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

from db import wakeups
from db.wakeups import Wakeup
from tests.bench.ground import progress, report
from tests.bench.ground.ledger import FACTS_PER_MEMBER, MARK_EVERYBODY, Ledger, fill
from tests.bench.ground.rounds import Figures, spread
from tests.bench.ground.servers import WAL_BYTES, Ground, ground
from tests.bench.ground.worker import Deployment

MEMBERS = 100_000
QUICK_MEMBERS = 1_000
TIMEOUT_S = 900.0


def main(
    json_path: Path | None = None,
    quick: bool = False,
    *,
    members: int | None = None,
    repetitions: int | None = None,
) -> dict[str, Any]:
    """`--members` with 12 facts each."""
    count = members or (QUICK_MEMBERS if quick else MEMBERS)
    rounds = asyncio.run(_run(count, repetitions or (1 if quick else 3)))
    metrics = {f"evaluate.{name}": spread([f[name] for f in rounds]).median for name in rounds[0]}
    rows = [
        [name, *(f"{value:,.0f}" for value in spread([f[name] for f in rounds]))]
        for name in rounds[0]
    ]
    notes = [
        f"{FACTS_PER_MEMBER} facts each.",
        "First: every member gets history, a level record and a change.",
        "Again: nothing has changed and nothing is published.",
    ]
    columns = ("figure", "median", "least", "most")
    table = report.table(f"evaluate: {count:,} members", columns, rows, notes)
    return report.report("evaluate", metrics, tables=[table])


async def _run(count: int, repetitions: int) -> list[Figures]:
    with ground() as servers:
        rounds = []
        for number in range(repetitions):
            rounds.append(await _one(servers, Ledger(count * FACTS_PER_MEMBER, 10)))
            shown = "  ".join(f"{name} {value:,.0f}" for name, value in rounds[-1].items())
            report.say(f"round {number + 1}/{repetitions}  {shown}")
        return rounds


async def _one(servers: Ground, ledger: Ledger) -> Figures:
    async with Deployment(servers, servers.fresh("evaluate")) as deployment:
        connection = await deployment.connect()
        await fill(connection, ledger)
        worker = await deployment.start_worker()
        await progress.watch_claims(deployment)
        figures: dict[str, float] = {}
        for name in ("first", "again"):
            before, worker_before = servers.cpu_seconds(), worker.cpu_seconds()
            wal_before = await connection.fetchval(WAL_BYTES)
            async with connection.transaction():
                await connection.execute(MARK_EVERYBODY)
                await wakeups.tell(connection, Wakeup.DUE)
            began_s = time.monotonic()
            seconds = await progress.watch_settling(deployment, timeout_s=TIMEOUT_S) - began_s
            used = servers.cpu_seconds() - before
            worker_s = worker.cpu_seconds() - worker_before
            figures[f"{name}_members_s"] = ledger.members / seconds
            figures[f"{name}_worker_cpu_us"] = worker_s * 1e6 / ledger.members
            figures[f"{name}_database_cpu_us"] = used.database * 1e6 / ledger.members
            figures[f"{name}_broker_cpu_us"] = used.broker * 1e6 / ledger.members
            written = await connection.fetchval(WAL_BYTES) - wal_before
            figures[f"{name}_wal_bytes"] = written / ledger.members
        return figures
