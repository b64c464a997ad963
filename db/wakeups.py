"""Telling other processes that there is work, over PostgreSQL's LISTEN and NOTIFY.

Only to be quick: whoever misses a notification (a lost connection, a pooler in between) finds the
work when polling, a second later at the most.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Any, Final

from db import offsets
from db.connecting import Connector
from db.errors import translated
from db.pool import Connection, tls_arguments
from service.errors import Retryable
from service.settings import Settings

NOTIFY: Final = "SELECT pg_notify($1, '')"
PING_S: Final = 15.0


class Wakeup(StrEnum):
    """What there is to do; the names of the channels."""

    DUE = "engagement_due"
    OUTBOX = "engagement_outbox"


async def tell(connection: Connection, wakeup: Wakeup) -> None:
    """Wake whoever listens, once the caller's transaction has committed."""
    await connection.execute(NOTIFY, wakeup.value)


async def listen(
    settings: Settings,
    callbacks: Mapping[Wakeup, Callable[[], None]],
    should_stop: Callable[[], bool],
) -> None:
    """Call back on every notification until told to stop.

    Raises Retryable when cut off, or when this is no longer the server that is written to.
    """

    def heard(_connection: Any, _pid: int, channel: str, _payload: object) -> None:
        callbacks[Wakeup(channel)]()

    with translated():
        connector = Connector(settings.database_url.get_secret_value())
        connection = await connector.connect(
            command_timeout=5,
            server_settings={"application_name": "engagement-listen"},
            **tls_arguments(settings),
        )
        try:
            for wakeup in callbacks:
                await connection.add_listener(wakeup.value, heard)
            silent_s = 0.0
            while not should_stop():
                await asyncio.sleep(0.5)
                silent_s += 0.5
                if silent_s >= PING_S:
                    # Notices a connection that is half open, too.
                    if not await offsets.takes_writes(connection):
                        raise Retryable("database: the server takes no writes")
                    silent_s = 0.0
        finally:
            connection.terminate()
