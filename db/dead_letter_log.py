"""Looking through dead letters, and remembering which were sent again."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple

from db.dead_letters import DeadLetterRow, decode_headers
from db.pool import Connection


class Choice(NamedTuple):
    """Which dead letters; None means any. `waiting`: those that were never replayed."""

    topic: str | None = None
    partition: int | None = None
    offset: int | None = None
    code: str | None = None
    since: datetime | None = None
    waiting: bool = False


class StoredDeadLetter(NamedTuple):
    """A dead letter and what became of it. An erased one has lost its key, value and headers."""

    letter: DeadLetterRow
    published_at: datetime | None
    replayed_at: datetime | None
    erased_at: datetime | None


_CHOSEN: Final = """
FROM dead_letter
WHERE ($1::text IS NULL OR topic = $1) AND ($2::int IS NULL OR partition = $2)
  AND ($3::bigint IS NULL OR "offset" = $3) AND ($4::text IS NULL OR code = $4)
  AND ($5::timestamptz IS NULL OR failed_at >= $5)
  AND NOT ($6 AND (replayed_at IS NOT NULL OR erased_at IS NOT NULL))"""

_COLUMNS: Final = """
topic, partition, "offset", code, message, key, value, headers, org_id, user_id, failed_at,
published_at, replayed_at, erased_at"""

COUNT: Final = f"SELECT code, count(*) {_CHOSEN} GROUP BY code ORDER BY count(*) DESC, code"

SELECT_NEWEST: Final = f"""
SELECT {_COLUMNS} {_CHOSEN} ORDER BY failed_at DESC, topic, partition, "offset" DESC LIMIT $7"""

# In the order of the topics, so that what came first is sent again first.
SELECT_IN_ORDER: Final = f"""
SELECT {_COLUMNS} {_CHOSEN} AND (topic, partition, "offset") > ($8, $9::int, $10::bigint)
  AND ($11::timestamptz IS NULL OR failed_at <= $11)
ORDER BY topic, partition, "offset" LIMIT $7"""

MARK_REPLAYED: Final = """
UPDATE dead_letter d SET replayed_at = engagement_now()
FROM unnest($1::text[], $2::int[], $3::bigint[]) AS r (topic, partition, "offset")
WHERE (d.topic, d.partition, d."offset") = (r.topic, r.partition, r."offset")"""

OLDEST_UNPUBLISHED: Final = """
SELECT coalesce(engagement_now() - min(failed_at), interval '0') FROM dead_letter
WHERE published_at IS NULL AND erased_at IS NULL"""


async def count(connection: Connection, choice: Choice) -> dict[str, int]:
    """How many by code, the most frequent first."""
    return {row[0]: row[1] for row in await connection.fetch(COUNT, *choice)}


async def newest(connection: Connection, choice: Choice, limit: int) -> list[StoredDeadLetter]:
    """The newest first."""
    return [_stored(row) for row in await connection.fetch(SELECT_NEWEST, *choice, limit)]


async def in_order(
    connection: Connection,
    choice: Choice,
    limit: int,
    after: StoredDeadLetter | None,
    *,
    until: datetime | None = None,
) -> list[StoredDeadLetter]:
    """The next ones by topic, partition and offset, `after` the last one seen.

    None that came later than `until`.
    """
    last = ("", -1, -1) if after is None else after.letter[:3]
    rows = await connection.fetch(SELECT_IN_ORDER, *choice, limit, *last, until)
    return [_stored(row) for row in rows]


async def mark_replayed(connection: Connection, letters: Sequence[StoredDeadLetter]) -> None:
    """Remember that these were sent to their topic again. Idempotent."""
    await connection.execute(
        MARK_REPLAYED,
        [one.letter.topic for one in letters],
        [one.letter.partition for one in letters],
        [one.letter.offset for one in letters],
    )


async def oldest_unpublished(connection: Connection) -> timedelta:
    """Age of the oldest dead letter that is not on its topic yet; zero when all are."""
    age: timedelta = await connection.fetchval(OLDEST_UNPUBLISHED)
    return age


def _stored(row: Any) -> StoredDeadLetter:
    *letter, published_at, replayed_at, erased_at = row
    letter[7] = decode_headers(str(letter[7]))
    return StoredDeadLetter(
        DeadLetterRow(*letter),
        *(published_at, replayed_at, erased_at),
    )
