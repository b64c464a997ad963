"""Waiting between attempts: exponential with full jitter, bounded per wait."""

from __future__ import annotations

import asyncio
import random


class Backoff:
    """`wait()` sleeps longer each time, up to `most_s`; `reset()` after a success."""

    def __init__(self, *, first_s: float, most_s: float) -> None:
        self._first_s, self._most_s = first_s, most_s
        self._next_s = first_s

    async def wait(self) -> None:
        """Sleep between half of and the whole present delay, then double it."""
        delay_s = self._next_s * random.uniform(0.5, 1.0)  # noqa: S311 - jitter, not a secret
        self._next_s = min(self._next_s * 2, self._most_s)
        await asyncio.sleep(delay_s)

    def reset(self) -> None:
        """Begin with the shortest delay again."""
        self._next_s = self._first_s
