"""What `engagement doctor` finds in the database: signals that do not follow from the facts."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from db import checkup, evaluation
from db.checkup import Difference
from db.evaluating import Evaluating, RulesJudge
from db.evaluation import CaseReader
from db.explanations import ExplanationCache
from db.pool import Pool, acquired, open_pool, transaction
from service.settings import load_settings

MEMBERS = 30
NOW = datetime.now(UTC).replace(microsecond=0)


class Club:
    """Members with facts of all kinds, evaluated as a worker does."""

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self.rng = random.Random(7)
        reader = CaseReader(ExplanationCache(), implicit_membership=True)
        self.evaluating = Evaluating(reader, RulesJudge())

    async def execute(self, statement: str, *arguments: Any) -> None:
        async with acquired(self.pool) as connection:
            await connection.execute(statement, *arguments)

    def ago(self) -> datetime:
        """An instant of the last two years, or of the next days."""
        return NOW - timedelta(days=self.rng.uniform(-5, 700))

    async def settle(self) -> None:
        for number in range(MEMBERS):
            await self.add(f"user-{number}", f"org-{number % 3}")
        await self.evaluate()

    async def add(self, user_id: str, org_id: str) -> None:
        async with transaction(self.pool) as connection:
            member_id = await connection.fetchval(
                "INSERT INTO member (org_id, user_id) VALUES ($1, $2) RETURNING member_id",
                org_id, user_id,
            )  # fmt: skip
            await connection.execute(
                "INSERT INTO engagement (member_id, org_id) VALUES ($1, $2)", member_id, org_id
            )
            if self.rng.random() < 0.7:
                await connection.execute(
                    "INSERT INTO membership_fact VALUES ($1, $2, now(), 'm', $3, 'member', NULL)",
                    member_id, self.ago(), self.rng.choice(["active", "active", "left"]),
                )  # fmt: skip
            for number in range(self.rng.randrange(12)):
                status = self.rng.choice(["attended", "partial", "absent", "void"])
                await connection.execute(
                    "INSERT INTO attendance_fact VALUES ($1, $2, now(), $3, $4, 'm')",
                    member_id, self.ago(), f"e{number}", status,
                )  # fmt: skip
            for number in range(self.rng.randrange(6)):
                response = self.rng.choice(["going", "going", "maybe", "withdrawn"])
                await connection.execute(
                    "INSERT INTO rsvp_fact VALUES ($1, $2, now(), $3, $4, 'm')",
                    member_id, self.ago(), f"e{number}", response,
                )  # fmt: skip
            for number in range(self.rng.randrange(3)):
                actor = self.rng.choice(["member", "admin"])
                await connection.execute(
                    "INSERT INTO profile_fact VALUES ($1, now(), $2, $3, $4)",
                    self.ago(), user_id, f"m{number}", actor,
                )  # fmt: skip
            await connection.execute(
                "INSERT INTO due_member (member_id, cause) VALUES ($1, 'signals')", member_id
            )

    async def evaluate(self) -> None:
        while True:
            async with transaction(self.pool) as connection:
                page = await self.evaluating.evaluate_due(connection, 25)
            if not page.taken:
                return

    async def differences(self, page: int = 10) -> tuple[list[Difference], int, int]:
        """(differences, members looked at, members left out)."""
        found: list[Difference] = []
        last = members = waiting = 0
        async with acquired(self.pool) as connection:
            while (one := await checkup.rebuild_signals(connection, last, page)) is not None:
                last = one.last_member_id
                found += one.differences
                members, waiting = members + one.members, waiting + one.waiting
        return found, members, waiting


@pytest.fixture
async def club(database: str) -> AsyncIterator[Club]:
    settings = load_settings({"DATABASE_URL": database})
    pool = await open_pool(settings, purpose="test", size=2, prepare=evaluation.prepare_connection)
    try:
        found = Club(pool)
        await found.settle()
        yield found
    finally:
        pool.terminate()


@pytest.mark.parametrize("page", [1, 7, 1_000])
async def test_signals_as_evaluated_follow_from_the_facts(club: Club, page: int) -> None:
    assert await club.differences(page) == ([], MEMBERS, 0)


async def test_the_window_in_force_counts(club: Club) -> None:
    await club.execute(
        "INSERT INTO thresholds VALUES ('org-0', 1, 3, 1, 400, 60, 500, 'a', '', now())"
    )
    await club.execute(
        "INSERT INTO due_organization (org_id, cause) VALUES ('org-0', 'thresholds')"
    )
    await club.evaluate()
    assert await club.differences() == ([], MEMBERS, 0)


@pytest.mark.parametrize(
    ("signal", "change"),
    [
        ("events_attended_90d", "events_attended_90d + 1"),
        ("last_attended_at", "now() - interval '1 second'"),
        ("rsvp_count_90d", "rsvp_count_90d + 1"),
        ("last_rsvp_at", "NULL"),
        ("profile_updated_at", "now()"),
        ("joined_at", "joined_at + interval '1 microsecond'"),
        ("joined_at_source", "NULL"),
    ],
)
async def test_every_wrong_signal_is_found(club: Club, signal: str, change: str) -> None:
    await club.execute(
        f"UPDATE engagement SET {signal} = {change} WHERE member_id = ("
        "SELECT min(member_id) FROM engagement JOIN member USING (member_id)"
        " WHERE last_rsvp_at IS NOT NULL AND joined_at IS NOT NULL)"
    )
    found, members, waiting = await club.differences()
    assert (members, waiting) == (MEMBERS, 0)
    (one,) = found
    assert list(one.signals) == [signal]
    was, should_be = one.signals[signal]
    assert was != should_be


async def test_a_fact_that_nobody_was_told_of_is_found(club: Club) -> None:
    await club.execute(
        "INSERT INTO attendance_fact SELECT member_id, $1, now(), 'unseen', 'attended', 'm'"
        " FROM member WHERE user_id = 'user-3'",
        NOW - timedelta(days=1),
    )
    ((one,), _, _) = await club.differences()
    assert one.user_id == "user-3"
    assert "events_attended_90d" in one.signals


async def test_facts_without_any_evaluation_are_found(club: Club) -> None:
    await club.add("unlucky", "org-1")
    await club.execute(
        "INSERT INTO membership_fact"
        " SELECT member_id, now(), now(), 'm', 'active', 'member', NULL"
        " FROM member WHERE user_id = 'unlucky' ON CONFLICT DO NOTHING"
    )
    await club.execute("DELETE FROM due_member")
    ((one,), _, _) = await club.differences()
    assert (one.user_id, one.computed_at) == ("unlucky", None)


async def test_somebody_without_facts_is_nobody(club: Club) -> None:
    await club.execute("INSERT INTO member (org_id, user_id) VALUES ('org-1', 'nobody')")
    await club.execute(
        "INSERT INTO engagement (member_id, org_id)"
        " SELECT member_id, org_id FROM member WHERE user_id = 'nobody'"
    )
    assert await club.differences() == ([], MEMBERS + 1, 0)


@pytest.mark.parametrize(
    ("mark", "marked"),
    [
        ("due_member (member_id, cause) SELECT member_id, 'signals' FROM m", 1),
        ("due_batch (cause, member_ids) SELECT 'signals', array_agg(member_id) FROM m", 1),
        ("due_user (user_id) SELECT user_id FROM m", 1),
        ("due_organization (org_id, cause) SELECT org_id, 'membership' FROM m", MEMBERS // 3),
        ("organization_fact SELECT org_id, now(), 'm', 'suspended', 'O' FROM m", MEMBERS // 3),
    ],
)
async def test_who_waits_for_an_evaluation_is_left_out(club: Club, mark: str, marked: int) -> None:
    await club.execute(
        "INSERT INTO rsvp_fact SELECT member_id, now(), now(), 'unseen', 'going', 'm'"
        " FROM member WHERE user_id = 'user-3'"
    )
    await club.execute(
        f"WITH m AS (SELECT * FROM member WHERE user_id = 'user-3') INSERT INTO {mark}"
    )
    assert await club.differences() == ([], MEMBERS, marked)


async def test_what_waits_and_for_how_long(club: Club) -> None:
    await club.execute("DELETE FROM outbox")
    await club.execute("UPDATE engagement SET wake_at = NULL")
    async with acquired(club.pool) as connection:
        assert tuple(await checkup.waiting(connection)) == (0, 0.0, 0, 0.0, 0, 0.0)
    await club.execute(
        "INSERT INTO due_batch (cause, member_ids, marked_at)"
        " VALUES ('signals', '{1}', now() - interval '5 minutes')"
    )
    await club.execute(
        "UPDATE engagement SET wake_at = now() - interval '2 minutes'"
        " WHERE member_id = (SELECT min(member_id) FROM engagement)"
    )
    await club.execute(
        "INSERT INTO outbox (member_id, revision, message_key, created_at)"
        " VALUES (1, 1, 'a:b', now() - interval '1 minute')"
    )
    async with acquired(club.pool) as connection:
        found = await checkup.waiting(connection)
    assert (found.marks, found.overdue, found.outbox) == (1, 1, 1)
    assert found.marks_age_s == pytest.approx(300, abs=5)
    assert found.overdue_age_s == pytest.approx(120, abs=5)
    assert found.outbox_age_s == pytest.approx(60, abs=5)


async def test_incidents_of_late(club: Club) -> None:
    await club.execute(
        "INSERT INTO incident (kind, topic, partition, details, created_at) VALUES"
        " ('records_lost', 't', 3, '{\"first\": 7}', now() - interval '1 day'),"
        " ('topic_shorter', 't', 4, '{}', now() - interval '20 days')"
    )
    async with acquired(club.pool) as connection:
        (one,) = await checkup.incidents(connection, 7)
    assert (one.kind, one.topic, one.partition, one.details) == (
        "records_lost", "t", 3, '{"first": 7}',
    )  # fmt: skip
