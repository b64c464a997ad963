"""The API's way in: one transaction per request, as a role that sees one organisation."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Final

from db import instants
from db.api_organization import ActionsFactory, ApiOrganization
from db.api_roles import role_problems
from db.api_sessions import (
    NO_ORGANIZATION,
    delete_session,
    insert_session,
    read_session_user,
)
from db.errors import translated
from db.migrate import require_current
from db.pool import ACQUIRE_TIMEOUT_S, Connection, Pool, kept, open_pool, transacting
from service.api.ports import Organization, Store
from service.api.values import SessionKind
from service.errors import EngagementError, Retryable, SettingsError
from service.settings import Settings

# Enough for a process, which works on one request at a time: two keep it busy, and a third lets the
# others go on beside a slow one. More would only be in each other's way: measured with twenty
# administrators on a machine of changing speed, 1 in 100 lists took 394 and 461 ms with two, 377 to
# 577 with three, 532 and 718 with four.
READERS: Final = 3
# Apart from the readers: a write never waits for twenty lists, and its connections are prepared.
WRITERS: Final = 4
CHECK_TIMEOUT_S: Final = 3.0

# What a read begins with, in one message: round trips are what a small read costs. Who asks is
# found by the same queries for everybody, whose plans are kept (0.2 ms instead of 0.8); the last of
# them (SELECT_STANDING) goes back to a plan for the given values.
BEGIN_READ: Final = """
BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;
SET LOCAL plan_cache_mode = force_generic_plan;
SET LOCAL ROLE engagement_api;
SET LOCAL engagement.org_id = {org_id}"""
SET_ROLE: Final = "SET LOCAL ROLE engagement_api"
SET_ORGANIZATION: Final = "SELECT set_config('engagement.org_id', $1, true)"

# Most queries depend on which filters are set: a plan made for the given values is worth its
# millisecond.
LIMITS: Final = {
    "statement_timeout": "15s",
    "plan_cache_mode": "force_custom_plan",
    "max_parallel_workers_per_gather": "0",
}


class ApiStore(Store):
    """`Store` on pools of its own; close it with `close`."""

    def __init__(self, readers: Pool, writers: Pool, actions: ActionsFactory) -> None:
        self._readers = readers
        self._writers = writers
        self._actions = actions

    @classmethod
    async def open(
        cls,
        settings: Settings,
        actions: ActionsFactory,
        *,
        size: int = READERS,
        prepare: Callable[[Connection], Awaitable[None]] | None = None,
    ) -> ApiStore:
        """Connect and check the schema and the role.

        `actions` makes the changes on a connection inside a transaction; `prepare` readies each
        new connection that writes for them. `size`: how many read at once. Raises Retryable when
        the database is away, NotReady when it has to be migrated, SettingsError when the role that
        confines the API is missing or does not confine.
        """
        # With the codec that also reads instants which the driver's own fails at: years after 9999.
        readers = await open_pool(
            settings, purpose="api", size=size, limits=LIMITS, prepare=instants.prepare_connection
        )
        writers = await open_pool(
            settings, purpose="api-writes", size=WRITERS, limits=LIMITS, prepare=prepare
        )
        store = cls(readers, writers, actions)
        try:
            problems = await store._problems()
        except BaseException:
            await store.close()
            raise
        if problems:
            await store.close()
            raise SettingsError("DATABASE_URL: " + "; ".join(problems))
        return store

    async def close(self) -> None:
        """Let running queries finish for a moment, then hang up."""
        for pool in (self._readers, self._writers):
            try:
                await asyncio.wait_for(pool.close(), timeout=5)
            except TimeoutError:
                pool.terminate()

    @asynccontextmanager
    async def organization(
        self, org_id: str, *, writes: bool = False
    ) -> AsyncIterator[Organization]:
        """See `Store.organization`. A read sees one state of the database throughout."""
        async with self._transaction(org_id, writes=writes) as connection:
            yield ApiOrganization(connection, org_id, self._actions)

    async def open_session(
        self, token_hash: bytes, kind: SessionKind, user_id: str, lifetime_s: int
    ) -> None:
        """See `Store.open_session`."""
        async with self._transaction(NO_ORGANIZATION, writes=True) as connection:
            await insert_session(connection, token_hash, kind, user_id, lifetime_s)

    async def session_user(self, token_hash: bytes) -> str | None:
        """See `Store.session_user`."""
        async with self._transaction(NO_ORGANIZATION, writes=False) as connection:
            return await read_session_user(connection, token_hash, "session")

    async def link_user(self, token_hash: bytes, *, use_up: bool) -> str | None:
        """See `Store.link_user`."""
        async with self._transaction(NO_ORGANIZATION, writes=use_up) as connection:
            if not use_up:
                return await read_session_user(connection, token_hash, "link")
            return await delete_session(connection, token_hash, "link")

    async def close_session(self, token_hash: bytes) -> None:
        """See `Store.close_session`."""
        async with self._transaction(NO_ORGANIZATION, writes=True) as connection:
            await delete_session(connection, token_hash, "session")

    async def check(self) -> Mapping[str, str]:
        """See `Store.check`."""
        try:
            async with asyncio.timeout(CHECK_TIMEOUT_S):
                problems = await self._problems()
        except (EngagementError, TimeoutError) as error:
            return {"database": str(error) or "no answer in time"}
        return {"database": "; ".join(problems) or "ok"}

    async def _problems(self) -> list[str]:
        with translated():
            async with self._readers.acquire(timeout=CHECK_TIMEOUT_S) as connection:
                await require_current(connection)
                return await role_problems(connection)

    @asynccontextmanager
    async def _transaction(self, org_id: str, *, writes: bool) -> AsyncIterator[Connection]:
        pool = self._writers if writes else self._readers
        with translated():
            try:
                connection = await pool.acquire(timeout=ACQUIRE_TIMEOUT_S)
            except TimeoutError as error:
                raise Retryable("database: all connections are busy") from error
            try:
                async with kept(pool, connection):
                    if writes:
                        async with transacting(connection):
                            await connection.execute(SET_ROLE)
                            await connection.execute(SET_ORGANIZATION, org_id)
                            yield connection
                    else:
                        async with _read(connection, org_id):
                            yield connection
            finally:
                await pool.release(connection)


@asynccontextmanager
async def _read(connection: Connection, org_id: str) -> AsyncIterator[None]:
    """A transaction that sees one state of the database and writes nothing."""
    # SET takes no parameters. Doubled quotes are all that a literal needs; ids have none anyway.
    quoted = "'" + org_id.replace("'", "''") + "'"
    try:
        await connection.execute(BEGIN_READ.format(org_id=quoted))
        yield
        await connection.execute("COMMIT")
    except TimeoutError:
        # Not asked to roll back: whoever keeps the connection gives it up.
        raise
    except BaseException:
        try:
            await connection.execute("ROLLBACK")
        except BaseException:
            # Nobody must get it back with a transaction, and somebody's role, still open.
            connection.terminate()
            raise
        raise
