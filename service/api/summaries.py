"""Summaries of organisations, computed once for everybody who asks at the same time.

A summary reads the whole organisation. Twenty administrators with an open overview must not do that
twenty times every few seconds, so what was computed is good for two seconds (five where it takes
the database long), and for ten where a new one is not made within a moment; but never beyond the
next expiry of an override, which takes effect without anybody's doing. It says of which instant it
is. Who may see it is decided before, in each request.
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
# How long a page may wait for a newer one: most take less, even of 100 000 members.
PATIENCE_S: Final = 0.1
MAX_ORGANIZATIONS: Final = 1000

log = structlog.get_logger(__name__)


class _Entry(NamedTuple):
    summary: Summary
    fresh_until_s: float
    usable_until_s: float
    true_until_s: float


class Summaries:
    """At most one computation per organisation at a time, and one every few seconds.

    Whoever asks for one that is older waits for a new one; where that takes long, the old one will
    do.
    """

    def __init__(self, store: Store, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._monotonic = monotonic
        self._entries: OrderedDict[str, _Entry] = OrderedDict()
        self._tasks: dict[str, asyncio.Task[_Entry]] = {}

    async def get(self, org_id: str) -> Summary:
        """A summary, some seconds old at the most. Raises Retryable when there is none."""
        asked_s = self._monotonic()
        entry = self._entries.get(org_id)
        if entry is not None and asked_s < entry.fresh_until_s:
            return entry.summary
        task = self._computation(org_id)
        if entry is not None and asked_s < entry.usable_until_s:
            await asyncio.wait({task}, timeout=PATIENCE_S)
            return (_result(task) or entry).summary
        # Shielded: one caller who goes away must not end the computation of the others.
        entry = await asyncio.shield(task)
        while entry.true_until_s <= asked_s:
            # It was begun by somebody who asked while an override that is over was active.
            entry = await asyncio.shield(self._computation(org_id))
        return entry.summary

    def forget(self, org_id: str) -> None:
        """Something was changed here: the next caller gets one that is made from now on."""
        self._entries.pop(org_id, None)
        self._tasks.pop(org_id, None)

    def _computation(self, org_id: str) -> asyncio.Task[_Entry]:
        """The one that is under way, else a new one."""
        task = self._tasks.get(org_id)
        if task is None:
            task = asyncio.create_task(self._compute(org_id), name=f"summary {org_id}")
            self._tasks[org_id] = task
            task.add_done_callback(lambda done: self._finish(org_id, done))
        return task

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
        # Before the transaction, whose beginning is the summary's instant: so rather too early.
        asked_s = self._monotonic()
        async with self._store.organization(org_id) as organization:
            began_s = self._monotonic()
            summary = await organization.summary()
        now_s = self._monotonic()
        fresh_for_s = min(max(FRESH_S, (now_s - began_s) / SHARE), MOST_FRESH_S)
        true_until_s = asked_s + _true_for_s(summary)
        return _Entry(
            summary,
            min(now_s + fresh_for_s, true_until_s),
            min(now_s + USABLE_S, true_until_s),
            true_until_s,
        )


def _result(task: asyncio.Task[_Entry]) -> _Entry | None:
    """What was computed; None when it is not there yet, or failed, which has been logged."""
    if not task.done() or task.cancelled() or task.exception() is not None:
        return None
    return task.result()


def _true_for_s(summary: Summary) -> float:
    """How long after its instant no override ends by itself; the first to end comes first."""
    for row in summary.expiring[:1]:
        if row.override_expires_at is not None:
            return (row.override_expires_at - summary.as_of).total_seconds()
    return float("inf")
