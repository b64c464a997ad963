"""What a page of evaluations reads, and when; what it writes though no level moves."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

from db import thresholds
from db.pool import transaction
from service.thresholds import DEFAULT_THRESHOLDS
from tests.simulation import simulation

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
ORG = "club"
# The statement that locks asks for the time: here it takes a while once a connection is told so.
SLOW_CLOCK = """
CREATE OR REPLACE FUNCTION engagement_now() RETURNS timestamptz LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    IF current_setting('test.slow', true) = 'yes' THEN
        PERFORM set_config('test.slow', 'no', false), pg_sleep(1);
    END IF;
    RETURN timestamptz '{at}';
END $$"""
SLEEPS = "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE wait_event = 'PgSleep')"
VERSIONS = "SELECT level, thresholds_version FROM engagement ORDER BY member_id"


def days(number: float) -> timedelta:
    return timedelta(days=number)


async def test_nobody_is_evaluated_by_thresholds_older_than_applied_ones(database: str) -> None:
    """Whoever locks may wait between its snapshot and a member that another evaluates meanwhile."""
    async with simulation(database, NOW, connections=8) as world:
        for user in ("ada", "ben"):
            await world.join(ORG, user, NOW - days(400))
            await world.attend(ORG, user, NOW - days(5))
        await world.evaluate()
        await world.execute(SLOW_CLOCK.format(at=world.now.isoformat()))

        async def slowly() -> None:
            async with transaction(world.pool) as connection:
                await connection.execute("SET test.slow = 'yes'")
                page = await world.evaluating.evaluate_members(
                    connection, {1: {"signals"}, 2: {"signals"}}
                )
                assert page.evaluated == 2

        first = asyncio.create_task(slowly())
        async with asyncio.timeout(10):
            while not await world.value(SLEEPS):  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        higher = DEFAULT_THRESHOLDS._replace(moderate_min_events=2)
        async with transaction(world.pool) as connection:
            await thresholds.save(
                connection, ORG, higher, base_version=None, author="boss", note=""
            )
        async with transaction(world.pool) as connection:
            assert (await world.evaluating.evaluate_due(connection, 100)).evaluated > 0
        await first
        await world.evaluate()
        assert [tuple(row) for row in await world.fetch(VERSIONS)] == [("at_risk", 1)] * 2


async def test_evidence_names_the_events_that_count_though_nothing_else_moves(
    database: str,
) -> None:
    """Booked on the wrong event: one goes, another comes, on dates in between."""
    async with simulation(database, NOW) as world:
        await world.join(ORG, "ada", NOW - days(400))
        seen = {"e1": 30, "e2": 20, "e3": 10}
        await world.apply(
            world.record(
                "attendance", org_id=ORG, user_id="ada", event_id=event, status="attended",
                occurred_at=NOW - days(age),
            )
            for event, age in seen.items()
        )  # fmt: skip
        await world.evaluate()
        (before,) = await world.fetch("SELECT * FROM engagement")
        await world.apply(
            world.record(
                "attendance", org_id=ORG, user_id="ada", event_id=event, status=status,
                occurred_at=NOW - days(age),
            )
            for event, status, age in (("e2", "void", 20), ("e9", "attended", 19))
        )  # fmt: skip
        await world.evaluate()
        (after,) = await world.fetch("SELECT * FROM engagement")
        assert before["counted_event_ids"] == ["e1", "e2", "e3"]
        assert after["counted_event_ids"] == ["e1", "e9", "e3"]
        # Evidence is no part of the level record.
        assert after["revision"] == before["revision"]
