"""One test's stage: its own topics, group and database, workers on it, records sent to it."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, Self

import asyncpg
from confluent_kafka import KafkaError, Producer

from service.demo.input_record import InputRecord
from service.demo.local.keeper import CLEAN_ENVIRONMENT, Keeper, tail
from service.settings import Settings, load_settings
from streams.topics import apply_topics
from tests.faults.audit import INSTALL_AUDIT
from tests.faults.clocks import Jumps
from tests.faults.failpoints import Failpoint
from tests.faults.kafka_log import TopicLog
from tests.faults.verifier import Report, verify
from tests.faults.workers import Worker
from tests.owners import ROOT

INPUT_KINDS: Final = ("attendance", "rsvp", "profile-update", "membership", "organization")
OUTPUTS: Final = ("level", "change", "dead-letter")
SEND_TIMEOUT_S: Final = 120
POLL_S: Final = 0.05
ANSWER_TIMEOUT_S: Final = 10.0
IDLE_TIMEOUT_S: Final = 120.0

GENERATIONS: Final = "SELECT count(DISTINCT generation) FROM stream_offset"
UNDONE: Final = """
SELECT (SELECT count(*) FROM due_member) + (SELECT count(*) FROM due_user)
     + (SELECT count(*) FROM due_batch)
     + (SELECT count(*) FROM due_organization) + (SELECT count(*) FROM outbox)
     + (SELECT count(*) FROM dead_letter WHERE published_at IS NULL)
     + (SELECT count(*) FROM engagement WHERE wake_at <= engagement_now())"""


class Scene:
    """Use as an async context manager; leaving it kills the workers that still run."""

    def __init__(
        self,
        bootstrap: str,
        database_url: str,
        prefix: str,
        folder: Path,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        """`prefix` begins every topic's and the group's name; `settings` are ENGAGEMENT_ names."""
        self.bootstrap = bootstrap
        self.database_url = database_url
        self.folder = folder
        self.topics = {kind: f"{prefix}{kind}" for kind in (*INPUT_KINDS, *OUTPUTS)}
        self.environment = {
            **CLEAN_ENVIRONMENT,
            "PYTHONFAULTHANDLER": "1",
            "KAFKA_BOOTSTRAP_SERVERS": bootstrap,
            "DATABASE_URL": database_url,
            "ENGAGEMENT_CONSUMER_GROUP": f"{prefix}group",
            "ENGAGEMENT_SESSION_TIMEOUT_S": "6",
            "ENGAGEMENT_BATCH_MAX_RECORDS": "500",
            "ENGAGEMENT_LOG_FORMAT": "plain",
            **{
                f"ENGAGEMENT_TOPIC_{kind.upper().replace('-', '_')}": name
                for kind, name in self.topics.items()
            },
            **(settings or {}),
        }
        self.ends: dict[tuple[str, int], int] = {}
        self.workers: list[Worker] = []
        self._keeper = Keeper()
        self._asking = asyncio.Lock()
        self._connection: asyncpg.Connection | None = None
        self._connected_to = ""

    @property
    def settings(self) -> Settings:
        """What its workers run with."""
        return load_settings(self.environment)

    async def __aenter__(self) -> Self:
        await apply_topics(self.settings)
        await self.execute(INSTALL_AUDIT)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._disconnect()
        await asyncio.to_thread(self._keeper.close)

    # --- workers

    def worker(
        self,
        name: str,
        *failpoints: Failpoint,
        mutations: Sequence[str] = (),
        constants: Mapping[str, float] | None = None,
        environment: Mapping[str, str] | None = None,
        clock: Jumps = (),
    ) -> Worker:
        """Start one; `environment` is added to the scene's, the rest is as in `Worker`."""
        worker = Worker(
            self._keeper, self.folder, name, {**self.environment, **(environment or {})},
            failpoints, mutations, constants, clock,
        )  # fmt: skip
        self.workers.append(worker)
        return worker

    async def ready_workers(self, *names: str) -> list[Worker]:
        """Start some and wait until all are ready and the group has come to rest."""
        workers = [self.worker(name) for name in names]
        for worker in workers:
            await worker.until_ready()
        await self.until_settled()
        return workers

    async def until_settled(self) -> None:
        """Wait until every partition was claimed in the same generation of the group."""

        async def settled() -> bool:
            return bool(await self.value(GENERATIONS) == 1)

        await self.until("the group to settle", settled, 60)

    async def stop_workers(self) -> None:
        """SIGTERM to those that run; each has to end well in time."""
        running = [worker for worker in self.workers if worker.running]
        await asyncio.gather(*(asyncio.to_thread(worker.stop) for worker in running))

    async def command(self, *arguments: str) -> str:
        """Run `engagement ...` with the scene's settings; its output."""
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "service.cli.main", *arguments,
            env=self.environment, cwd=ROOT,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        output, _ = await asyncio.wait_for(process.communicate(), 60)
        assert process.returncode == 0, output.decode()
        return output.decode()

    # --- input

    async def send(self, records: Iterable[InputRecord], rate: float | None = None) -> None:
        """Produce records in order, at most `rate` a second; returns when all are acknowledged."""
        await asyncio.to_thread(self._send, records, rate)

    def _send(self, records: Iterable[InputRecord], rate: float | None) -> None:
        producer = Producer(
            {
                "bootstrap.servers": self.bootstrap,
                "enable.idempotence": True,
                "message.timeout.ms": SEND_TIMEOUT_S * 1000,
                "queue.buffering.max.messages": 1_000_000,
                "linger.ms": 5,
                "message.max.bytes": 1_100_000,
                "log_level": 0,
            }
        )
        errors: list[KafkaError] = []

        def note(error: KafkaError | None, message: Any) -> None:
            if error is not None:
                errors.append(error)
                return
            part = (message.topic(), message.partition())
            self.ends[part] = max(self.ends.get(part, 0), message.offset() + 1)

        began = time.monotonic()
        for number, record in enumerate(records):
            if rate is not None and number % 50 == 0:
                time.sleep(max(0.0, began + number / rate - time.monotonic()))
            producer.produce(
                self.topics[record.kind], record.value, record.key,
                headers=list(record.headers), on_delivery=note,
            )  # fmt: skip
            producer.poll(0)
        assert producer.flush(SEND_TIMEOUT_S + 10) == 0
        assert not errors, errors[:3]

    # --- the database

    async def fetch(self, query: str, *arguments: object) -> list[Any]:
        """Rows of a query. Whatever it raises, the next one connects anew."""
        # Waiting asks 20 times a second, and connecting costs both sides more than an answer.
        async with self._asking:
            try:
                connection = await self._connect()
                return list(await connection.fetch(query, *arguments, timeout=ANSWER_TIMEOUT_S))
            except BaseException:
                self._disconnect()
                raise

    async def _connect(self) -> asyncpg.Connection:
        if self._connection is None or self._connected_to != self.database_url:
            self._disconnect()
            self._connected_to = self.database_url
            self._connection = await asyncpg.connect(
                self.database_url, timeout=ANSWER_TIMEOUT_S, statement_cache_size=0
            )
        return self._connection

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.terminate()
            self._connection = None

    async def value(self, query: str, *arguments: object) -> Any:
        """The first value of a query."""
        return (await self.fetch(query, *arguments))[0][0]

    async def execute(self, statement: str) -> None:
        """Run statements, on a connection of their own: what they set does not outlive them."""
        connection = await asyncpg.connect(self.database_url, timeout=ANSWER_TIMEOUT_S)
        try:
            await connection.execute(statement)
        finally:
            await connection.close(timeout=ANSWER_TIMEOUT_S)

    async def offsets(self) -> dict[tuple[str, int], int]:
        """`next_offset` of every partition that was claimed."""
        rows = await self.fetch("SELECT topic, partition, next_offset FROM stream_offset")
        return {(row[0], row[1]): row[2] for row in rows}

    async def lagging(self) -> dict[tuple[str, int], int]:
        """Partitions that are not applied up to their end -> where they stand."""
        offsets = await self.offsets()
        return {
            part: offsets.get(part, 0)
            for part, end in self.ends.items()
            if offsets.get(part, 0) < end
        }

    async def applied(self) -> int:
        """How many offsets the partitions have moved altogether."""
        return sum((await self.offsets()).values())

    # --- waiting

    async def until(
        self, what: str, true: Callable[[], Awaitable[bool]], timeout_s: float
    ) -> float:
        """Wait until the coroutine function says so, the database's outages aside; seconds."""
        began = time.monotonic()
        while True:
            with suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError):
                if await true():
                    return time.monotonic() - began
            waited_s = time.monotonic() - began
            assert waited_s < timeout_s, f"waited {timeout_s} s in vain for {what}: {self._logs()}"
            await asyncio.sleep(POLL_S)

    async def until_applied(self, records: int, timeout_s: float = IDLE_TIMEOUT_S) -> float:
        """Wait until that many offsets are applied."""

        async def enough() -> bool:
            return await self.applied() >= records

        return await self.until(f"{records} records to be applied", enough, timeout_s)

    async def until_moving(self, timeout_s: float = IDLE_TIMEOUT_S) -> float:
        """Wait until every partition that lags now has moved: the time to recover from a fault."""
        before: dict[tuple[str, int], int] = {}

        async def look() -> bool:
            before.update(await self.lagging())
            return True

        began = time.monotonic()
        await self.until("the database", look, timeout_s)

        async def moved() -> bool:
            offsets = await self.offsets()
            return all(offsets.get(part, 0) > at for part, at in before.items())

        await self.until("all partitions to move", moved, timeout_s)
        return time.monotonic() - began

    async def until_idle(self, timeout_s: float = IDLE_TIMEOUT_S) -> float:
        """Wait until everything that was sent is applied, evaluated and published; seconds."""

        seen: dict[str, object] = {}

        async def idle() -> bool:
            assert any(worker.running for worker in self.workers), f"no worker runs: {self._logs()}"
            seen.update(lagging=await self.lagging(), undone=await self.value(UNDONE))
            return not seen["lagging"] and seen["undone"] == 0

        try:
            return await self.until("everything to be done", idle, timeout_s)
        except AssertionError as error:
            error.add_note(f"at the end: {seen}, of {self.ends}")
            raise

    # --- the end

    async def verify(
        self,
        *,
        earlier: TopicLog | None = None,
        rejects: Callable[[str, bytes], bool] | None = None,
    ) -> Report:
        """Hold everything against the oracle; see `tests.faults.verifier`."""
        assert not any(worker.running for worker in self.workers), "workers still run"
        return await verify(
            self.bootstrap, self.database_url, self.topics, earlier=earlier, rejects=rejects
        )

    async def finish(
        self,
        timeout_s: float = IDLE_TIMEOUT_S,
        *,
        rejects: Callable[[str, bytes], bool] | None = None,
    ) -> Report:
        """Wait until all is done and stop; then everything has to be as the oracle says."""
        await self.until_idle(timeout_s)
        await self.stop_workers()
        report = await self.verify(rejects=rejects)
        self.require(report)
        return report

    def require(self, report: Report) -> None:
        """Fail unless everything was exact."""
        assert not report.problems, f"{report.summary()}\n{self._logs()}"

    def _logs(self) -> str:
        ends = (
            f"--- {worker.name}, {worker.state}:\n{tail(worker.log)}" for worker in self.workers
        )
        return "\n".join((f"logs in {self.folder}", *ends))
