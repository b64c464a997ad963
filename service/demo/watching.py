"""Keeps the picture up to date: follows the output topics, and how far the input is applied."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Final

from db import checkup, dead_letter_log, due, offsets
from db.pool import Pool, acquired
from service.demo.picture import Picture, SeenChange
from service.errors import Retryable
from service.settings import Settings
from streams.tailing import Record, extents, reading
from streams.topics import input_topics

APPLIED_EVERY_S: Final = 0.5
SETTLED_EVERY_S: Final = 0.5


async def watch_output(settings: Settings, picture: Picture) -> None:
    """Follow the three output topics for ever."""
    names = [settings.topic_level, settings.topic_change, settings.topic_dead_letter]
    async with reading(settings, names, from_beginning=True) as reader:
        async for record in reader.follow():
            if record.topic == settings.topic_level:
                _take_level(picture, record)
            elif record.topic == settings.topic_change:
                _take_change(picture, record)
            else:
                code = dict(record.headers).get("__streams.errors.exception") or b"?"
                picture.dead_letters[code.decode()] += 1


def _take_level(picture: Picture, record: Record) -> None:
    key = (record.key or b"").decode()
    picture.level_records += 1
    if record.value is None:
        picture.tombstones += 1
        picture.levels.pop(key, None)
    else:
        picture.levels[key] = json.loads(record.value)["level"]


def _take_change(picture: Picture, record: Record) -> None:
    body = json.loads(record.value or b"{}")
    picture.changes[body["cause"]] += 1
    key = (record.key or b"").decode()
    picture.recent.append(SeenChange(key, body["from_level"], body["to_level"], body["cause"]))


async def watch_applied(settings: Settings, pool: Pool, picture: Picture) -> None:
    """Count what the workers have applied since now, for ever."""
    kinds = {name: kind.value for name, kind in input_topics(settings).items()}
    while True:
        async with acquired(pool) as connection:
            rows = await offsets.read_all(connection)
        picture.applied.clear()
        for row in rows:
            if row["topic"] in kinds:
                picture.applied[kinds[row["topic"]]] += row["next_offset"]
        await asyncio.sleep(APPLIED_EVERY_S)


async def wait_until_settled(settings: Settings, pool: Pool, timeout_s: float) -> None:
    """Return when everything sent is applied, evaluated and published; Retryable after a while."""
    deadline = time.monotonic() + timeout_s
    while (left := await _unsettled(settings, pool)) is not None:
        if time.monotonic() > deadline:
            raise Retryable(f"not settled after {timeout_s:.0f} s: {left}")
        await asyncio.sleep(SETTLED_EVERY_S)


async def _unsettled(settings: Settings, pool: Pool) -> str | None:
    """What is still to be done, or None."""
    ends = await extents(settings, list(input_topics(settings)))
    async with acquired(pool) as connection:
        rows = await offsets.read_all(connection)
        applied = {(row["topic"], row["partition"]): row["next_offset"] for row in rows}
        lag = sum(extent.end - applied.get(at, extent.first) for at, extent in ends.items())
        # In the order of the work: what is applied may make somebody due, who is published then.
        if lag:
            return f"{lag} records to be applied"
        if await due.any_due(connection):
            return "members to be evaluated"
        if outbox := (await checkup.waiting(connection)).outbox:
            return f"{outbox} states to be published"
        if await dead_letter_log.oldest_unpublished(connection):
            return "dead letters to be published"
    return None
