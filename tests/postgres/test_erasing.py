"""Erasure: nothing of the person is left, whatever the order, and nobody else may touch history."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest

from db import dead_letters, erasures
from db.dead_letters import DeadLetterRow
from db.errors import DataRefused
from db.housekeeping import housekeep
from db.member_ids import MemberIds
from db.pool import acquired, transaction
from service.demo.input_record import InputRecord, key_of, value_of
from service.erasing import Erased
from tests import mentions
from tests.oracle import check_history
from tests.simulation import MEMORY, Simulation, simulation

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
ORG, OTHER_ORG, ADA, BOB = "club", "choir", "ada.lovelace", "bob"

FACTS = ("attendance", "rsvp", "profile", "membership")


def days(number: float) -> timedelta:
    return timedelta(days=number)


async def tables_that_mention(world: Simulation, word: str) -> list[str]:
    async with acquired(world.pool) as connection:
        return await mentions.tables_that_mention(connection, word)


async def erase(world: Simulation, user: str = ADA, org: str = ORG) -> Erased:
    """As the command does, here and in the oracle."""
    async with transaction(world.pool) as connection:
        done = await erasures.erase(connection, org, user, MEMORY)
    world.oracle.erase(org, user, world.now)
    return done


async def full_life(world: Simulation) -> None:
    """Ada with everything that can be known of somebody, and Bob, over whom she decides."""
    for user in (ADA, BOB):
        await world.join(ORG, user, NOW - days(300), display_name=f"Name of {user}")
    await world.attend(ORG, ADA, *(NOW - days(n) for n in (3, 10, 20)))
    await world.attend(ORG, BOB, NOW - days(100))
    await world.send(
        "rsvp", org_id=ORG, user_id=ADA, event_id="e9", response="going", responded_at=NOW - days(2)
    )
    await world.send("profile-update", user_id=ADA, updated_at=NOW - days(2))
    await world.evaluate()
    await world.set_override(ORG, ADA, "moderate")
    async with transaction(world.pool) as connection:
        await world.overriding.set(
            connection, ORG, BOB, level=_level("new"), notes="seen at the fair", expires_at=None,
            performed_by=ADA, if_revision=None,
        )  # fmt: skip
    world.oracle.set_override(ORG, BOB, "new", "seen at the fair", ADA, NOW)
    await world.execute(
        "INSERT INTO thresholds VALUES ($1, 1, 4, 1, 90, 60, 180, $2, 'mine', $3)", ORG, ADA, NOW
    )
    await world.execute(
        "INSERT INTO http_session VALUES ('\\x01', 'session', $1, $2)", ADA, NOW + days(1)
    )
    broken = b'{"org_id": "club", "user_id": "ada.lovelace", "status"'
    letters = [
        letter(1, f"{ORG}:{ADA}".encode(), b"?", ORG, ADA),
        letter(2, b"nonsense", broken, None, None),
        letter(3, ADA.encode(), b"\x00" + ADA.encode(), None, ADA),
        letter(4, f"{ORG}:{ADA}.b".encode(), b"of somebody else", ORG, f"{ADA}.b"),
    ]
    async with transaction(world.pool) as connection:
        await dead_letters.insert(connection, letters)


def letter(
    offset: int, key: bytes, value: bytes, org: str | None, user: str | None
) -> DeadLetterRow:
    return DeadLetterRow("t", 0, offset, "schema", "broken", key, value, [("h", key)], org, user)


def _level(code: str) -> Any:
    from service.levels import Level

    return Level(code)


# Whom a dead letter is about: offset -> (key, value, org and user of the key).
OF_ADA_IN_CLUB = {
    1: (b"club:ada", b"?", "club", "ada"),
    2: (b"odd", b'{"org_id": "club", "user_id": "ada", "status": 1}', None, None),
    3: (b"club:bea", b'{"org_id": "club", "user_id": "ada", "status": 1}', "club", "bea"),
    4: (b"odd", b'{"org_id": "club", "user_id": "ada", broken', None, None),
    5: (b"club:ada ", b'{"org_id": "club", "user_id": "ada "}', None, None),
    6: (b"odd", b'{"org_id": "club", "user": "ada"}', None, None),
}
OF_ADA_ALONE = {
    11: (b"ada", b'{"user_id": "ada"}', None, "ada"),
    12: (b"odd", b'{"user_id": "ada", broken', None, None),
    13: (b"ada", b"\xff", None, None),
}
OF_OTHERS = {
    21: (b"other:bea", b'{"org_id": "other", "user_id": "bea", "event_id": "ada"}', "other", "bea"),
    22: (b"other:bea", b'{"user_id": "bea", "at": "18:ada:00"}', "other", "bea"),
    23: (b"other:ada", b'{"org_id": "other", "user_id": "ada"}', "other", "ada"),
    24: (b"club:bea", b'{"org_id": "club", "user_id": "bea", "event_id": "ada"}', "club", "bea"),
    25: (b"other:bea", b'{broken "ada"', "other", "bea"),
    26: (b"odd", b'{"ada": 1, broken', None, None),
    27: (b"odd", b"{broken ada", None, None),
    28: (b"club:ada.b", b'{"org_id": "club", "user_id": "ada.b"}', "club", "ada.b"),
}


async def test_what_a_fast_clock_has_dated_ahead_goes_as_well(database: str) -> None:
    """Or the member would be back at once. (Tombstones take what is recorded before them.)"""
    ahead = NOW + timedelta(hours=2)
    async with simulation(database, NOW) as world:
        await world.join(ORG, ADA, NOW - days(300), recorded_at=ahead)
        for kind, body in (
            ("attendance", {"status": "attended", "occurred_at": NOW - days(1)}),
            ("rsvp", {"response": "going", "responded_at": NOW - days(2)}),
        ):
            await world.send(kind, org_id=ORG, user_id=ADA, event_id="e", recorded_at=ahead, **body)
        await world.send("profile-update", user_id=ADA, updated_at=NOW, recorded_at=ahead)
        await world.evaluate()
        async with transaction(world.pool) as connection:
            done = await erasures.erase(connection, ORG, ADA, MEMORY)
        assert done.receipt.erased_at == NOW
        counts = {"attendances": 1, "rsvps": 1, "memberships": 1, "profile updates": 1}
        assert {**done.receipt.removed, **counts} == done.receipt.removed
        assert await world.evaluate() == 0
        assert await world.levels() == {}
        assert await tables_that_mention(world, ADA) == ["outbox"]
        # What is recorded later begins anew, however soon.
        await world.join(ORG, ADA, NOW - days(1), recorded_at=NOW + timedelta(seconds=1))
        await world.evaluate()
        assert await world.level(ORG, ADA) == "new"


async def test_a_dead_letter_that_is_read_again_can_be_erased_again(database: str) -> None:
    """A topic that was made anew is read from its first record, by the same offsets."""
    bad = letter(7, f"{ORG}:{ADA}".encode(), b'{"phone": 1}', ORG, ADA)
    async with simulation(database, NOW) as world:
        for day in range(2):
            await world.set_clock(NOW + days(day))
            async with transaction(world.pool) as connection:
                await dead_letters.insert(connection, [bad])
            row = (await world.fetch("SELECT * FROM dead_letter"))[0]
            assert (row["value"], row["erased_at"]) == (bad.value, None)
            await erase(world)
            row = (await world.fetch("SELECT * FROM dead_letter"))[0]
            assert (row["key"], row["value"], row["erased_at"]) == (None, None, world.now)


@pytest.mark.parametrize("elsewhere", [False, True], ids=["last organisation", "one of two"])
async def test_dead_letters_go_with_whom_they_are_about(database: str, elsewhere: bool) -> None:
    """Not all that have the id somewhere: a short one stands in times and in ids of events."""
    everything = OF_ADA_IN_CLUB | OF_ADA_ALONE | OF_OTHERS
    async with simulation(database, NOW) as world:
        async with transaction(world.pool) as connection:
            await dead_letters.insert(
                connection,
                [letter(n, key, value, o, u) for n, (key, value, o, u) in everything.items()],
            )
        if elsewhere:
            await world.execute(
                "WITH m AS (INSERT INTO member (org_id, user_id) VALUES ('other', 'ada')"
                " RETURNING member_id)"
                " INSERT INTO attendance_fact SELECT member_id, $1, $1, 'e', 'attended', 'm'"
                " FROM m",
                NOW,
            )
        await world.execute("SELECT erase_member('club', 'ada', $1, 0, interval '1 day')", NOW)
        rows = await world.fetch("SELECT * FROM dead_letter WHERE erased_at IS NOT NULL")
        gone = OF_ADA_IN_CLUB if elsewhere else OF_ADA_IN_CLUB | OF_ADA_ALONE
        assert {row["offset"] for row in rows} == set(gone)


@pytest.mark.parametrize(("org", "user"), [("", ""), ("club", ""), ("", "ada"), ("club", "a b")])
async def test_nothing_is_erased_by_what_is_no_id(database: str, org: str, user: str) -> None:
    async with simulation(database, NOW) as world:
        with pytest.raises(DataRefused, match="no ids of a member"):
            await world.execute(
                "SELECT erase_member($2, $3, $1, 0, interval '1 day')", NOW, org, user
            )


REMOVED_KINDS = {"attendances", "rsvps", "memberships", "profile updates", "dead letters"}


async def test_no_table_mentions_the_erased_but_the_messages_on_their_way(database: str) -> None:
    async with simulation(database, NOW) as world:
        await full_life(world)
        done = await erase(world)
        assert done.was_known
        assert done.receipt.removed == {
            "attendances": 3, "rsvps": 1, "memberships": 1, "profile updates": 1,
            "dead letters": 3,
        }  # fmt: skip
        assert done.receipt.pseudonymised == {
            # An override over Bob, and a version of the thresholds.
            "level changes": 3, "override actions": 2, "authorships": 2,
        }  # fmt: skip
        assert {"level topic", "change topic"} <= {r.where for r in done.receipt.remaining}
        mentioning = await tables_that_mention(world, ADA)
        # The fourth dead letter is somebody else's whose id begins alike.
        assert mentioning == ["dead_letter", "outbox"]
        other = await world.fetch("SELECT * FROM dead_letter WHERE erased_at IS NULL")
        assert [r["offset"] for r in other] == [4]
        emptied = await world.fetch("SELECT * FROM dead_letter WHERE erased_at IS NOT NULL")
        for row in emptied:
            assert (row["key"], row["value"], row["headers"]) == (None, None, "[]")
            assert row["published_at"] is not None
        # Pending messages come before the tombstone; sent, they are gone too.
        rows = await world.fetch(
            "SELECT * FROM outbox WHERE message_key = $1 ORDER BY outbox_id", f"{ORG}:{ADA}"
        )
        assert [r["revision"] for r in rows] == [1, 2, 3]
        assert [r["level_body"] is None for r in rows] == [False, False, True]
        assert b'"cause":"membership"' in rows[-1]["change_body"]
        await world.execute("DELETE FROM outbox")
        assert await tables_that_mention(world, ADA) == ["dead_letter"]
        assert await tables_that_mention(world, "Name of ada") == []


async def test_history_keeps_levels_and_times_but_nobody(database: str) -> None:
    async with simulation(database, NOW) as world:
        await full_life(world)
        before = [r for r in await world.history() if r["user_id"] == ADA]
        old_ids = {r[0] for r in await world.fetch("SELECT id FROM engagement_level_history")}
        await world.advance(days(1))
        await erase(world)
        after = [r for r in await world.history() if r["user_id"] not in (ADA, BOB)]
        token = after[0]["user_id"]
        assert {r["user_id"] for r in after} == {token}
        hidden = {"user_id": None}
        assert [r | hidden for r in after[:-1]] == [r | hidden for r in before]
        assert (after[-1]["to_level"], after[-1]["cause"]) == (None, "membership")
        new_ids = await world.fetch(
            "SELECT id FROM engagement_level_history WHERE user_id = $1", token
        )
        assert old_ids.isdisjoint(r[0] for r in new_ids)
        actions = await world.fetch("SELECT * FROM engagement_override_history ORDER BY 1")
        about_ada = [a for a in actions if a["user_id"] == token]
        assert [(a["action"], a["notes"]) for a in about_ada] == [
            ("override", None),
            ("clear", None),
        ]
        by_ada = [a for a in actions if a["user_id"] == BOB]
        assert [(a["notes"], a["performed_by"]) for a in by_ada] == [("seen at the fair", token)]
        assert await world.value("SELECT author FROM thresholds") == token
        assert await world.value("SELECT overridden_by FROM engagement") == token
        # Bob's override stands.
        assert await world.levels() == world.expected() == {(ORG, BOB): "new"}
        assert check_history([r for r in await world.history() if r["user_id"] == BOB],
                             await world.levels()) == []  # fmt: skip


async def test_repeated_it_does_nothing_and_late_records_bring_nobody_back(database: str) -> None:
    async with simulation(database, NOW) as world:
        await full_life(world)
        await world.advance(days(1))
        await world.tombstone(ORG, ADA)
        await world.execute("DELETE FROM outbox")
        history = await world.history()
        await world.advance(timedelta(seconds=1))
        again = await erase(world)
        assert again.was_known
        assert set(again.receipt.removed.values()) == {0}
        assert again.receipt.removed.keys() == REMOVED_KINDS
        assert again.receipt.pseudonymised == {
            "level changes": 0, "override actions": 0, "authorships": 0,
        }  # fmt: skip
        assert "level topic" not in [r.where for r in again.receipt.remaining], "nothing is new"
        for at in (NOW, NOW - days(50)):
            await world.send(
                "attendance", org_id=ORG, user_id=ADA, event_id="late", status="attended",
                occurred_at=at, recorded_at=at,
            )  # fmt: skip
            await world.send("profile-update", user_id=ADA, updated_at=at, recorded_at=at)
        await world.evaluate()
        assert await tables_that_mention(world, ADA) == ["dead_letter"]
        assert await world.history() == history
        assert await world.value("SELECT count(*) FROM outbox") == 0
        assert await world.levels() == world.expected()


async def test_a_new_record_afterwards_starts_anew_and_revisions_go_on(database: str) -> None:
    async with simulation(database, NOW) as world:
        await full_life(world)
        last = await world.value("SELECT max(revision) FROM engagement_level_history")
        await world.advance(days(1))
        await erase(world)
        await world.advance(days(1))
        await world.join(ORG, ADA, world.now)
        await world.send(
            "attendance", org_id=ORG, user_id=ADA, event_id="old", status="attended",
            occurred_at=NOW, recorded_at=NOW,
        )  # fmt: skip
        await world.evaluate()
        assert await world.levels() == world.expected()
        assert await world.level(ORG, ADA) == "new"
        row = (await world.fetch("SELECT * FROM member_engagement WHERE user_id = $1", ADA))[0]
        assert row["events_attended_90d"] == 0
        assert row["revision"] == last + 2
        history = [r for r in await world.history() if r["user_id"] == ADA]
        assert [(r["from_level"], r["to_level"]) for r in history] == [(None, "new")]


async def test_profile_updates_go_with_the_last_organisation(database: str) -> None:
    async with simulation(database, NOW) as world:
        for org in (ORG, OTHER_ORG):
            await world.join(org, ADA, NOW - days(300))
        await world.send("profile-update", user_id=ADA, updated_at=NOW - days(2))
        await world.evaluate()
        await world.advance(days(1))
        await erase(world)
        assert await world.value("SELECT count(*) FROM profile") == 1
        await world.advance(days(1))
        await erase(world, org=OTHER_ORG)
        assert await world.value("SELECT count(*) FROM profile") == 0
        for kind in FACTS:
            name = "profile-update" if kind == "profile" else kind
            assert await world.value(f"SELECT count(*) FROM {kind}") == len(
                world.oracle.facts(name)
            )


async def test_profile_updates_go_whichever_organisation_is_the_last(database: str) -> None:
    """Two tombstones, and updates before, between and after them; also one that comes late."""
    async with simulation(database, NOW) as world:
        await world.set_clock(NOW + days(20))
        erased_at = {ORG: NOW + days(1), OTHER_ORG: NOW + days(3)}
        for user, order in ((ADA, (ORG, OTHER_ORG)), (BOB, (OTHER_ORG, ORG))):
            for org in order:
                await world.join(org, user, NOW - days(300), recorded_at=NOW)
            for day in (0, 2, 4):
                await send_update(world, user, day)
            for org in order:
                subject = [erasures.Subject(org, user, erased_at[org])]
                async with transaction(world.pool) as connection:
                    await erasures.erase_all(connection, subject, MEMORY)
                world.oracle.erase(org, user, erased_at[org])
            await send_update(world, user, 2.5)
            kept = await world.fetch("SELECT id FROM profile WHERE user_id = $1", user)
            assert [row["id"] for row in kept] == [f"{user}-4"]
        assert len(world.oracle.facts("profile-update")) == 2


async def send_update(world: Simulation, user: str, day: float) -> None:
    at = NOW + days(day)
    await world.send(
        "profile-update", id=f"{user}-{day}", user_id=user, updated_at=at, recorded_at=at
    )


async def test_a_tombstone_once_more_leaves_alone_who_came_back(database: str) -> None:
    boss = "boss"
    async with simulation(database, NOW) as world:
        await world.join(ORG, boss, NOW - days(300))
        await world.evaluate()
        await world.advance(days(1))
        erased_at = world.now
        await erase(world, boss)
        await world.advance(days(1))
        await world.join(ORG, boss, NOW - days(1))
        await world.evaluate()
        await world.set_override(ORG, boss, "moderate")
        async with transaction(world.pool) as connection:
            subject = [erasures.Subject(ORG, boss, erased_at)]
            (done,) = await erasures.erase_all(connection, subject, MEMORY)
        assert done.was_known
        assert await world.value("SELECT overridden_by FROM member_engagement") == boss
        assert await world.value(
            "SELECT count(*) FROM engagement_override_history WHERE performed_by = $1", boss
        )


async def test_erasing_and_records_in_any_order_give_the_same_facts(database: str) -> None:
    """Small lives with tombstones between the records, shuffled, against the oracle."""
    async with simulation(database, NOW) as world:
        rng = random.Random(7)
        for number in range(12):
            org = f"org{number}"
            records = _some_life(rng, org)
            rng.shuffle(records)
            for record in records:
                at = record[1]
                await world.set_clock(at)
                if record[0] is None:
                    await world.tombstone(org, ADA)
                else:
                    await world.apply([record[0]])
            await world.set_clock(NOW + days(30))
            await world.evaluate()
        for kind, table in zip(
            ("attendance", "rsvp", "membership"), ("attendance", "rsvp", "membership"), strict=True
        ):
            stored = await world.fetch(f"SELECT * FROM {table} ORDER BY org_id")
            expected = {_identity(r) for r in world.oracle.facts(kind)}
            assert {_identity(dict(r)) for r in stored} == expected
        assert await world.levels() == world.expected()
        levels = await world.levels()
        assert check_history(await world.history(), levels) == []


def _identity(record: dict[str, Any]) -> tuple[Any, ...]:
    return (record["org_id"], record["user_id"], record["id"], record["recorded_at"])


def _some_life(rng: random.Random, org: str) -> list[tuple[InputRecord | None, datetime]]:
    """Records with the instants at which they arrive; None is a tombstone, dated by its arrival."""
    found: list[tuple[InputRecord | None, datetime]] = []
    for number in range(rng.randint(2, 8)):
        recorded_at = NOW + timedelta(hours=rng.randint(0, 200))
        body: dict[str, Any] = {"id": f"m{number}", "org_id": org, "user_id": ADA}
        kind = rng.choice(("attendance", "rsvp", "membership"))
        if kind == "membership":
            body |= {"status": "active", "joined_at": NOW.isoformat()}
        else:
            body |= {"event_id": f"e{rng.randint(0, 2)}"}
            body |= (
                {"status": "attended", "occurred_at": NOW.isoformat()}
                if kind == "attendance"
                else {"response": "going", "responded_at": NOW.isoformat()}
            )
        body["recorded_at"] = recorded_at.isoformat()
        arrives_at = recorded_at + timedelta(hours=rng.randint(0, 100))
        found.append((InputRecord(kind, key_of(body), value_of(body)), arrives_at))
    tombstones = [NOW + timedelta(hours=rng.randint(0, 250)) for _ in range(rng.randint(1, 2))]
    return found + [(None, at) for at in tombstones]


async def test_whoever_waited_for_an_erasure_knows_of_it(database: str) -> None:
    """Else a fact would be written under the remembered number of a member who is gone."""
    async with simulation(database, NOW) as world:
        await world.attend(ORG, ADA, NOW - days(3))
        erasing = await world.pool.acquire()
        erasure = erasing.transaction()
        await erasure.start()
        await erasures.hold(erasing)
        world.now = NOW + timedelta(seconds=1)
        applying = asyncio.create_task(world.attend(ORG, ADA, NOW - days(2)))
        await asyncio.sleep(0.3)
        assert not applying.done()
        await erasures.erase(erasing, ORG, ADA, MEMORY)
        await erasure.commit()
        await world.pool.release(erasing)
        await asyncio.wait_for(applying, 5)
        known = "SELECT count(*) FROM attendance_fact JOIN member USING (member_id)"
        assert await world.value("SELECT count(*) FROM attendance_fact") == 1
        assert await world.value(known) == 1


async def test_records_wait_for_an_erasure_and_an_erasure_for_records(database: str) -> None:
    """A fact must not be written for a member who is gone by the time it is committed."""
    async with simulation(database, NOW) as world:
        await world.attend(ORG, ADA, NOW - days(3))
        await world.evaluate()
        applying = await world.pool.acquire()
        records = applying.transaction()
        await records.start()
        await MemberIds().begin(applying)
        await applying.execute(
            "INSERT INTO attendance_fact SELECT member_id, $1, $1, 'e', 'attended', 'm' "
            "FROM member", NOW - days(1),
        )  # fmt: skip
        erasing = asyncio.create_task(erase(world))
        await asyncio.sleep(0.3)
        assert not erasing.done()
        await records.commit()
        await world.pool.release(applying)
        await asyncio.wait_for(erasing, 5)
        assert await world.value("SELECT count(*) FROM attendance_fact") == 0
        assert await world.value("SELECT count(*) FROM member") == 0


async def test_many_at_once(database: str) -> None:
    """A batch of tombstones, one member twice: the later one counts."""
    async with simulation(database, NOW) as world:
        users = [f"user{n:03d}" for n in range(60)]
        for user in users:
            await world.join(ORG, user, NOW - days(300))
        await world.evaluate()
        subjects = [erasures.Subject(ORG, user, NOW) for user in users]
        subjects.append(erasures.Subject(ORG, users[0], NOW + days(0.5)))
        async with transaction(world.pool) as connection:
            done = await erasures.erase_all(connection, subjects, MEMORY)
        assert len(done) == len(users)
        assert await world.value("SELECT count(*) FROM member") == 0
        assert await world.value("SELECT max(erased_at) FROM erasure") == NOW + days(0.5)


async def test_what_is_remembered_is_forgotten_in_time(database: str) -> None:
    async with simulation(database, NOW) as world:
        await world.join(ORG, ADA, NOW - days(300))
        await erase(world)
        await world.set_clock(NOW + MEMORY - timedelta(seconds=1))
        async with acquired(world.pool) as connection:
            assert (await housekeep(connection))["erasure"] == 0
        await world.set_clock(NOW + MEMORY)
        async with acquired(world.pool) as connection:
            # Of the member, of the user, and until when the user is known nowhere.
            assert (await housekeep(connection))["erasure"] == 3


# ------------------------------------------------------------------------- nobody else

HISTORIES = ("engagement_level_history", "engagement_override_history", "thresholds")
ATTEMPTS = (
    "UPDATE {table} SET {column} = {column}",
    "UPDATE {table} SET org_id = 'x'",
    "DELETE FROM {table}",
    "TRUNCATE {table}",
)
COLUMNS = {
    "engagement_level_history": "to_level",
    "engagement_override_history": "notes",
    "thresholds": "note",
}


async def connect_as(database: str, role: str) -> asyncpg.Connection:
    connection = await asyncpg.connect(database)
    await connection.execute("SELECT set_config('engagement.org_id', $1, false)", ORG)
    # What the trigger of an earlier design believed, and a trigger must not.
    await connection.execute("SET engagement.erasing = 'yes'")
    if role:
        await connection.execute(f"SET ROLE {role}")
    return connection


@pytest.mark.parametrize("role", ["", "engagement_worker", "engagement_api", "plain_owner"])
async def test_histories_are_append_only_for_every_role(database: str, role: str) -> None:
    async with simulation(database, NOW) as world:
        await full_life(world)
        before = await _contents(world)
        if role == "plain_owner":
            await _make_owner(world)
        connection = await connect_as(database, role)
        try:
            for table in HISTORIES:
                for attempt in ATTEMPTS:
                    statement = attempt.format(table=table, column=COLUMNS[table])
                    with pytest.raises(asyncpg.InsufficientPrivilegeError):
                        await connection.execute(statement)
        finally:
            await connection.close()
        assert await _contents(world) == before


async def test_even_the_eraser_changes_no_level_and_no_time(database: str) -> None:
    async with simulation(database, NOW) as world:
        await full_life(world)
        before = await _contents(world)
        connection = await connect_as(database, "engagement_eraser")
        try:
            for statement in (
                "UPDATE engagement_level_history SET to_level = 'inactive'",
                "UPDATE engagement_level_history SET effective_at = now()",
                "UPDATE engagement_override_history SET action = 'expire'",
                "UPDATE thresholds SET new_member_days = 1",
                *(f"DELETE FROM {table}" for table in HISTORIES),
                *(f"TRUNCATE {table}" for table in HISTORIES),
            ):
                with pytest.raises(asyncpg.InsufficientPrivilegeError):
                    await connection.execute(statement)
        finally:
            await connection.close()
        assert await _contents(world) == before


async def test_who_may_call_what(database: str) -> None:
    erase_member = f"SELECT erase_member('{ORG}', '{ADA}', now(), 1, '1 day')"
    erase_here = f"SELECT erase_member_here('{ADA}', 1, '1 day')"
    erase_facts = "SELECT erase_facts(m, now(), 1, 't') FROM member m"
    refused = {
        "engagement_api": [erase_member, erase_facts],
        "engagement_worker": [erase_facts, erase_here],
    }
    async with simulation(database, NOW) as world:
        await full_life(world)
        for role, statements in refused.items():
            connection = await connect_as(database, role)
            try:
                for statement in statements:
                    with pytest.raises(asyncpg.InsufficientPrivilegeError):
                        await connection.execute(statement)
                if role == "engagement_api":
                    await connection.execute("SELECT set_config('engagement.org_id', '', false)")
                    with pytest.raises(asyncpg.InsufficientPrivilegeError):
                        await connection.execute(erase_here)
                    # Let into another organisation, it erases nothing of this one.
                    await connection.execute(
                        "SELECT set_config('engagement.org_id', $1, false)", OTHER_ORG
                    )
                    assert (await connection.fetchval(erase_here))[0] is False
            finally:
                await connection.close()
        assert await world.value("SELECT count(*) FROM member") == 2


async def _contents(world: Simulation) -> list[Sequence[Any]]:
    return [
        [tuple(r) for r in await world.fetch(f"SELECT * FROM {table} ORDER BY 1, 2, 3")]
        for table in HISTORIES
    ]


async def _make_owner(world: Simulation) -> None:
    """An owner of the tables who is no superuser, as on a managed server."""
    await world.execute(
        "DO $$ BEGIN CREATE ROLE plain_owner; EXCEPTION WHEN duplicate_object THEN NULL; END $$"
    )
    await world.execute("GRANT engagement_worker TO plain_owner")
    for table in HISTORIES:
        await world.execute(f"ALTER TABLE {table} OWNER TO plain_owner")
