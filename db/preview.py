"""Read an organisation's members page by page and see what other thresholds would do to them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any, Final

from db import offsets, verdicts
from db import thresholds as versions
from db.evaluation import read_organizations
from db.pool import Connection
from service.api.values import ThresholdsPreview
from service.classifier.keys import verdict_key
from service.classifier.situation import Situation, situation_of
from service.evaluation import evaluate
from service.levels import Level
from service.preview import PreviewTally
from service.signals import Activity, Dates, JoinedAtSource
from service.thresholds import Thresholds, check
from service.timeline import Case, Override, is_scored

# Small enough that whoever shares the event loop waits 30 ms at the most.
PAGE: Final = 1_000

SELECT_PAGE: Final = """
SELECT m.member_id, m.user_id, s.display_name, s.status, s.joined_at,
       e.override_level, e.overridden_at, e.override_expires_at,
       a.recent, a.before, a.first, r.recent, r.before, r.first, p.recent, p.before
FROM (
    SELECT member_id, user_id FROM member
    WHERE org_id = $1 AND member_id > $2 ORDER BY member_id LIMIT $3
) m
JOIN engagement e ON e.member_id = m.member_id
LEFT JOIN membership_fact s ON s.member_id = m.member_id
CROSS JOIN LATERAL (
    SELECT array_agg(f.occurred_at ORDER BY f.occurred_at)
               FILTER (WHERE f.occurred_at > $4) AS recent,
           max(f.occurred_at) FILTER (WHERE f.occurred_at <= $4) AS before,
           min(f.occurred_at) AS first
    FROM attendance_fact f
    WHERE f.member_id = m.member_id AND f.status IN ('attended', 'partial')
) a
CROSS JOIN LATERAL (
    SELECT array_agg(f.responded_at ORDER BY f.responded_at)
               FILTER (WHERE f.responded_at > $4) AS recent,
           max(f.responded_at) FILTER (WHERE f.responded_at <= $4) AS before,
           min(f.responded_at) AS first
    FROM rsvp_fact f WHERE f.member_id = m.member_id AND f.response = 'going'
) r
CROSS JOIN LATERAL (
    SELECT array_agg(f.updated_at ORDER BY f.updated_at)
               FILTER (WHERE f.updated_at > $4) AS recent,
           max(f.updated_at) FILTER (WHERE f.updated_at <= $4) AS before
    FROM profile_fact f WHERE f.user_id = m.user_id AND f.actor = 'member'
) p
ORDER BY m.member_id"""


class Previewing:
    """Previews thresholds. `model`: whose stored verdicts count; None without Claude."""

    def __init__(self, *, implicit_membership: bool, model: str | None) -> None:
        self._implicit_membership = implicit_membership
        self._model = model

    async def preview(
        self,
        connection: Connection,
        org_id: str,
        thresholds: Thresholds,
        as_of: datetime | None = None,
    ) -> ThresholdsPreview:
        """What saving these numbers would do, now or at `as_of`; writes nothing.

        At an instant of one's own choice by the rules alone, without overrides. Of a suspended
        organisation: what they would do once it is active again. Raises InvalidThresholds.
        """
        after = check(thresholds._replace(version=0))
        before = await versions.in_force(connection, org_id)
        at = as_of or await offsets.read_now(connection)
        organization = (await read_organizations(connection, {org_id}))[org_id]
        tally = PreviewTally(before, after, at)
        situations: set[Situation] = set()
        if organization.status == "deleted":
            return tally.result(claude_calls=0)
        horizon = at - max(before.window, after.window)
        async for rows in _pages(connection, org_id, horizon):
            for row in rows:
                activity, is_active = self._activity(row)
                case = Case(activity, after, is_active)
                if not is_scored(case, at):
                    continue
                override = None if as_of is not None else _override(row)
                tally.add(row[1], row[2], activity, override)
                if tally.is_other and self._model is not None and override is None:
                    situations.add(situation_of(evaluate(case, at), after))
        return tally.result(claude_calls=await self._missing(connection, situations))

    async def _missing(self, connection: Connection, situations: set[Situation]) -> int:
        if self._model is None or not situations:
            return 0
        keys = {verdict_key(situation, self._model) for situation in situations}
        return await verdicts.count_missing(connection, keys)

    def _activity(self, row: Any) -> tuple[Activity, bool]:
        status, joined_at = row[3], row[4]
        source: JoinedAtSource | None = JoinedAtSource.MEMBERSHIP
        if status is None:
            joined_at = min((at for at in (row[10], row[13]) if at is not None), default=None)
            source = None if joined_at is None else JoinedAtSource.INFERRED
        activity = Activity(
            Dates(row[8] or (), row[9]),
            Dates(row[11] or (), row[12]),
            Dates(row[14] or (), row[15]),
            joined_at,
            source,
        )
        is_active = status == "active" or (status is None and self._implicit_membership)
        return activity, is_active


def _override(row: Any) -> Override | None:
    return None if row[5] is None else Override(Level(row[5]), row[6], row[7])


async def _pages(
    connection: Connection, org_id: str, horizon: datetime
) -> AsyncIterator[list[Any]]:
    """Pages in order of members; the next one is on its way while a page is worked on."""
    rows = await connection.fetch(SELECT_PAGE, org_id, 0, PAGE, horizon)
    while len(rows) == PAGE:
        following = asyncio.create_task(
            connection.fetch(SELECT_PAGE, org_id, rows[-1][0], PAGE, horizon)
        )
        # Lets the request go out before the page keeps this thread busy.
        await asyncio.sleep(0)
        try:
            yield rows
        except BaseException:
            following.cancel()
            raise
        rows = await following
    yield rows
