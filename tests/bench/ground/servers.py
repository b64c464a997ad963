"""A real broker and a real database, set as one would run them, and what they cost in CPU time."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import asyncpg
import psutil
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from db.migrate import migrate
from service.demo.local import Keeper, LocalKafka, LocalPostgres
from service.demo.local.folders import temporary_folder
from service.demo.local.java import SHORT_LIVED

# fsync, full_page_writes and synchronous_commit stay on, as they are by default.
POSTGRES_SETTINGS = {
    "shared_buffers": "1GB",
    "max_wal_size": "4GB",
    "checkpoint_timeout": "15min",
    "max_connections": "200",
}
# Larger than the demo's broker. Like it, it compiles its code once: the optimizing compiler would
# take a third of a processor from everybody else for a minute or two.
JAVA_OPTIONS = ("-Xms512m", "-Xmx1g", *SHORT_LIVED)
WAL_BYTES = "SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')::float8"
BROKER_PROPERTIES = {"log.retention.ms": "-1"}


class CpuSeconds(NamedTuple):
    """User and system time that the servers have used since they started."""

    broker: float
    database: float

    def __sub__(self, earlier: CpuSeconds) -> CpuSeconds:
        return CpuSeconds(self.broker - earlier.broker, self.database - earlier.database)


@dataclass(frozen=True)
class Ground:
    """Running servers, a folder for logs, and the keeper of processes that bench code starts."""

    kafka: LocalKafka
    postgres: LocalPostgres
    keeper: Keeper
    folder: Path
    numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def fresh(self, name: str) -> str:
        """A name that nothing had before on these servers."""
        return f"{name}-{next(self.numbers)}"

    @property
    def bootstrap(self) -> str:
        """The broker's address."""
        return self.kafka.bootstrap

    def cpu_seconds(self) -> CpuSeconds:
        """What broker and database have used by now, processes that have ended included."""
        postmaster = self.postgres.pid
        assert postmaster is not None
        brokers = [
            child
            for child in psutil.Process().children(recursive=True)
            if "kafka.Kafka" in _command_line(child)
        ]
        return CpuSeconds(sum(map(cpu_of, brokers)), cpu_of_tree(psutil.Process(postmaster)))

    async def new_database(self, name: str, template: str | None = None) -> str:
        """A fresh database with the product's schema, or like a template; gives its URL."""
        if template is not None:
            await self.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}" STRATEGY file_copy')
            return self.postgres.dsn(name)
        url = await self.new_empty_database(name)
        await migrate(url)
        return url

    async def new_empty_database(self, name: str) -> str:
        """A fresh database without tables; gives its URL."""
        await self.execute(f'CREATE DATABASE "{name}"')
        return self.postgres.dsn(name)

    async def drop_database(self, name: str) -> None:
        """Drop it, and write out what is dirty, so that nobody pays for somebody else's writes."""
        await self.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
        await self.execute("CHECKPOINT")

    async def execute(self, statement: str) -> None:
        """Run one statement as administrator."""
        connection = await asyncpg.connect(self.postgres.dsn())
        try:
            await connection.execute(statement, timeout=900)
        finally:
            await connection.close()

    async def new_topic(self, name: str, partitions: int) -> None:
        """Make a topic."""
        admin = AIOKafkaAdminClient(bootstrap_servers=self.bootstrap)
        await admin.start()
        try:
            made = await admin.create_topics([NewTopic(name, partitions, 1)], timeout_ms=30_000)
            failed = [error for error in made.topic_errors if error[1] != 0]
            if failed:
                raise RuntimeError(f"topic: {failed}")
        finally:
            await admin.close()

    async def delete_topics(self, names: list[str]) -> None:
        """Delete topics, so that the disk does not fill."""
        admin = AIOKafkaAdminClient(bootstrap_servers=self.bootstrap)
        await admin.start()
        try:
            await admin.delete_topics(names)
        finally:
            await admin.close()


def cpu_of(process: psutil.Process) -> float:
    """User and system seconds of a process, its ended children included; 0 when it is gone."""
    try:
        times = process.cpu_times()
    except psutil.NoSuchProcess:
        return 0.0
    return float(times.user + times.system + times.children_user + times.children_system)


def cpu_of_tree(process: psutil.Process) -> float:
    """The same, with the children that live."""
    try:
        return cpu_of(process) + sum(map(cpu_of, process.children(recursive=True)))
    except psutil.NoSuchProcess:
        return 0.0


def _command_line(process: psutil.Process) -> list[str]:
    try:
        return list(process.cmdline())
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return []


_running: list[Ground] = []


@contextmanager
def ground() -> Iterator[Ground]:
    """Servers for one benchmark; everything is gone afterwards, data included.

    Inside another such context it gives the servers that run already.
    """
    if _running:
        yield _running[-1]
        return
    with ExitStack() as stack:
        folder = temporary_folder("bench")
        keeper = stack.enter_context(Keeper(folder, temporary=True))
        kafka = LocalKafka(java_options=JAVA_OPTIONS, extra_properties=BROKER_PROPERTIES)
        stack.callback(kafka.close)
        postgres = LocalPostgres(settings=POSTGRES_SETTINGS)
        stack.callback(postgres.close)
        with ThreadPoolExecutor(2) as pool:
            for started in [pool.submit(kafka.start), pool.submit(postgres.start)]:
                started.result()
        _running.append(Ground(kafka, postgres, keeper, folder))
        stack.callback(_running.clear)
        yield _running[-1]
