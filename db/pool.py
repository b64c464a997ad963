"""Connection pools, each with the limits its work needs.

The server's own timeouts bound a transaction whose owner is paused or cut off: it ends, and its
locks with it, well before the group gives the partition to somebody else.

A connection is given up when it leads to a server that takes no writes, or when no answer comes
although the server's own limit is over. The others of its pool are as suspect then, and are made
anew.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

import asyncpg

from db.connecting import Connector
from db.errors import translated
from service.errors import Retryable, SettingsError
from service.settings import Settings

ACQUIRE_TIMEOUT_S: Final = 15.0
# Beyond the server's own limit of a statement: who is silent for longer, is gone.
ANSWER_MARGIN_S: Final = 3.0

TLS_MODES: Final = frozenset({"require", "verify-ca", "verify-full"})
# No host at all is the socket of this machine; the settings see to it that PGHOST is not meant.
LOOPBACK: Final = ("", "localhost", "127.0.0.1", "::1")

Connection = asyncpg.Connection | asyncpg.pool.PoolConnectionProxy
Pool = asyncpg.Pool

STATEMENT_TIMEOUT: Final = "statement_timeout"
SERVER_LIMITS: Final = {
    "timezone": "UTC",
    STATEMENT_TIMEOUT: "20s",
    "lock_timeout": "10s",
    "idle_in_transaction_session_timeout": "10s",
    "transaction_timeout": "30s",
    "tcp_keepalives_idle": "10",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "2",
    "tcp_user_timeout": "15s",
    "jit": "off",
}

# For those who work on batches and pages. Members and their facts are looked up by index, one after
# the other, whatever statistics say: they know neither of a batch in the parameters nor of what has
# come since they were made. And statements are not planned anew each time.
PLAN_BY_INDEX: Final = """
SET enable_hashjoin = off;
SET enable_mergejoin = off;
SET enable_seqscan = off;
SET plan_cache_mode = force_generic_plan"""

# The opposite, for one transaction of theirs: for who reads tables in full. Hashing them beats
# looking rows up one by one, also where statistics have not seen most rows yet and call them few.
PLAN_BY_HASH: Final = """
SET LOCAL enable_hashjoin = on;
SET LOCAL enable_mergejoin = on;
SET LOCAL enable_seqscan = on;
SET LOCAL enable_nestloop = off;
SET LOCAL plan_cache_mode = force_custom_plan"""


async def open_pool(
    settings: Settings,
    *,
    purpose: str,
    size: int,
    limits: dict[str, str] | None = None,
    prepare: Callable[[Connection], Awaitable[None]] | None = None,
) -> Pool:
    """A pool of `size` connections that open when first needed.

    `limits` overrides SERVER_LIMITS, the statement's in seconds ("20s"); `prepare` runs once on
    each new connection, whose session state then stays (no reset between uses). Raises Retryable
    when the database is away.
    """

    async def keep_session(_: Connection) -> None:
        return None

    server_settings = {
        **SERVER_LIMITS, "application_name": f"engagement-{purpose}", **(limits or {})
    }  # fmt: skip
    patience_s = float(server_settings[STATEMENT_TIMEOUT].removesuffix("s")) + ANSWER_MARGIN_S
    url = settings.database_url.get_secret_value()
    connect: Any = Connector(url).connect
    with translated():
        return await asyncpg.create_pool(
            url,
            connect=connect,
            min_size=0,
            max_size=size,
            command_timeout=patience_s,
            max_inactive_connection_lifetime=300,
            statement_cache_size=200,
            init=prepare,  # type: ignore[arg-type]  # the stubs ask for a keyword-only protocol
            reset=keep_session,
            server_settings=server_settings,
            **tls_arguments(settings),
        )


@asynccontextmanager
async def transaction(pool: Pool) -> AsyncIterator[Connection]:
    """One READ COMMITTED transaction on a connection of the pool, with errors translated."""
    async with acquired(pool) as connection, transacting(connection):
        yield connection


@asynccontextmanager
async def savepoint(connection: Connection) -> AsyncIterator[None]:
    """Part of a transaction that may fail without failing the rest, with errors translated."""
    with translated():
        async with connection.transaction():
            yield


@asynccontextmanager
async def acquired(pool: Pool) -> AsyncIterator[Connection]:
    """A connection of the pool outside any transaction, with errors translated."""
    with translated():
        async with pool.acquire(timeout=ACQUIRE_TIMEOUT_S) as connection, kept(pool, connection):
            yield connection


@asynccontextmanager
async def kept(pool: Pool, connection: Connection) -> AsyncIterator[None]:
    """Give a connection up, and the pool's others, when an error says that it is of no use."""
    try:
        yield
    except Exception as error:
        if _is_useless(error):
            with suppress(asyncpg.InterfaceError):  # given up already
                connection.terminate()
            await pool.expire_connections()
        raise


@asynccontextmanager
async def transacting(connection: Connection) -> AsyncIterator[None]:
    """A transaction on a connection that is `kept`: one of no use is not asked to roll back."""
    block = connection.transaction()
    await block.start()
    try:
        yield
    except BaseException as error:
        if not _is_useless(error):
            await block.rollback()
        raise
    await block.commit()


def _is_useless(error: BaseException) -> bool:
    cause = error.__cause__ if isinstance(error, Retryable) else error
    return isinstance(cause, TimeoutError | asyncpg.ReadOnlySQLTransactionError)


def tls_arguments(settings: Settings) -> dict[str, Any]:
    """How to talk TLS to the server; refuses silent plaintext to other hosts.

    Raises SettingsError. `sslmode` in DATABASE_URL is honoured as libpq does.
    """
    url = urlsplit(settings.database_url.get_secret_value())
    query = parse_qs(url.query)
    if settings.database_ssl_ca_file:
        try:
            return {"ssl": ssl.create_default_context(cafile=settings.database_ssl_ca_file)}
        except OSError as error:
            raise SettingsError(
                f"ENGAGEMENT_DATABASE_SSL_CA_FILE: {error.strerror or error}"
            ) from None
    asks_for_tls = TLS_MODES.issuperset(query.get("sslmode", ["none"]))
    if not (asks_for_tls or _stays_here(url.netloc, query) or settings.allow_plaintext):
        raise SettingsError(
            "DATABASE_URL: no TLS to a host other than loopback; set sslmode=verify-full and "
            "ENGAGEMENT_DATABASE_SSL_CA_FILE, or ENGAGEMENT_ALLOW_PLAINTEXT=true"
        )
    return {}


def _stays_here(netloc: str, query: dict[str, list[str]]) -> bool:
    """Whether every server named is on this machine; both places may name several."""
    if "service" in query:
        return False
    addresses = netloc.rpartition("@")[2].split(",")
    addresses += ",".join(query.get("host", ())).split(",")
    sockets = ("/", "%2F")
    return all(a.startswith(sockets) or _host(a) in LOOPBACK for a in addresses)


def _host(address: str) -> str:
    if address.startswith("["):
        return address[1:].partition("]")[0]
    return address if address.count(":") > 1 else address.partition(":")[0]
