"""Waiting for answers, the queue's bound, what is forgotten and counted."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from decimal import Decimal

from db import verdict_queue, verdicts
from db.claude_usage import Spent
from db.judging import ClaudeJudge
from db.pool import transaction
from service.classifier.asking import Usage
from service.classifier.keys import verdict_key
from service.classifier.situation import situation_of
from service.demo.fake_messages import Act
from service.thresholds import DEFAULT_THRESHOLDS
from tests.postgres.claude.scene import AMPLE, MODEL, Scene, five_situations, totals_of
from tests.unit.test_templates import evaluation_of


async def test_an_answer_that_lands_meanwhile_finds_who_waits(scene: Scene) -> None:
    """The evaluator has seen `pending`; the answer arrives before it commits."""
    situation = situation_of(evaluation_of((10,)), DEFAULT_THRESHOLDS)
    key = verdict_key(situation, MODEL)
    first = await scene.member("ada")
    async with transaction(scene.pool) as connection:
        await verdicts.look_up(connection, {key: situation}, MODEL)
    async with transaction(scene.pool) as connection:
        claims = await verdict_queue.claim(connection, MODEL, AMPLE, wanted=1, tokens=3_000)
    async with transaction(scene.pool) as evaluator:
        found = await verdicts.look_up(evaluator, {key: situation}, MODEL)
        assert found[key].status == "pending"
        landing = asyncio.create_task(refuse_in_own_transaction(scene, claims.claims[0]))
        await asyncio.sleep(0.3)
        assert not landing.done()
        await evaluator.execute(
            "UPDATE engagement SET verdict_key = $1 WHERE member_id = $2", key, first
        )
    await asyncio.wait_for(landing, 5)
    marked = await scene.rows("SELECT member_id FROM due_member WHERE cause = 'classifier'")
    assert [row[0] for row in marked] == [first]


async def refuse_in_own_transaction(scene: Scene, claim: verdict_queue.Claim) -> None:
    async with transaction(scene.pool) as connection:
        await verdict_queue.refuse(connection, claim, "link", Spent(Usage(1, 1), Decimal(0)))


async def test_the_queue_is_bounded_and_nobody_is_forgotten(scene: Scene) -> None:
    scene.judge_by(ClaudeJudge(MODEL, queue_limit=2))
    await five_situations(scene)
    waiting = "SELECT count(*) FROM verdict WHERE status = 'pending'"
    assert (await scene.row(waiting))[0] == 2
    without_key = "SELECT count(*) FROM engagement WHERE verdict_key IS NULL"
    assert (await scene.row(without_key))[0] == 3
    for _ in range(3):
        await scene.classifier().run_once()
        await scene.mark_all()
        await scene.evaluate()
    sources = "SELECT count(*) FROM engagement WHERE computed_source = 'claude'"
    assert (await scene.row(sources))[0] == 5


async def test_looking_up_what_is_answered_takes_one_statement(scene: Scene) -> None:
    await five_situations(scene)
    await scene.classifier().run_once()
    keys = [row[0] for row in await scene.rows("SELECT key FROM verdict")]
    statements: list[str] = []
    async with transaction(scene.pool) as connection:
        raw = connection._con if hasattr(connection, "_con") else connection
        raw.add_query_logger(lambda record: statements.append(record.query))
        found = await verdicts.look_up(connection, dict.fromkeys(keys), MODEL)
    assert len(found) == 5
    assert all(verdict.status == "answered" for verdict in found.values())
    assert statements.count(verdicts.SELECT) == 1
    assert verdicts.LOCK_PENDING not in statements


async def test_superseded_verdicts_are_forgotten(scene: Scene) -> None:
    await five_situations(scene)
    async with transaction(scene.pool) as connection:
        gone = await verdict_queue.drop_superseded(connection, "another", timedelta(days=30))
        assert gone == 0  # young, and members refer to them
    await scene.execute("UPDATE engagement SET verdict_key = NULL")
    await scene.shift(timedelta(days=31))
    async with transaction(scene.pool) as connection:
        assert await verdict_queue.drop_superseded(connection, MODEL, timedelta(days=30)) == 0
        assert await verdict_queue.drop_superseded(connection, "other", timedelta(days=30)) == 5


async def test_what_a_run_spent_is_the_difference_of_two_totals(scene: Scene) -> None:
    before = await totals_of(scene)
    await five_situations(scene)
    scene.fake.play(Act.SERVER_ERROR)
    await scene.classifier().run_once()
    spent = (await totals_of(scene)).since(before)
    assert spent["claude_calls"] == 5
    assert spent["claude_agreed"] + spent["claude_differed"] == 4
    assert spent["claude_fallbacks"] == {"server_error": 1}
    assert spent["claude_cost_usd"] > 0
    after = await totals_of(scene)
    assert after.since(after)["claude_fallbacks"] == {}
