"""Hears of work that other processes made, so that nobody waits for the next poll."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import structlog

from db.wakeups import Wakeup, listen
from service.errors import Retryable
from service.settings import Settings
from streams.backoff import Backoff

log = structlog.get_logger(__name__)


class Listener:
    """One connection that listens; cut off, it connects again."""

    def __init__(self, settings: Settings, callbacks: Mapping[Wakeup, Callable[[], None]]) -> None:
        self._settings = settings
        self._callbacks = callbacks

    async def run(self, should_stop: Callable[[], bool]) -> None:
        """Listen until told to stop."""
        backoff = Backoff(first_s=0.5, most_s=10.0)
        while not should_stop():
            try:
                await listen(self._settings, self._callbacks, should_stop)
            except Retryable as error:
                log.info("listening_again", action="retry", error=str(error))
                await backoff.wait()
