"""`engagement api`: the HTTP API and the admin pages, in a process of their own."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack
from math import inf
from typing import Final

import click
import structlog

from db.actions import ActionParts
from db.api_store import ApiStore
from service.api.server import serve
from service.api.services import Services
from service.api.tokens import is_development, verifier_from
from service.cli.running import with_settings
from service.errors import Retryable
from service.interpreter import prepare_interpreter
from service.settings import Settings

PAUSE_S: Final = 1.0

log = structlog.get_logger(__name__)


@click.command()
def api() -> None:
    """Serve the HTTP API and the admin pages, until SIGTERM or Ctrl-C.

    Waits for the database and its schema. Liveness, readiness and metrics are on
    ENGAGEMENT_API_OPS_PORT, from the start. Any number of these processes may share the work.
    """
    with_settings(run_api, libraries="WARNING")


async def run_api(settings: Settings) -> None:
    """Serve until told to stop. Raises SettingsError."""
    verifier = verifier_from(settings)
    async with AsyncExitStack() as opened:

        async def open_services() -> Services:
            store = await opened_store(settings, patience_s=inf)
            opened.push_async_callback(store.close)
            prepare_interpreter()
            return Services(
                store,
                verifier,
                implicit_membership=settings.implicit_membership,
                development=is_development(settings),
            )

        await serve(open_services, settings)


async def opened_store(settings: Settings, *, patience_s: float) -> ApiStore:
    """The API's way into the database, waiting for it for so long.

    Raises Retryable when it does not come, SettingsError when it is not as it should be.
    """
    actions = ActionParts(settings)
    give_up_at = time.monotonic() + patience_s
    said = ""
    while True:
        try:
            return await ApiStore.open(settings, actions, prepare=actions.prepare)
        except Retryable as error:
            if time.monotonic() >= give_up_at:
                raise
            if str(error) != said:
                said = str(error)
                log.warning("waiting", action="wait", reason=said)
            await asyncio.sleep(PAUSE_S)
