"""The daily recompute as loops of a worker: a few pieces of work at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, Final
from uuid import UUID

import structlog

from db.daily import Daily, Step
from db.evaluating import Evaluating
from db.pool import Pool
from db.survey import Judging
from service.classifier.choice import uses_claude
from service.classifier.keys import key_tag
from service.classifier.templates import MODEL_VERSION
from service.errors import Retryable
from service.metrics import METRICS
from service.schedule import latest_slot
from service.settings import Settings
from streams.backoff import Backoff

log = structlog.get_logger(__name__)

# Two pieces at once keep two cores busy: one is read or written while the other is decided.
LOOPS: Final = 2
IDLE_POLL_S: Final = 2.0


def daily_of(settings: Settings, pool: Pool, evaluating: Evaluating, owner: UUID) -> Daily:
    """The daily recompute as configured."""
    return Daily(
        pool,
        evaluating,
        slot_of=lambda now: latest_slot(settings.recompute_cron, now),
        owner=owner,
        implicit_membership=settings.implicit_membership,
        judging=Judging(MODEL_VERSION, key_tag(settings.model) if uses_claude(settings) else None),
    )


class DailyRun:
    """One loop; a worker runs `LOOPS` of them."""

    def __init__(
        self, daily: Daily, *, published: Callable[[], None], idle_poll_s: float = IDLE_POLL_S
    ) -> None:
        """`published` is called after a commit that put messages into the outbox."""
        self._daily = daily
        self._published = published
        self._idle_poll_s = idle_poll_s

    async def run(self, should_stop: Callable[[], bool]) -> None:
        """Work until told to stop. An outage of the database only delays."""
        backoff = Backoff(first_s=0.5, most_s=10.0)
        while not should_stop():
            try:
                step = await self._daily.step()
            except (Retryable, TimeoutError) as error:
                METRICS.recompute_retries.inc()
                log.warning("daily_run_retried", action="retry", error=str(error))
                await backoff.wait()
                continue
            backoff.reset()
            if step is None:
                await self._sleep(should_stop)
            else:
                self._count(step)
        await self._let_go()

    def _count(self, step: Step) -> None:
        counts = step.counts
        METRICS.recomputed.inc(step.recomputed)
        METRICS.recompute_changes.inc(counts.changed)
        METRICS.recompute_failed.inc(step.failed)
        if counts.missed_by_clock:
            METRICS.missed_by_clock.inc(counts.missed_by_clock)
            log.error(
                "clock_missed_members",
                action="recompute",
                count=counts.missed_by_clock,
                advice="a defect: their next change was foretold wrongly",
            )
        if counts.publications:
            self._published()
        if step.summary is not None:
            self._say(step, step.summary)

    def _say(self, step: Step, summary: Mapping[str, Any]) -> None:
        METRICS.recompute_ended_at.set_to_current_time()
        METRICS.recompute_seconds.set(float(summary["seconds"]))
        write = log.error if summary["failed"] else log.info
        write("daily_run_ended", action="recompute", slot=step.slot.isoformat(), **summary)

    async def _sleep(self, should_stop: Callable[[], bool]) -> None:
        waited_s = 0.0
        while waited_s < self._idle_poll_s and not should_stop():
            await asyncio.sleep(min(0.2, self._idle_poll_s))
            waited_s += 0.2

    async def _let_go(self) -> None:
        try:
            async with asyncio.timeout(3):
                await self._daily.let_go()
        except (Retryable, TimeoutError):
            log.info("pages_left", action="stop", advice="their leases run out by themselves")
