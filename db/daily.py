"""The daily recompute, one piece of work at a time: survey a page, evaluate a chunk, close, end.

Any number of workers take pieces at the same time. Whatever a worker was doing when it died is
done again by another once its lease has run out.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple
from uuid import UUID

import structlog

from db import run_pages, runs, survey
from db.due_scope import due_of, take_of
from db.evaluating import Evaluating
from db.pool import Connection, Pool, acquired, transaction
from db.results import Result
from db.run_pages import Chunk, Counts, Page
from db.survey import Judging
from service.errors import Retryable

log = structlog.get_logger(__name__)

# With the hour that a run may take, every member is recomputed within every 24 hours.
FRESH_FOR: Final = timedelta(hours=23)
KEEP_LEASE_S: Final = 10.0

SELECT_ORGANIZATIONS: Final = """
SELECT org_id, array_agg(member_id ORDER BY member_id) FROM engagement
WHERE member_id = ANY ($1::bigint[]) GROUP BY org_id ORDER BY org_id"""


class Step(NamedTuple):
    """What one piece of work came to. `summary` is set for whoever ended the run."""

    slot: datetime
    recomputed: int = 0
    counts: Counts = Counts()
    failed: int = 0
    summary: Mapping[str, Any] | None = None


class Daily:
    """Works on the daily recompute; `step` again and again, from as many tasks as are of use."""

    def __init__(
        self,
        pool: Pool,
        evaluating: Evaluating,
        *,
        slot_of: Callable[[datetime], datetime],
        owner: UUID,
        implicit_membership: bool,
        judging: Judging,
    ) -> None:
        """`slot_of` gives the latest slot at or before an instant.

        Connections of the pool are prepared by `db.evaluation.prepare_connection`.
        """
        self._pool = pool
        self._evaluating = evaluating
        self._slot_of = slot_of
        self._owner = owner
        self._implicit_membership = implicit_membership
        self._judging = judging

    async def step(self) -> Step | None:
        """Do one piece of work; None when there is none for us at present. Raises Retryable."""
        async with transaction(self._pool) as connection:
            slot = await runs.due_slot(connection, self._slot_of)
            if slot is None:
                return None
            chunk = await run_pages.take_chunk(connection, slot, self._owner)
            page = None
            if chunk is None:
                page = await run_pages.take_page(connection, slot, self._owner)
        if chunk is not None:
            return await self._evaluate(chunk)
        if page is None:
            return await self._end(slot)
        if page.surveyed_at is None:
            return await self._survey(page)
        return await self._close(page, page.surveyed_at)

    async def let_go(self) -> None:
        """Leave what is left to the others, at once."""
        async with transaction(self._pool) as connection:
            await run_pages.let_go(connection, self._owner)

    # Pages

    async def _survey(self, page: Page) -> Step:
        keeping = asyncio.create_task(self._keep(page))
        try:
            async with acquired(self._pool) as connection:
                found = await survey.survey(
                    connection,
                    page.block,
                    stale_before=page.slot - FRESH_FOR,
                    implicit_membership=self._implicit_membership,
                    judging=self._judging,
                )
        finally:
            keeping.cancel()
            with suppress(asyncio.CancelledError):
                await keeping
        async with transaction(self._pool) as connection:
            kept = await run_pages.add_survey(
                connection, page, found.as_of, found.members, found.differing
            )
        return Step(page.slot, found.members if kept else 0)

    async def _keep(self, page: Page) -> None:
        """Hold on to a page for as long as this runs; an outage only costs the lease."""
        while True:
            await asyncio.sleep(KEEP_LEASE_S)
            with suppress(Retryable):
                async with transaction(self._pool) as connection:
                    await run_pages.extend_page(connection, page)

    async def _close(self, page: Page, surveyed_at: datetime) -> Step:
        async with transaction(self._pool) as connection:
            left_out = await run_pages.failed_organizations(connection, page)
            members = await run_pages.end_page(connection, page)
            if members is None:
                return Step(page.slot)
            if members:
                await survey.confirm(connection, page.block, surveyed_at, left_out)
            return Step(page.slot, summary=await runs.end(connection, page.slot))

    async def _end(self, slot: datetime) -> Step | None:
        async with transaction(self._pool) as connection:
            summary = await runs.end(connection, slot)
        return None if summary is None else Step(slot, summary=summary)

    # Chunks

    async def _evaluate(self, chunk: Chunk) -> Step:
        async with acquired(self._pool) as connection:
            failures = await run_pages.failures(connection, chunk.slot)
        if not failures:
            try:
                async with transaction(self._pool) as connection:
                    if not await run_pages.hold_chunk(connection, chunk):
                        return Step(chunk.slot)
                    counts = await self._evaluate_members(connection, chunk, chunk.member_ids)
                    await run_pages.end_chunk(connection, chunk, 0, ())
                return Step(chunk.slot, counts=counts)
            except Retryable:
                raise
            except Exception as error:  # noqa: BLE001 - whatever it is, the others go on
                log.warning("chunk_failed", action="isolate", error=repr(error))
        return await self._evaluate_apart(chunk, {f.org_id for f in failures.values() if f.waits})

    async def _evaluate_apart(self, chunk: Chunk, failing: set[str]) -> Step:
        """Organisation by organisation, so that one which fails does not stop the others."""
        async with acquired(self._pool) as connection:
            rows = await connection.fetch(SELECT_ORGANIZATIONS, list(chunk.member_ids))
        total = Counts()
        left: defaultdict[str, list[int]] = defaultdict(list)
        for org_id, member_ids in rows:
            if org_id in failing:
                left[org_id] += member_ids
                continue
            try:
                async with transaction(self._pool) as connection:
                    if not await run_pages.hold_chunk(connection, chunk):
                        return Step(chunk.slot, counts=total)
                    counts = await self._evaluate_members(connection, chunk, member_ids)
                    await run_pages.forgive(connection, chunk.slot, [org_id])
                total = Counts(*(a + b for a, b in zip(total, counts, strict=True)))
            except Retryable:
                raise
            except Exception as error:  # noqa: BLE001 - counted, tried again, and shown
                left[org_id] += member_ids
                log.warning(
                    "organization_failed", action="back_off", org_id=org_id, error=repr(error)
                )
                async with transaction(self._pool) as connection:
                    await run_pages.count_failure(connection, chunk.slot, org_id, repr(error))
        return await self._leave(chunk, left, total)

    async def _leave(self, chunk: Chunk, left: Mapping[str, Sequence[int]], counts: Counts) -> Step:
        members = sorted(m for ids in left.values() for m in ids)
        failed = 0
        async with transaction(self._pool) as connection:
            if members and not chunk.is_last_attempt:
                await run_pages.defer_chunk(connection, chunk, members)
            else:
                failed = len(members)
                await run_pages.end_chunk(connection, chunk, failed, left)
        return Step(chunk.slot, counts=counts, failed=failed)

    async def _evaluate_members(
        self, connection: Connection, chunk: Chunk, member_ids: Sequence[int]
    ) -> Counts:
        known = await take_of(connection, dict.fromkeys(member_ids), force=False)
        causes = {member_id: known.get(member_id, set()) for member_id in member_ids}
        results, _ = await self._evaluating.evaluate_each(connection, causes)
        publications = [p for result in results for p in result.outcome.publications]
        moved = {r.member.member_id for r in results if was_missed(r)}
        missed = moved - known.keys()
        if missed:
            # A fact may have come between looking for marks and reading: its mark is there by now.
            missed -= await due_of(connection, missed)
        counts = Counts(
            evaluated=len(results),
            changed=sum(p.change is not None for p in publications),
            publications=len(publications),
            missed_by_clock=len(missed),
        )
        await run_pages.count_on_chunk(connection, chunk, counts)
        return counts


def was_missed(result: Result) -> bool:
    """Whether level or counts moved without anybody having known that the member was due.

    A defect, wherever it is: the clock of a member foretells the next such instant. Texts and
    verdicts of another release are not the clock's business.
    """
    before, after = result.member.standing, result.outcome.standing
    if (
        before.computed_at is None
        or before.published.model_version != after.published.model_version
    ):
        return False
    old, new = before.published, after.published
    return (old.level is not None or new.level is not None) and (
        old.level is not new.level
        or old.signals.events_attended_90d != new.signals.events_attended_90d
        or old.signals.rsvp_count_90d != new.signals.rsvp_count_90d
    )
