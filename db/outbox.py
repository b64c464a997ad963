"""Published states on their way to Kafka: read in order, deleted once acknowledged."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final, NamedTuple

from db.pool import Connection

# By its instant as well: a standby in the place of a lost server may lack the latest rows, and
# gives their numbers to others.
DELETE_SENT: Final = """
DELETE FROM outbox WHERE outbox_id = ANY ($1::bigint[]) AND created_at = ANY ($2::timestamptz[])"""

# What is read may not be on the disk yet, since evaluations do not wait for it: this commit does,
# and writes something even where nothing is deleted, because it would not wait else. The snapshot
# is of before the deletion. Not `<> ALL`: a plan that is kept would compare each with each.
NEXT_PAGE: Final = f"""
WITH deleted AS ({DELETE_SENT})
SELECT outbox_id, revision, created_at, message_key, level_body, change_body,
       (SELECT pg_logical_emit_message(true, 'outbox', ''))
FROM outbox
WHERE outbox_id NOT IN (SELECT unnest($1::bigint[])) OR created_at <> ALL ($2::timestamptz[])
ORDER BY outbox_id LIMIT $3"""  # noqa: S608 - made of constants

SELECT_CLOCK_MS: Final = "SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint"

# By index, since a scan would go over all that was sent already.
ANY_WAITING: Final = "SELECT (SELECT min(outbox_id) FROM outbox) IS NOT NULL"

BACKLOG: Final = """
SELECT count(*), coalesce(extract(epoch FROM engagement_now() - min(created_at)), 0)::float8
FROM outbox"""


class OutboxRow(NamedTuple):
    """One published state. `level_body` None is the tombstone, `change_body` None no change."""

    outbox_id: int
    revision: int
    created_at: datetime
    message_key: str
    level_body: bytes | None
    change_body: bytes | None


class Sent(NamedTuple):
    """Rows that Kafka has acknowledged: their numbers, and the instants they are of."""

    outbox_ids: Sequence[int]
    instants: Sequence[datetime]


NOTHING_SENT: Final = Sent((), ())


def sent_of(rows: Sequence[OutboxRow]) -> Sent:
    """What to hand in once these are acknowledged."""
    return Sent([row.outbox_id for row in rows], list({row.created_at for row in rows}))


async def next_page(connection: Connection, sent: Sent, limit: int) -> list[OutboxRow]:
    """The oldest rows, once those that Kafka has acknowledged are deleted. Idempotent.

    Of one member they come in revision order, since its row was locked. No crash takes them back:
    call it outside any transaction, so that its commit has waited for the disk.
    """
    return [OutboxRow(*row[:6]) for row in await connection.fetch(NEXT_PAGE, *sent, limit)]


async def delete_sent(connection: Connection, sent: Sent) -> None:
    """Forget rows that Kafka has acknowledged. Idempotent."""
    if sent.outbox_ids:
        await connection.execute(DELETE_SENT, *sent)


async def clock_ms(connection: Connection) -> int:
    """The database's real clock in milliseconds, as Kafka dates records.

    Not the relay's own: brokers refuse what is dated an hour ahead of theirs.
    """
    now: int = await connection.fetchval(SELECT_CLOCK_MS)
    return now


async def any_waiting(connection: Connection) -> bool:
    """Whether there is something that Kafka has not acknowledged. For those who ask often."""
    waiting: bool = await connection.fetchval(ANY_WAITING)
    return waiting


async def backlog(connection: Connection) -> tuple[int, float]:
    """Rows that wait, and the age of the oldest in seconds. Counts them one by one."""
    rows = await connection.fetch(BACKLOG)
    count, age_s = rows[0]
    return count, age_s
