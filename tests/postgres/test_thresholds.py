"""Thresholds: immutable versions, one who saves at a time, and previews that come true."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from db import thresholds as versions
from db.evaluating import Evaluating
from db.evaluation import CaseReader
from db.explanations import ExplanationCache
from db.judging import ClaudeJudge
from db.pool import Connection, transaction
from db.preview import Previewing
from service.api.values import ThresholdsPreview
from service.errors import Conflict, InvalidInput, InvalidThresholds, Refused, Stale
from service.levels import Level
from service.thresholds import DEFAULT_THRESHOLDS, Thresholds
from tests.oracle import check_history
from tests.simulation import Simulation, simulation

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
ORG, OTHER = "club", "choir"
MODEL = "claude-haiku-5-5"


def days(number: float) -> timedelta:
    return timedelta(days=number)


async def community(world: Simulation, members: int = 120, seed: int = 3) -> None:
    """Members of every kind in two organisations, a few with overrides."""
    rng = random.Random(seed)
    records = []
    for number in range(members):
        org, user = (OTHER if number % 6 == 0 else ORG), f"user{number:03d}"
        if rng.random() < 0.8:
            joined_at = NOW - days(rng.choice([5, 20, 45, 100, 300]))
            status = "left" if rng.random() < 0.05 else "active"
            body: dict[str, Any] = {"status": status, "joined_at": joined_at}
            records.append(world.record("membership", org_id=org, user_id=user, **body))
        records += [
            world.record(
                "attendance", org_id=org, user_id=user, event_id=f"e{event}", status="attended",
                occurred_at=NOW - days(rng.uniform(-0.9, 250)),
            )
            for event in range(rng.randint(0, 6))
        ]  # fmt: skip
        if rng.random() < 0.3:
            at = NOW - days(rng.uniform(0, 200))
            records.append(
                world.record(
                    "rsvp",
                    org_id=org,
                    user_id=user,
                    event_id="r",
                    response="going",
                    responded_at=at,
                )
            )
    await world.apply(sorted(records, key=lambda r: r.kind))
    await world.evaluate()
    for member in sorted(await world.levels())[::25]:
        await world.set_override(*member, "inactive", NOW + days(3))
    await world.execute("DELETE FROM outbox")


async def save(world: Simulation, org: str = ORG, **given: Any) -> Thresholds:
    numbers = {n: v for n, v in given.items() if n in Thresholds._fields}
    wanted: dict[str, Any] = {"base_version": None, "author": "boss", "note": ""}
    wanted |= {n: v for n, v in given.items() if n not in numbers}
    async with transaction(world.pool) as connection:
        return await versions.save(
            connection, org, DEFAULT_THRESHOLDS._replace(**numbers), **wanted
        )


async def test_saving_marks_the_organisation_and_republishes_it(database: str) -> None:
    async with simulation(database, NOW) as world:
        await community(world)
        before = await world.levels()
        await world.set_thresholds(ORG, highly_engaged_min_events=5, new_member_days=10)
        assert await world.value("SELECT count(*) FROM due_organization") == 1
        await world.evaluate()
        levels = await world.levels()
        assert levels == world.expected()
        assert {m for m, level in levels.items() if before[m] != level}
        assert check_history(await world.history(), levels) == []
        keys = [r[0] for r in await world.fetch("SELECT message_key FROM outbox")]
        # Everybody scored in this organisation, once, and nobody of the other.
        assert sorted(keys) == sorted(f"{org}:{user}" for org, user in levels if org == ORG)
        known = await world.fetch(
            "SELECT DISTINCT org_id, thresholds_version FROM member_engagement ORDER BY 1"
        )
        assert [tuple(r) for r in known] == [(OTHER, 0), (ORG, 1)]
        changed = [r for r in await world.history() if r["cause"] == "thresholds"]
        assert len(changed) == sum(before[m] != level for m, level in levels.items())


async def test_the_same_numbers_again_publish_everything_anew(database: str) -> None:
    async with simulation(database, NOW) as world:
        await community(world)
        before = await world.levels()
        assert (await save(world, again=True)).version == 1
        await world.evaluate()
        assert await world.levels() == before
        keys = [r[0] for r in await world.fetch("SELECT message_key FROM outbox")]
        assert sorted(keys) == sorted(f"{org}:{user}" for org, user in before if org == ORG)
        assert {r["cause"] for r in await world.history()}.isdisjoint({"thresholds"})


async def test_a_large_organisation_is_worked_off_in_slices(database: str) -> None:
    async with simulation(database, NOW) as world:
        await community(world)
        await save(world, moderate_min_events=2)
        seen = 0
        while True:
            async with transaction(world.pool) as connection:
                page = await world.evaluating.evaluate_due(connection, 7)
            assert page.taken <= 7
            seen += page.evaluated
            if not page.taken:
                break
        assert seen == await world.value("SELECT count(*) FROM member WHERE org_id = $1", ORG)
        assert await world.value("SELECT count(*) FROM due_organization") == 0


@pytest.mark.parametrize(
    ("given", "error"),
    [
        ({"moderate_min_events": 3}, InvalidThresholds),
        ({"highly_engaged_min_events": 10_001}, InvalidThresholds),
        ({"activity_window_days": 181}, InvalidThresholds),
        ({"new_member_days": -1}, InvalidThresholds),
        ({"inactive_after_days": 3_651}, InvalidThresholds),
        ({"new_member_days": 9, "base_version": 1}, Stale),
        ({}, Conflict),
        ({"new_member_days": 9, "note": "x" * 2_001}, InvalidInput),
        ({"new_member_days": 9, "note": "a\0b"}, InvalidInput),
    ],
)
async def test_refusals_save_nothing(
    database: str, given: dict[str, Any], error: type[Refused]
) -> None:
    async with simulation(database, NOW) as world:
        with pytest.raises(error):
            await save(world, **given)
        assert await world.value("SELECT count(*) FROM thresholds") == 0
        assert await world.value("SELECT count(*) FROM due_organization") == 0


async def test_of_several_who_saw_the_same_version_one_saves(database: str) -> None:
    async with simulation(database, NOW, connections=10) as world:
        tries = [save(world, new_member_days=n, base_version=0) for n in range(1, 9)]
        found = await asyncio.gather(*tries, return_exceptions=True)
        kinds = Counter(type(one).__name__ for one in found)
        assert kinds == {"Thresholds": 1, "Stale": 7}
        # Without a base every one of them is a version.
        await asyncio.gather(*(save(world, new_member_days=n) for n in range(20, 26)))
        async with transaction(world.pool) as connection:
            stored = await versions.versions(connection, ORG, 20)
        assert [v.thresholds.version for v in stored] == [7, 6, 5, 4, 3, 2, 1, 0]
        assert (stored[0].author, stored[0].created_at) == ("boss", NOW)
        assert (stored[-1].thresholds, stored[-1].author) == (DEFAULT_THRESHOLDS, None)


# ----------------------------------------------------------------------------------- preview

OTHERS = (
    Thresholds(5, 2, 90, 60, 180),
    Thresholds(2, 1, 30, 10, 60),
    Thresholds(3, 1, 120, 0, 200),
    Thresholds(10, 9, 365, 60, 365),
)


async def preview(
    world: Simulation, numbers: Thresholds, *, model: str | None = None, **more: Any
) -> ThresholdsPreview:
    """In a transaction that cannot write, as the role of the API."""
    previewing = Previewing(implicit_membership=world.implicit_membership, model=model)
    async with world.pool.acquire() as connection, connection.transaction(readonly=True):
        await as_api(connection)
        return await previewing.preview(connection, ORG, numbers, **more)


async def as_api(connection: Connection) -> None:
    await connection.execute("SET LOCAL ROLE engagement_api")
    await connection.execute("SELECT set_config('engagement.org_id', $1, true)", ORG)


@pytest.mark.parametrize("numbers", OTHERS)
async def test_a_preview_comes_true(database: str, numbers: Thresholds) -> None:
    """Levels, moves and messages are what saving then brings, overrides included."""
    async with simulation(database, NOW) as world:
        await community(world)
        before = {m: level for m, level in (await world.levels()).items() if m[0] == ORG}
        found = await preview(world, numbers)
        await world.set_thresholds(ORG, **dict(zip(Thresholds._fields[:5], numbers, strict=False)))
        await world.evaluate()
        after = {m: level for m, level in (await world.levels()).items() if m[0] == ORG}
        moves = Counter((Level(level), Level(after[m])) for m, level in before.items())
        assert {k: n for k, n in found.matrix.items() if n} == moves
        assert len(found.matrix) == 25
        assert found.members == len(before)
        assert found.members_changed == sum(level != after[m] for m, level in before.items()) > 0
        messages = await world.fetch("SELECT change_body FROM outbox")
        assert found.level_records == len(messages)
        assert found.change_records == sum(r[0] is not None for r in messages)
        assert (found.base_version, found.as_of, found.claude_calls) == (0, NOW, 0)
        for example in found.examples:
            assert before[ORG, example.user_id] == example.from_level != example.to_level
            assert after[ORG, example.user_id] == example.to_level


async def test_examples_show_several_moves_rather_than_one_kind(database: str) -> None:
    async with simulation(database, NOW) as world:
        await community(world, members=300)
        found = await preview(world, OTHERS[1])
        moves = [(a, b) for (a, b), n in found.matrix.items() if n and a is not b]
        assert len(found.examples) == 20
        assert {(e.from_level, e.to_level) for e in found.examples} == set(moves)


async def test_a_preview_at_another_instant_is_by_the_rules_alone(database: str) -> None:
    async with simulation(database, NOW) as world:
        await community(world)
        at = NOW - days(50)
        found = await preview(world, OTHERS[0], as_of=at)
        expected: Counter[tuple[str, str]] = Counter()
        for member in world.oracle.members(ORG):
            level = world.oracle.evaluate(*member, at)["level"]
            if level is not None:
                expected[member[1], level] += 1
        world.oracle.set_thresholds(ORG, dict(zip(Thresholds._fields[:5], OTHERS[0], strict=False)))
        moves = Counter(
            (Level(level), Level(world.oracle.evaluate(ORG, user, at)["level"] or ""))
            for user, level in expected
        )
        assert {k: n for k, n in found.matrix.items() if n} == moves
        assert found.as_of == at


async def test_it_foretells_what_claude_would_be_asked(database: str) -> None:
    async with simulation(database, NOW) as world:
        await community(world)
        reader = CaseReader(ExplanationCache(), implicit_membership=True)
        world.evaluating = Evaluating(reader, ClaudeJudge(MODEL))
        # Situations of the present thresholds are in the queue already.
        await world.execute("INSERT INTO due_organization (org_id, cause) VALUES ($1, 'time')", ORG)
        await world.evaluate()
        queued = await world.value("SELECT count(*) FROM verdict")
        assert queued > 0
        found = await preview(world, OTHERS[1], model=MODEL)
        await save(world, **OTHERS[1]._asdict())
        await world.evaluate()
        assert await world.value("SELECT count(*) FROM verdict") - queued == found.claude_calls > 0


async def test_the_numbers_in_force_would_publish_nothing(database: str) -> None:
    """They are refused as being in force, so nothing follows from them."""
    async with simulation(database, NOW) as world:
        await community(world)
        await save(world, **OTHERS[0]._asdict())
        await world.evaluate()
        found = await preview(world, OTHERS[0], model=MODEL)
        assert found.members > 0
        assert (found.members_changed, found.level_records, found.claude_calls) == (0, 0, 0)
        other = await preview(world, OTHERS[1], model=MODEL)
        assert other.level_records == other.members == found.members
        assert other.claude_calls > 0


async def test_a_preview_of_a_suspended_organisation_comes_true_later(database: str) -> None:
    """Its members can be read, so they are counted: as they will be once it is active again."""
    async with simulation(database, NOW) as world:
        await community(world)
        before = {m: level for m, level in (await world.levels()).items() if m[0] == ORG}
        await world.send("organization", org_id=ORG, name="x", status="suspended")
        await world.evaluate()
        found = await preview(world, OTHERS[0])
        assert found.members == found.level_records == len(before) > 0
        now = Counter(a for (a, _), n in found.matrix.items() for _ in range(n))
        assert now == Counter(map(Level, before.values()))
        await world.set_thresholds(
            ORG, **dict(zip(Thresholds._fields[:5], OTHERS[0], strict=False))
        )
        await world.send("organization", org_id=ORG, name="x", status="active")
        await world.evaluate()
        after = {m: level for m, level in (await world.levels()).items() if m[0] == ORG}
        moves = Counter((Level(level), Level(after[m])) for m, level in before.items())
        assert {k: n for k, n in found.matrix.items() if n} == moves


async def test_invalid_numbers_and_organisations_without_scores(database: str) -> None:
    async with simulation(database, NOW) as world:
        await community(world)
        with pytest.raises(InvalidThresholds):
            await preview(world, Thresholds(1, 1))
        await world.send("organization", org_id=ORG, name="x", status="deleted")
        await world.evaluate()
        found = await preview(world, OTHERS[0])
        assert (found.members, found.level_records, found.examples) == (0, 0, [])
