"""Ends a worker that hangs, so that whoever started it starts another one.

Clients have been seen to stop without a word: out of the group, or fetching no more, while the
process looks well. Restarting mends that; it does not mend an outage. So a worker ends only if one
of its partitions has records that it does not apply while the broker answers and the database
takes writes, or if a rebalance never comes to an end.
"""

from __future__ import annotations

import asyncio
import faulthandler
import os
import sys
import threading
import time
from collections.abc import Callable, Collection, Mapping
from typing import Any, Final

import structlog
from aiokafka import AIOKafkaConsumer
from aiokafka.errors import KafkaError
from aiokafka.structs import TopicPartition
from faust.types import TP

from db import offsets
from db.pool import acquired
from service.errors import Retryable
from service.settings import Settings
from streams.connection import client_arguments

log = structlog.get_logger(__name__)

LOOK_S: Final = 30.0
STUCK_S: Final = 180.0
ANSWER_TIMEOUT_S: Final = 10.0
# An orderly end takes a few seconds; whatever hangs is cut off then. All that counts is in the
# database, and what was not committed there is done again by the next owner.
STOP_LIMIT_S: Final = 13.0
CRASH_LIMIT_S: Final = 20.0


class Stuck(RuntimeError):
    """The worker does not move although it could."""


def end_within(limit_s: float, exit_code: int) -> None:
    """End this process when it still runs after `limit_s`, whatever holds it."""

    def end() -> None:
        sys.stderr.write(f"not ended after {limit_s} s: cut off\n")
        faulthandler.dump_traceback(all_threads=True)
        sys.stderr.flush()
        os._exit(exit_code)

    timer = threading.Timer(limit_s, end)
    timer.daemon = True
    timer.start()


class Watchdog:
    """Looks every now and then; a worker that is stuck has to end."""

    def __init__(self, app: Any, settings: Settings) -> None:
        self._app = app
        self._settings = settings
        # Partition -> where it stood when it was first seen to lag, and when that was.
        self._lagging: dict[TP, tuple[int, float]] = {}

    async def run(self, should_stop: Callable[[], bool]) -> None:
        """Watch until told to stop. Raises Stuck."""
        looked_at = time.monotonic()
        while not should_stop():
            await asyncio.sleep(0.5)
            if time.monotonic() - looked_at < LOOK_S:
                continue
            reason = await self.find_reason()
            if reason is not None:
                if await self._database_takes_writes():
                    _dump_tasks()
                    raise Stuck(reason)
                # What stood still during an outage gets its time anew once that is over.
                self._lagging = {}
            looked_at = time.monotonic()

    async def find_reason(self) -> str | None:
        """Why this worker has to end, unless the database is away; None when it is well.

        Remembers what lags from one call to the next. Nothing lags while the broker is away.
        """
        rebalancing_s = self._app.rebalancing_for_s()
        if rebalancing_s > STUCK_S:
            return f"rebalancing for {rebalancing_s:.0f} s"
        silent_s = time.monotonic() - self._app.lanes.last_polled_at
        if silent_s > STUCK_S and not rebalancing_s:
            return f"no poll for {silent_s:.0f} s"
        stuck = await self._stuck()
        if stuck:
            names = ", ".join(f"{tp.topic}/{tp.partition}" for tp in stuck)
            return f"there are records, but nothing moves: {names}"
        return None

    async def _stuck(self) -> list[TP]:
        """Partitions that have lagged for long without moving."""
        still = self._app.lanes.unmoved_for(LOOK_S)
        ends = await self._ends(still) if still else {}
        now = time.monotonic()
        lagging = {}
        for tp, end in ends.items():
            at = still[tp]
            if end > at:
                known_at, since = self._lagging.get(tp, (at, now))
                lagging[tp] = (at, since if known_at == at else now)
        self._lagging = lagging
        return sorted(tp for tp, (_, since) in lagging.items() if now - since >= STUCK_S)

    async def _database_takes_writes(self) -> bool:
        try:
            async with (
                asyncio.timeout(ANSWER_TIMEOUT_S),
                acquired(self._app.runtime.work_pool) as connection,
            ):
                return await offsets.takes_writes(connection)
        except (Retryable, TimeoutError):
            return False

    async def _ends(self, tps: Collection[TP]) -> Mapping[TP, int]:
        """End of what can be consumed, asked by a client of its own; nothing without an answer."""
        consumer = AIOKafkaConsumer(
            **client_arguments(self._settings),
            isolation_level="read_committed",
            request_timeout_ms=int(ANSWER_TIMEOUT_S * 1000),
        )
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                await consumer.start()
                found = await consumer.end_offsets([TopicPartition(*tp) for tp in tps])
        except (KafkaError, OSError, TimeoutError):
            return {}
        finally:
            await consumer.stop()
        return {TP(tp.topic, tp.partition): end for tp, end in found.items()}


def _dump_tasks() -> None:
    """Every task and thread to standard error, for whoever has to find out why."""
    for task in asyncio.all_tasks():
        task.print_stack(limit=12, file=sys.stderr)
    faulthandler.dump_traceback(all_threads=True)
