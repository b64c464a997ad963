"""`engagement recompute --status`."""

from __future__ import annotations

from service.settings import Settings


async def show_status(settings: Settings, *, as_json: bool) -> None:
    raise NotImplementedError
