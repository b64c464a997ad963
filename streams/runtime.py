"""Everything a worker holds while it runs: pools, lanes, evaluators, relay. Built on its loop."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Coroutine, Mapping
from datetime import timedelta
from typing import Final, Protocol
from uuid import UUID, uuid4

import structlog
from aiokafka.errors import ConsumerStoppedError, KafkaError
from faust.types import TP

from db import migrate, plain_batches, scope
from db.evaluating import Evaluating, Judge, RulesJudge
from db.evaluation import CaseReader
from db.explanations import ExplanationCache
from db.judging import ClaudeJudge
from db.member_ids import MemberIds
from db.pool import Pool, acquired, open_pool
from db.wakeups import Wakeup
from service.classifier.choice import claude_of, uses_claude
from service.errors import Retryable
from service.settings import Settings
from streams.applying import BatchApplier
from streams.backoff import Backoff
from streams.classifier import Classifier, limits_of
from streams.daily import LOOPS as DAILY_LOOPS
from streams.daily import DailyRun, daily_of
from streams.evaluator import Evaluator
from streams.lanes import Lanes
from streams.listener import Listener
from streams.positions import Positions
from streams.relay import Relay
from streams.topics import input_topics, require_topics

log = structlog.get_logger(__name__)

EVALUATORS: Final = 2
CLAUDE_CONNECTIONS: Final = 3
STOP_TIMEOUT_S: Final = 5.0
ADVISORY_TIMEOUT_S: Final = 5.0

Crash = Callable[[BaseException], Coroutine[object, object, None]]
Ranges = Callable[[Collection[TP]], Awaitable[Mapping[TP, tuple[int, int]]]]


class Loop(Protocol):
    """Something that a worker does all the time."""

    async def run(self, should_stop: Callable[[], bool]) -> None:
        """Do it until told to stop; an outage only delays it. Anything raised is a defect."""
        ...


class Runtime:
    """The parts of one worker. `open` before the consumer starts, `close` after it has stopped."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.owner: UUID = uuid4()
        self.schema_version = ""
        self.intake_pool: Pool
        self.work_pool: Pool
        self.claude_pool: Pool
        self.lanes: Lanes
        self.evaluators: list[Evaluator] = []
        self.daily_runs: list[DailyRun] = []
        self.relay: Relay
        self.classifier: Classifier | None = None
        self._stopping = asyncio.Event()
        self._loops: list[asyncio.Task[None]] = []

    async def wait_for_parts(self, should_stop: Callable[[], bool]) -> bool:
        """Wait until database, schema and topics are there; False when told to stop before."""
        backoff = Backoff(first_s=0.5, most_s=5.0)
        said = ""
        while not should_stop():
            try:
                await self._require_parts()
            except Retryable as error:
                if str(error) != said:
                    said = str(error)
                    log.warning("waiting", action="wait", reason=said)
            else:
                return True
            await backoff.wait()
        return False

    async def _require_parts(self) -> None:
        pool = await open_pool(self.settings, purpose="check", size=1)
        try:
            async with acquired(pool) as connection:
                self.schema_version = await migrate.require_current(connection)
                await scope.require_everybody(connection)
        finally:
            pool.terminate()
        await require_topics(self.settings)

    async def open(self, *, ranges: Ranges, crash: Crash) -> None:
        """Open pools and build the parts; nothing runs yet."""
        settings = self.settings
        ids = MemberIds()
        reader = CaseReader(ExplanationCache(), implicit_membership=settings.implicit_membership)
        self.intake_pool = await open_pool(
            settings,
            purpose="intake",
            size=settings.active_partitions + 2,
            prepare=plain_batches.preparing(ids),
        )
        self.work_pool = await open_pool(
            settings,
            purpose="work",
            size=EVALUATORS + DAILY_LOOPS + 5,
            limits={"transaction_timeout": "60s", "statement_timeout": "50s"},
            prepare=reader.prepare,
        )
        applier = BatchApplier(
            self.intake_pool,
            ids,
            kinds=input_topics(settings),
            owner=self.owner,
            max_future_skew=timedelta(seconds=settings.max_future_skew_s),
            max_consecutive_failures=settings.dlq_max_consecutive,
            erasure_memory=timedelta(days=settings.erasure_memory_days),
            ranges=ranges,
            check_claims=Positions(self.intake_pool, settings).check,
            marked=self.wake_evaluators,
        )
        self.lanes = Lanes(
            applier,
            active_partitions=settings.active_partitions,
            batch_max_records=settings.batch_max_records,
            crash=crash,
        )
        self.relay = Relay(self.work_pool, settings, self.owner)
        judge = await self._open_judge()
        evaluating = Evaluating(reader, judge)
        daily = daily_of(settings, self.work_pool, evaluating, self.owner)
        self.daily_runs = [DailyRun(daily, published=self._wake_relay) for _ in range(DAILY_LOOPS)]
        self.evaluators = [
            Evaluator(
                self.work_pool,
                evaluating,
                intake_is_busy=lambda: self.lanes.is_saturated,
                published=self._wake_relay,
            )
            for _ in range(EVALUATORS)
        ]

    async def _open_judge(self) -> Judge:
        """The rules, or Claude's stored verdicts together with a classifier that fills them."""
        settings = self.settings
        if not uses_claude(settings):
            return RulesJudge()
        self.claude_pool = await open_pool(settings, purpose="claude", size=CLAUDE_CONNECTIONS)
        self.classifier = Classifier(
            self.claude_pool,
            claude_of(settings),
            settings.model,
            limits_of(settings),
            settled=self.wake_evaluators,
        )
        return ClaudeJudge(settings.model)

    def start_loops(self, crash: Crash, *more: Loop) -> None:
        """Start evaluators, relay, classifier and `more`. A defect in one ends the worker."""
        wakeups = Listener(
            self.settings,
            {Wakeup.DUE: self.wake_evaluators, Wakeup.OUTBOX: self._wake_relay},
        )
        loops: list[Loop] = [*self.evaluators, *self.daily_runs, self.relay, wakeups, *more]
        if self.classifier is not None:
            loops.append(self.classifier)
        for loop in loops:
            self._loops.append(asyncio.create_task(self._guard(loop, crash)))

    async def _guard(self, loop: Loop, crash: Crash) -> None:
        try:
            await loop.run(self._stopping.is_set)
        except asyncio.CancelledError:
            raise
        except Exception as error:
            log.exception("loop_failed", action="crash", loop=type(loop).__name__)
            await crash(error)

    async def close(self) -> None:
        """Finish what is in flight, hand over, close. Bounded; safe to call twice."""
        self._stopping.set()
        self.wake_evaluators()
        if hasattr(self, "relay"):
            self._wake_relay()
        if self.classifier is not None:
            self.classifier.wake()
        if self._loops:
            _, pending = await asyncio.wait(self._loops, timeout=STOP_TIMEOUT_S)
            for task in pending:
                task.cancel()
        for name in ("intake_pool", "work_pool", "claude_pool"):
            pool = getattr(self, name, None)
            if pool is not None:
                pool.terminate()

    def wake_evaluators(self) -> None:
        """Somebody is due."""
        for evaluator in self.evaluators:
            evaluator.wake()

    def _wake_relay(self) -> None:
        self.relay.wake()

    async def commit_advisory(self, commit: Callable[[Mapping[TP, int]], Awaitable[None]]) -> None:
        """Tell Kafka how far we are; a failure is only worth a line."""
        try:
            await asyncio.wait_for(commit(self.lanes.applied), ADVISORY_TIMEOUT_S)
        except (KafkaError, ConsumerStoppedError, TimeoutError) as error:
            log.info("advisory_commit_failed", action="commit", error=str(error))
