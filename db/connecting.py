"""Connecting to whichever server answers, where the URL names several."""

from __future__ import annotations

import asyncio
import socket
from typing import Any, Final
from urllib.parse import urlsplit, urlunsplit

import asyncpg

CONNECT_TIMEOUT_S: Final = 10.0
# For how long a server is asked alone before the next one is asked as well.
HEAD_START_S: Final = 1.0

# As the server does it for its end (db.pool): a machine that has gone is noticed within 20 s,
# whatever the statement that we wait for may take.
_KEEPALIVE: Final = {
    "TCP_KEEPIDLE": 10, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 2, "TCP_USER_TIMEOUT": 15_000,
}  # fmt: skip

_NEXT_SERVER: Final = (
    OSError,  # refused, unreachable, or silent for too long
    asyncpg.CannotConnectNowError,  # starts or shuts down
    asyncpg.TargetServerAttributeNotMatched,  # a standby, where the URL wants a primary
)

_Attempt = asyncio.Task[asyncpg.Connection]


class Connector:
    """Connects as the driver does, but waits for no server while another one may answer.

    A server whose machine has vanished does not refuse, it is silent, and the driver waits for it
    for as long as it waits for all. Begins with the server that was the right one last time.
    """

    def __init__(self, url: str) -> None:
        self._urls = one_by_one(url)

    async def connect(self, _: str | None = None, **arguments: Any) -> asyncpg.Connection:
        """A connection; takes the place of `asyncpg.connect` in a pool. Raises the driver's errors.

        `arguments` are the driver's, but for its URL, which is ours, and its timeout.
        """
        waiting = list(self._urls)
        attempts: dict[_Attempt, str] = {}
        failure: BaseException | None = None
        try:
            while waiting or attempts:
                if waiting:
                    url = waiting.pop(0)
                    attempts[_attempt(url, arguments)] = url
                await asyncio.wait(
                    attempts,
                    timeout=HEAD_START_S if waiting else None,
                    return_when=asyncio.FIRST_COMPLETED,
                )
                for attempt in [one for one in attempts if one.done()]:
                    url = attempts.pop(attempt)
                    failure = attempt.exception()
                    if failure is None:
                        self._urls.sort(key=lambda one: one != url)
                        return _kept_alive(attempt.result())
                    if not isinstance(failure, _NEXT_SERVER):
                        raise failure
        finally:
            for attempt in attempts:
                _abandon(attempt)
        assert failure is not None
        raise failure


def one_by_one(url: str) -> list[str]:
    """A URL for each of the servers that one names before its path."""
    parts = urlsplit(url)
    login, at, hosts = parts.netloc.rpartition("@")
    if "," not in hosts:
        return [url]
    return [urlunsplit(parts._replace(netloc=login + at + host)) for host in hosts.split(",")]


def _attempt(url: str, arguments: dict[str, Any]) -> _Attempt:
    return asyncio.create_task(asyncpg.connect(url, timeout=CONNECT_TIMEOUT_S, **arguments))


def _kept_alive(connection: asyncpg.Connection) -> asyncpg.Connection:
    """Have the system ask whether the other end still lives, as far as it can."""
    # The driver offers no way to its socket.
    transport: Any = getattr(connection, "_transport", None)
    end = None if transport is None else transport.get_extra_info("socket")
    if end is not None and end.family != socket.AF_UNIX:
        end.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in _KEEPALIVE.items():
            if hasattr(socket, name):
                end.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    return connection


def _abandon(attempt: _Attempt) -> None:
    """Nobody waits for it any more; if it has succeeded all the same, hang up."""

    def hang_up(ended: _Attempt) -> None:
        if not ended.cancelled() and ended.exception() is None:
            ended.result().terminate()

    attempt.cancel()
    attempt.add_done_callback(hang_up)
