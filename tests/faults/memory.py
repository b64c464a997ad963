"""How much memory workers hold, looked at several times a second."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress

import psutil

from tests.faults.workers import Worker

LOOK_S = 0.2


class Peak:
    """The most that any one of the processes was seen to hold in memory, in bytes."""

    def __init__(self, workers: Iterable[Worker]) -> None:
        self.resident = 0
        self._processes = [psutil.Process(worker.pid) for worker in workers]

    def look(self) -> None:
        """Look once."""
        for process in self._processes:
            with suppress(psutil.NoSuchProcess):
                self.resident = max(self.resident, process.memory_info().rss)


@asynccontextmanager
async def peak_memory(workers: Iterable[Worker]) -> AsyncIterator[Peak]:
    """Look again and again until the end of the block."""
    peak = Peak(workers)

    async def watch() -> None:
        while True:
            peak.look()
            await asyncio.sleep(LOOK_S)

    watching = asyncio.create_task(watch())
    try:
        yield peak
    finally:
        watching.cancel()
        peak.look()
