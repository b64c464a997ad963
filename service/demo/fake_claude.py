"""A stand-in for Claude on loopback: speaks `/v1/messages` to the real SDK, as a script tells it.

For the demo without a key, and for tests of every way in which the real one can fail. It checks
requests as the API does, remembers them, and by default answers sensibly from what it is told.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections import deque
from collections.abc import Callable
from typing import Any, Final, Self

from service.demo.fake_messages import (
    ERRORS,
    Act,
    Recorded,
    Response,
    error,
    message_for,
    objection_to,
)

MAX_BODY_BYTES: Final = 1_000_000
START_TIMEOUT_S: Final = 10.0


class FakeClaude:
    """`with FakeClaude() as fake:` listens at `fake.base_url` in a thread of its own.

    `script`: acts for the coming requests, in order; afterwards, and by default, `otherwise`.
    `rewrite` changes the input of the tool call, to say whatever a test wants said; `usage` is put
    over the tokens that a message tells of.
    """

    def __init__(self, otherwise: Act = Act.NORMAL, *, port: int = 0) -> None:
        self.script: deque[Act] = deque()
        self.otherwise = otherwise
        self.delay_s = 1.0
        self.rewrite: Callable[[dict[str, Any]], dict[str, Any]] = lambda answer: answer
        self.usage: dict[str, Any] = {}
        self.requests: list[Recorded] = []
        self.most_at_once = 0
        self.base_url = ""
        self._port = port
        self._at_once = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._serve, name="fake-claude", daemon=True)

    def __enter__(self) -> Self:
        """Start listening."""
        self._thread.start()
        if not self._started.wait(START_TIMEOUT_S):
            raise TimeoutError("the stand-in for Claude did not start")
        return self

    def __exit__(self, *_: object) -> None:
        """Hang up on everybody."""
        if self._loop is not None and self._stop is not None:
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(START_TIMEOUT_S)

    def play(self, act: Act, times: int = 1) -> None:
        """Append to the script."""
        self.script.extend([act] * times)

    # ------------------------------------------------------------------------------------ server

    def _serve(self) -> None:
        asyncio.run(self._listen())

    async def _listen(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        connections: set[asyncio.Task[None]] = set()

        async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            connections.add(task)
            try:
                await self._converse(reader, writer)
            except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
                pass
            finally:
                connections.discard(task)
                writer.close()

        server = await asyncio.start_server(accept, "127.0.0.1", self._port)
        host, port = server.sockets[0].getsockname()[:2]
        self.base_url = f"http://{host}:{port}"
        self._started.set()
        await self._stop.wait()
        server.close()
        for task in list(connections):
            task.cancel()
        await asyncio.sleep(0)

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            request_line, *lines = head.decode("latin-1").split("\r\n")
            headers = {
                name.strip().lower(): value.strip()
                for name, _, value in (line.partition(":") for line in lines if line)
            }
            length = int(headers.get("content-length", "0"))
            if length > MAX_BODY_BYTES:
                return
            recorded = Recorded(headers, await reader.readexactly(length))
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
            try:
                response = await self._respond(request_line, recorded, reader)
            finally:
                self._at_once -= 1
            if response is None or not await _send(writer, response):
                return

    async def _respond(
        self, request_line: str, recorded: Recorded, reader: asyncio.StreamReader
    ) -> Response | None:
        if not request_line.startswith("POST /v1/messages "):
            return error(404, "not_found_error", "no such address")
        self.requests.append(recorded)
        objection = objection_to(recorded)
        if objection is not None:
            return objection
        act = self.script.popleft() if self.script else self.otherwise
        if act is Act.HANG:
            await reader.read(1)  # until the other side gives up
            return None
        if act is Act.SLOW:
            await asyncio.sleep(self.delay_s)
        if act in ERRORS:
            return ERRORS[act]
        if act is Act.NOT_JSON:
            return Response(
                200, b"<html>a proxy's greeting</html>", (("content-type", "text/html"),)
            )
        body = recorded.body
        message = message_for(body, act, self.rewrite)
        message["usage"] |= self.usage
        return Response(200, json.dumps(message).encode(), cut=act is Act.RESET)


async def _send(writer: asyncio.StreamWriter, response: Response) -> bool:
    """Write it; False when the conversation is over."""
    headers = {
        "content-type": "application/json",
        "request-id": "req_stand_in",
        **dict(response.headers),
        "content-length": str(len(response.body)),
    }
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    head = f"HTTP/1.1 {response.status} Stand-in\r\n{lines}\r\n".encode("latin-1")
    if response.cut:
        writer.write(head + response.body[: len(response.body) // 2])
        await writer.drain()
        writer.transport.abort()
        return False
    writer.write(head + response.body)
    await writer.drain()
    return True
