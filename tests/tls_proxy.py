"""PostgreSQL behind TLS: the server of the tests has none, so a proxy before it does the talking.

PostgreSQL's clients ask first whether TLS is spoken (SSLRequest) and get one byte as the answer.
The proxy says yes and hands on what it decrypts; whoever goes on without TLS is cut off. It has a
thread and an event loop of its own, so that tests may block.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

from tests.certificates import Issued

HOST = "127.0.0.1"
SSL_REQUEST = struct.pack("!ii", 8, 80877103)
PIECE = 64 * 1024


class TlsProxy:
    """Counts what came: `encrypted` and `plain` connections. `refusing` says no to TLS."""

    def __init__(self, target: str, issued: Issued, *, refusing: bool = False) -> None:
        url = urlsplit(target)
        self._target = (url.hostname or HOST, url.port or 5432)
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(issued.certificate, issued.key)
        self._refusing = refusing
        self.encrypted = 0
        self.plain = 0
        self.port = 0

    def url(self, target: str) -> str:
        """The same database through the proxy."""
        parts = urlsplit(target)
        login = parts.netloc.rpartition("@")[0]
        return parts._replace(netloc=f"{login}@{HOST}:{self.port}").geturl()

    async def serve(self, ready: threading.Event, stop: asyncio.Event) -> None:
        """Serve until told to stop."""
        server = await asyncio.start_server(self._connected, HOST, 0)
        self.port = server.sockets[0].getsockname()[1]
        ready.set()
        async with server:
            await stop.wait()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            first = await reader.readexactly(8)
            if first == SSL_REQUEST and not self._refusing:
                writer.write(b"S")
                await writer.drain()
                await writer.start_tls(self._context)
                self.encrypted += 1
                await self._hand_on(reader, writer)
            elif first == SSL_REQUEST:
                writer.write(b"N")
                await writer.drain()
                if await reader.read(1):
                    self.plain += 1
            else:
                self.plain += 1
        except (OSError, asyncio.IncompleteReadError):
            pass  # the client's affair
        finally:
            writer.transport.abort()

    async def _hand_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there_reader, there_writer = await asyncio.open_connection(*self._target)
        try:
            pumps = [
                asyncio.create_task(_pump(reader, there_writer)),
                asyncio.create_task(_pump(there_reader, writer)),
            ]
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
        finally:
            there_writer.transport.abort()


async def _pump(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    while piece := await source.read(PIECE):
        target.write(piece)
        await target.drain()


@contextmanager
def tls_proxy(target: str, issued: Issued, *, refusing: bool = False) -> Iterator[TlsProxy]:
    """A proxy before the server of `target`, for the length of a block."""
    proxy = TlsProxy(target, issued, refusing=refusing)
    ready = threading.Event()
    loop = asyncio.new_event_loop()
    stop = asyncio.Event()

    async def serve() -> None:
        await proxy.serve(ready, stop)
        ours = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in ours:
            task.cancel()
        await asyncio.gather(*ours, return_exceptions=True)
        await asyncio.sleep(0.05)  # transports close in the round after the next

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),), daemon=True)
    thread.start()
    try:
        assert ready.wait(10)
        yield proxy
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(10)
        with contextlib.suppress(RuntimeError):
            loop.close()
