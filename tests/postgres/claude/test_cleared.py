"""An override is cleared: Claude is asked at once about what arrived while nothing was asked."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from db import overrides
from db.evaluating import Evaluating, RulesJudge
from db.evaluation import CaseReader
from db.explanations import ExplanationCache
from db.judging import KeepingJudge
from db.pool import acquired, transaction
from db.wakeups import Wakeup
from service.levels import Level
from tests.postgres.claude.scene import Scene, saying


def overriding() -> overrides.Overriding:
    """As the API has it, which may not ask Claude."""
    reader = CaseReader(ExplanationCache(), implicit_membership=True)
    return overrides.Overriding(Evaluating(reader, KeepingJudge()))


async def override(scene: Scene, user_id: str, level: Level) -> None:
    async with transaction(scene.pool) as connection:
        await overriding().set(
            connection, "org", user_id, level=level, notes="a reason", expires_at=None,
            performed_by="boss", if_revision=None,
        )  # fmt: skip


async def clear(scene: Scene, user_id: str) -> None:
    async with transaction(scene.pool) as connection:
        await overriding().clear(
            connection, "org", user_id, notes=None, performed_by="boss", if_revision=None
        )


async def overridden_meanwhile(scene: Scene) -> int:
    """A member whose facts changed under an override; whatever they marked is worked off."""
    member = await scene.member("ada", attended=(10,))
    await scene.evaluate_and_ask()
    await override(scene, "ada", Level.AT_RISK)
    await scene.evaluate()
    await scene.add(member, attended=(8, 9))
    await scene.evaluate()
    row = await scene.engagement(member)
    assert (row["level"], row["computed_level"]) == ("at_risk", "highly_engaged")
    assert row["verdict_key"] is None
    assert await scene.classifier().run_once() == 0
    return member


async def test_claude_is_asked_at_once(scene: Scene) -> None:
    member = await overridden_meanwhile(scene)
    heard = asyncio.Event()
    async with acquired(scene.pool) as listening:
        await listening.add_listener(Wakeup.DUE.value, lambda *_: heard.set())
        await clear(scene, "ada")
        await asyncio.wait_for(heard.wait(), 5)
        await listening.reset()
    assert await scene.evaluate() == 1
    assert await scene.classifier().run_once() == 1
    await scene.evaluate()
    row = await scene.engagement(member)
    assert (row["level"], row["computed_source"]) == ("highly_engaged", "claude")
    assert row["verdict_key"] is not None


async def test_a_verdict_that_was_there_already_is_why_the_level_moves(scene: Scene) -> None:
    member = await overridden_meanwhile(scene)
    scene.fake.rewrite = lambda _: saying("moderate")
    await scene.member("bea", attended=(8, 9, 10))
    await scene.evaluate_and_ask()
    await clear(scene, "ada")
    await scene.evaluate()
    assert (await scene.changes(member))[-2:] == [
        ("at_risk", "highly_engaged", "override_cleared"),
        ("highly_engaged", "moderate", "classifier"),
    ]


async def test_facts_that_arrive_afterwards_keep_their_name(scene: Scene) -> None:
    member = await overridden_meanwhile(scene)
    await clear(scene, "ada")
    await scene.execute("UPDATE attendance_fact SET status = 'absent'")
    await scene.execute("INSERT INTO due_member (member_id, cause) VALUES ($1, 'signals')", member)
    await scene.evaluate()
    assert (await scene.changes(member))[-1] == ("highly_engaged", "inactive", "signals")


async def test_time_that_passes_until_a_worker_looks_keeps_its_name(scene: Scene) -> None:
    scene.judge_by(RulesJudge())
    member = await scene.member("ada", attended=(10,))
    await scene.evaluate()
    await override(scene, "ada", Level.NEW)
    await clear(scene, "ada")
    await scene.shift(timedelta(days=85))
    await scene.evaluate()
    assert (await scene.changes(member))[-1] == ("moderate", "at_risk", "time")


async def test_a_key_that_stays_needs_no_other_look(scene: Scene) -> None:
    member = await scene.member("ada", attended=(10,))
    await scene.evaluate_and_ask()
    await override(scene, "ada", Level.AT_RISK)
    await clear(scene, "ada")
    assert await scene.evaluate() == 0
    assert (await scene.engagement(member))["computed_source"] == "claude"
