"""Faust's timers only tick; what is due is decided by rows in the database.

A timer's body must not raise: Faust would take the whole worker down for it.
"""

from __future__ import annotations

import gc
from collections.abc import Awaitable, Callable
from typing import Any, Final

import structlog
from aiokafka.errors import KafkaError

from db import due, outbox, runs
from db.housekeeping import housekeep_once
from db.pool import acquired
from service.errors import Retryable
from service.metrics import METRICS

log = structlog.get_logger(__name__)

ADVISORY_COMMIT_S: Final = 5.0
GAUGES_S: Final = 5.0
COMPARE_S: Final = 2.0
HOUSEKEEPING_S: Final = 60.0
COLLECT_S: Final = 30.0


def declare(app: Any) -> None:
    """Declare the timers of a worker."""

    @app.timer(interval=ADVISORY_COMMIT_S, name="advisory_commit")
    async def advisory_commit() -> None:
        await quietly(lambda: app.runtime.commit_advisory(app.batch_consumer.commit_advisory))

    @app.timer(interval=GAUGES_S, name="gauges")
    async def gauges() -> None:
        await quietly(lambda: measure(app))

    @app.timer(interval=COMPARE_S, name="compare_offsets")
    async def compare_offsets() -> None:
        await quietly(app.lanes.compare)

    @app.timer(interval=COLLECT_S, name="collect")
    async def collect() -> None:
        # A steady stream leaves little, which takes long to come to what is right for a backlog.
        if not app.lanes.is_saturated:
            gc.collect()

    @app.timer(interval=HOUSEKEEPING_S, name="housekeeping")
    async def housekeeping() -> None:
        await quietly(lambda: housekeep(app))


async def quietly(work: Callable[[], Awaitable[object]]) -> None:
    """Do it; an outage is only worth a line, since the next tick tries again."""
    try:
        await work()
    except (Retryable, KafkaError, TimeoutError) as error:
        log.info("tick_failed", action="tick", error=str(error))


async def measure(app: Any) -> None:
    """Set the gauges of backlog and lag."""
    runtime = app.runtime
    # First what needs no database: while it is away, lag is what one wants to see.
    measure_lanes(app)
    async with acquired(runtime.work_pool) as connection:
        marks = await due.backlog(connection)
        rows, age_s = await outbox.backlog(connection)
        daily = await runs.gauges(connection)
    METRICS.due_members.set(marks.marks)
    METRICS.due_age_seconds.set(marks.oldest_age_s)
    METRICS.outbox_rows.set(rows)
    METRICS.outbox_age_seconds.set(age_s)
    METRICS.recompute_open_pages.set(daily.open_pages)
    METRICS.overrides_active.set(daily.overrides)
    if daily.slot is not None:
        METRICS.recompute_slot.set(daily.slot.timestamp())


def measure_lanes(app: Any) -> None:
    """Set the gauges of this worker's partitions; those of partitions that it lost go."""
    METRICS.partitions_stopped.set(len(app.lanes.stopped))
    METRICS.partitions_unclaimed.set(app.lanes.unclaimed)
    METRICS.lag.clear()
    for tp, applied in app.lanes.applied.items():
        end = app.consumer.highwater(tp)
        if end is not None:
            METRICS.lag.labels(tp.topic, str(tp.partition)).set(max(0, end - applied))


async def housekeep(app: Any) -> None:
    """Remove what has served its time."""
    runtime = app.runtime
    for table, count in (await housekeep_once(runtime.work_pool, runtime.owner)).items():
        METRICS.housekept.labels(table).inc(count)
