"""Resident memory of one worker while it works off a long backlog."""

from __future__ import annotations

import asyncio
import contextlib
import time
from pathlib import Path
from typing import Any, NamedTuple

from tests.bench.ground import backlog as backlogs
from tests.bench.ground import progress, report
from tests.bench.ground.rounds import spread
from tests.bench.ground.servers import ground
from tests.bench.ground.worker import Deployment, Worker

RECORDS = 3_000_000
QUICK_RECORDS = 40_000
TIMEOUT_S = 1_800.0
SAMPLE_S = 0.25
WARM_SHARE = 0.2  # of the time: pools, plans and caches fill


class Memory(NamedTuple):
    """Resident megabytes at a monotonic time."""

    at_s: float
    resident_mb: float


def main(
    json_path: Path | None = None, quick: bool = False, *, records: int | None = None
) -> dict[str, Any]:
    """`--records` is the length of the backlog."""
    count = records or (QUICK_RECORDS if quick else RECORDS)
    samples, peak_mb = asyncio.run(_run(count))
    warm = samples[int(len(samples) * WARM_SHARE) :]
    third = max(1, len(warm) // 3)
    early = spread([sample.resident_mb for sample in warm[:third]]).median
    late = spread([sample.resident_mb for sample in warm[-third:]]).median
    metrics = {"memory.peak_mb": peak_mb, "memory.early_mb": early, "memory.late_mb": late}
    tenths = [warm[len(warm) * tenth // 10] for tenth in range(10)] if len(warm) >= 10 else warm
    rows = [
        [f"{sample.at_s - samples[0].at_s:,.0f}", f"{sample.resident_mb:,.0f}"]
        for sample in (*tenths, warm[-1])
    ]
    notes = [
        f"The peak is the kernel's: {peak_mb:,.0f} MB.",
        f"After the first fifth of the time, the first third is at {early:,.0f} MB (median),",
        f"the last third at {late:,.0f} MB.",
    ]
    table = report.table(f"memory: {count:,} records", ("second", "resident MB"), rows, notes)
    return report.report("memory", metrics, tables=[table])


async def _run(count: int) -> tuple[list[Memory], float]:
    with ground() as servers:
        report.say(f"filling a topic with {count:,} records")
        backlog = await backlogs.fill(servers, servers.fresh("backlog"), count)
        async with Deployment(
            servers, servers.fresh("memory"), attendance_topic=backlog.topic
        ) as deployment:
            worker = await deployment.start_worker()
            await progress.watch_claims(deployment)
            samples: list[Memory] = []
            sampling = asyncio.create_task(_sample(worker, samples))
            await progress.watch_intake(
                deployment, backlog.topic, backlog.records, timeout_s=TIMEOUT_S
            )
            await progress.watch_settling(deployment, timeout_s=TIMEOUT_S)
            sampling.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await sampling
            return samples, worker.peak_mb()


async def _sample(worker: Worker, samples: list[Memory]) -> None:
    while True:
        samples.append(Memory(time.monotonic(), worker.resident_mb()))
        await asyncio.sleep(SAMPLE_S)
