"""Forget a member of an organisation, but for a keyed hash that keeps late records out."""

from __future__ import annotations

from datetime import datetime, timedelta

from db.pool import Connection


async def erase(
    connection: Connection,
    *,
    org_id: str,
    user_id: str,
    erased_at: datetime,
    memory: timedelta,
) -> None:
    """Erase; placeholder until written."""
    raise NotImplementedError
