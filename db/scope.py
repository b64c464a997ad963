"""Members by organisation, by user or all of them, in order of their ids, a page at a time."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Final, NamedTuple

from db.errors import LOGINS
from db.pool import Connection, Pool, acquired
from service.errors import NotReady

SELECT_ALL: Final = """
SELECT member_id, org_id, user_id FROM member
WHERE (org_id, user_id) > ($1, $2) ORDER BY org_id, user_id LIMIT $3"""

SELECT_IN_ORGANIZATION: Final = """
SELECT member_id, org_id, user_id FROM member
WHERE org_id = $4 AND user_id > $2 AND ($5::text IS NULL OR user_id = $5)
  AND $1::text IS NOT NULL
ORDER BY org_id, user_id LIMIT $3"""

SELECT_OF_USER: Final = """
SELECT member_id, org_id, user_id FROM member
WHERE user_id = $4 AND org_id > $1 AND $2::text IS NOT NULL
ORDER BY org_id LIMIT $3"""


KNOWS_ORGANIZATION: Final = """
SELECT EXISTS (SELECT FROM organization_fact WHERE org_id = $1)
    OR EXISTS (SELECT FROM member WHERE org_id = $1)"""

# A role may be granted without being in force; a table may not be there yet.
SEES_EVERYBODY: Final = """
SELECT coalesce(NOT row_security_active(to_regclass('public.member')), true)
    OR coalesce(pg_has_role(to_regrole('engagement_worker'), 'USAGE'), false)"""


class Scope(NamedTuple):
    """Whom a command is about; None: no restriction."""

    org_id: str | None = None
    user_id: str | None = None


class KnownMember(NamedTuple):
    """A member of whom anything is known."""

    member_id: int
    org_id: str
    user_id: str


async def require_everybody(connection: Connection) -> None:
    """Raise NotReady for a login from which row-level security hides members.

    What it does not see would look as if it were not there.
    """
    if not await connection.fetchval(SEES_EVERYBODY):
        raise NotReady(
            "database: this login sees the members of one organisation at a time, or of none: "
            f"{LOGINS}, see docs/deploy.md"
        )


async def knows_organization(connection: Connection, org_id: str) -> bool:
    """Whether any record has ever named this organisation."""
    known: bool = await connection.fetchval(KNOWS_ORGANIZATION, org_id)
    return known


async def read_page(
    connection: Connection, scope: Scope, after: tuple[str, str], limit: int
) -> list[KnownMember]:
    """The next members after (org_id, user_id); ("", "") is the start."""
    if scope.org_id is not None:
        rows = await connection.fetch(
            SELECT_IN_ORGANIZATION, *after, limit, scope.org_id, scope.user_id
        )
    elif scope.user_id is not None:
        rows = await connection.fetch(SELECT_OF_USER, *after, limit, scope.user_id)
    else:
        rows = await connection.fetch(SELECT_ALL, *after, limit)
    return [KnownMember(*row) for row in rows]


async def pages(pool: Pool, scope: Scope, size: int) -> AsyncIterator[list[KnownMember]]:
    """Every page; between them no transaction is open."""
    after = ("", "")
    while True:
        async with acquired(pool) as connection:
            page = await read_page(connection, scope, after, size)
        if page:
            yield page
        if len(page) < size:
            return
        after = (page[-1].org_id, page[-1].user_id)
