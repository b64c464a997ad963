"""Evaluates whoever is due, page by page, for as long as the worker runs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final

import structlog

from db import due
from db.evaluating import Evaluating, Page
from db.pool import Pool, transaction
from service.errors import Retryable
from service.metrics import METRICS
from streams.backoff import Backoff
from streams.isolation import evaluate_apart

log = structlog.get_logger(__name__)

PAGE: Final = 1_000
IDLE_POLL_S: Final = 1.0
# While the intake works off a backlog a member may be marked by every batch: let marks gather, and
# leave most of the time to the intake. A few are still evaluated, several times a minute; most of
# them once more when the backlog is through.
BUSY_PAGE: Final = 200
BUSY_SHARE: Final = 0.02
BUSY_PAUSE_S: Final = 0.5
BUSY_LOOK_S: Final = 0.05
STEP_TIMEOUT_S: Final = 60.0
# A steady stream is evaluated in pages: each costs seven statements, however few are on it.
GATHER_S: Final = 0.01
FEW: Final = 200


class Evaluator:
    """One loop; a worker runs a few, so that deciding overlaps PostgreSQL's work."""

    def __init__(
        self,
        pool: Pool,
        evaluating: Evaluating,
        *,
        intake_is_busy: Callable[[], bool],
        published: Callable[[], None],
    ) -> None:
        """`published` is called after a commit that put messages into the outbox."""
        self._pool = pool
        self._evaluating = evaluating
        self._intake_is_busy = intake_is_busy
        self._published = published
        self._wake = asyncio.Event()
        # Whether there is probably more than a page: the last one was, or marks gather.
        self._expects_many = False

    def wake(self) -> None:
        """Somebody is due."""
        self._wake.set()

    async def run(self, should_stop: Callable[[], bool]) -> None:
        """Evaluate until told to stop. An outage of the database only delays."""
        backoff = Backoff(first_s=0.1, most_s=5.0)
        while not should_stop():
            started = time.monotonic()
            try:
                page = await asyncio.wait_for(self.step(), STEP_TIMEOUT_S)
            except (Retryable, TimeoutError) as error:
                METRICS.evaluation_retries.inc()
                log.warning("evaluation_retried", action="retry", error=str(error))
                await backoff.wait()
                continue
            took_s = time.monotonic() - started
            backoff.reset()
            if page.put_back and not page.evaluated:
                await asyncio.sleep(0.02)
            elif not page.taken:
                # Only nobody at all is a reason to rest: a page may end early for many reasons.
                await self._wait_for_work()
            elif page.taken < FEW:
                await asyncio.sleep(GATHER_S)
            await self._make_way(took_s)

    async def step(self) -> Page:
        """Evaluate one page; everything of it is committed, or nothing. Raises Retryable."""
        self._wake.clear()
        started = time.perf_counter()
        # Of its own backlog a worker evaluates a few all the time, see `_make_way`.
        settled = not self._intake_is_busy()
        limit = PAGE if settled else BUSY_PAGE
        if self._expects_many:
            async with transaction(self._pool) as connection:
                await due.join_batches(connection, settled=settled)
        try:
            async with transaction(self._pool) as connection:
                page = await self._evaluating.evaluate_due(connection, limit, settled=settled)
        except (Retryable, asyncio.CancelledError):
            raise
        except Exception as error:  # noqa: BLE001 - whose fault it is, is found out now
            log.warning("page_taken_apart", action="isolate", error=str(error))
            async with transaction(self._pool) as connection:
                page = await evaluate_apart(connection, self._evaluating, limit, settled=settled)
        self._expects_many = page.taken >= limit or page.held_back
        if page.publications:
            self._published()
        if page.evaluated:
            METRICS.evaluated.inc(page.evaluated)
            METRICS.evaluation_seconds.observe(time.perf_counter() - started)
            for cause, count in page.changes.items():
                METRICS.changes.labels(cause.value).inc(count)
        return page

    async def _make_way(self, took_s: float) -> None:
        """Pause for as long as the intake is busy, at most until our share is used up."""
        resume_at = time.monotonic() + max(BUSY_PAUSE_S, took_s * (1 / BUSY_SHARE - 1))
        # Busy is a level, not an event: batches come and go many times a second.
        while self._intake_is_busy() and time.monotonic() < resume_at:
            self._expects_many = True
            await asyncio.sleep(BUSY_LOOK_S)

    async def _wait_for_work(self) -> None:
        try:
            await asyncio.wait_for(self._wake.wait(), IDLE_POLL_S)
        except TimeoutError:
            return
        await asyncio.sleep(GATHER_S)
