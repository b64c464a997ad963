"""Housekeeping: what has served its time goes, what is one second younger stays."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import pytest

from db.housekeeping import housekeep
from db.pool import acquired
from tests.simulation import Simulation, simulation

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)

RUN = """
INSERT INTO batch_run (job, slot, status, finished_at)
VALUES ('compute-engagement-scores', $1, 'done', $1)"""
PAGE = "INSERT INTO batch_page (job, slot, block) VALUES ('compute-engagement-scores', $1, 0)"
LETTER = """
INSERT INTO dead_letter (topic, partition, "offset", code, message, failed_at, published_at)
VALUES ('t', 0, extract(epoch FROM $1::timestamptz)::bigint, 'schema', 'm', $1, {published})"""
VERDICT = """
INSERT INTO verdict (key, requested_at, settled_at, status, model, prompt_version, rules_level,
                     situation)
VALUES (convert_to($1::timestamptz::text, 'UTF8'), $1::timestamptz - interval '1 day', $1,
        'refused', 'm', '1', 'new', '{}')"""
INCIDENT = "INSERT INTO incident (kind, details, created_at) VALUES ('records_lost', '{}', $1)"
SESSION = """
INSERT INTO http_session VALUES (convert_to($1::timestamptz::text, 'UTF8'), 'session', 'ada', $1)"""


class Kept(NamedTuple):
    """How long the rows of a table stay; `insert` makes one of an age."""

    table: str
    insert: str
    age: timedelta


KEPT = [
    Kept("dead_letter", LETTER.format(published="$1"), timedelta(days=30)),
    Kept("verdict", VERDICT, timedelta(days=90)),
    Kept("incident", INCIDENT, timedelta(days=400)),
    Kept("http_session", SESSION, timedelta()),
    Kept("batch_run", RUN, timedelta(days=400)),
]


async def tidied(world: Simulation, limit: int = 100) -> dict[str, int]:
    """Rows removed in one turn, by table."""
    async with acquired(world.pool) as connection:
        removed = await housekeep(connection, limit)
    return {table: count for table, count in removed.items() if count}


@pytest.mark.parametrize("kept", KEPT, ids=lambda kept: kept.table)
async def test_rows_go_when_their_time_is_over(database: str, kept: Kept) -> None:
    async with simulation(database, NOW) as world:
        await world.execute(RUN, NOW)  # the latest run stays, however old
        old, young = NOW - kept.age, NOW - kept.age + SECOND
        for at in (old, young):
            await world.execute(kept.insert, at)
        assert await tidied(world) == {kept.table: 1}
        assert await tidied(world) == {}
        await world.advance(SECOND)
        assert await tidied(world) == {kept.table: 1}


async def test_a_dead_letter_that_is_not_on_its_topic_yet_stays(database: str) -> None:
    async with simulation(database, NOW) as world:
        await world.execute(LETTER.format(published="NULL"), NOW - timedelta(days=100))
        assert await tidied(world) == {}


async def test_the_latest_run_stays_and_pages_go_before_their_runs(database: str) -> None:
    async with simulation(database, NOW) as world:
        slots = [NOW - timedelta(days=days) for days in (14, 13)]
        for slot in slots:
            await world.execute(RUN, slot)
            await world.execute(PAGE, slot)
        assert await tidied(world) == {"batch_page": 1}
        await world.advance(timedelta(days=1000))
        assert await tidied(world) == {"batch_page": 1, "batch_run": 1}
        assert await world.value("SELECT array_agg(slot) FROM batch_run") == [slots[1]]


async def test_much_is_removed_in_pieces(database: str) -> None:
    async with simulation(database, NOW) as world:
        for number in range(5):
            await world.execute(INCIDENT, NOW - timedelta(days=500 + number))
        assert [await tidied(world, limit=2) for _ in range(4)] == [
            {"incident": 2}, {"incident": 2}, {"incident": 1}, {},
        ]  # fmt: skip
