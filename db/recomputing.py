"""Evaluate, foresee or look back at the members in a scope, page by page: for commands."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Final, NamedTuple

from db import due, offsets, scope
from db.due_scope import take_of
from db.evaluating import Evaluating, Page
from db.evaluation import MemberCase
from db.pool import Pool, acquired, transaction
from db.scope import Scope
from service.evaluation import Evaluation
from service.expiry import as_before
from service.levels import Level, Reason
from service.records import Cause
from service.signals import Signals
from service.standing import Standing

PAGE: Final = 1_000
# Members may be in the hands of a worker; it evaluates them itself.
HELD_RETRIES: Final = 50
HELD_WAIT_S: Final = 0.1


class Line(NamedTuple):
    """One known member as `recompute --json` tells it; `level` and `reason` None: not scored."""

    org_id: str
    user_id: str
    level: Level | None
    reason: Reason | None
    signals: Signals
    next_change_at: datetime | None
    next_level_change_at: datetime | None
    next_level: Level | None


class Total(NamedTuple):
    """What was evaluated: members, level changes by cause, published states, left to others."""

    evaluated: int
    changes: Counter[Cause]
    publications: int
    held: int


class Recomputing:
    """Runs on a pool whose connections `db.evaluation.prepare_connection` has prepared."""

    def __init__(self, pool: Pool, evaluating: Evaluating) -> None:
        self._pool = pool
        self._evaluating = evaluating

    async def evaluate(self, within: Scope, *, force: bool) -> Total:
        """Evaluate who is due in the scope, or everybody with `force`; each page commits."""
        total = Total(0, Counter(), 0, 0)
        if within == Scope() and not force:
            async for page in self._due_pages():
                total = _plus(total, page)
            return total
        async for members in scope.pages(self._pool, within, PAGE):
            async with transaction(self._pool) as connection:
                causes = await take_of(
                    connection, {m.member_id: m.org_id for m in members}, force=force
                )
                total = _plus(total, await self._evaluating.evaluate_members(connection, causes))
        return total

    async def _due_pages(self) -> AsyncIterator[Page]:
        held = 0
        while held < HELD_RETRIES:
            async with transaction(self._pool) as connection:
                page = await self._evaluating.evaluate_due(connection, PAGE)
                idle = not page.taken and not await due.any_due(connection)
            if idle:
                return
            held = 0 if page.evaluated else held + 1
            # What others hold was marked again and comes back: count it at the end only.
            yield page._replace(put_back=page.put_back if held == HELD_RETRIES else 0)
            if not page.evaluated:
                await asyncio.sleep(HELD_WAIT_S)

    async def foresee(self, within: Scope) -> AsyncIterator[list[Line]]:
        """What every known member of the scope would be now, overrides included; no trace is left.

        In a suspended organisation: what is stored, without an override that has expired meanwhile.
        """
        async for members in scope.pages(self._pool, within, PAGE):
            async with acquired(self._pool) as connection:
                attempt = connection.transaction()
                await attempt.start()
                try:
                    now = await offsets.read_now(connection)
                    cases, results = await self._evaluating.foresee(
                        connection, {m.member_id: m.org_id for m in members}
                    )
                finally:
                    # A judge may have asked for verdicts.
                    await attempt.rollback()
            standings = {
                c.member_id: results[c.member_id].outcome.standing
                if c.member_id in results
                else _as_shown(c.standing, now)
                for c in cases
            }
            found = {}
            for case in cases:
                published = standings[case.member_id].published
                found[case.member_id] = Line(
                    case.subject.org_id, case.subject.user_id, published.level, published.reason,
                    published.signals, published.next_change_at, published.next_level_change_at,
                    published.next_level,
                )  # fmt: skip
            yield [found[m.member_id] for m in members if m.member_id in found]

    async def look_back(self, within: Scope, as_of: datetime) -> AsyncIterator[list[Line]]:
        """Every known member of the scope at `as_of`, by the rules alone, from current records."""
        async for members in scope.pages(self._pool, within, PAGE):
            async with acquired(self._pool) as connection:
                pairs = await self._evaluating.look_back(
                    connection, {m.member_id: m.org_id for m in members}, as_of
                )
            found = {case.member_id: _line(case, evaluated) for case, evaluated in pairs}
            yield [found[m.member_id] for m in members if m.member_id in found]

    async def now(self) -> datetime:
        """The database's clock."""
        async with acquired(self._pool) as connection:
            return await offsets.read_now(connection)


def _as_shown(standing: Standing, now: datetime) -> Standing:
    """What is stored, as reads show it: an override ends when its time has come."""
    stored = standing.stored_override
    if stored is None or stored.override.active_at(now):
        return standing
    return standing._replace(published=as_before(standing.published), stored_override=None)


def _line(member: MemberCase, evaluated: Evaluation) -> Line:
    ruling = evaluated.ruling
    return Line(
        member.subject.org_id,
        member.subject.user_id,
        None if ruling is None else ruling.level,
        None if ruling is None else ruling.reason,
        evaluated.signals,
        evaluated.next_change_at,
        evaluated.next_level_change_at,
        evaluated.next_level,
    )


def _plus(total: Total, page: Page) -> Total:
    return Total(
        total.evaluated + page.evaluated,
        total.changes + Counter(page.changes),
        total.publications + page.publications,
        total.held + page.put_back,
    )
