"""Overrides: set, replaced, cleared, expired, and what happens when several want it at once."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Awaitable
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from db import erasures
from db.actions import ActionParts
from db.pool import transaction
from service.errors import Conflict, InvalidInput, NotFound, Refused, Stale
from service.levels import Level
from service.settings import load_settings
from tests.oracle import check_history
from tests.simulation import Simulation, simulation

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
ORG, ADA = "club", "ada"
MEMORY = timedelta(days=1)
EAST, WEST = timezone(timedelta(hours=2)), timezone(timedelta(hours=-12))

SELECT_ACTIONS = """
SELECT action, previous_level, new_level, notes, performed_by, performed_at, expires_at
FROM engagement_override_history ORDER BY override_history_id"""
SELECT_OUTBOX = "SELECT revision, level_body, change_body FROM outbox ORDER BY outbox_id"

# Fails a change of level by an override whose own row is not there yet.
ROW_FIRST = """
CREATE FUNCTION override_row_first() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.cause LIKE 'override%' AND NOT EXISTS (
        SELECT FROM engagement_override_history h
        WHERE h.engagement_id = NEW.member_id AND h.xmin = pg_current_xact_id()::xid) THEN
        RAISE EXCEPTION 'change before the action behind it';
    END IF;
    RETURN NEW;
END
$$;
CREATE TRIGGER override_row_first BEFORE INSERT ON engagement_level_history
    FOR EACH ROW EXECUTE FUNCTION override_row_first()"""


def days(number: float) -> timedelta:
    return timedelta(days=number)


async def member(world: Simulation) -> None:
    """Ada came once, 80 days ago: moderate for 10 days more."""
    await world.execute(ROW_FIRST)
    await world.join(ORG, ADA, NOW - days(300))
    await world.attend(ORG, ADA, NOW - days(80))
    await world.evaluate()
    await world.execute("DELETE FROM outbox")


async def actions(world: Simulation) -> list[dict[str, Any]]:
    return [dict(row) for row in await world.fetch(SELECT_ACTIONS)]


async def published(world: Simulation) -> list[tuple[dict[str, Any] | None, dict[str, Any] | None]]:
    """(level record, change record) of every message since the last call."""
    rows = await world.fetch(SELECT_OUTBOX)
    await world.execute("DELETE FROM outbox")
    return [tuple(None if b is None else json.loads(b) for b in row[1:]) for row in rows]  # type: ignore[misc]


async def agree(world: Simulation) -> None:
    levels = await world.levels()
    assert levels == world.expected()
    assert check_history(await world.history(), levels) == []


async def test_set_says_it_once_with_its_history_row_first(database: str) -> None:
    async with simulation(database, NOW) as world:
        await member(world)
        revision = await world.set_override(ORG, ADA, "at_risk", NOW + days(5))
        assert revision == 2
        await agree(world)
        ((level, change),) = await published(world)
        assert level is not None
        assert change is not None
        assert (change["from_level"], change["to_level"]) == ("moderate", "at_risk")
        assert (change["cause"], change["source"]) == ("override_set", "override")
        assert level["override"] == {
            "level": "at_risk",
            "overridden_at": "2026-06-01T12:00:00Z",
            "expires_at": "2026-06-06T12:00:00Z",
        }
        assert (level["level"], level["computed_level"]) == ("at_risk", "moderate")
        assert "because" not in json.dumps(level) + json.dumps(change)
        (action,) = await actions(world)
        assert action == {
            "action": "override", "previous_level": "moderate", "new_level": "at_risk",
            "notes": "because", "performed_by": "boss", "performed_at": NOW,
            "expires_at": NOW + days(5),
        }  # fmt: skip
        # Nothing is due, and evaluating says nothing more.
        assert await world.evaluate() == 0


async def test_an_expiry_with_another_offset_is_kept_and_published_in_utc(database: str) -> None:
    async with simulation(database, NOW) as world:
        await member(world)
        await world.set_override(ORG, ADA, "at_risk", (NOW + days(5)).astimezone(EAST))
        ((level, _change),) = await published(world)
        assert level is not None
        assert level["override"]["expires_at"] == "2026-06-06T12:00:00Z"
        assert level["next_level_change_at"] == "2026-06-06T12:00:00Z"


async def test_replacing_keeps_both_in_history_and_clearing_gives_back_the_rules(
    database: str,
) -> None:
    async with simulation(database, NOW) as world:
        await member(world)
        await world.set_override(ORG, ADA, "at_risk")
        await world.advance(days(1))
        await world.set_override(ORG, ADA, "highly_engaged")
        await agree(world)
        await world.advance(days(1))
        assert await world.clear_override(ORG, ADA) == 4
        await agree(world)
        assert [
            (a["action"], a["previous_level"], a["new_level"]) for a in await actions(world)
        ] == [
            ("override", "moderate", "at_risk"),
            ("override", "at_risk", "highly_engaged"),
            ("clear", "highly_engaged", "moderate"),
        ]
        causes = [change["cause"] for _, change in await published(world) if change]
        assert causes == ["override_set", "override_set", "override_cleared"]
        with pytest.raises(Conflict):
            async with transaction(world.pool) as connection:
                await world.overriding.clear(
                    connection, ORG, ADA, notes=None, performed_by="boss", if_revision=None
                )


async def test_the_same_level_as_computed_is_an_action_but_no_change(database: str) -> None:
    async with simulation(database, NOW) as world:
        await member(world)
        await world.set_override(ORG, ADA, "moderate")
        ((level, change),) = await published(world)
        assert change is None
        assert level is not None
        assert level["source"] == "override"
        await world.clear_override(ORG, ADA)
        ((level, change),) = await published(world)
        assert change is None
        assert level is not None
        assert (level["source"], level["override"]) == ("rules", None)
        assert len(await actions(world)) == 2
        await agree(world)


async def test_expiry_shows_at_once_and_is_written_once(database: str) -> None:
    async with simulation(database, NOW) as world:
        await member(world)
        expires_at = NOW + timedelta(hours=1)
        await world.set_override(ORG, ADA, "inactive", expires_at)
        await published(world)
        await world.set_clock(expires_at - timedelta(microseconds=1))
        row = (await world.fetch("SELECT * FROM member_engagement"))[0]
        assert (row["level"], row["next_level"]) == ("inactive", "moderate")
        assert row["next_change_at"] == row["next_level_change_at"] == expires_at
        assert await world.evaluate() == 0
        await world.set_clock(expires_at)
        # Without any timer.
        row = (await world.fetch("SELECT * FROM member_engagement"))[0]
        assert (row["level"], row["previous_level"]) == ("moderate", "inactive")
        assert (row["level_since"], row["override_level"]) == (expires_at, None)
        # What was foretold under the override is over, and says nothing of what comes now.
        clocks = ("next_change_at", "next_level_change_at", "next_level")
        assert [row[name] for name in clocks] == [None] * 3
        await world.advance(timedelta(minutes=10))
        assert await world.evaluate() == 1
        await agree(world)
        (closing, *rest) = await published(world)
        assert closing[1] is not None
        assert closing[1]["cause"] == "override_expired"
        assert closing[1]["effective_at"] == "2026-06-01T13:00:00Z"
        assert all(change is None for _, change in rest)
        last = (await actions(world))[-1]
        assert (last["action"], last["performed_by"]) == ("expire", "system")
        assert (last["previous_level"], last["new_level"]) == ("inactive", "moderate")
        assert await world.evaluate() == 0
        await world.run_daily()
        assert await published(world) == []


async def test_what_changes_beneath_an_override_is_known_when_it_expires(database: str) -> None:
    async with simulation(database, NOW) as world:
        await world.join(ORG, ADA, NOW - days(59))
        await world.evaluate()
        newness_ends, expires_at = NOW + days(1), NOW + days(2)
        await world.set_override(ORG, ADA, "highly_engaged", expires_at)
        await published(world)
        await world.set_clock(newness_ends)
        assert await world.evaluate() == 1
        ((level, change),) = await published(world)
        assert level is not None
        assert (level["level"], level["computed_level"]) == ("highly_engaged", "at_risk")
        assert change is None
        await world.set_clock(expires_at + timedelta(seconds=5))
        await world.evaluate()
        ((level, change),) = await published(world)
        assert level is not None
        assert level["level"] == "at_risk"
        assert change is not None
        assert (change["from_level"], change["to_level"], change["cause"]) == (
            "highly_engaged", "at_risk", "override_expired",
        )  # fmt: skip
        await agree(world)


async def test_an_expired_one_is_closed_before_the_next_is_set(database: str) -> None:
    async with simulation(database, NOW) as world:
        await member(world)
        await world.set_override(ORG, ADA, "inactive", NOW + days(1))
        await world.advance(days(2))
        await world.set_override(ORG, ADA, "highly_engaged")
        assert [a["action"] for a in await actions(world)] == ["override", "expire", "override"]
        causes = [change["cause"] for _, change in await published(world) if change]
        assert causes == ["override_set", "override_expired", "override_set"]
        await agree(world)


async def test_computation_goes_on_underneath(database: str) -> None:
    async with simulation(database, NOW) as world:
        await member(world)
        await world.set_override(ORG, ADA, "highly_engaged")
        await published(world)
        row = (await world.fetch("SELECT * FROM member_engagement"))[0]
        assert row["next_change_at"] is not None, "one without an end never lapses"
        # Her one event leaves the window: computed falls, shown stays, signals are published.
        await world.advance(days(11))
        await world.evaluate()
        row = (await world.fetch("SELECT * FROM member_engagement"))[0]
        assert (row["level"], row["computed_level"]) == ("highly_engaged", "at_risk")
        ((level, change),) = await published(world)
        assert change is None
        assert level is not None
        assert (level["computed_level"], level["signals"]["events_attended_90d"]) == ("at_risk", 0)
        await world.clear_override(ORG, ADA)
        await agree(world)
        assert await world.level(ORG, ADA) == "at_risk"


async def test_leaving_ends_it(database: str) -> None:
    async with simulation(database, NOW) as world:
        await member(world)
        await world.set_override(ORG, ADA, "highly_engaged")
        await world.advance(days(1))
        await world.send(
            "membership", org_id=ORG, user_id=ADA, status="left", joined_at=NOW - days(300)
        )
        await world.evaluate()
        last = (await actions(world))[-1]
        assert (last["action"], last["new_level"], last["performed_by"]) == (
            "clear",
            None,
            "system",
        )
        await agree(world)
        await world.advance(days(1))
        await world.join(ORG, ADA, NOW - days(300))
        await world.evaluate()
        assert await world.level(ORG, ADA) == "moderate"
        await agree(world)


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ({"notes": " "}, InvalidInput),
        ({"notes": "x" * 2001}, InvalidInput),
        ({"expires_at": NOW}, InvalidInput),
        ({"expires_at": NOW - days(1)}, InvalidInput),
        ({"expires_at": datetime.max.replace(tzinfo=WEST)}, InvalidInput),
        ({"expires_at": datetime.min.replace(tzinfo=EAST)}, InvalidInput),
        ({"if_revision": 0}, Stale),
        ({"if_revision": 2}, Stale),
        ({"user_id": "nobody"}, NotFound),
        ({"org_id": "nowhere"}, NotFound),
    ],
)
async def test_refusals_change_nothing(
    database: str, wrong: dict[str, Any], error: type[Refused]
) -> None:
    async with simulation(database, NOW) as world:
        await member(world)
        given: dict[str, Any] = {
            "org_id": ORG, "user_id": ADA, "level": Level.AT_RISK, "notes": "why",
            "expires_at": None, "performed_by": "boss", "if_revision": 1,
        }  # fmt: skip
        with pytest.raises(error):
            async with transaction(world.pool) as connection:
                await world.overriding.set(connection, **(given | wrong))
        assert await actions(world) == []
        assert await published(world) == []


async def test_somebody_without_a_level_cannot_be_overridden(database: str) -> None:
    async with simulation(database, NOW) as world:
        await world.join(ORG, ADA, NOW + timedelta(hours=5))
        await world.evaluate()
        await world.set_override_refused(ORG, ADA)


# ------------------------------------------------------------------------------------- races


async def outcome(work: Awaitable[Any]) -> str:
    try:
        await work
    except Refused as refused:
        return type(refused).__name__
    return "done"


async def set_now(world: Simulation, level: str, revision: int | None, **more: Any) -> int:
    async with transaction(world.pool) as connection:
        return await world.overriding.set(
            connection, ORG, ADA, level=Level(level), notes="race", performed_by="boss",
            expires_at=more.get("expires_at"), if_revision=revision,
        )  # fmt: skip


async def clear_now(world: Simulation, revision: int | None) -> int:
    async with transaction(world.pool) as connection:
        return await world.overriding.clear(
            connection, ORG, ADA, notes=None, performed_by="boss", if_revision=revision
        )


async def evaluate_now(world: Simulation) -> None:
    async with transaction(world.pool) as connection:
        await world.evaluating.evaluate_due(connection, 100)


async def sound(world: Simulation) -> None:
    """Whatever happened, history, row and messages tell one story."""
    await world.evaluate()
    history = await world.history()
    assert check_history(history, await world.levels()) == []
    rows = await world.fetch(SELECT_OUTBOX)
    revisions = [r["revision"] for r in rows]
    assert revisions == list(range(revisions[0], revisions[0] + len(revisions)))
    assert revisions[-1] == await world.value("SELECT revision FROM engagement")
    row = (await world.fetch("SELECT * FROM engagement"))[0]
    last = (await actions(world))[-1]
    assert (row["override_level"] is not None) == (last["action"] == "override")


async def test_of_several_who_saw_the_same_revision_one_wins(database: str) -> None:
    async with simulation(database, NOW, connections=12) as world:
        await member(world)
        levels = ["at_risk", "new", "highly_engaged", "inactive", "moderate"] * 2
        found = Counter(
            await asyncio.gather(*(outcome(set_now(world, level, 1)) for level in levels))
        )
        assert found == {"done": 1, "Stale": len(levels) - 1}
        assert len(await actions(world)) == 1
        await sound(world)


async def test_set_and_clear_at_once(database: str) -> None:
    async with simulation(database, NOW, connections=12) as world:
        await member(world)
        await set_now(world, "inactive", None)
        for _ in range(10):
            await world.advance(timedelta(seconds=1))
            revision = await world.value("SELECT revision FROM engagement")
            found = await asyncio.gather(
                outcome(set_now(world, "at_risk", revision)),
                outcome(clear_now(world, revision)),
                outcome(set_now(world, "new", revision)),
                outcome(clear_now(world, revision)),
                evaluate_now(world),
            )
            answers = Counter(answer for answer in found if answer is not None)
            assert answers["done"] == 1
            assert answers["Stale"] + answers["Conflict"] == 3
            await sound(world)
            if await world.value("SELECT override_level FROM engagement") is None:
                await set_now(world, "inactive", None)


async def test_expiry_evaluation_and_an_administrator_at_once(database: str) -> None:
    async with simulation(database, NOW, connections=12) as world:
        await member(world)
        for number in range(8):
            expires_at = world.now + timedelta(hours=1)
            await set_now(world, "inactive", None, expires_at=expires_at)
            await world.set_clock(expires_at)
            await world.attend(ORG, ADA, world.now - timedelta(minutes=1))
            found = await asyncio.gather(
                evaluate_now(world),
                outcome(clear_now(world, None)),
                evaluate_now(world),
                outcome(set_now(world, "at_risk", None)) if number % 2 else evaluate_now(world),
                evaluate_now(world),
            )
            # What has expired cannot be cleared, but what was set in its place can.
            assert found[1] in ({"done", "Conflict"} if number % 2 else {"Conflict"})
            await sound(world)
            expired = [a for a in await actions(world) if a["action"] == "expire"]
            assert len(expired) == number + 1


async def test_evaluation_never_writes_over_an_override(database: str) -> None:
    """An evaluator that has read before the override was set must not undo it."""
    async with simulation(database, NOW, connections=8) as world:
        await member(world)
        await world.attend(ORG, ADA, NOW - days(1))
        connection = await world.pool.acquire()
        slow = connection.transaction()
        await slow.start()
        page = await world.evaluating.evaluate_due(connection, 10)
        assert page.evaluated == 1
        setting = asyncio.create_task(set_now(world, "inactive", None))
        await asyncio.sleep(0.2)
        assert not setting.done()
        await slow.commit()
        await world.pool.release(connection)
        await asyncio.wait_for(setting, 5)
        assert await world.level(ORG, ADA) == "inactive"
        await sound(world)


# ----------------------------------------------------------------------------- as the API does


async def test_all_actions_work_as_the_role_of_the_api(database: str) -> None:
    async with simulation(database, NOW) as world:
        await member(world)
        await world.join(ORG, "boss", NOW - days(300), role="admin")
        await world.evaluate()
        parts = ActionParts(load_settings({"DATABASE_URL": database}))

        async def as_api(work: str, *, user: str = ADA, **given: Any) -> Any:
            async with transaction(world.pool) as connection:
                await connection.execute("SET LOCAL ROLE engagement_api")
                await connection.execute("SELECT set_config('engagement.org_id', $1, true)", ORG)
                return await getattr(parts(connection), work)(ORG, user, **given)

        revision = await as_api(
            "set_override", level=Level.AT_RISK, notes="why", expires_at=None,
            performed_by="boss", if_revision=1,
        )  # fmt: skip
        assert revision == 2
        assert await world.level(ORG, ADA) == "at_risk"
        cleared = await as_api("clear_override", notes=None, performed_by="boss", if_revision=2)
        assert cleared == 3
        await as_api("request_recompute")
        assert await world.evaluate() == 1
        receipt = await as_api("erase", performed_by="boss")
        assert receipt.removed["attendances"] == 1
        assert (await as_api("erase", performed_by="boss")).removed["dead letters"] == 0
        assert await world.value("SELECT array_agg(user_id) FROM member") == ["boss"]
        assert set(await world.levels()) == {(ORG, "boss")}
        with pytest.raises(NotFound):
            await as_api("erase", user="never.known", performed_by="boss")
        assert await world.value("SELECT count(*) FROM erasure") == 3


@pytest.mark.parametrize("erased_first", [True, False])
async def test_nobody_who_is_erased_while_acting_stays_named(
    database: str, erased_first: bool
) -> None:
    """The author would be in a history that only an erasure may change."""
    async with simulation(database, NOW, connections=6) as world:
        await member(world)
        await world.join(ORG, "boss", NOW - days(300), role="admin")
        await world.evaluate()
        parts = ActionParts(load_settings({"DATABASE_URL": database}))

        async def act() -> None:
            async with transaction(world.pool) as connection:
                await parts(connection).set_override(
                    ORG, ADA, level=Level.AT_RISK, notes="why", expires_at=None,
                    performed_by="boss", if_revision=None,
                )  # fmt: skip
                if not erased_first:
                    erasing.append(asyncio.create_task(erase_boss()))
                    await until_somebody_waits(world)

        async def erase_boss() -> None:
            async with transaction(world.pool) as connection:
                await erasures.erase(connection, ORG, "boss", MEMORY)
                if erased_first:
                    acting.append(asyncio.create_task(act()))
                    await until_somebody_waits(world)

        acting: list[asyncio.Task[None]] = []
        erasing: list[asyncio.Task[None]] = []
        if erased_first:
            await erase_boss()
            with pytest.raises(NotFound):
                await acting[0]
        else:
            await act()
            await erasing[0]
        rows = await world.fetch("SELECT performed_by FROM engagement_override_history")
        assert len(rows) == (0 if erased_first else 1)
        assert all(row[0].startswith("erased-") for row in rows)


async def until_somebody_waits(world: Simulation) -> None:
    """Until some transaction waits for a lock of another."""
    async with asyncio.timeout(10):
        while not await world.value(  # noqa: ASYNC110
            "SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted)"
        ):
            await asyncio.sleep(0.02)


async def test_a_transaction_that_began_earlier_does_not_turn_back_time(database: str) -> None:
    """Else what left the window meanwhile would look like a fact that was taken back."""
    second = timedelta(seconds=1)
    leaves = NOW + 10 * second
    async with simulation(database, NOW) as world:
        await world.join(ORG, ADA, NOW - days(300))
        await world.attend(ORG, ADA, leaves - days(90), leaves + days(1) - days(90))
        await world.evaluate()
        await world.set_clock(leaves + second)
        assert await world.evaluate() == 1
        await world.send(
            "rsvp", org_id=ORG, user_id=ADA, event_id="z", response="declined", responded_at=NOW
        )
        await world.set_clock(leaves - second)
        assert await world.evaluate() == 1
        await world.set_clock(leaves + days(1) + second)
        await world.evaluate()
        *_, fall = await world.history()
        assert (fall["to_level"], fall["cause"]) == ("at_risk", "time")
        assert fall["effective_at"] == leaves + days(1)


async def test_what_an_expiry_left_for_a_while_has_its_clocks_ahead_of_it(database: str) -> None:
    """Nobody looked until the next step was over, too."""
    async with simulation(database, NOW) as world:
        await world.join(ORG, ADA, NOW - days(58))
        await world.evaluate()
        await world.set_override(ORG, ADA, "highly_engaged", NOW + days(1))
        await world.execute("DELETE FROM outbox")
        await world.set_clock(NOW + days(3))
        await world.evaluate()
        levels = [level for level, _ in await published(world) if level is not None]
        assert [(r["level"], r["computed_at"], r["next_change_at"]) for r in levels] == [
            ("new", "2026-06-02T12:00:00Z", "2026-06-03T12:00:00Z"),
            ("at_risk", "2026-06-04T12:00:00Z", "2026-10-01T12:00:00Z"),
        ]
