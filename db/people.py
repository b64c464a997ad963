"""Who is known at all: for the demo."""

from __future__ import annotations

from typing import Final, NamedTuple

from db.pool import Connection

IS_EMPTY: Final = "SELECT NOT EXISTS (SELECT FROM member)"

# Of the largest organisation that has one.
SELECT_ADMIN: Final = """
SELECT m.org_id, m.user_id
FROM membership_fact f
JOIN member m USING (member_id)
JOIN LATERAL (SELECT count(*) FROM member o WHERE o.org_id = m.org_id) s (members) ON true
WHERE f.role = 'admin' AND f.status = 'active'
ORDER BY s.members DESC, m.member_id LIMIT 1"""


class Admin(NamedTuple):
    """Somebody who administrates an organisation."""

    org_id: str
    user_id: str


async def is_empty(connection: Connection) -> bool:
    """Whether nobody is known yet."""
    return bool(await connection.fetchval(IS_EMPTY))


async def any_admin(connection: Connection) -> Admin | None:
    """An administrator of the largest organisation that has one; always the same."""
    row = await connection.fetchrow(SELECT_ADMIN)
    return None if row is None else Admin(*row)
