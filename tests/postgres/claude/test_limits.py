"""Daily limits, calls at once, and what a crash costs."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from decimal import Decimal

from db import verdict_queue
from db.claude_usage import Limits, Spent
from db.explanations import explanation_ids
from db.pool import transaction
from service.classifier.asking import Usage
from service.demo.fake_messages import Act
from service.levels import Level
from service.texts import Texts
from tests.postgres.claude.scene import AMPLE, MODEL, Scene, five_situations, totals_of


async def test_daily_calls_are_a_limit_and_come_back_the_next_day(scene: Scene) -> None:
    await five_situations(scene)
    classifier = scene.classifier(Limits(8, 2, 10_000_000))
    assert await classifier.run_once() == 2
    assert await classifier.run_once() == 0
    assert await classifier.run_once() == 0
    assert len(scene.fake.requests) == 2
    assert (await totals_of(scene)).fallbacks == {"budget_calls": 1}
    await scene.shift(timedelta(days=1))
    assert await classifier.run_once() == 2
    assert len(scene.fake.requests) == 4


async def test_daily_tokens_are_a_limit(scene: Scene) -> None:
    await five_situations(scene)
    classifier = scene.classifier(Limits(8, 1_000, 6_500))
    asked = 0
    for _ in range(4):
        asked += await classifier.run_once()
    used = await scene.row("SELECT input_tokens + output_tokens, reserved_tokens FROM claude_usage")
    assert asked == len(scene.fake.requests) == 3  # 2 at first; settled, they left room for 1 more
    assert used[0] <= 6_500
    assert used[1] == 0


async def test_at_most_so_many_calls_at_once_over_all_workers(scene: Scene) -> None:
    await five_situations(scene)
    scene.fake.otherwise = Act.SLOW
    scene.fake.delay_s = 0.5
    limits = Limits(2, 1_000, 10_000_000)
    workers = [scene.classifier(limits) for _ in range(3)]
    for _ in range(10):
        await asyncio.gather(*(worker.run_once() for worker in workers))
    assert scene.fake.most_at_once == 2
    assert len(scene.fake.requests) == 5


async def test_a_crash_costs_the_call_in_flight_and_no_more(scene: Scene) -> None:
    member = await scene.member("ada", attended=(10,))
    await scene.evaluate()
    async with transaction(scene.pool) as connection:
        crashed = await verdict_queue.claim(connection, MODEL, AMPLE, wanted=1, tokens=3_000)
    assert len(crashed.claims) == 1
    # Leased: nobody else asks while it may be under way.
    assert await scene.classifier().run_once() == 0
    await scene.execute("UPDATE verdict SET leased_until = clock_timestamp()")
    assert await scene.classifier().run_once() == 1
    assert await scene.classifier().run_once() == 0
    await scene.evaluate()
    assert (await scene.engagement(member))["computed_source"] == "claude"
    totals = await totals_of(scene)
    assert (totals.calls, len(scene.fake.requests)) == (2, 1)
    # The crashed call may have been paid for: its tokens stay set aside for the day.
    assert (await scene.row("SELECT reserved_tokens FROM claude_usage"))[0] == 3_000


async def test_a_crash_before_the_repetition_goes_on_with_the_repetition(scene: Scene) -> None:
    scene.fake.otherwise = Act.WRONG_LEVEL
    await scene.member("ada", attended=(10,))
    await scene.evaluate()
    classifier = scene.classifier(Limits(8, 1, 10_000_000))  # no budget for the repetition today
    assert await classifier.run_once() == 0
    verdict = await scene.row("SELECT status, fault, attempts FROM verdict")
    assert tuple(verdict) == ("pending", "level", 1)
    await scene.shift(timedelta(days=1))
    assert await classifier.run_once() == 1
    assert (await scene.row("SELECT status FROM verdict"))[0] == "refused"
    assert len(scene.fake.requests) == 2


async def test_settling_twice_counts_once(scene: Scene) -> None:
    await five_situations(scene)
    async with transaction(scene.pool) as connection:
        claims = (
            await verdict_queue.claim(connection, MODEL, AMPLE, wanted=4, tokens=3_000)
        ).claims
    spent = Spent(Usage(1_000, 100), Decimal("0.01"))
    for _ in range(2):
        async with transaction(scene.pool) as connection:
            texts = Texts("{member} {org}", "{org}")
            number = (await explanation_ids(connection, [texts]))[texts]
            await verdict_queue.answer(connection, claims[0], Level.MODERATE, number, spent)
            await verdict_queue.refuse(connection, claims[1], "link", spent)
            again = await verdict_queue.ask_again(connection, claims[2], "date", spent, AMPLE)
            assert again is not None
            assert again.attempt == 2
            await verdict_queue.postpone(
                connection, claims[3], "timeout", timedelta(0), maybe_billed=False
            )
    totals = await totals_of(scene)
    assert (totals.calls, totals.input_tokens, totals.output_tokens) == (5, 3_000, 300)
    assert totals.cost_usd == Decimal("0.03")
    assert totals.fallbacks == {"link": 1, "timeout": 1}
    assert (await scene.row("SELECT reserved_tokens FROM claude_usage"))[0] == 3_000


async def test_whoever_answers_first_answers_for_all(scene: Scene) -> None:
    """A worker was paused beyond its lease, another one asks the same; both calls are paid for."""
    await scene.member("ada", attended=(10,))
    await scene.evaluate()
    claims = []
    for _ in range(2):
        async with transaction(scene.pool) as connection:
            both = await verdict_queue.claim(connection, MODEL, AMPLE, wanted=1, tokens=3_000)
        claims += both.claims
        await scene.execute("UPDATE verdict SET leased_until = clock_timestamp()")
    spent = Spent(Usage(1_000, 100), Decimal("0.01"))
    for claim, level in zip(claims, (Level.AT_RISK, Level.MODERATE), strict=True):
        async with transaction(scene.pool) as connection:
            texts = Texts("{member} {org}", "{org}")
            number = (await explanation_ids(connection, [texts]))[texts]
            await verdict_queue.answer(connection, claim, level, number, spent)
    assert (await scene.row("SELECT level FROM verdict"))[0] == "at_risk"
    # Neither is settled: what was reserved for them stays counted.
    usage = await scene.row("SELECT calls, reserved_tokens, input_tokens FROM claude_usage")
    assert tuple(usage) == (2, 6_000, 0)
