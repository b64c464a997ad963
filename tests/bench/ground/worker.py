"""Worker processes of the service, as they run in production, and what they use."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

import asyncpg
import psutil

from service.demo.local.keeper import tail
from service.demo.local.ports import free_port
from service.settings import Settings, load_settings
from streams.topics import apply_topics
from tests.bench.ground.backlog import PARTITIONS
from tests.bench.ground.servers import Ground, cpu_of_tree

ROOT = Path(__file__).parents[3]
STOP_TIMEOUT_S = 40.0
COMMAND = ("-P", "-m", "service.cli.main", "worker")
TOPICS = ("ATTENDANCE", "RSVP", "PROFILE_UPDATE", "MEMBERSHIP", "ORGANIZATION",
          "LEVEL", "CHANGE", "DEAD_LETTER")  # fmt: skip


class Stuck(RuntimeError):
    """Something did not happen within its time."""


@dataclass
class Deployment:
    """A database of its own, topics of its own but for the shared backlog, and workers on them.

    `template`: a database to start from, instead of an empty one.
    """

    ground: Ground
    name: str
    attendance_topic: str | None = None
    partitions: int = PARTITIONS
    environment: Mapping[str, str] = field(default_factory=dict)
    template: str | None = None
    keep_database: bool = False
    workers: list[Worker] = field(default_factory=list)
    database_url: str = ""
    _made: list[str] = field(default_factory=list)
    _stack: AsyncExitStack = field(default_factory=AsyncExitStack)

    @property
    def settings(self) -> Settings:
        """The settings that its workers have."""
        return load_settings(self._environment())

    def _environment(self) -> dict[str, str]:
        names = {f"ENGAGEMENT_TOPIC_{t}": f"{self.name}.{t.lower()}" for t in TOPICS}
        if self.attendance_topic is not None:
            names["ENGAGEMENT_TOPIC_ATTENDANCE"] = self.attendance_topic
        return {
            **names,
            "KAFKA_BOOTSTRAP_SERVERS": self.ground.bootstrap,
            "DATABASE_URL": self.database_url,
            "ENGAGEMENT_CONSUMER_GROUP": self.name,
            "ENGAGEMENT_TOPIC_PARTITIONS": str(self.partitions),
            "ENGAGEMENT_WORKER_OPS_PORT": str(free_port()),
            "ENGAGEMENT_LOG_FORMAT": "json",
            **self.environment,
        }

    async def __aenter__(self) -> Self:
        self.database_url = await self.ground.new_database(self.name, self.template)
        self._made = await apply_topics(self.settings)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._stack.aclose()
        await asyncio.gather(*(worker.stop() for worker in self.workers))
        if not self.keep_database:
            await self.ground.drop_database(self.name)
        await self.ground.delete_topics(self._made)

    async def connect(self) -> asyncpg.Connection:
        """A connection to its database that closes with it."""
        connection = await asyncpg.connect(self.database_url)
        self._stack.push_async_callback(connection.close)
        return connection

    async def start_worker(self) -> Worker:
        """One more worker; consuming begins some seconds later."""
        number = len(self.workers) + 1
        worker = Worker(self.ground, f"{self.name}-worker-{number}")
        environment = {**os.environ, "PYTHONPATH": str(ROOT), **self._environment()}
        await asyncio.to_thread(worker.start, environment)
        self.workers.append(worker)
        return worker


class Worker:
    """One process; its log lies in the ground's folder."""

    def __init__(self, ground: Ground, name: str) -> None:
        self.name = name
        self.log = ground.folder / f"{name}.log"
        self.started_at_s = 0.0
        self._keeper = ground.keeper
        self._process: psutil.Process | None = None
        self._cpu_seconds = 0.0

    def start(self, environment: Mapping[str, str]) -> None:
        """Start the process."""
        self.started_at_s = time.monotonic()
        pid = self._keeper.start(
            self.name,
            [sys.executable, *COMMAND],
            log=self.log,
            cwd=ROOT,
            environment=environment,
            grace_s=STOP_TIMEOUT_S,
        )
        self._process = psutil.Process(pid)

    @property
    def process(self) -> psutil.Process:
        """The process, once started."""
        assert self._process is not None
        return self._process

    def cpu_seconds(self) -> float:
        """User and system time so far; the last known once it has ended."""
        self._cpu_seconds = max(self._cpu_seconds, cpu_of_tree(self.process))
        return self._cpu_seconds

    def freeze(self) -> None:
        """Stop it where it is, for less than the session timeout."""
        self.process.suspend()

    def thaw(self) -> None:
        """Let it go on."""
        self.process.resume()

    def resident_mb(self) -> float:
        """Resident memory now."""
        return float(self.process.memory_info().rss) / 2**20

    def peak_mb(self) -> float:
        """The most resident memory that it ever had, by the kernel's own account."""
        status = Path(f"/proc/{self.process.pid}/status").read_text(encoding="ascii")
        line = next(line for line in status.splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) / 1024

    def require_alive(self) -> None:
        """Raise Stuck, with the end of its log, if it has ended."""
        if not self._keeper.running(self.name):
            raise Stuck(f"{self.name} has ended\n{tail(self.log)}")

    async def stop(self) -> int | None:
        """SIGTERM, and wait for its end; its exit code."""
        if self._keeper.running(self.name):
            self.cpu_seconds()
            self._keeper.signal(self.name, signal.SIGTERM)
        return await asyncio.to_thread(self._keeper.wait, self.name, STOP_TIMEOUT_S)


async def until(
    check: Callable[[], Awaitable[bool]],
    *,
    timeout_s: float,
    every_s: float,
    workers: list[Worker],
    what: str,
) -> float:
    """Wait until a check holds; when that was (monotonic). Raises Stuck."""
    deadline = time.monotonic() + timeout_s
    while not await check():
        for worker in workers:
            worker.require_alive()
        if time.monotonic() > deadline:
            logs = "\n".join(tail(worker.log) for worker in workers)
            raise Stuck(f"not within {timeout_s:.0f} s: {what}\n{logs}")
        await asyncio.sleep(every_s)
    return time.monotonic()
