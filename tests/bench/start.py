"""How long people wait: for the command line's help, and for a new worker to consume."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from tests.bench.ground import backlog as backlogs
from tests.bench.ground import progress, report
from tests.bench.ground.rounds import Spread, spread
from tests.bench.ground.servers import Ground, ground
from tests.bench.ground.worker import ROOT, Deployment

HELP = (sys.executable, "-P", "-m", "service.cli.main", "--help")
BACKLOG = 1_000
TIMEOUT_S = 60.0


def main(
    json_path: Path | None = None, quick: bool = False, *, repetitions: int | None = None
) -> dict[str, Any]:
    """`--repetitions` of each."""
    times = repetitions or (2 if quick else 10)
    help_times = spread([_help() for _ in range(times)])
    consuming = asyncio.run(_run(1 if quick else max(3, times // 3)))
    metrics = {"start.help_s": help_times.median, "start.consuming_s": consuming.median}
    rows = [
        ["engagement --help", *_shown(help_times)],
        ["worker, from start to the first batch committed", *_shown(consuming)],
    ]
    table = report.table("start", ("what", "seconds", "least to most"), rows)
    return report.report("start", metrics, tables=[table])


def _help() -> float:
    began = time.monotonic()
    subprocess.run(
        HELP,
        check=True,
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
        timeout=TIMEOUT_S,
    )
    return time.monotonic() - began


async def _run(times: int) -> Spread:
    with ground() as servers:
        backlog = await backlogs.fill(servers, servers.fresh("backlog"), BACKLOG)
        return spread([await _consuming(servers, backlog.topic) for _ in range(times)])


async def _consuming(servers: Ground, topic: str) -> float:
    async with Deployment(servers, servers.fresh("start"), attendance_topic=topic) as deployment:
        worker = await deployment.start_worker()
        samples = await progress.watch_intake(deployment, topic, 1, timeout_s=TIMEOUT_S)
        return samples[0].at_s - worker.started_at_s


def _shown(times: Spread) -> list[str]:
    return [f"{times.median:.2f}", f"{times.least:.2f} to {times.most:.2f}"]
