"""Bad answers, no answers, outages: the rules decide meanwhile."""

from __future__ import annotations

import asyncio
import time

import pytest

from db.claude_usage import Limits
from service.demo.fake_messages import Act
from service.texts import is_clean
from tests.postgres.claude.scene import Scene, saying, totals_of
from tests.unit.test_texts import HURTFUL


@pytest.mark.parametrize(
    "act",
    [
        Act.CUT_OFF, Act.REFUSAL, Act.WRONG_TOOL, Act.TWO_CALLS, Act.TEXT_ONLY, Act.THINKING_ONLY,
        Act.MISSING_FIELD, Act.EXTRA_FIELD, Act.UNKNOWN_LEVEL, Act.WRONG_LEVEL, Act.TOO_LONG,
    ],
)  # fmt: skip
async def test_two_bad_answers_leave_it_to_the_rules(scene: Scene, act: Act) -> None:
    scene.fake.otherwise = act
    member = await scene.member("ada", attended=(10,))
    await scene.evaluate()
    assert await scene.classifier().run_once() == 1
    await scene.evaluate()
    row = await scene.engagement(member)
    assert (row["level"], row["computed_source"]) == ("moderate", "rules")
    assert row["admin_template"]
    assert row["user_template"]
    verdict = await scene.row("SELECT * FROM verdict")
    assert (verdict["status"], verdict["attempts"]) == ("refused", 2)
    assert verdict["fault"]
    assert verdict["input_tokens"] > 0
    totals = await totals_of(scene)
    assert totals.calls == 2
    assert totals.fallbacks == {verdict["fault"]: 1}
    # The second question said what was wrong with the first answer.
    contents = [r.body["messages"][0]["content"] for r in scene.fake.requests]
    assert "was refused" not in contents[0]
    assert "was refused" in contents[1]
    # It is over: nobody asks again, whoever comes into the situation.
    scene.fake.otherwise = Act.NORMAL
    await scene.member("bea", attended=(12,))
    await scene.evaluate()
    assert await scene.classifier().run_once() == 0
    assert len(scene.fake.requests) == 2


async def test_the_second_answer_may_be_good(scene: Scene) -> None:
    scene.fake.play(Act.WRONG_LEVEL)
    member = await scene.member("ada", attended=(10,))
    await scene.evaluate()
    assert await scene.classifier().run_once() == 1
    await scene.evaluate()
    assert (await scene.engagement(member))["computed_source"] == "claude"
    totals = await totals_of(scene)
    assert (totals.calls, totals.agreed + totals.differed) == (2, 1)


@pytest.mark.parametrize(
    ("act", "failure", "stays_reserved"),
    [
        (Act.RATE_LIMITED, "rate_limited", False),
        (Act.RATE_LIMITED_FOR_A_DAY, "rate_limited", False),
        (Act.OVERLOADED, "overloaded", False),
        (Act.SERVER_ERROR, "server_error", False),
        (Act.DENIED, "denied", False),
        (Act.REJECTED, "rejected", False),
        (Act.RESET, "connection", True),
        (Act.NOT_JSON, "unreadable", True),
        (Act.HANG, "timeout", True),
    ],
)
async def test_no_answer_puts_it_off(
    scene: Scene, act: Act, failure: str, stays_reserved: bool
) -> None:
    scene.fake.play(act)
    member = await scene.member("ada", attended=(10,))
    await scene.evaluate()
    started = time.monotonic()
    # The first question of a process pays for the import, so the limit is not too tight.
    assert await scene.classifier(timeout_s=1.5).run_once() == 0
    assert time.monotonic() - started < 30
    await scene.evaluate()
    row = await scene.engagement(member)
    assert (row["level"], row["computed_source"]) == ("moderate", "rules")
    verdict = await scene.row(
        "SELECT *, extract(epoch FROM due_at - clock_timestamp()) AS wait_s FROM verdict"
    )
    assert (verdict["status"], verdict["last_failure"]) == ("pending", failure)
    assert verdict["leased_until"] is None
    assert 5 < verdict["wait_s"] <= 3_600
    assert (await totals_of(scene)).fallbacks == {failure: 1}
    reserved = (await scene.row("SELECT reserved_tokens FROM claude_usage"))[0]
    assert (reserved > 0) is stays_reserved
    # When its time has come it is asked again, and answered.
    await scene.execute("UPDATE verdict SET due_at = clock_timestamp()")
    assert await scene.classifier().run_once() == 1
    await scene.evaluate()
    assert (await scene.engagement(member))["computed_source"] == "claude"
    assert (await totals_of(scene)).calls == 2


@pytest.mark.parametrize("word", HURTFUL)
async def test_hurtful_words_never_arrive(scene: Scene, word: str) -> None:
    hurting = {**saying("moderate"), "user_explanation": f"With {{org}} you are {word}, sadly."}
    scene.fake.rewrite = lambda _: hurting
    member = await scene.member("ada", attended=(10,))
    await scene.evaluate_and_ask()
    row = await scene.engagement(member)
    assert row["computed_source"] == "rules"
    assert is_clean(row["user_template"])
    assert (await scene.row("SELECT fault FROM verdict"))[0] == "hurtful"


async def test_an_outage_opens_the_breaker(scene: Scene) -> None:
    scene.fake.otherwise = Act.OVERLOADED
    for days in (1, 40, 95, 200):
        await scene.member(f"user-{days}", attended=(days,))
    await scene.evaluate()
    classifier = scene.classifier(Limits(1, 1_000, 1_000_000))
    for _ in range(6):
        assert await classifier.run_once() == 0
    assert len(scene.fake.requests) == 3
    # Everybody has both texts all the while.
    without = "SELECT count(*) FROM engagement WHERE level IS NULL OR explanation_id IS NULL"
    assert (await scene.row(without))[0] == 0


async def test_evaluation_does_not_wait_for_claude(scene: Scene) -> None:
    scene.fake.otherwise = Act.HANG
    await scene.member("ada", attended=(10,))
    await scene.evaluate()
    stopping = asyncio.Event()
    running = asyncio.create_task(scene.classifier(timeout_s=20).run(stopping.is_set))
    try:
        async with asyncio.timeout(30):
            while not scene.fake.requests:  # noqa: ASYNC110 - it lives in another thread
                await asyncio.sleep(0.05)
        started = time.monotonic()
        for number in range(50):
            await scene.member(f"user-{number}", attended=(number + 0.5,))
        await scene.evaluate()
        assert time.monotonic() - started < 5
        leased = await scene.row("SELECT count(*) FROM verdict WHERE leased_until IS NOT NULL")
        assert leased[0] >= 1
        idle = await scene.row(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() "
            "AND state LIKE 'idle in transaction%'"
        )
        assert idle[0] == 0
    finally:
        stopping.set()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
