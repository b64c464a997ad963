"""Rules at once, Claude's judgement when it is there, and what changes it later."""

from __future__ import annotations

from datetime import timedelta

from db.judging import ClaudeJudge, KeepingJudge
from service.classifier.judging import Lookup
from tests.postgres.claude.scene import MODEL, Scene, saying


async def test_rules_at_once_and_claude_when_the_answer_is_there(scene: Scene) -> None:
    scene.fake.rewrite = lambda _: saying("highly_engaged")
    member = await scene.member("ada", attended=(10,))
    await scene.evaluate()
    row = await scene.engagement(member)
    assert (row["level"], row["computed_source"], row["model_version"]) == (
        "moderate", "rules", "rules-1",
    )  # fmt: skip
    assert "Moderately engaged" in row["admin_template"]

    assert await scene.classifier().run_once() == 1
    assert await scene.evaluate() == 1
    row = await scene.engagement(member)
    assert (row["level"], row["rules_level"]) == ("highly_engaged", "moderate")
    assert (row["computed_source"], row["model_version"]) == ("claude", MODEL)
    assert row["user_template"] == "It is good to have you with {org}."
    assert await scene.changes(member) == [
        (None, "moderate", "membership"),
        ("moderate", "highly_engaged", "classifier"),
    ]


async def test_members_in_the_same_situation_share_one_call(scene: Scene) -> None:
    for number in range(40):
        org_id = f"org-{number % 4}"
        await scene.member(f"user-{number}", org_id=org_id, attended=(5 + number / 10,))
    await scene.evaluate()
    assert await scene.classifier().run_once() == 1
    assert len(scene.fake.requests) == 1
    assert await scene.evaluate() == 40
    sources = await scene.rows("SELECT DISTINCT computed_source FROM engagement")
    assert [row[0] for row in sources] == ["claude"]
    # Whoever comes to the same situation later finds the answer there.
    late = await scene.member("late", attended=(8,))
    before = scene.judge.lookups.copy()
    await scene.evaluate()
    assert scene.judge.lookups - before == {Lookup.HIT: 1}
    assert (await scene.engagement(late))["computed_source"] == "claude"
    assert len(scene.fake.requests) == 1


async def test_days_that_pass_cost_nothing_and_publish_nothing(scene: Scene) -> None:
    for number in range(20):
        await scene.member(f"user-{number}", attended=(91 + number / 10,))
    await scene.evaluate_and_ask()
    published = await scene.row("SELECT count(*), max(revision) FROM outbox")
    for day in range(1, 25):
        await scene.shift(timedelta(days=day))
        await scene.mark_all()
        await scene.evaluate()
        assert await scene.classifier().run_once() == 0
    assert len(scene.fake.requests) == 1
    assert await scene.row("SELECT count(*), max(revision) FROM outbox") == published


async def test_nobody_flaps_while_claude_and_the_rules_differ(scene: Scene) -> None:
    scene.fake.rewrite = lambda _: saying("at_risk")
    member = await scene.member("ada", attended=(40,))
    await scene.evaluate_and_ask()
    assert (await scene.engagement(member))["level"] == "at_risk"
    for days in (30, 20, 10, 5, 1):
        await scene.add(member, rsvps=(days,))
        await scene.evaluate()
        row = await scene.engagement(member)
        assert (row["level"], row["rules_level"], row["computed_source"]) == (
            "at_risk", "moderate", "claude",
        )  # fmt: skip
        await scene.classifier().run_once()
        await scene.evaluate()
    assert await scene.changes(member) == [
        (None, "moderate", "membership"),
        ("moderate", "at_risk", "classifier"),
    ]


async def test_claude_gives_way_when_the_rules_change_their_mind(scene: Scene) -> None:
    scene.fake.rewrite = lambda _: saying("at_risk")
    member = await scene.member("ada", attended=(40,))
    await scene.evaluate_and_ask()
    await scene.add(member, attended=(3, 2))
    await scene.evaluate()
    row = await scene.engagement(member)
    assert (row["level"], row["computed_source"]) == ("highly_engaged", "rules")


async def test_a_level_ends_when_the_guard_no_longer_allows_it(scene: Scene) -> None:
    # Highly engaged by the rules and new: Claude may say new until newness ends.
    scene.fake.rewrite = lambda _: saying("new")
    member = await scene.member("ada", joined=50, attended=(5, 4, 3))
    await scene.evaluate_and_ask()
    row = await scene.engagement(member)
    assert row["level"] == "new"
    # No step of the rules' level, but one of the shown level.
    assert row["wake_at"] == row["next_change_at"] == row["joined_at"] + timedelta(days=60)
    assert row["next_level"] == "highly_engaged"
    await scene.shift(timedelta(days=10))
    assert await scene.evaluate() == 1
    row = await scene.engagement(member)
    assert (row["level"], row["computed_source"]) == ("highly_engaged", "rules")


async def test_another_model_is_asked_anew_and_the_old_texts_stay_meanwhile(scene: Scene) -> None:
    member = await scene.member("ada", attended=(10,))
    await scene.evaluate_and_ask()
    scene.judge_by(ClaudeJudge("claude-haiku-4-5"))
    await scene.mark_all()
    await scene.evaluate()
    assert (await scene.engagement(member))["model_version"] == MODEL
    # A worker of the older release leaves the new release's questions alone.
    assert await scene.classifier().run_once() == 0
    assert await scene.classifier(model="claude-haiku-4-5").run_once() == 1
    await scene.evaluate()
    assert (await scene.engagement(member))["model_version"] == "claude-haiku-4-5"


async def test_whoever_may_not_ask_keeps_claudes_judgement(scene: Scene) -> None:
    scene.fake.rewrite = lambda _: saying("highly_engaged")
    member = await scene.member("ada", attended=(10,))
    await scene.evaluate_and_ask()
    scene.judge_by(KeepingJudge())
    await scene.mark_all()
    await scene.evaluate()
    row = await scene.engagement(member)
    assert (row["level"], row["computed_source"]) == ("highly_engaged", "claude")


async def test_under_an_override_nothing_is_asked(scene: Scene) -> None:
    member = await scene.member("ada", attended=(10,))
    await scene.execute(
        "UPDATE engagement SET computed_at = now() - interval '1 day', level = 'new', "
        "computed_level = 'moderate', level_since = now() - interval '1 day', "
        "computed_source = 'rules', override_level = 'new', overridden_at = now(), "
        "override_notes = 'n', overridden_by = 'boss'"
    )
    await scene.evaluate()
    row = await scene.engagement(member)
    assert (row["level"], row["computed_level"], row["verdict_key"]) == ("new", "moderate", None)
    assert await scene.classifier().run_once() == 0
    # Somebody else without an override asks; the answer then serves the one with it, too.
    await scene.member("bea", attended=(11,))
    await scene.evaluate()
    await scene.classifier().run_once()
    await scene.mark_all()
    await scene.evaluate()
    row = await scene.engagement(member)
    assert (row["level"], row["computed_source"]) == ("new", "claude")
