"""A TCP proxy that makes networks bad: cut, refused, late, slow, limited, half open, forgotten.

Runs on a thread and loop of its own, so that tests may block. Every setting takes effect at once
and for connections that exist, too.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final, Self

CHUNK: Final = 16 * 1024
WINDOW: Final = 64
"""Chunks on their way, each way; whoever sends more has to wait."""
POLL_S: Final = 0.02
COMMIT: Final = b"COMMIT;\x00"
# Its statement is a transaction of its own: prepared once, then asked for by this name.
ALONE: Final = re.compile(rb"(__asyncpg_\w+__)\x00SELECT \* FROM pg_temp\.apply_plain")


class Proxy:
    """Forwards 127.0.0.1:`port` to `target`. Use as a context manager."""

    def __init__(self, target: tuple[str, int], port: int = 0) -> None:
        """`port` 0: one that is free."""
        self.target = target
        self.port = port
        self.delay_s = 0.0
        """How late everything arrives, each way."""
        self.bytes_per_s: int | None = None
        """Of each connection, each way."""
        self.bytes_until_cut: int | None = None
        """A connection is cut after so many bytes from the server."""
        self.holding = False
        """Connections stay open, also new ones, but nothing gets through."""
        self.refusing = False
        """New connections are closed at once."""
        self.commits_to_cut = 0
        """Cut so many PostgreSQL connections at COMMIT; by turns before and after it happens."""
        self.commits_seen = 0
        self._links: set[_Link] = set()
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, name="proxy", daemon=True)

    def cut(self) -> None:
        """Reset all connections."""
        self._loop.call_soon_threadsafe(self._cut)

    def forget(self) -> None:
        """From now on nothing gets through the connections that exist, and neither end is told.

        New ones are fine: what a firewall does that has lost its table.
        """
        self._loop.call_soon_threadsafe(self._forget)

    def heal(self) -> None:
        """Take all faults away; connections that were held are reset."""
        held = self.holding
        self.delay_s, self.bytes_per_s, self.bytes_until_cut = 0.0, None, None
        self.refusing, self.commits_to_cut = False, 0
        if held:
            self.cut()
        self.holding = False

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        server = self._loop.run_until_complete(
            asyncio.start_server(self._serve, "127.0.0.1", self.port)
        )
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        self._loop.run_forever()
        self._cut()
        server.close()
        tasks = asyncio.all_tasks(self._loop)
        for task in tasks:
            task.cancel()
        self._loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        self._loop.close()

    def _cut(self) -> None:
        for link in list(self._links):
            link.reset()

    def _forget(self) -> None:
        for link in self._links:
            link.forgotten = True

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.refusing:
            writer.transport.abort()
            return
        link = _Link(self, writer)
        self._links.add(link)
        try:
            while self.holding:  # noqa: ASYNC110 - set by another thread
                await asyncio.sleep(POLL_S)
            far_reader, link.far = await asyncio.open_connection(*self.target)
            await link.run(reader, far_reader)
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            link.reset()
            self._links.discard(link)


_Way = asyncio.Queue[tuple[float, bytes]]


class _Link:
    """One connection through the proxy."""

    def __init__(self, proxy: Proxy, near: asyncio.StreamWriter) -> None:
        self._proxy = proxy
        self._near = near
        self.far: asyncio.StreamWriter | None = None
        self.forgotten = False
        self._received = 0
        self._swallowing = False
        self._alone: set[bytes] = set()

    def reset(self) -> None:
        """Abort both sides."""
        for side in (self._near, self.far):
            if side is not None:
                with contextlib.suppress(OSError):
                    side.transport.abort()

    async def run(self, near: asyncio.StreamReader, far: asyncio.StreamReader) -> None:
        """Forward both ways until an end closes."""
        assert self.far is not None
        there: _Way = asyncio.Queue(WINDOW)
        back: _Way = asyncio.Queue(WINDOW)
        parts = [
            asyncio.create_task(part)
            for part in (
                self._take(near, there), self._pass(there, self.far, self.on_request),
                self._take(far, back), self._pass(back, self._near, self.on_reply),
            )
        ]  # fmt: skip
        try:
            await asyncio.wait(parts, return_when=asyncio.FIRST_EXCEPTION)
        finally:
            for part in parts:
                part.cancel()
            await asyncio.gather(*parts, return_exceptions=True)

    async def _take(self, reader: asyncio.StreamReader, way: _Way) -> None:
        """Take in what comes, with the time at which it is to arrive; nothing more: the end."""
        while chunk := await reader.read(CHUNK):
            await way.put((time.monotonic() + self._proxy.delay_s, chunk))
        await way.put((0.0, b""))

    async def _pass(
        self,
        way: _Way,
        writer: asyncio.StreamWriter,
        look: Callable[[bytes], Awaitable[bool]],
    ) -> None:
        """Hand on what was taken in; `look` says whether a chunk gets through."""
        while True:
            due_at, chunk = await way.get()
            await asyncio.sleep(max(0.0, due_at - time.monotonic()))
            while self._proxy.holding or self.forgotten:  # noqa: ASYNC110 - set by another thread
                await asyncio.sleep(POLL_S)
            if not chunk:
                raise ConnectionResetError
            if await look(chunk):
                await self._write(writer, chunk)

    async def _write(self, writer: asyncio.StreamWriter, chunk: bytes) -> None:
        rate = self._proxy.bytes_per_s
        step = len(chunk) if rate is None else max(1, rate // 10)
        for first in range(0, len(chunk), step):
            writer.write(chunk[first : first + step])
            await writer.drain()
            if self._proxy.bytes_per_s is not None:
                await asyncio.sleep(0.1)

    async def on_request(self, chunk: bytes) -> bool:
        """A chunk on its way to the server."""
        proxy = self._proxy
        if proxy.commits_to_cut > 0 and self._commits(chunk):
            proxy.commits_seen += 1
            # Every other one is let through, so that the work can get on.
            turn = proxy.commits_seen % 4
            if turn == 1:
                proxy.commits_to_cut -= 1
                self.reset()
                return False
            if turn == 3:
                proxy.commits_to_cut -= 1
                self._swallowing = True
        return True

    def _commits(self, chunk: bytes) -> bool:
        prepared = set(ALONE.findall(chunk))
        self._alone |= prepared
        called = any(b"\x00" + name + b"\x00" in chunk for name in self._alone - prepared)
        return called or COMMIT in chunk

    async def on_reply(self, chunk: bytes) -> bool:
        """A chunk on its way to the client."""
        if self._swallowing:
            # The server has answered, so it is done; nobody will hear of it.
            self.reset()
            return False
        self._received += len(chunk)
        limit = self._proxy.bytes_until_cut
        if limit is not None and self._received > limit:
            self.reset()
            return False
        return True


def host_and_port(text: str) -> tuple[str, int]:
    """`host:port` as a pair."""
    host, _, port = text.rpartition(":")
    return host, int(port)


def through(proxy: Proxy) -> Callable[[str], str]:
    """What makes a database URL go through the proxy."""
    from urllib.parse import urlsplit

    def rewritten(url: str) -> str:
        parts: Any = urlsplit(url)
        login = parts.netloc.rpartition("@")[0]
        return str(parts._replace(netloc=f"{login}@127.0.0.1:{proxy.port}").geturl())

    return rewritten
