"""A page that could not be evaluated, taken apart until it is clear whose fault that is.

A defect that one member brings out must not keep the others waiting, nor end worker after worker.
Whoever cannot be evaluated alone is put aside and tried again later; if there are many of them, the
fault is not theirs, and the worker ends.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from datetime import timedelta
from typing import Final

import structlog

from db import due
from db.evaluating import Evaluating, Page
from db.pool import Connection, savepoint
from service.errors import Retryable
from service.metrics import METRICS
from service.records import Cause

log = structlog.get_logger(__name__)

ASIDE: Final = timedelta(minutes=15)
MAX_CULPRITS: Final = 25


async def evaluate_apart(
    connection: Connection, evaluating: Evaluating, limit: int, *, settled: bool = False
) -> Page:
    """Evaluate up to about `limit` due members (see `due.take`), but for those with whom it fails.

    In the caller's transaction.

    Raises Retryable, and whatever the last one raised when there are more than MAX_CULPRITS.
    """
    causes = await due.take(connection, limit, settled=settled)
    pages, culprits = await _halve(connection, evaluating, causes)
    if culprits:
        await due.set_aside(connection, culprits, ASIDE)
        METRICS.set_aside.inc(len(culprits))
    changes: Counter[Cause] = Counter()
    for page in pages:
        changes.update(page.changes)
    return Page(
        len(causes),
        sum(page.evaluated for page in pages),
        changes,
        sum(page.publications for page in pages),
        sum(page.put_back for page in pages),
        causes.held_back,
    )


async def _halve(
    connection: Connection, evaluating: Evaluating, causes: Mapping[int, Collection[str]]
) -> tuple[list[Page], list[int]]:
    """(what could be evaluated, who could not): by halves, each in a savepoint."""
    pages: list[Page] = []
    culprits: list[int] = []
    pending = [sorted(causes)]
    while pending:
        members = pending.pop()
        try:
            async with savepoint(connection):
                pages.append(
                    await evaluating.evaluate_members(connection, {m: causes[m] for m in members})
                )
        except Retryable:
            raise
        except Exception:
            if len(members) > 1:
                half = len(members) // 2
                pending += [members[half:], members[:half]]
                continue
            if len(culprits) >= MAX_CULPRITS:
                raise
            # Never who it is by name: the surrogate key finds the row.
            log.exception("member_set_aside", action="set_aside", member_id=members[0],
                          again_after_s=ASIDE.total_seconds())  # fmt: skip
            culprits.append(members[0])
    return pages, culprits
