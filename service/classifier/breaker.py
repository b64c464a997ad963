"""A circuit breaker: while Claude is away or wants to be left alone, nobody asks.

A limit (429) and a refused key stop at once; anything else after three failures in a row. When the
pause is over one question goes out, and its outcome decides for all.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from service.classifier.asking import CallFailed, Failure
from service.classifier.metrics import CLAUDE_METRICS

FAILURES_TO_OPEN: Final = 3
FIRST_PAUSE_S: Final = 15.0
MAX_PAUSE_S: Final = 600.0
# Limits often end earlier than they say, and one question a minute costs nobody anything.
MAX_WISHED_S: Final = 60.0

_AT_ONCE: Final = (Failure.RATE_LIMITED, Failure.DENIED)


class Breaker:
    """Counts outcomes of calls and says how many may be made now.

    One per process: the gauge is its own and follows at once.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._failures = 0
        self._pause_s = FIRST_PAUSE_S
        self._open_until: float | None = None
        self._probing = False
        self._show()

    @property
    def is_open(self) -> bool:
        """Whether calls are held back; until a probe succeeds."""
        return self._open_until is not None

    def pause_s(self) -> float:
        """How long nothing may be asked; 0 when something may."""
        return 0.0 if self._open_until is None else max(0.0, self._open_until - self._clock())

    def permits(self, wanted: int) -> int:
        """How many of `wanted` calls may be made now: all, one probe, or none."""
        if self._open_until is None:
            return wanted
        if self._probing or self.pause_s() > 0:
            return 0
        return min(wanted, 1)

    def begin(self) -> None:
        """A call goes out; while open, it is the probe."""
        self._probing = self.is_open

    def succeeded(self) -> None:
        """An answer arrived, good or bad: the way is clear."""
        self._failures = 0
        self._pause_s = FIRST_PAUSE_S
        self._open_until = None
        self._probing = False
        self._show()

    def failed(self, failure: CallFailed) -> None:
        """No answer arrived. A wish to wait is heeded, up to MAX_WISHED_S."""
        self._failures += 1
        probed, self._probing = self._probing, False
        if self.pause_s() > 0:
            return  # a straggler of those that were under way when it opened
        if probed or failure.failure in _AT_ONCE or self._failures >= FAILURES_TO_OPEN:
            wished_s = min(MAX_WISHED_S, failure.retry_after_s or 0.0)
            self._open_until = self._clock() + max(self._pause_s, wished_s)
            self._pause_s = min(MAX_PAUSE_S, self._pause_s * 2)
            self._show()

    def abandoned(self) -> None:
        """A call was cancelled without an outcome."""
        self._probing = False

    def _show(self) -> None:
        CLAUDE_METRICS.breaker_open.set(self.is_open)
