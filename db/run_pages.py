"""Pages and chunks of a run, shared by all workers; organisations that fail.

Whoever holds an unexpired lease works. Leases and retries are about processes, so they run on the
database's real clock. A lease tells who should work, it stops nobody: doing a page twice does no
harm, and only its holder may close it. Evaluating a chunk keeps its row locked, so that work which
takes longer than the lease is not begun by another, and is counted.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from typing import Final, NamedTuple
from uuid import UUID

from db.pool import Connection
from db.runs import JOB

LEASE: Final = timedelta(seconds=30)
# An organisation that fails is tried again after 20, 40, 80, 160 s, and then given up.
MAX_ATTEMPTS: Final = 5
FIRST_RETRY: Final = timedelta(seconds=20)
MAX_ERROR: Final = 500
CHUNK: Final = 1_000

TAKE_PAGE: Final = """
WITH free AS MATERIALIZED (
    SELECT block FROM batch_page p
    WHERE job = $1 AND slot = $2 AND done_at IS NULL
      AND (leased_until IS NULL OR leased_until < clock_timestamp())
      AND (surveyed_at IS NULL OR NOT EXISTS (
          SELECT FROM batch_chunk c WHERE c.job = p.job AND c.slot = p.slot AND c.block = p.block
            AND c.done_at IS NULL))
    ORDER BY surveyed_at, block LIMIT 1 FOR UPDATE SKIP LOCKED
)
UPDATE batch_page p SET owner = $3, leased_until = clock_timestamp() + $4 FROM free
WHERE p.job = $1 AND p.slot = $2 AND p.block = free.block
RETURNING p.block, p.surveyed_at"""

EXTEND_PAGE: Final = """
UPDATE batch_page SET leased_until = clock_timestamp() + $5
WHERE job = $1 AND slot = $2 AND block = $3 AND owner = $4 AND done_at IS NULL"""

# Only the first survey of a page counts; one that was thought lost must not add its chunks.
SURVEYED: Final = """
UPDATE batch_page SET surveyed_at = $5, members = $6, leased_until = NULL
WHERE job = $1 AND slot = $2 AND block = $3 AND owner = $4 AND surveyed_at IS NULL
RETURNING block"""

ADD_CHUNK: Final = """
INSERT INTO batch_chunk (job, slot, block, chunk, member_ids) VALUES ($1, $2, $3, $4, $5)"""

END_PAGE: Final = """
UPDATE batch_page SET done_at = engagement_now(), leased_until = NULL
WHERE job = $1 AND slot = $2 AND block = $3 AND owner = $4 AND done_at IS NULL
RETURNING members"""

SELECT_FAILED_ORGANIZATIONS: Final = """
SELECT DISTINCT org_id FROM batch_chunk, unnest(failed_org_ids) AS org_id
WHERE job = $1 AND slot = $2 AND block = $3"""

TAKE_CHUNK: Final = """
WITH free AS MATERIALIZED (
    SELECT block, chunk FROM batch_chunk
    WHERE job = $1 AND slot = $2 AND done_at IS NULL
      AND (leased_until IS NULL OR leased_until < clock_timestamp())
      AND (retry_at IS NULL OR retry_at <= clock_timestamp())
    ORDER BY block, chunk LIMIT 1 FOR UPDATE SKIP LOCKED
)
UPDATE batch_chunk c SET owner = $3, leased_until = clock_timestamp() + $4 FROM free
WHERE c.job = $1 AND c.slot = $2 AND c.block = free.block AND c.chunk = free.chunk
RETURNING c.block, c.chunk, c.attempts, c.member_ids"""

HOLD_CHUNK: Final = """
SELECT FROM batch_chunk
WHERE job = $1 AND slot = $2 AND block = $3 AND chunk = $4 AND owner = $5 AND done_at IS NULL
FOR NO KEY UPDATE"""

COUNT_ON_CHUNK: Final = """
UPDATE batch_chunk SET evaluated = evaluated + $6, changed = changed + $7,
    publications = publications + $8, missed_by_clock = missed_by_clock + $9
WHERE job = $1 AND slot = $2 AND block = $3 AND chunk = $4 AND owner = $5 AND done_at IS NULL"""

END_CHUNK: Final = """
UPDATE batch_chunk SET done_at = engagement_now(), leased_until = NULL, member_ids = '{}',
    failed = $6, failed_org_ids = $7
WHERE job = $1 AND slot = $2 AND block = $3 AND chunk = $4 AND owner = $5 AND done_at IS NULL"""

DEFER_CHUNK: Final = """
UPDATE batch_chunk SET leased_until = NULL, attempts = attempts + 1, member_ids = $6,
    retry_at = clock_timestamp() + $7::interval * power(2, attempts)
WHERE job = $1 AND slot = $2 AND block = $3 AND chunk = $4 AND owner = $5 AND done_at IS NULL"""

LET_GO_OF_PAGES: Final = """
UPDATE batch_page SET leased_until = NULL WHERE owner = $1 AND done_at IS NULL"""
# What another loop of ours is evaluating is locked, and done in a moment.
LET_GO_OF_CHUNKS: Final = """
WITH ours AS MATERIALIZED (
    SELECT job, slot, block, chunk FROM batch_chunk WHERE owner = $1 AND done_at IS NULL
    FOR NO KEY UPDATE SKIP LOCKED
)
UPDATE batch_chunk c SET leased_until = NULL FROM ours o
WHERE (c.job, c.slot, c.block, c.chunk) = (o.job, o.slot, o.block, o.chunk)"""

COUNT_FAILURE: Final = """
INSERT INTO batch_failure AS f (job, slot, org_id, retry_at, error)
VALUES ($1, $2, $3, clock_timestamp() + $4::interval, $5)
ON CONFLICT (job, slot, org_id) DO UPDATE
SET attempts = f.attempts + 1, error = excluded.error,
    retry_at = clock_timestamp() + $4::interval * power(2, least(f.attempts, 10))
WHERE f.retry_at <= clock_timestamp()"""

SELECT_FAILURES: Final = """
SELECT org_id, attempts, retry_at, error, retry_at > clock_timestamp() AS waits
FROM batch_failure WHERE job = $1 AND slot = $2 ORDER BY org_id"""

FORGIVE: Final = """
DELETE FROM batch_failure WHERE job = $1 AND slot = $2 AND org_id = ANY ($3::text[])"""


class Page(NamedTuple):
    """One block of members in one slot. `surveyed_at` set: all its chunks are done."""

    slot: datetime
    owner: UUID
    block: int
    surveyed_at: datetime | None


class Chunk(NamedTuple):
    """Members of one page to evaluate."""

    slot: datetime
    owner: UUID
    block: int
    number: int
    attempts: int
    member_ids: Sequence[int]

    @property
    def is_last_attempt(self) -> bool:
        """Whether who fails now is given up for this slot."""
        return self.attempts + 1 >= MAX_ATTEMPTS


class Counts(NamedTuple):
    """What evaluating came to; the meaning of each is in the table."""

    evaluated: int = 0
    changed: int = 0
    publications: int = 0
    missed_by_clock: int = 0


class Failure(NamedTuple):
    """An organisation that could not be evaluated in this slot; `waits`: leave it alone for now."""

    org_id: str
    attempts: int
    retry_at: datetime
    error: str
    waits: bool


async def take_page(connection: Connection, slot: datetime, owner: UUID) -> Page | None:
    """A page to survey or to close that nobody holds, or None at present."""
    row = await connection.fetchrow(TAKE_PAGE, JOB, slot, owner, LEASE)
    return None if row is None else Page(slot, owner, *row)


async def extend_page(connection: Connection, page: Page) -> None:
    """Hold on to a page for longer; nothing happens if it is somebody else's by now."""
    await connection.execute(EXTEND_PAGE, JOB, page.slot, page.block, page.owner, LEASE)


async def add_survey(
    connection: Connection,
    page: Page,
    surveyed_at: datetime,
    members: int,
    differing: Sequence[int],
) -> bool:
    """Keep what a survey found, in the caller's transaction; False when it is somebody else's."""
    key = (JOB, page.slot, page.block)
    if await connection.fetchval(SURVEYED, *key, page.owner, surveyed_at, members) is None:
        return False
    chunks = [differing[i : i + CHUNK] for i in range(0, len(differing), CHUNK)]
    await connection.executemany(ADD_CHUNK, [(*key, n, ids) for n, ids in enumerate(chunks)])
    return True


async def end_page(connection: Connection, page: Page) -> int | None:
    """The page is done: for how many members; None when it is somebody else's by now."""
    members: int | None = await connection.fetchval(
        END_PAGE, JOB, page.slot, page.block, page.owner
    )
    return members


async def failed_organizations(connection: Connection, page: Page) -> list[str]:
    """Organisations with members on this page who were given up."""
    rows = await connection.fetch(SELECT_FAILED_ORGANIZATIONS, JOB, page.slot, page.block)
    return [row[0] for row in rows]


async def take_chunk(connection: Connection, slot: datetime, owner: UUID) -> Chunk | None:
    """A chunk that nobody holds and that does not wait for a retry, or None at present."""
    row = await connection.fetchrow(TAKE_CHUNK, JOB, slot, owner, LEASE)
    return None if row is None else Chunk(slot, owner, *row)


async def hold_chunk(connection: Connection, chunk: Chunk) -> bool:
    """Keep a chunk from others until the transaction ends; False when it is somebody else's."""
    return await connection.fetchrow(HOLD_CHUNK, *_key(chunk)) is not None


async def count_on_chunk(connection: Connection, chunk: Chunk, counts: Counts) -> None:
    """Add to a chunk's counts, in the transaction that did the work."""
    await connection.execute(COUNT_ON_CHUNK, *_key(chunk), *counts)


async def end_chunk(
    connection: Connection, chunk: Chunk, failed: int, failed_org_ids: Collection[str]
) -> None:
    """The chunk is done, but for members who were given up."""
    await connection.execute(END_CHUNK, *_key(chunk), failed, sorted(failed_org_ids))


async def defer_chunk(connection: Connection, chunk: Chunk, member_ids: Sequence[int]) -> None:
    """Try these members of the chunk again later; it waits twice as long each time."""
    await connection.execute(DEFER_CHUNK, *_key(chunk), list(member_ids), FIRST_RETRY)


async def let_go(connection: Connection, owner: UUID) -> None:
    """Let go of what this worker holds and is not at, so that others go on at once."""
    await connection.execute(LET_GO_OF_PAGES, owner)
    await connection.execute(LET_GO_OF_CHUNKS, owner)


async def count_failure(connection: Connection, slot: datetime, org_id: str, error: str) -> None:
    """An organisation failed: it is left alone for twice as long each time."""
    await connection.execute(COUNT_FAILURE, JOB, slot, org_id, FIRST_RETRY, error[:MAX_ERROR])


async def failures(connection: Connection, slot: datetime) -> dict[str, Failure]:
    """Organisations that failed in this slot and have not succeeded since."""
    rows = await connection.fetch(SELECT_FAILURES, JOB, slot)
    return {row[0]: Failure(*row) for row in rows}


async def forgive(connection: Connection, slot: datetime, org_ids: Collection[str]) -> None:
    """Organisations that failed have succeeded."""
    await connection.execute(FORGIVE, JOB, slot, list(org_ids))


def _key(chunk: Chunk) -> tuple[str, datetime, int, int, UUID]:
    return (JOB, chunk.slot, chunk.block, chunk.number, chunk.owner)
