"""A database with members, an evaluator that uses verdicts, and a classifier that fills them."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

from db import claude_usage, due, evaluation
from db.claude_usage import Limits
from db.evaluating import Evaluating, Judge
from db.evaluation import CaseReader
from db.explanations import ExplanationCache
from db.judging import ClaudeJudge
from db.pool import Connection, Pool, acquired, open_pool, transaction
from service.classifier.breaker import Breaker
from service.classifier.claude import Claude
from service.demo.fake_claude import FakeClaude
from service.settings import load_settings
from streams.classifier import Classifier

MODEL = "claude-haiku-5-5"
AMPLE = Limits(concurrency=8, daily_calls=10_000, daily_tokens=100_000_000)

NOW = """
CREATE OR REPLACE FUNCTION engagement_now() RETURNS timestamptz LANGUAGE sql STABLE PARALLEL SAFE
    RETURN transaction_timestamp() + interval '{seconds} seconds'"""


class Scene:
    """What a worker has, without Kafka. Clocks are PostgreSQL's; `shift` moves them."""

    def __init__(self, pool: Pool, fake: FakeClaude) -> None:
        self.pool = pool
        self.fake = fake
        self.started_at = datetime.now(UTC)
        self._numbers = itertools.count(1)
        self.judge = ClaudeJudge(MODEL)
        self._judge: Judge = self.judge
        self._askers: list[Claude] = []

    def classifier(
        self, limits: Limits = AMPLE, *, model: str = MODEL, timeout_s: float = 5.0
    ) -> Classifier:
        """A classifier of its own, as another worker would have."""
        asker = Claude("no-real-key", model, base_url=self.fake.base_url, timeout_s=timeout_s)
        self._askers.append(asker)
        return Classifier(self.pool, asker, model, limits, breaker=Breaker())

    async def close(self) -> None:
        """Hang up on Claude."""
        for asker in self._askers:
            await asker.aclose()

    def judge_by(self, judge: Judge) -> None:
        """Use another judge from now on."""
        self._judge = judge

    async def shift(self, by: timedelta) -> None:
        """Let the database's clock be ahead by so much."""
        async with acquired(self.pool) as connection:
            await connection.execute(NOW.format(seconds=by.total_seconds()))

    # ------------------------------------------------------------------------------------ facts

    async def organization(self, org_id: str, name: str) -> None:
        """An organisation's record."""
        await self.execute(
            "INSERT INTO organization_fact VALUES ($1, now(), 'm', 'active', $2)", org_id, name
        )

    async def member(
        self,
        user_id: str,
        *,
        org_id: str = "org",
        joined: float = 400,
        attended: tuple[float, ...] = (),
        rsvps: tuple[float, ...] = (),
        display_name: str | None = None,
    ) -> int:
        """A member with activity so many days ago; due at once."""
        async with transaction(self.pool) as connection:
            member_id: int = await connection.fetchval(
                "INSERT INTO member (org_id, user_id) VALUES ($1, $2) RETURNING member_id",
                org_id, user_id,
            )  # fmt: skip
            await connection.execute(
                "INSERT INTO engagement (member_id, org_id) VALUES ($1, $2)", member_id, org_id
            )
            await connection.execute(
                "INSERT INTO membership_fact VALUES ($1, $2, now(), 'm', 'active', 'member', $3)",
                member_id, self.ago(joined), display_name,
            )  # fmt: skip
            await self._activity(connection, member_id, attended, rsvps)
        return member_id

    async def add(
        self, member_id: int, *, attended: tuple[float, ...] = (), rsvps: tuple[float, ...] = ()
    ) -> None:
        """More activity; the member is due."""
        async with transaction(self.pool) as connection:
            await self._activity(connection, member_id, attended, rsvps)

    async def _activity(
        self,
        connection: Connection,
        member_id: int,
        attended: tuple[float, ...],
        rsvps: tuple[float, ...],
    ) -> None:
        for days in attended:
            await connection.execute(
                "INSERT INTO attendance_fact VALUES ($1, $2, now(), $3, 'attended', 'm')",
                member_id, self.ago(days), self.event_id(),
            )  # fmt: skip
        for days in rsvps:
            await connection.execute(
                "INSERT INTO rsvp_fact VALUES ($1, $2, now(), $3, 'going', 'm')",
                member_id, self.ago(days), self.event_id(),
            )  # fmt: skip
        await connection.execute(
            "INSERT INTO due_member (member_id, cause) VALUES ($1, 'signals')", member_id
        )

    def ago(self, days: float) -> datetime:
        """So many days before this scene began."""
        return self.started_at - timedelta(days=days)

    def event_id(self) -> str:
        """A new one each time."""
        return f"event-{next(self._numbers)}"

    # ---------------------------------------------------------------------------------- running

    async def evaluate(self) -> int:
        """Evaluate whoever is due, until nobody is; how many evaluations."""
        reader = CaseReader(ExplanationCache(), implicit_membership=True)
        evaluating = Evaluating(reader, self._judge)
        evaluated = 0
        while True:
            async with transaction(self.pool) as connection:
                page = await evaluating.evaluate_due(connection, 500)
                evaluated += page.evaluated
                if not await due.any_due(connection):
                    return evaluated

    async def evaluate_and_ask(self) -> None:
        """Evaluate, put a page of situations to Claude, and evaluate with its answers."""
        await self.evaluate()
        await self.classifier().run_once()
        await self.evaluate()

    async def mark_all(self) -> None:
        """Everybody is due though nothing happened, as in the daily run."""
        await self.execute("INSERT INTO due_member (member_id, cause) "
                           "SELECT member_id, 'time' FROM engagement")  # fmt: skip

    async def execute(self, sql: str, *arguments: object) -> None:
        """One statement."""
        async with acquired(self.pool) as connection:
            await connection.execute(sql, *arguments)

    async def row(self, sql: str, *arguments: object) -> Any:
        """The first row of a query."""
        async with acquired(self.pool) as connection:
            return await connection.fetchrow(sql, *arguments)

    async def rows(self, sql: str, *arguments: object) -> list[Any]:
        """All rows of a query."""
        async with acquired(self.pool) as connection:
            return list(await connection.fetch(sql, *arguments))

    async def engagement(self, member_id: int) -> Any:
        """The member's row with its texts."""
        return await self.row(
            "SELECT e.*, x.admin_template, x.user_template FROM engagement e "
            "LEFT JOIN explanation x USING (explanation_id) WHERE member_id = $1",
            member_id,
        )

    async def changes(self, member_id: int) -> list[tuple[str | None, str | None, str]]:
        """(from, to, cause) of the member's history."""
        rows = await self.rows(
            "SELECT from_level, to_level, cause FROM engagement_level_history "
            "WHERE member_id = $1 ORDER BY revision",
            member_id,
        )
        return [tuple(row) for row in rows]


@asynccontextmanager
async def open_scene(database: str, fake: FakeClaude) -> AsyncIterator[Scene]:
    """A scene on an empty database; `fake` starts without a script."""
    fake.script.clear()
    fake.requests.clear()
    fake.rewrite = lambda answer: answer
    fake.usage = {}
    fake.most_at_once = 0
    settings = load_settings({"DATABASE_URL": database})
    pool = await open_pool(settings, purpose="test", size=8, prepare=evaluation.prepare_connection)
    scene = Scene(pool, fake)
    try:
        yield scene
    finally:
        await scene.close()
        pool.terminate()


def saying(level: str) -> dict[str, str]:
    """An answer of Claude's, with texts that are fine."""
    return {
        "level": level,
        "admin_explanation": "{member} of {org} is in good hands.",
        "user_explanation": "It is good to have you with {org}.",
    }


async def five_situations(scene: Scene) -> None:
    """Five members whose situations differ, evaluated once."""
    for number, attended in enumerate([(5,), (50,), (95,), (300,), (5, 6)]):
        await scene.member(f"user-{number}", attended=attended)
    await scene.evaluate()


async def totals_of(scene: Scene) -> claude_usage.Totals:
    """What has been spent on Claude so far."""
    async with transaction(scene.pool) as connection:
        return await claude_usage.totals(connection)
