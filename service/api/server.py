"""Runs the API and its operators' port until told to stop; nobody is cut off."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Iterator
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


async def serve(services: Services, settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT: readiness fails, requests under way end, then all is closed.

    Raises SettingsError when a port is taken.
    """
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    api = _server(create_app(services), settings.api_host, settings.api_port)
    ops_app = create_ops_app(services.store, is_stopping=stopping.is_set)
    ops = _server(ops_app, settings.api_ops_host, settings.api_ops_port)
    tasks = {
        asyncio.create_task(_run(api, "ENGAGEMENT_API_PORT"), name="api"),
        asyncio.create_task(_run(ops, "ENGAGEMENT_API_OPS_PORT"), name="ops"),
    }
    waiting = asyncio.create_task(stopping.wait(), name="signal")
    log.info(
        "api_started",
        action="start",
        address=f"http://{settings.api_host}:{settings.api_port}",
        ops_address=f"http://{settings.api_ops_host}:{settings.api_ops_port}",
    )
    try:
        await asyncio.wait({*tasks, waiting}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        waiting.cancel()
        log.info("api_stopping", action="stop")
        api.should_exit = True
        results = await asyncio.gather(
            *(task for task in tasks if task.get_name() == "api"), return_exceptions=True
        )
        ops.should_exit = True
        results += await asyncio.gather(*tasks, return_exceptions=True)
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)
    for result in results:
        if isinstance(result, BaseException):
            raise result


async def _run(server: _Server, setting: str) -> None:
    try:
        await server.serve()
    except SystemExit:
        # uvicorn's way to say that it could not bind; it has logged why.
        raise SettingsError(f"{setting}: the address cannot be bound") from None
