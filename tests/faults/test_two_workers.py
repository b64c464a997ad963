"""The main job under load: two workers, one of them killed twice, everything as the oracle says."""

from __future__ import annotations

import asyncio
import random
from datetime import UTC, datetime

import pytest

from service.demo.input_record import InputRecord
from service.demo.population import load
from tests.faults.conftest import SceneMaker


def shuffled_over_the_log(records: int, seed: int) -> list[InputRecord]:
    """10 % repeated, 2 % corrected, and 10 % moved to anywhere in the whole log."""
    sent = list(
        load(
            seed, records, records // 10, shuffled=0.0, corrections=0.02, ends_at=datetime.now(UTC)
        )
    )
    rng = random.Random(seed)
    moved = rng.sample(range(len(sent)), len(sent) // 10)
    for here, there in zip(moved, rng.sample(moved, len(moved)), strict=True):
        sent[here], sent[there] = sent[there], sent[here]
    return sent


@pytest.mark.timeout(600)
async def test_two_workers_one_killed_twice(scene: SceneMaker) -> None:
    records = 300_000
    sent = shuffled_over_the_log(records, 7)
    async with scene(ENGAGEMENT_BATCH_MAX_RECORDS="2000") as it:
        _, mortal = await it.ready_workers("survivor", "mortal")
        sending = asyncio.create_task(it.send(sent))
        for number in (1, 2):
            await it.until_applied(records * number // 4)
            mortal.kill()
            (mortal,) = await it.ready_workers(f"mortal-{number}")
        await sending
        report = await it.finish()
    assert report.records == len(sent)
