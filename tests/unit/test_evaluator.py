"""How the evaluators of a worker make way for its intake."""

from __future__ import annotations

import asyncio
import time
from itertools import pairwise
from typing import Any, cast

from db.evaluating import Page
from streams.evaluator import BUSY_PAUSE_S, IDLE_POLL_S, Evaluator

NOBODY = Page(0, 0, {}, 0, 0)


class Scene:
    """An evaluator that finds nobody due; a backlog begins once it has looked."""

    def __init__(self) -> None:
        self.looked_at: list[float] = []
        self.evaluator = Evaluator(
            cast("Any", None),
            cast("Any", None),
            intake_is_busy=lambda: len(self.looked_at) > 0,
            published=lambda: None,
        )
        self.evaluator.step = self._step  # type: ignore[method-assign]

    async def _step(self) -> Page:
        self.looked_at.append(time.monotonic())
        return NOBODY

    async def run(self, steps: int) -> None:
        await self.evaluator.run(lambda: len(self.looked_at) >= steps)


async def test_rest_is_no_work_that_the_intake_has_to_be_paid_back() -> None:
    """Else members would wait for fifty times as long as nobody was due before the backlog."""
    scene = Scene()
    await asyncio.wait_for(scene.run(steps=3), 10 * (IDLE_POLL_S + BUSY_PAUSE_S))
    assert all(later - earlier >= BUSY_PAUSE_S for earlier, later in pairwise(scene.looked_at))
