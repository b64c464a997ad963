"""The database's clock, set to whatever a test needs."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Final

from tests.faults.scene import Scene

SHIFT: Final = """
CREATE OR REPLACE FUNCTION engagement_now() RETURNS timestamptz
    LANGUAGE sql STABLE PARALLEL SAFE
    RETURN transaction_timestamp() + interval '{off_s} seconds'"""


class DatabaseClock:
    """The clock of a scene's database, which goes on from wherever it is set to."""

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        self._ahead = timedelta(0)

    async def set(self, at: datetime) -> None:
        """Let it be this instant now. Only while nothing is under way, and never back."""
        self._ahead = at - await self._scene.value("SELECT now()")
        await self._scene.execute(SHIFT.format(off_s=self._ahead.total_seconds()))

    def now(self) -> datetime:
        """What it shows: server and test are on one machine."""
        return datetime.now(UTC) + self._ahead

    async def until(self, at: datetime) -> None:
        """Wait until it shows this instant."""
        await asyncio.sleep(max(0.0, (at - self.now()).total_seconds()))
