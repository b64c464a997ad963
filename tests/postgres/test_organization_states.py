"""Suspended, resumed, deleted, left, rejoined: what is shown, kept and said, beside the oracle."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from db.recomputing import Recomputing
from db.scope import Scope
from service.errors import Conflict
from service.levels import Level
from tests.oracle import check_history
from tests.simulation import Simulation, simulation

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
ORG, ADA, BOB = "club", "ada", "bob"


def days(number: float) -> timedelta:
    return timedelta(days=number)


async def club(world: Simulation) -> None:
    """Ada comes often, Bob came once."""
    await world.send("organization", org_id=ORG, name="The Club", status="active")
    for user in (ADA, BOB):
        await world.join(ORG, user, NOW - days(300))
    await world.attend(ORG, ADA, *(NOW - days(n) for n in (3, 10, 20)))
    await world.attend(ORG, BOB, NOW - days(80))
    await world.evaluate()
    assert await world.levels() == {(ORG, ADA): "highly_engaged", (ORG, BOB): "moderate"}


async def status(world: Simulation, value: str) -> None:
    await world.send("organization", org_id=ORG, name="The Club", status=value)
    await world.evaluate()


async def agree(world: Simulation) -> None:
    levels = await world.levels()
    assert levels == world.expected()
    assert check_history(await world.history(), levels) == []


async def test_suspended_keeps_what_is_shown_and_resumed_catches_up(database: str) -> None:
    async with simulation(database, NOW) as world:
        await club(world)
        await status(world, "suspended")
        before = await world.history()
        await world.set_override_refused(ORG, ADA)
        # The clock passes Bob's fall and Ada's, and new records arrive: nothing is said.
        await world.advance(days(75))
        await world.attend(ORG, BOB, world.now - days(1))
        assert await world.evaluate() == 0
        assert await world.levels() == {(ORG, ADA): "highly_engaged", (ORG, BOB): "moderate"}
        assert await world.history() == before
        assert await world.value("SELECT count(*) FROM engagement WHERE wake_at IS NOT NULL") == 0
        await status(world, "active")
        await agree(world)
        assert await world.level(ORG, BOB) == "moderate"
        assert await world.level(ORG, ADA) == "moderate"
        # Only Ada's level moved, once, and nobody gets stuck: the clocks run again.
        assert len(await world.history()) == len(before) + 1
        await world.advance(days(200))
        await world.evaluate()
        await agree(world)


async def test_leaving_applies_while_suspended(database: str) -> None:
    async with simulation(database, NOW) as world:
        await club(world)
        await world.set_override(ORG, BOB, "highly_engaged")
        await status(world, "suspended")
        await world.send(
            "membership", org_id=ORG, user_id=BOB, status="left", joined_at=NOW - days(300)
        )
        await world.evaluate()
        assert await world.levels() == {(ORG, ADA): "highly_engaged"}
        last = (await world.fetch("SELECT * FROM engagement_override_history ORDER BY 1"))[-1]
        assert (last["action"], last["performed_by"]) == ("clear", "system")
        await status(world, "active")
        await agree(world)


async def test_override_that_expires_while_suspended_waits_for_its_row(database: str) -> None:
    async with simulation(database, NOW) as world:
        await club(world)
        await world.set_override(ORG, BOB, "highly_engaged", NOW + days(1))
        await status(world, "suspended")
        await world.advance(days(2))
        assert await world.evaluate() == 0
        # Reads honour the expiry to the instant; the row that says so waits.
        assert await world.level(ORG, BOB) == "moderate"
        actions = "SELECT action FROM engagement_override_history ORDER BY override_history_id"
        assert [r[0] for r in await world.fetch(actions)] == ["override"]
        await status(world, "active")
        assert [r[0] for r in await world.fetch(actions)] == ["override", "expire"]
        await agree(world)
        assert (await world.history())[-1]["cause"] == "override_expired"


async def test_deleted_is_as_if_everybody_left(database: str) -> None:
    async with simulation(database, NOW) as world:
        await club(world)
        await world.set_override(ORG, ADA, "at_risk")
        await status(world, "deleted")
        assert await world.levels() == {}
        await agree(world)
        history = await world.history()
        assert [(r["to_level"], r["cause"]) for r in history[-2:]] != []
        gone = [r for r in history if r["to_level"] is None]
        assert {r["cause"] for r in gone} == {"membership"}
        assert len(gone) == 2
        tombstones = await world.value("SELECT count(*) FROM outbox WHERE level_body IS NULL")
        assert tombstones == 2
        with pytest.raises(Conflict):
            await world.set_override(ORG, ADA, "moderate")
        # A late record of the past brings nobody back; a resumed organisation does.
        await world.attend(ORG, ADA, NOW - days(1))
        await world.evaluate()
        assert await world.levels() == {}
        await status(world, "active")
        await agree(world)
        assert await world.level(ORG, ADA) == "highly_engaged"


async def test_left_and_rejoined(database: str) -> None:
    async with simulation(database, NOW) as world:
        await club(world)
        await world.send(
            "membership", org_id=ORG, user_id=ADA, status="left", joined_at=NOW - days(300)
        )
        await world.evaluate()
        assert await world.level(ORG, ADA) is None
        await agree(world)
        # Activity of one who has left counts for nothing until they are back.
        await world.advance(days(5))
        await world.attend(ORG, ADA, world.now)
        await world.evaluate()
        assert await world.level(ORG, ADA) is None
        await world.advance(days(1))
        await world.join(ORG, ADA, world.now)
        await world.evaluate()
        assert await world.level(ORG, ADA) == "highly_engaged"
        await agree(world)
        revisions = [r["revision"] for r in await world.history() if r["user_id"] == ADA]
        assert revisions == sorted(set(revisions))


@pytest.mark.parametrize("batches", [1, 2], ids=["one batch", "two batches"])
@pytest.mark.parametrize("waits", [False, True], ids=["active", "suspended"])
async def test_who_left_and_is_back_at_once_has_no_override(
    database: str, batches: int, waits: bool
) -> None:
    """Nobody has evaluated in between: only the last record is the current one."""
    async with simulation(database, NOW) as world:
        await club(world)
        await world.set_override(ORG, BOB, "highly_engaged")
        if waits:
            await status(world, "suspended")
        await world.advance(days(1))
        left, back = (
            world.record(
                "membership", org_id=ORG, user_id=BOB, status=status, joined_at=NOW - days(300)
            )
            for status in ("left", "active")
        )
        for batch in [[left, back]] if batches == 1 else [[left], [back]]:
            await world.apply(batch)
        await world.evaluate()
        if waits:
            await status(world, "active")
        await agree(world)
        assert await world.level(ORG, BOB) == "moderate"
        assert await last_action(world) == ("clear", "highly_engaged", "moderate", "system")
        change = (await world.history())[-1]
        assert (change["to_level"], change["cause"]) == ("moderate", "membership")
        # What is set from now on stays.
        await world.advance(days(1))
        await world.set_override(ORG, BOB, "at_risk")
        await world.join(ORG, BOB, NOW - days(299))
        await world.evaluate()
        await agree(world)
        assert await world.level(ORG, BOB) == "at_risk"


async def test_somebody_new_who_left_and_is_back_at_once(database: str) -> None:
    async with simulation(database, NOW) as world:
        said = {"org_id": ORG, "user_id": ADA, "joined_at": NOW - days(30)}
        left, back = (
            world.record("membership", status=status, **said) for status in ("left", "active")
        )
        await world.apply([left, back])
        await world.evaluate()
        await agree(world)
        assert await world.levels() == {(ORG, ADA): "new"}
        assert [change["to_level"] for change in await world.history()] == ["new"]


async def test_a_late_record_of_leaving_ends_no_override(database: str) -> None:
    async with simulation(database, NOW) as world:
        await club(world)
        await world.set_override(ORG, BOB, "highly_engaged")
        await world.advance(days(1))
        left = {"org_id": ORG, "user_id": BOB, "status": "left", "joined_at": NOW - days(300)}
        await world.send("membership", **left, recorded_at=NOW - days(200))
        await world.evaluate()
        await agree(world)
        assert await world.level(ORG, BOB) == "highly_engaged"


@pytest.mark.parametrize("batches", [1, 2], ids=["one batch", "two batches"])
async def test_an_organisation_that_is_back_at_once_has_no_overrides(
    database: str, batches: int
) -> None:
    async with simulation(database, NOW) as world:
        await club(world)
        await world.set_override(ORG, ADA, "at_risk")
        await world.advance(days(1))
        deleted, back = (
            world.record("organization", org_id=ORG, name="The Club", status=status)
            for status in ("deleted", "active")
        )
        for batch in [[deleted, back]] if batches == 1 else [[deleted], [back]]:
            await world.apply(batch)
        await world.evaluate()
        await agree(world)
        assert await world.level(ORG, ADA) == "highly_engaged"
        assert await last_action(world) == ("clear", "at_risk", "highly_engaged", "system")


async def last_action(world: Simulation) -> tuple[Any, ...]:
    """What the override history said last."""
    rows = await world.fetch("SELECT * FROM engagement_override_history ORDER BY 1")
    names = ("action", "previous_level", "new_level", "performed_by")
    return tuple(rows[-1][name] for name in names)


async def test_joining_that_lies_ahead_is_scored_when_it_comes(database: str) -> None:
    async with simulation(database, NOW) as world:
        await world.join(ORG, ADA, NOW + timedelta(hours=5))
        await world.evaluate()
        assert await world.levels() == {}
        await world.advance(timedelta(hours=5))
        await world.evaluate()
        assert await world.levels() == {(ORG, ADA): "new"}
        await agree(world)


async def test_without_implicit_membership_activity_alone_is_not_scored(database: str) -> None:
    async with simulation(database, NOW, implicit_membership=False) as world:
        await world.attend(ORG, ADA, NOW - days(1))
        await world.evaluate()
        assert await world.levels() == {}
        await world.join(ORG, ADA, NOW - days(100))
        await world.evaluate()
        assert await world.levels() == {(ORG, ADA): "moderate"}
        await agree(world)


async def test_an_override_that_expires_meanwhile_is_over_for_whoever_looks(database: str) -> None:
    """No row is written while the organisation is suspended; every read knows all the same."""
    async with simulation(database, NOW) as world:
        await club(world)
        await world.set_override(ORG, BOB, "inactive", NOW + days(1))
        await status(world, "suspended")
        await world.advance(days(2))
        recomputing = Recomputing(world.pool, world.evaluating)
        (lines,) = [lines async for lines in recomputing.foresee(Scope(ORG, BOB))]
        (line,) = lines
        assert (line.level, line.next_level, line.next_change_at) == (Level.MODERATE, None, None)
        assert await world.level(ORG, BOB) == "moderate"
