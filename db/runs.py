"""Runs of the daily recompute: one row per slot, whoever comes first, and what came of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

from db import claude_usage, offsets
from db.claude_usage import Totals
from db.pool import Connection

JOB: Final = "compute-engagement-scores"

SEE_JOB: Final = """
INSERT INTO batch_job (job, first_seen_at) VALUES ($1, engagement_now()) ON CONFLICT DO NOTHING"""
SELECT_FIRST_SEEN: Final = "SELECT first_seen_at FROM batch_job WHERE job = $1"

CLAIM_SLOT: Final = """
INSERT INTO batch_run (job, slot) SELECT $1, $2
WHERE NOT EXISTS (SELECT FROM batch_run WHERE job = $1 AND slot >= $2)
ON CONFLICT DO NOTHING RETURNING slot"""

KEEP_CLAUDE_BEFORE: Final = """
UPDATE batch_run SET claude_before = $3::jsonb WHERE job = $1 AND slot = $2"""

# Only the latest slot is worked off; whatever an older run had left is in it.
SUPERSEDE: Final = """
UPDATE batch_run SET status = 'superseded', finished_at = engagement_now(),
    ended_clock = clock_timestamp()
WHERE job = $1 AND slot < $2 AND status = 'running'"""

ADD_PAGES: Final = """
INSERT INTO batch_page (job, slot, block)
SELECT DISTINCT $1, $2::timestamptz, member_block(member_id) FROM engagement"""

SELECT_RUNNING: Final = """
SELECT slot FROM batch_run WHERE job = $1 AND status = 'running' ORDER BY slot DESC LIMIT 1"""

# Whoever ends the last page ends the run, once.
END_RUN: Final = """
UPDATE batch_run r SET
    status = CASE WHEN c.failed > 0 THEN 'incomplete' ELSE 'done' END,
    finished_at = engagement_now(), ended_clock = clock_timestamp(),
    summary = jsonb_build_object(
        'organizations', (SELECT count(DISTINCT e.org_id) FROM engagement e
                          LEFT JOIN organization_fact o USING (org_id)
                          WHERE coalesce(o.status, 'active') = 'active'),
        'members', (SELECT coalesce(sum(members), 0) FROM batch_page
                    WHERE job = $1 AND slot = $2),
        'evaluated', c.evaluated, 'changed', c.changed, 'published', c.publications,
        'missed_by_clock', c.missed_by_clock, 'failed', c.failed,
        'failed_organizations', (SELECT count(DISTINCT org_id)
                                 FROM batch_chunk, unnest(failed_org_ids) AS org_id
                                 WHERE job = $1 AND slot = $2),
        'seconds', round(extract(epoch FROM clock_timestamp() - r.began_clock), 1))
FROM (
    SELECT coalesce(sum(evaluated), 0) AS evaluated, coalesce(sum(changed), 0) AS changed,
           coalesce(sum(publications), 0) AS publications,
           coalesce(sum(missed_by_clock), 0) AS missed_by_clock,
           coalesce(sum(failed), 0) AS failed
    FROM batch_chunk WHERE job = $1 AND slot = $2
) AS c
WHERE r.job = $1 AND r.slot = $2 AND r.status = 'running'
  AND NOT EXISTS (SELECT FROM batch_page p
                  WHERE p.job = $1 AND p.slot = $2 AND p.done_at IS NULL)
RETURNING r.claude_before::text"""

ADD_CLAUDE: Final = """
UPDATE batch_run SET summary = summary || $3::jsonb WHERE job = $1 AND slot = $2
RETURNING summary::text"""

SELECT_ENDED: Final = """
SELECT slot, claude_before::text FROM batch_run
WHERE job = $1 AND slot < $2 AND status <> 'running' ORDER BY slot DESC LIMIT 1"""

KEEP_CLAUDE: Final = """
UPDATE batch_run SET summary = summary || $3::jsonb
WHERE job = $1 AND slot = $2 AND NOT summary @> $3::jsonb"""

SELECT_RUNS: Final = """
SELECT r.slot, r.status, r.started_at, r.finished_at, r.summary::text,
       p.pages, p.surveyed, p.done, p.members, c.chunks, c.done, c.evaluated, c.changed,
       r.claude_before::text,
       (SELECT n.claude_before::text FROM batch_run n
        WHERE n.job = r.job AND n.slot > r.slot AND n.claude_before IS NOT NULL
        ORDER BY n.slot LIMIT 1)
FROM batch_run r
CROSS JOIN LATERAL (
    SELECT count(*) AS pages, count(surveyed_at) AS surveyed, count(done_at) AS done,
           coalesce(sum(members), 0)::bigint AS members
    FROM batch_page p WHERE p.job = r.job AND p.slot = r.slot
) p
CROSS JOIN LATERAL (
    SELECT count(*) AS chunks, count(done_at) AS done,
           coalesce(sum(evaluated), 0)::bigint AS evaluated,
           coalesce(sum(changed), 0)::bigint AS changed
    FROM batch_chunk c WHERE c.job = r.job AND c.slot = r.slot
) c
WHERE r.job = $1 ORDER BY r.slot DESC LIMIT $2"""


SELECT_GAUGES: Final = """
SELECT r.slot,
       (SELECT count(*) FROM batch_page p
        WHERE p.job = $1 AND p.slot = r.slot AND p.done_at IS NULL),
       (SELECT count(*) FROM engagement e WHERE e.override_level IS NOT NULL
          AND (e.override_expires_at IS NULL OR e.override_expires_at > engagement_now()))
FROM (SELECT max(slot) AS slot FROM batch_run WHERE job = $1) r"""


class Gauges(NamedTuple):
    """For metrics: the latest slot, its pages that are not done, overrides in effect."""

    slot: datetime | None
    open_pages: int
    overrides: int


class RunStatus(NamedTuple):
    """One run and how far it is; the counts of pages and chunks are those that are left.

    Claude's figures in `summary` go on until the next run begins, since answers come after the
    run's last page.
    """

    slot: datetime
    status: str
    started_at: datetime
    finished_at: datetime | None
    summary: Mapping[str, Any]
    pages: int
    pages_surveyed: int
    pages_done: int
    members: int
    chunks: int
    chunks_done: int
    evaluated: int
    changed: int


async def due_slot(
    connection: Connection, slot_of: Callable[[datetime], datetime]
) -> datetime | None:
    """The slot that is being worked off, after claiming the latest one if nobody has.

    In the caller's transaction, which does nothing else. `slot_of` gives the latest slot at or
    before an instant. Slots from before anybody looked after the job are nobody's; of several
    missed ones only the latest is run.
    """
    slot = slot_of(await offsets.read_now(connection))
    first_seen_at = await connection.fetchval(SELECT_FIRST_SEEN, JOB)
    if first_seen_at is None:
        await connection.execute(SEE_JOB, JOB)
        first_seen_at = await connection.fetchval(SELECT_FIRST_SEEN, JOB)
    if slot > first_seen_at and await connection.fetchval(CLAIM_SLOT, JOB, slot) is not None:
        before = await claude_usage.totals(connection)
        await connection.execute(KEEP_CLAUDE_BEFORE, JOB, slot, before.to_json())
        await connection.execute(SUPERSEDE, JOB, slot)
        await _keep_claude_figures(connection, slot, before)
        await connection.execute(ADD_PAGES, JOB, slot)
    running: datetime | None = await connection.fetchval(SELECT_RUNNING, JOB)
    return running


async def end(connection: Connection, slot: datetime) -> Mapping[str, Any] | None:
    """End the run if no page is left; its summary for whoever ended it, else None.

    With what Claude did so far; `keep_claude_figures` adds what it does from now on.
    """
    row = await connection.fetchrow(END_RUN, JOB, slot)
    if row is None:
        return None
    figures = _claude_figures(row[0], await claude_usage.totals(connection))
    text = await connection.fetchval(ADD_CLAUDE, JOB, slot, json.dumps(figures))
    summary: Mapping[str, Any] = json.loads(text)
    return summary


async def keep_claude_figures(connection: Connection) -> None:
    """Bring Claude's figures in the latest summary up to date: answers come after the last page.

    Idempotent. Those of a run that another has followed stand still.
    """
    running = await connection.fetchval(SELECT_RUNNING, JOB)
    if running is None:
        totals = await claude_usage.totals(connection)
        await _keep_claude_figures(connection, datetime.max.replace(tzinfo=UTC), totals)


async def _keep_claude_figures(connection: Connection, before: datetime, totals: Totals) -> None:
    row = await connection.fetchrow(SELECT_ENDED, JOB, before)
    if row is not None and (figures := _claude_figures(row[1], totals)):
        await connection.execute(KEEP_CLAUDE, JOB, row[0], json.dumps(figures))


async def latest(connection: Connection, limit: int) -> list[RunStatus]:
    """The latest runs, newest first."""
    rows = await connection.fetch(SELECT_RUNS, JOB, limit)
    now = await claude_usage.totals(connection)
    found = []
    for *row, before, after in rows:
        until = now if after is None else Totals.from_json(after)
        run = RunStatus(*row)
        summary = json.loads(row[4]) | _claude_figures(before, until)
        found.append(run._replace(summary=summary))
    return found


async def gauges(connection: Connection) -> Gauges:
    """What the metrics tell of runs and overrides."""
    row = await connection.fetchrow(SELECT_GAUGES, JOB)
    assert row is not None
    return Gauges(*row)


def _claude_figures(before: str | None, until: Totals) -> dict[str, Any]:
    """None of a run that an older release began: nobody knows what was spent before it."""
    return {} if before is None else until.since(Totals.from_json(before))
