"""Work that one worker does at a time: a row with an owner and a time until it expires.

A lease tells who should work; it does not stop who was paused and wakes up late. Whatever must not
happen twice needs a fence of its own.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Final
from uuid import UUID

from db.pool import Connection

TAKE: Final = """
INSERT INTO lease AS l (name, owner, expires_at)
VALUES ($1, $2, clock_timestamp() + $3)
ON CONFLICT (name) DO UPDATE
SET owner = excluded.owner, expires_at = excluded.expires_at,
    epoch = l.epoch + CASE WHEN l.owner = excluded.owner THEN 0 ELSE 1 END
WHERE l.owner = excluded.owner OR l.expires_at < clock_timestamp()
RETURNING epoch"""

GIVE_UP: Final = "DELETE FROM lease WHERE name = $1 AND owner = $2"


async def take(connection: Connection, name: str, owner: UUID, ttl: timedelta) -> int | None:
    """Take or extend a lease; its epoch, or None while somebody else holds it.

    Runs on the real clock of the database, not on `engagement_now()`: it is about processes.
    """
    epoch: int | None = await connection.fetchval(TAKE, name, owner, ttl)
    return epoch


async def give_up(connection: Connection, name: str, owner: UUID) -> None:
    """Let go of a lease, if it is ours. Idempotent."""
    await connection.execute(GIVE_UP, name, owner)
