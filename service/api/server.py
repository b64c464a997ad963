"""Runs the API and its operators' port until told to stop; nobody is cut off."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Callable, Coroutine, Iterator, Mapping
from typing import Final

import structlog
import uvicorn
from starlette.types import ASGIApp

from service.api.app import create_app
from service.api.ops import create_ops_app
from service.api.protocol import ProblemProtocol
from service.api.services import Services
from service.errors import SettingsError
from service.settings import Settings

STOP_TIMEOUT_S: Final = 20
# Longer than load balancers usually keep an idle connection before they use it again.
KEEP_ALIVE_S: Final = 75

Opening = Callable[[], Coroutine[object, object, Services]]

log = structlog.get_logger(__name__)


class _Server(uvicorn.Server):
    """A server whose process belongs to somebody else."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to `serve`, which has two servers to stop in order."""
        yield


def _server(app: ASGIApp, host: str, port: int) -> _Server:
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        http=ProblemProtocol,
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        lifespan="off",
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=STOP_TIMEOUT_S,
    )
    return _Server(config)


async def serve(open_services: Opening, settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT: readiness fails, requests under way end, then all is closed.

    Operators are answered from the start, everybody else once `open_services` has found its parts,
    for which it may take as long as it likes. Raises what that raises, and SettingsError when a
    port is taken.
    """
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    parts = _Parts(stopping)
    ops = _server(create_ops_app(parts.check), settings.api_ops_host, settings.api_ops_port)
    ops_task = asyncio.create_task(_run(ops, "ENGAGEMENT_API_OPS_PORT"), name="ops")
    waiting = asyncio.create_task(stopping.wait(), name="signal")
    opening = asyncio.create_task(open_services(), name="open")
    try:
        await asyncio.wait({ops_task, opening, waiting}, return_when=asyncio.FIRST_COMPLETED)
        if opening.done():
            parts.services = opening.result()
            await _serve_all(parts, ops_task, waiting, settings)
    finally:
        waiting.cancel()
        opening.cancel()
        ops.should_exit = True
        results = await asyncio.gather(ops_task, return_exceptions=True)
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)
    for result in results:
        if isinstance(result, BaseException):
            raise result


class _Parts:
    """What is there by now, as operators see it."""

    def __init__(self, stopping: asyncio.Event) -> None:
        self.services: Services | None = None
        self.api: _Server | None = None
        self._stopping = stopping

    async def check(self) -> Mapping[str, str]:
        """Name -> "ok" or what is wrong."""
        if self.services is None or self.api is None or not self.api.started:
            return {"parts": "waiting for the database"}
        checks = dict(await self.services.store.check())
        return {**checks, "process": "stopping"} if self._stopping.is_set() else checks


async def _serve_all(
    parts: _Parts,
    ops_task: asyncio.Task[None],
    waiting: asyncio.Task[bool],
    settings: Settings,
) -> None:
    """Answer everybody until the signal comes, or a server ends. Raises what ended it."""
    assert parts.services is not None
    api = _server(create_app(parts.services), settings.api_host, settings.api_port)
    parts.api = api
    api_task = asyncio.create_task(_run(api, "ENGAGEMENT_API_PORT"), name="api")
    log.info(
        "api_started",
        action="start",
        address=f"http://{settings.api_host}:{settings.api_port}",
        ops_address=f"http://{settings.api_ops_host}:{settings.api_ops_port}",
    )
    try:
        await asyncio.wait({api_task, ops_task, waiting}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        log.info("api_stopping", action="stop")
        api.should_exit = True
        await api_task


async def _run(server: _Server, setting: str) -> None:
    try:
        await server.serve()
    except SystemExit:
        # uvicorn's way to say that it could not bind; it has logged why.
        raise SettingsError(f"{setting}: the address cannot be bound") from None
