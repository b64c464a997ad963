"""Sessions of browsers and sign-in links, by the SHA-256 of a secret that others hold."""

from __future__ import annotations

from typing import Final

from db.pool import Connection
from service.api.values import SessionKind

# Sessions belong to no organisation: transactions about them see the rows of none.
NO_ORGANIZATION: Final = ""

SELECT_SESSION: Final = """
SELECT user_id FROM http_session
WHERE token_hash = $1 AND kind = $2 AND expires_at > engagement_now()"""
FORGET_EXPIRED: Final = "DELETE FROM http_session WHERE expires_at <= engagement_now()"
INSERT_SESSION: Final = """
INSERT INTO http_session (token_hash, kind, user_id, expires_at)
VALUES ($1, $2, $3, engagement_now() + make_interval(secs => $4))"""
DELETE_SESSION: Final = """
DELETE FROM http_session
WHERE token_hash = $1 AND kind = $2 RETURNING user_id, expires_at > engagement_now() AS valid"""


async def read_session_user(
    connection: Connection, token_hash: bytes, kind: SessionKind
) -> str | None:
    """Whose session or link this is; None when unknown or over."""
    user_id: str | None = await connection.fetchval(SELECT_SESSION, token_hash, kind)
    return user_id


async def insert_session(
    connection: Connection, token_hash: bytes, kind: SessionKind, user_id: str, lifetime_s: int
) -> None:
    """Remember one, and forget those that are over."""
    await connection.execute(FORGET_EXPIRED)
    await connection.execute(INSERT_SESSION, token_hash, kind, user_id, lifetime_s)


async def delete_session(
    connection: Connection, token_hash: bytes, kind: SessionKind
) -> str | None:
    """Forget one; whose it was, None when unknown or over."""
    row = await connection.fetchrow(DELETE_SESSION, token_hash, kind)
    return row["user_id"] if row is not None and row["valid"] else None
