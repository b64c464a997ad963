"""What a pool does when its server takes no writes, falls silent, or is one of several."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest

from db import api_store, wakeups
from db.actions import ActionParts
from db.api_store import ApiStore
from db.connecting import Connector, one_by_one
from db.pool import Pool, open_pool, transaction
from db.wakeups import Wakeup, listen
from service.errors import Retryable
from service.settings import load_settings
from tests.faults.proxy import Proxy, through

WRITE = "INSERT INTO incident (kind, details) VALUES ('test', '{}')"
READ_ONLY = "default_transaction_read_only=on"
DEMOTE = "SET default_transaction_read_only = on"
QUICK = {"statement_timeout": "1s"}


@pytest.fixture
def proxy(database: str) -> Iterator[Proxy]:
    """On the way to the database."""
    parts = urlsplit(database)
    assert parts.hostname is not None
    assert parts.port is not None
    with Proxy((parts.hostname, parts.port)) as made:
        yield made


async def pool_of(url: str, size: int = 1) -> Pool:
    """A pool whose statements may take a second."""
    return await open_pool(
        load_settings({"DATABASE_URL": url}), purpose="test", size=size, limits=QUICK
    )


async def write(pool: Pool) -> int:
    """Write something; the server's process that did it."""
    async with transaction(pool) as connection:
        await connection.execute(WRITE)
        pid: int = await connection.fetchval("SELECT pg_backend_pid()")
    return pid


async def test_a_server_that_takes_no_writes_is_left(database: str) -> None:
    pool = await pool_of(database, size=3)
    # Three connections to a server that was a primary when they were made.
    async with transaction(pool) as one, transaction(pool) as two, transaction(pool) as three:
        demoted = {c.get_server_pid() for c in (one, two, three)}
        for connection in (one, two, three):
            await connection.execute(DEMOTE)
    with pytest.raises(Retryable, match="25006"):
        await write(pool)
    for _ in range(3):
        assert await write(pool) not in demoted
    pool.terminate()


async def test_silence_beyond_the_servers_limit_ends_a_connection(
    database: str, proxy: Proxy
) -> None:
    pool = await pool_of(through(proxy)(database), size=3)
    async with transaction(pool), transaction(pool), transaction(pool):
        pass
    proxy.forget()
    began = time.monotonic()
    with pytest.raises(Retryable, match="TimeoutError"):
        await write(pool)
    assert 4 <= time.monotonic() - began < 8
    # The other two are as dead, and nobody waits for them.
    began = time.monotonic()
    await asyncio.gather(*(write(pool) for _ in range(3)))
    assert time.monotonic() - began < 4
    pool.terminate()


async def test_silence_in_the_middle_of_a_transaction_ends_it(database: str, proxy: Proxy) -> None:
    pool = await pool_of(through(proxy)(database))

    async def write_twice() -> None:
        async with transaction(pool) as connection:
            await connection.execute(WRITE)
            proxy.forget()
            await connection.execute(WRITE)

    began = time.monotonic()
    with pytest.raises(Retryable, match="TimeoutError"):
        await write_twice()
    assert 4 <= time.monotonic() - began < 8
    await write(pool)
    async with transaction(pool) as connection:
        assert await connection.fetchval("SELECT count(*) FROM incident") == 1
    pool.terminate()


def both(first: Proxy, database: str) -> str:
    """A URL that names two servers, of which the first is behind the proxy."""
    parts = urlsplit(database)
    login, _, host = parts.netloc.rpartition("@")
    return parts._replace(netloc=f"{login}@127.0.0.1:{first.port},{host}").geturl()


async def test_a_machine_that_has_gone_is_noticed_by_the_system(database: str) -> None:
    connection: Any = await Connector(database).connect()
    end = connection._transport.get_extra_info("socket")
    options = {"TCP_KEEPIDLE": 10, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 2}
    # Not every system has names for all of them.
    wanted = {getattr(socket, one): s for one, s in options.items() if hasattr(socket, one)}
    assert {one: end.getsockopt(socket.IPPROTO_TCP, one) for one in wanted} == wanted
    assert end.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
    await connection.close()


@pytest.mark.parametrize("fault", ["holding", "refusing"])
async def test_the_second_server_is_reached_when_the_first_one_is_gone(
    database: str, proxy: Proxy, fault: str
) -> None:
    setattr(proxy, fault, True)
    pool = await pool_of(both(proxy, database), size=2)
    began = time.monotonic()
    async with transaction(pool) as one:
        assert time.monotonic() - began < 4
        # The next one need not find it out again.
        began = time.monotonic()
        async with transaction(pool) as two:
            assert time.monotonic() - began < 1
            assert one.get_server_pid() != two.get_server_pid()
    pool.terminate()


async def test_a_standby_is_no_primary(database: str) -> None:
    pool = await pool_of(f"{database}?{READ_ONLY}&target_session_attrs=read-write")
    with pytest.raises(Retryable, match="read-write"):
        await write(pool)
    pool.terminate()


@pytest.mark.parametrize(
    ("url", "each"),
    [
        ("postgresql://u:p@a/db", ["postgresql://u:p@a/db"]),
        ("postgresql:///db?host=/run/a,/run/b", ["postgresql:///db?host=/run/a,/run/b"]),
        (
            "postgresql://u:p,q@a:1,b:2,c/db?target_session_attrs=read-write",
            [
                "postgresql://u:p,q@a:1/db?target_session_attrs=read-write",
                "postgresql://u:p,q@b:2/db?target_session_attrs=read-write",
                "postgresql://u:p,q@c/db?target_session_attrs=read-write",
            ],
        ),
    ],
)
def test_a_url_for_each_server(url: str, each: list[str]) -> None:
    assert one_by_one(url) == each


async def test_nobody_listens_to_a_server_that_takes_no_writes(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wakeups, "PING_S", 1.0)
    callbacks = {Wakeup.DUE: lambda: None}
    writable = load_settings({"DATABASE_URL": database})
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(listen(writable, callbacks, lambda: False), 2.5)
    demoted = load_settings({"DATABASE_URL": f"{database}?{READ_ONLY}"})
    with pytest.raises(Retryable, match="takes no writes"):
        await asyncio.wait_for(listen(demoted, callbacks, lambda: False), 2.5)


async def store_on(url: str) -> ApiStore:
    """The API's way to the database."""
    settings = load_settings({"DATABASE_URL": url})
    return await ApiStore.open(settings, ActionParts(settings))


async def test_the_api_leaves_a_server_that_takes_no_writes(database: str) -> None:
    store = await store_on(database)
    async with store._writers.acquire() as connection:
        await connection.execute(DEMOTE)
    with pytest.raises(Retryable, match="25006"):
        await store.open_session(b"x", "session", "ada", 60)
    await store.open_session(b"x", "session", "ada", 60)
    await store.close()


async def test_the_api_gives_up_a_connection_that_is_silent(
    database: str, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api_store, "LIMITS", QUICK)
    store = await store_on(through(proxy)(database))
    await store.open_session(b"x", "session", "ada", 60)
    assert await store.session_user(b"x") == "ada"
    proxy.forget()
    began = time.monotonic()
    with pytest.raises(Retryable, match="TimeoutError"):
        await store.session_user(b"x")
    with pytest.raises(Retryable, match="TimeoutError"):
        await store.open_session(b"y", "session", "bob", 60)
    assert time.monotonic() - began < 14
    assert await store.session_user(b"x") == "ada"
    await store.open_session(b"y", "session", "bob", 60)
    await store.close()
