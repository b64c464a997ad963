"""Who takes part in `ingest`: this service, the limit of the parts, and the peers."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import asyncpg
import psutil

from service.demo.local.keeper import tail
from tests.bench.environments import python_of
from tests.bench.ground import progress
from tests.bench.ground.backlog import Backlog
from tests.bench.ground.progress import Sample
from tests.bench.ground.rounds import Figures
from tests.bench.ground.servers import Ground, cpu_of_tree
from tests.bench.ground.worker import ROOT, Deployment, Stuck

TIMEOUT_S = 900.0
STALL_S = 120.0
POLL_S = 0.1

Contender = Callable[[int], Awaitable[Figures]]


@dataclass(frozen=True)
class Peer:
    """A program of `peers` that brings a backlog into one table.

    `arguments`: what it takes after servers, topic, records, URL and group. `way` comes before.
    `environment`: the name of its lock, None for the project's own packages. `merges`: whether its
    table has one row per fact, or one per record. `part`: it gets the first of so many parts of
    the backlog, because it is slow; its rate is what is compared. `lacks`: what the service does
    and this does not.
    """

    name: str
    module: str
    table: str
    lacks: str
    arguments: tuple[str, ...]
    way: tuple[str, ...] = ()
    environment: str | None = None
    merges: bool = True
    part: int = 1

    def command(self, ground: Ground, backlog: Backlog, url: str, group: str) -> list[str]:
        """The command line for one run."""
        python = str(python_of(self.environment)) if self.environment else sys.executable
        where = [ground.bootstrap, backlog.topic, str(backlog.records), url, group]
        module = f"tests.bench.peers.{self.module}"
        return [python, "-m", module, *self.way, *where, *self.arguments]


def ours(ground: Ground, backlog: Backlog, environment: dict[str, str]) -> Contender:
    """One worker process, from a fresh database to the last level record on its topic."""

    async def run(_: int) -> Figures:
        name = ground.fresh("ours")
        async with Deployment(
            ground, name, attendance_topic=backlog.topic, environment=environment
        ) as deployment:
            before = ground.cpu_seconds()
            worker = await deployment.start_worker()
            samples = await progress.watch_intake(
                deployment, backlog.topic, backlog.records, timeout_s=TIMEOUT_S
            )
            settled_s = await progress.watch_settling(deployment, timeout_s=TIMEOUT_S)
            connection = await deployment.connect()
            await _require_facts(connection, name, "attendance_fact", backlog.facts)
            used = ground.cpu_seconds() - before
            return {
                "records_s": progress.rate(samples),
                "e2e_records_s": progress.rate(samples, settled_s),
                "cpu_s": worker.cpu_seconds(),
                "database_cpu_s": used.database,
            }

    return run


def peer(ground: Ground, backlog: Backlog, what: Peer) -> Contender:
    """One peer process with a fresh table of its own."""

    async def run(_: int) -> Figures:
        name = ground.fresh(what.name)
        database = name.replace("-", "_")
        url = await ground.new_empty_database(database)
        command = what.command(ground, backlog, url, name)
        before = ground.cpu_seconds()
        log = ground.folder / f"{name}.log"
        pid = await asyncio.to_thread(
            ground.keeper.start,
            name,
            command,
            log=log,
            # Faust and Quix make folders of their own where they run.
            cwd=ground.folder,
            environment={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"},
        )
        try:
            samples, cpu_s = await _follow(ground, name, log, pid, backlog.records)
            used = ground.cpu_seconds() - before
        finally:
            if ground.keeper.running(name):
                ground.keeper.signal(name, signal.SIGKILL)
            await asyncio.to_thread(ground.keeper.wait, name, 20.0)
        connection = await asyncpg.connect(url)
        try:
            expected = backlog.facts if what.merges else backlog.records
            await _require_facts(connection, name, what.table, expected)
        finally:
            await connection.close()
        await ground.drop_database(database)
        return {
            "records_s": progress.rate(samples),
            "cpu_s": cpu_s,
            "database_cpu_s": used.database,
        }

    return run


async def _require_facts(
    connection: asyncpg.Connection, name: str, table: str, expected: int
) -> None:
    """A figure counts only if the work was done."""
    found = await progress.facts_in(connection, table)
    if found != expected:
        raise Stuck(f"{name}: {found} rows in {table}, {expected} expected")


async def _follow(
    ground: Ground, name: str, log: Path, pid: int, total: int
) -> tuple[list[Sample], float]:
    process = psutil.Process(pid)
    started_s = time.monotonic()
    while True:
        cpu_s = cpu_of_tree(process)
        text = await asyncio.to_thread(log.read_text, "utf-8", "replace")
        samples = samples_in(text.splitlines())
        if samples and samples[-1].records >= total:
            return samples, cpu_s
        if not ground.keeper.running(name):
            raise Stuck(f"{name} has ended\n{tail(log)}")
        last_s = samples[-1].at_s if samples else started_s
        if time.monotonic() - last_s > STALL_S:
            raise Stuck(f"{name}: nothing happened for {STALL_S:.0f} s\n{tail(log)}")
        await asyncio.sleep(POLL_S)


def samples_in(lines: Sequence[str]) -> list[Sample]:
    """What a peer printed about its progress; see `peers.progress`."""
    samples = []
    for line in lines:
        words = line.split()
        if len(words) == 3 and words[0] == "progress":
            samples.append(Sample(float(words[1]), int(words[2])))
    return samples
