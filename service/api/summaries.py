"""Summaries of organisations, computed once for everybody who asks at the same time.

A summary reads the whole organisation. Twenty administrators with an open overview must not do that
twenty times every few seconds, so what was computed is good for two seconds (five where it takes
the database long), and for ten while a new one is being made. It says of which instant it is. Who
may see it is decided before, in each request.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final, NamedTuple

import structlog

from service.api.ports import Store
from service.api.values import Summary

FRESH_S: Final = 2.0
MOST_FRESH_S: Final = 5.0
# At most this share of the time goes into one organisation's summaries, up to that.
SHARE: Final = 0.03
USABLE_S: Final = 10.0
MAX_ORGANIZATIONS: Final = 1000

log = structlog.get_logger(__name__)


class _Entry(NamedTuple):
    summary: Summary
    computed_at_s: float
    fresh_for_s: float


class Summaries:
    """At most one computation per organisation at a time, and one every few seconds.

    Whoever asks for one that is older gets it, if it is not much older, and has a new one made.
    """

    def __init__(self, store: Store, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._monotonic = monotonic
        self._entries: OrderedDict[str, _Entry] = OrderedDict()
        self._tasks: dict[str, asyncio.Task[_Entry]] = {}

    async def get(self, org_id: str) -> Summary:
        """A summary, some seconds old at the most. Raises Retryable when there is none."""
        entry = self._entries.get(org_id)
        age_s = float("inf") if entry is None else self._monotonic() - entry.computed_at_s
        if entry is not None and age_s <= entry.fresh_for_s:
            return entry.summary
        task = self._tasks.get(org_id)
        if task is None:
            task = asyncio.create_task(self._compute(org_id), name=f"summary {org_id}")
            self._tasks[org_id] = task
            task.add_done_callback(lambda done: self._finish(org_id, done))
        if entry is not None and age_s <= USABLE_S:
            return entry.summary
        # Shielded: one caller who goes away must not end the computation of the others.
        return (await asyncio.shield(task)).summary

    def forget(self, org_id: str) -> None:
        """Something was changed here: the next caller gets one that is made from now on."""
        self._entries.pop(org_id, None)
        self._tasks.pop(org_id, None)

    def _finish(self, org_id: str, task: asyncio.Task[_Entry]) -> None:
        is_current = self._tasks.get(org_id) is task
        if is_current:
            del self._tasks[org_id]
        if task.cancelled():
            return
        error = task.exception()
        if error is not None:
            log.warning("summary_failed", action="summary", error=str(error))
        elif is_current:
            self._entries[org_id] = task.result()
            self._entries.move_to_end(org_id)
            while len(self._entries) > MAX_ORGANIZATIONS:
                self._entries.popitem(last=False)

    async def _compute(self, org_id: str) -> _Entry:
        async with self._store.organization(org_id) as organization:
            began_s = self._monotonic()
            summary = await organization.summary()
        now_s = self._monotonic()
        fresh_for_s = min(max(FRESH_S, (now_s - began_s) / SHARE), MOST_FRESH_S)
        return _Entry(summary, now_s, fresh_for_s)
