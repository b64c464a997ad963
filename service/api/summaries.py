"""Summaries of organisations, computed once for everybody who asks at the same time.

A summary reads the whole organisation. Twenty administrators with an open overview must not do that
twenty times every few seconds, so what was computed is good for two seconds. It says of which
instant it is. Who may see it is decided before, in each request.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final, NamedTuple

from service.api.ports import Store, Summary

FRESH_S: Final = 2.0
MAX_ORGANIZATIONS: Final = 1000


class _Entry(NamedTuple):
    task: asyncio.Task[Summary]
    started_at: float


class Summaries:
    """At most one computation per organisation at a time, and one in two seconds."""

    def __init__(self, store: Store, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._monotonic = monotonic
        self._entries: OrderedDict[str, _Entry] = OrderedDict()

    async def get(self, org_id: str) -> Summary:
        """The summary, at most two seconds and the time of its computation old.

        Raises Retryable when the database is away.
        """
        entry = self._entries.get(org_id)
        if entry is None or self._is_stale(entry):
            task = asyncio.create_task(self._compute(org_id), name=f"summary {org_id}")
            entry = _Entry(task, self._monotonic())
            self._entries[org_id] = entry
            self._entries.move_to_end(org_id)
            while len(self._entries) > MAX_ORGANIZATIONS:
                self._entries.popitem(last=False)
        # Shielded: one caller who goes away must not end the computation of the others.
        return await asyncio.shield(entry.task)

    def forget(self, org_id: str) -> None:
        """Something was changed here: the next caller gets a new one."""
        self._entries.pop(org_id, None)

    def _is_stale(self, entry: _Entry) -> bool:
        if not entry.task.done():
            return False
        if entry.task.cancelled() or entry.task.exception() is not None:
            return True
        return self._monotonic() - entry.started_at > FRESH_S

    async def _compute(self, org_id: str) -> Summary:
        async with self._store.organization(org_id) as organization:
            return await organization.summary()
