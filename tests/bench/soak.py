"""One worker under a steady load of every kind, for long: does anything grow that should not?"""

from __future__ import annotations

import asyncio
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from streams.topics import input_topics
from tests.bench.ground import progress, report
from tests.bench.ground.rounds import spread
from tests.bench.ground.servers import ground
from tests.bench.ground.slope import Slope, slope
from tests.bench.ground.vitals import Vitals, applied, sample
from tests.bench.ground.worker import ROOT, Deployment, Stuck, until

MINUTES = 30.0
QUICK_MINUTES = 0.2
RATE = 500.0
MEMBERS = 20_000
QUICK_MEMBERS = 200
SAMPLE_S = 5.0
WARM_SHARE = 0.2  # of the time, and five minutes: pools, plans and caches fill
WARM_UP_S = 300.0
READY_TIMEOUT_S = 300.0
SETTLING_TIMEOUT_S = 300.0
# What happens once a day happens several times: growth there would show only after weeks.
RECOMPUTE_CRON = "*/4 * * * *"


def main(
    json_path: Path | None = None,
    quick: bool = False,
    *,
    minutes: float | None = None,
    rate: float = RATE,
    members: int | None = None,
) -> dict[str, Any]:
    """`--minutes` of `--rate` records/s about `--members`; the first fifth is warming up."""
    length_s = 60 * (minutes or (QUICK_MINUTES if quick else MINUTES))
    count = members or (QUICK_MEMBERS if quick else MEMBERS)
    samples, peak_mb, sent = asyncio.run(_run(length_s, rate, count))
    warm_up_s = min(max(WARM_SHARE * length_s, WARM_UP_S), length_s / 2)
    warm = [one for one in samples if one.at_s - samples[0].at_s >= warm_up_s]
    if len(warm) < 3:
        raise Stuck("hardly a sample after the warm-up: take more minutes")
    growth = slope([one.at_s for one in warm], [one.resident_mb for one in warm])
    tenth = max(1, len(warm) // 10)
    metrics = {
        "soak.rss_slope_mb_h": growth.per_hour,
        "soak.rss_slope_error_mb_h": growth.error_per_hour,
        "soak.rss_first_mb": spread([one.resident_mb for one in warm[:tenth]]).median,
        "soak.rss_last_mb": spread([one.resident_mb for one in warm[-tenth:]]).median,
        "soak.rss_peak_mb": peak_mb,
        "soak.connections_most": max(one.connections for one in warm),
        "soak.sessions_most": max(one.sessions for one in warm),
        "soak.threads_most": max(one.threads for one in warm),
        "soak.files_most": max(one.files for one in warm),
        "soak.lag_most_records": max(one.lag for one in warm),
        "soak.oldest_mark_most_s": max(one.oldest_s for one in warm),
        "soak.records_s": sent / length_s,
    }
    title = f"soak: {rate:,.0f} records/s about {count:,} members for {length_s / 60:,.0f} minutes"
    return report.report("soak", metrics, tables=[_table(title, samples, warm, growth)])


def _table(title: str, samples: list[Vitals], warm: list[Vitals], growth: Slope) -> dict[str, Any]:
    columns = ("minute", "resident MB", "connections", "sessions", "threads", "files", "lag",
               "waiting", "oldest mark s")  # fmt: skip
    shown = [samples[0], *(warm[len(warm) * tenth // 10] for tenth in range(10)), warm[-1]]
    rows = [
        [
            f"{(one.at_s - samples[0].at_s) / 60:.1f}",
            f"{one.resident_mb:,.1f}",
            *(f"{number:,}" for number in one[2:-1]),
            f"{one.oldest_s:,.1f}",
        ]
        for one in shown
    ]
    minutes = (warm[-1].at_s - warm[0].at_s) / 60
    notes = [
        f"In the last {minutes:,.1f} minutes resident memory grew by {growth.per_hour:+.2f} MB/h,",
        f"with a standard error of {growth.error_per_hour:.2f} MB/h.",
        "Connections are the worker's own, sessions what PostgreSQL has of it.",
        "Marks of members to evaluate and messages to publish are waiting.",
        f"The daily run runs on `{RECOMPUTE_CRON}`.",
    ]
    return report.table(title, columns, rows, notes)


@dataclass
class Producing:
    """The producer's process and how many records it has sent."""

    process: asyncio.subprocess.Process
    sent: int = 0

    async def open(self) -> int:
        """Wait until all members and organisations are sent; how many records that was."""
        self.sent = int(await asyncio.wait_for(self._line(), READY_TIMEOUT_S) or 0)
        if not self.sent:
            raise Stuck("the producer did not start")
        return self.sent

    async def run(self, length_s: float) -> None:
        """Let it send; returns when it has ended."""
        assert self.process.stdin is not None
        self.process.stdin.write(b"\n")
        async with asyncio.timeout(2 * length_s + READY_TIMEOUT_S):
            while line := await self._line():
                self.sent = int(line)
        if await self.process.wait():
            raise Stuck("the producer has failed")

    async def _line(self) -> str:
        assert self.process.stdout is not None
        return (await self.process.stdout.readline()).decode().strip()


async def _run(length_s: float, rate: float, members: int) -> tuple[list[Vitals], float, int]:
    """Samples of the worker, its peak in MB, and how many records were sent at the even rate."""
    environment = {"ENGAGEMENT_RECOMPUTE_CRON": RECOMPUTE_CRON}
    with ground() as servers:
        name = servers.fresh("soak")
        async with Deployment(servers, name, environment=environment) as deployment:
            worker = await deployment.start_worker()
            await progress.watch_claims(deployment)
            producing = await _start(deployment, rate, length_s, members)
            opened = await producing.open()
            await _watch_intake(deployment, opened)
            report.say(f"{members:,} members are known; {length_s / 60:,.1f} minutes begin")
            database = await deployment.connect()
            sampling = asyncio.create_task(
                sample(worker, database, lambda: producing.sent, min(SAMPLE_S, length_s / 30))
            )
            sending = asyncio.create_task(producing.run(length_s))
            # Samples come to an end by themselves only when something is wrong.
            await asyncio.wait({sending, sampling}, return_when=asyncio.FIRST_COMPLETED)
            sampling.cancel()
            samples = await sampling
            await sending
            await _watch_intake(deployment, producing.sent)
            return samples, worker.peak_mb(), producing.sent - opened


async def _start(deployment: Deployment, rate: float, length_s: float, members: int) -> Producing:
    settings = deployment.settings
    topics = {kind.value: name for name, kind in input_topics(settings).items()}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", "tests.bench.ground.everyday"),
        *(settings.kafka_bootstrap_servers, json.dumps(topics)),
        *(str(rate), str(length_s), str(members)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT)},
    )
    return Producing(process)


async def _watch_intake(deployment: Deployment, total: int) -> None:
    """Wait until so many records are applied, evaluated and published."""
    database = await deployment.connect()

    async def all_applied() -> bool:
        return await applied(database) >= total

    await until(
        all_applied,
        timeout_s=SETTLING_TIMEOUT_S,
        every_s=progress.SETTLE_POLL_S,
        workers=deployment.workers,
        what=f"{total} records applied",
    )
    await progress.watch_settling(deployment, timeout_s=SETTLING_TIMEOUT_S)
