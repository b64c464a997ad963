"""The API and its admin pages in the demo."""

from __future__ import annotations

import asyncio
import time
from typing import Final

from db.people import Admin
from service.demo.children import Children
from service.errors import Retryable
from service.settings import Settings

START_TIMEOUT_S: Final = 60.0
LOOK_EVERY_S: Final = 0.2
API: Final = "api"


async def open_for(admin: Admin, settings: Settings, children: Children) -> str:
    """Start the API as a child; a link that signs this administrator in, once.

    Raises LocalServerError when it ends, Retryable when it does not listen in time.
    """
    children.start(API, "api")
    deadline = time.monotonic() + START_TIMEOUT_S
    while not await _listens(settings):
        children.require_running(API)
        if time.monotonic() > deadline:
            raise Retryable(f"the API does not listen after {START_TIMEOUT_S:.0f} s")
        await asyncio.sleep(LOOK_EVERY_S)
    printed = await asyncio.to_thread(
        children.output, "sign-in link", "token", admin.user_id, "--link", admin.org_id
    )
    return next(line for line in printed.splitlines() if line.startswith("http"))


async def _listens(settings: Settings) -> bool:
    try:
        _, writer = await asyncio.open_connection(settings.api_host, settings.api_port)
    except OSError:
        return False
    writer.close()
    return True
