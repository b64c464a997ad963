"""How far each partition is applied, and who may apply it: the truth about offsets.

A claim raises the partition's epoch; a batch moves `next_offset` only under the epoch it was
claimed with and only from where it starts. Both belong to the transaction that applies the batch,
so a worker that was paused, cut off or replaced can neither apply twice nor skip.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple, NoReturn
from uuid import UUID

from db.pool import Connection
from service.errors import Fenced, OutOfSequence


class Claim(NamedTuple):
    """The right to apply one partition from `next_offset` on, until somebody claims it anew."""

    topic: str
    partition: int
    next_offset: int
    epoch: int
    consecutive_failures: int
    stopped_at: datetime | None
    fingerprint: int | None


class Move(NamedTuple):
    """What a batch does to its partition: the offset goes from `start` to `end`.

    `fingerprint`: of the record right before `end`, or None. `stop`: until somebody resumes it.
    """

    claim: Claim
    start: int
    end: int
    consecutive_failures: int = 0
    fingerprint: int | None = None
    stop: bool = False


class Stored(NamedTuple):
    """What the database says of a partition."""

    next_offset: int
    epoch: int
    consecutive_failures: int
    stopped_at: datetime | None


BEGIN: Final = """
INSERT INTO stream_offset (topic, partition, next_offset)
SELECT topic, partition, start
FROM unnest($1::text[], $2::int[], $3::bigint[]) AS wanted (topic, partition, start)
ORDER BY topic, partition
ON CONFLICT (topic, partition) DO NOTHING"""

# Rows that a transaction of the former owner still holds are left out: if that worker is frozen,
# the server ends the transaction, but the other partitions need not wait for it.
CLAIM: Final = """
UPDATE stream_offset s
SET epoch = s.epoch + 1, owner = $3, generation = $4, updated_at = engagement_now()
FROM (
    SELECT o.topic, o.partition
    FROM unnest($1::text[], $2::int[]) AS wanted (topic, partition)
    JOIN stream_offset o USING (topic, partition)
    ORDER BY o.topic, o.partition FOR UPDATE OF o SKIP LOCKED
) AS free
WHERE s.topic = free.topic AND s.partition = free.partition
RETURNING s.topic, s.partition, s.next_offset, s.epoch, s.consecutive_failures, s.stopped_at,
          s.fingerprint"""

# The commit does not wait for the disk: what a crash takes away, offset and effect together, is
# read from Kafka again. The relay waits for the disk before it publishes, and so for whatever the
# results are based on; so do claims, whose epochs must never be given twice.
ADVANCE: Final = """
UPDATE stream_offset s
SET next_offset = m.until, consecutive_failures = m.failures, fingerprint = m.fingerprint,
    updated_at = engagement_now(), stopped_at = CASE WHEN m.stop THEN engagement_now() END
FROM unnest($1::text[], $2::int[], $3::bigint[], $4::bigint[], $5::bigint[], $6::int[],
            $7::bigint[], $8::boolean[])
    AS m (topic, partition, epoch, start, until, failures, fingerprint, stop)
WHERE s.topic = m.topic AND s.partition = m.partition
  AND s.epoch = m.epoch AND s.next_offset = m.start
RETURNING engagement_now(), s.topic, s.partition,
    set_config('synchronous_commit', 'off', true)"""

SELECT_ONE: Final = """
SELECT next_offset, epoch, consecutive_failures, stopped_at
FROM stream_offset WHERE topic = $1 AND partition = $2"""

SELECT_ALL: Final = """
SELECT topic, partition, next_offset, epoch, owner, generation, consecutive_failures, stopped_at,
       updated_at
FROM stream_offset ORDER BY topic, partition"""

SET_OFFSET: Final = """
UPDATE stream_offset SET next_offset = $4, fingerprint = NULL, updated_at = engagement_now()
WHERE topic = $1 AND partition = $2 AND epoch = $3
RETURNING next_offset"""

STOP: Final = """
UPDATE stream_offset
SET stopped_at = coalesce(stopped_at, engagement_now()), next_offset = $4, fingerprint = NULL,
    updated_at = engagement_now()
WHERE topic = $1 AND partition = $2 AND epoch = $3
RETURNING stopped_at"""

RESUME: Final = """
UPDATE stream_offset SET stopped_at = NULL, consecutive_failures = 0, epoch = epoch + 1
WHERE stopped_at IS NOT NULL AND ($1::text IS NULL OR topic = $1)
  AND ($2::int IS NULL OR partition = $2)
RETURNING topic, partition, next_offset"""

INSERT_INCIDENT: Final = """
INSERT INTO incident (kind, topic, partition, details) VALUES ($1, $2, $3, $4::jsonb)"""

SELECT_NOW: Final = "SELECT engagement_now()"

TAKES_WRITES: Final = """
SELECT NOT pg_is_in_recovery() AND current_setting('transaction_read_only') = 'off'"""


async def claim(
    connection: Connection,
    starts: Mapping[tuple[str, int], int],
    *,
    owner: UUID,
    generation: int,
) -> list[Claim]:
    """Claim partitions; `starts` gives where one that was never read begins.

    In order. The last claim wins: whoever held one of them before is fenced from now on.
    Partitions that the former owner is writing to at this moment are not among the result.
    """
    topics = [topic for topic, _ in starts]
    partitions = [partition for _, partition in starts]
    await connection.execute(BEGIN, topics, partitions, list(starts.values()))
    rows = await connection.fetch(CLAIM, topics, partitions, owner, generation)
    return sorted(Claim(*row) for row in rows)


async def advance(connection: Connection, moves: Sequence[Move]) -> datetime:
    """Move the offsets of different partitions; returns the transaction's instant.

    First statement of the transaction that applies the batches. Raises Fenced or OutOfSequence
    when one of them cannot be moved: then none may be.
    """
    rows = await connection.fetch(ADVANCE, *columns_of(moves))
    moved = {(topic, partition) for _, topic, partition, _ in rows}
    for claim, start, *_ in moves:
        if (claim.topic, claim.partition) not in moved:
            await _explain(connection, claim, start)
    now: datetime = rows[0][0]
    return now


def columns_of(moves: Sequence[Move]) -> list[tuple[Any, ...]]:
    """The parameters of ADVANCE."""
    rows = [(move.claim.topic, move.claim.partition, move.claim.epoch, *move[1:]) for move in moves]
    return list(zip(*rows, strict=True)) or [()] * (2 + len(Move._fields))


async def _explain(connection: Connection, claimed: Claim, offset: int) -> NoReturn:
    """Why a partition could not be moved from `offset`. Raises Fenced or OutOfSequence."""
    stored = await read(connection, claimed.topic, claimed.partition)
    name = f"{claimed.topic}/{claimed.partition}"
    if stored is None or stored.epoch != claimed.epoch:
        raise Fenced(f"{name} was claimed by another worker")
    if stored.next_offset != offset:
        raise OutOfSequence(f"{name} stands at {stored.next_offset}, not at {offset}")
    raise OutOfSequence(f"{name} moved while we looked")


async def read(connection: Connection, topic: str, partition: int) -> Stored | None:
    """Where the partition stands, or None if it was never claimed."""
    row = await connection.fetchrow(SELECT_ONE, topic, partition)
    return None if row is None else Stored(*row)


async def read_all(connection: Connection) -> list[dict[str, Any]]:
    """Every partition's row, for `doctor` and the probes."""
    return [dict(row) for row in await connection.fetch(SELECT_ALL)]


async def move(connection: Connection, claimed: Claim, offset: int) -> None:
    """Set the offset of a claimed partition, after records were lost. Raises Fenced."""
    moved = await connection.fetchval(
        SET_OFFSET, claimed.topic, claimed.partition, claimed.epoch, offset
    )
    if moved is None:
        raise Fenced(f"{claimed.topic}/{claimed.partition} was claimed by another worker")


async def stop(connection: Connection, claimed: Claim, restart_at: int) -> datetime:
    """Stop a claimed partition until somebody resumes it, which then begins at `restart_at`.

    Raises Fenced. Idempotent.
    """
    stopped_at: datetime | None = await connection.fetchval(
        STOP, claimed.topic, claimed.partition, claimed.epoch, restart_at
    )
    if stopped_at is None:
        raise Fenced(f"{claimed.topic}/{claimed.partition} was claimed by another worker")
    return stopped_at


async def resume(
    connection: Connection, topic: str | None, partition: int | None
) -> Collection[tuple[str, int, int]]:
    """Let stopped partitions go on; (topic, partition, next_offset) of each. Idempotent.

    Raising the epoch makes the owner claim anew, so that it learns of it.
    """
    return [tuple(row) for row in await connection.fetch(RESUME, topic, partition)]


async def record_incident(
    connection: Connection, kind: str, topic: str, partition: int, details: str
) -> None:
    """Keep what a person has to look at; `details` is JSON text."""
    await connection.execute(INSERT_INCIDENT, kind, topic, partition, details)


async def read_now(connection: Connection) -> datetime:
    """The database's clock."""
    now: datetime = await connection.fetchval(SELECT_NOW)
    return now


async def takes_writes(connection: Connection) -> bool:
    """Whether this is a primary that lets us write."""
    return bool(await connection.fetchval(TAKES_WRITES))
