"""The API as operators run it: `engagement api` in a process of its own, on free ports."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta

import httpx2

from service.api.tokens import development_token
from service.demo.local.ports import free_port
from service.settings import Settings, load_settings

SECRET = "a-development-secret-of-the-tests-only"
START_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 30.0


@dataclass
class ApiProcess:
    """A running API; `address` is its root, `ops_address` that of its operators' port."""

    process: asyncio.subprocess.Process
    settings: Settings
    environment: dict[str, str]
    address: str
    ops_address: str

    def token(self, user_id: str) -> str:
        return development_token(self.settings, user_id, timedelta(hours=1))

    async def until_ready(self) -> None:
        """Wait until it is ready."""
        async with asyncio.timeout(START_TIMEOUT_S), httpx2.AsyncClient() as client:
            while True:
                if self.process.returncode is not None:
                    raise RuntimeError(f"the API ended with {self.process.returncode}")
                try:
                    response = await client.get(f"{self.ops_address}/readyz")
                    if response.status_code == 200:
                        return
                except httpx2.TransportError:
                    pass
                await asyncio.sleep(0.1)

    async def stop(self) -> int:
        """SIGTERM; the exit code. What still runs after a while is killed."""
        if self.process.returncode is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return await asyncio.wait_for(self.process.wait(), STOP_TIMEOUT_S)
        except TimeoutError:
            self.process.kill()
            await self.process.wait()
            raise


@asynccontextmanager
async def api_process(dsn: str, *, wait: bool = True, **more: str) -> AsyncIterator[ApiProcess]:
    """Start `engagement api` on a migrated database, `wait` until it is ready, stop it after.

    `more` are settings; an empty one leaves out what is set otherwise.
    """
    port, ops_port = free_port(), free_port()
    given = {
        "DATABASE_URL": dsn,
        "ENGAGEMENT_JWT_DEV_SECRET": SECRET,
        "ENGAGEMENT_API_PORT": str(port),
        "ENGAGEMENT_API_OPS_PORT": str(ops_port),
        "ENGAGEMENT_LOG_LEVEL": "WARNING",
        **more,
    }
    given = {name: value for name, value in given.items() if value}
    environment = {
        name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR", "LANG") if name in os.environ
    } | given
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "service.cli.main", "api", env=environment
    )
    running = ApiProcess(
        process,
        load_settings(given),
        environment,
        f"http://127.0.0.1:{port}",
        f"http://127.0.0.1:{ops_port}",
    )
    try:
        if wait:
            await running.until_ready()
        yield running
    finally:
        await running.stop()
