"""What most commands begin and end with: settings, logs, an event loop, a database connection."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final, TypeVar

from db import migrate, scope
from db.pool import Connection, acquired, open_pool
from service import logs
from service.settings import Settings, load_settings

T = TypeVar("T")

# One-off statements over whole tables take longer than what a worker allows itself.
PATIENT: Final = {"statement_timeout": "600s", "transaction_timeout": "900s"}


def with_settings(work: Callable[[Settings], Awaitable[T]], *, libraries: str = "CRITICAL") -> T:
    """Load the settings, send logs to standard error, run `work` to its end.

    `libraries`: from which level on other people's code is heard; by default not at all, since
    what fails is said once, by us. Raises SettingsError before anything else; Ctrl-C cancels
    `work` and is KeyboardInterrupt.
    """
    settings = load_settings()
    logs.configure(settings, libraries=libraries)

    async def run() -> T:
        return await work(settings)

    return asyncio.run(run())


@asynccontextmanager
async def connected(settings: Settings, purpose: str) -> AsyncIterator[Connection]:
    """One patient connection outside any transaction. Raises Retryable, NotReady."""
    pool = await open_pool(settings, purpose=purpose, size=1, limits=PATIENT)
    try:
        async with acquired(pool) as connection:
            yield connection
    finally:
        pool.terminate()


async def require_members(connection: Connection) -> None:
    """For commands about members. Raises NotReady: the schema is behind, or the login sees few."""
    await migrate.require_current(connection)
    await scope.require_everybody(connection)
