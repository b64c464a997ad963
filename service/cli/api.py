"""`engagement api`: the HTTP API and the admin pages, in a process of their own."""

from __future__ import annotations

import asyncio
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

START_TIMEOUT_S: Final = 60.0
PAUSE_S: Final = 1.0

log = structlog.get_logger(__name__)


@click.command()
def api() -> None:
    """Serve the HTTP API and the admin pages, until SIGTERM or Ctrl-C.

    Waits up to a minute for the database and its schema. Liveness, readiness and metrics are on
    ENGAGEMENT_API_OPS_PORT. Any number of these processes may share the work.
    """
    with_settings(run_api, libraries="WARNING")


async def run_api(settings: Settings) -> None:
    """Serve until told to stop. Raises SettingsError, or Retryable when the database stays away."""
    verifier = verifier_from(settings)
    store = await opened_store(settings)
    try:
        services = Services(
            store,
            verifier,
            implicit_membership=settings.implicit_membership,
            development=is_development(settings),
        )
        prepare_interpreter()
        await serve(services, settings)
    finally:
        await store.close()


async def opened_store(settings: Settings) -> ApiStore:
    """The API's way into the database, waiting for it for a minute."""
    actions = ActionParts(settings)
    loop = asyncio.get_running_loop()
    give_up_at = loop.time() + START_TIMEOUT_S
    while True:
        try:
            return await ApiStore.open(settings, actions, prepare=actions.prepare)
        except Retryable as error:
            if loop.time() >= give_up_at:
                raise
            log.warning("database_not_ready", action="wait", error=str(error))
            await asyncio.sleep(PAUSE_S)
