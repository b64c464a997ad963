"""What Claude did is in the summary of the daily run, and in its status until the next begins."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import timedelta
from typing import Any
from uuid import uuid4

from click.testing import CliRunner

from db import runs
from db.claude_usage import Totals
from db.daily import Daily
from db.evaluating import Evaluating, RulesJudge
from db.evaluation import CaseReader
from db.explanations import ExplanationCache
from db.housekeeping import housekeep, housekeep_once
from db.pool import acquired, transaction
from db.survey import Judging
from service.classifier.keys import key_tag
from service.classifier.templates import MODEL_VERSION
from service.cli.recompute import recompute
from service.cli.recompute_status import _figures
from service.demo.fake_messages import Act
from tests.command import engagement, settings_for
from tests.postgres.claude.scene import MODEL, Scene, five_situations, totals_of

NONE = {
    "claude_calls": 0,
    "claude_input_tokens": 0,
    "claude_output_tokens": 0,
    "claude_cost_usd": 0,
    "claude_hits": 0,
    "claude_agreed": 0,
    "claude_differed": 0,
    "claude_fallbacks": {},
}


async def run_daily(scene: Scene, number: int) -> Mapping[str, Any] | None:
    """The run of a day, the first one being 1; its summary."""
    slot = scene.started_at + timedelta(days=number)
    reader = CaseReader(ExplanationCache(), implicit_membership=True)
    daily = Daily(
        scene.pool,
        Evaluating(reader, scene._judge),
        slot_of=lambda _: slot,
        owner=uuid4(),
        implicit_membership=True,
        judging=Judging(MODEL_VERSION, key_tag(MODEL)),
    )
    summary = None
    while (step := await daily.step()) is not None:
        summary = step.summary or summary
    return summary


async def status_of(scene: Scene) -> list[runs.RunStatus]:
    async with acquired(scene.pool) as connection:
        return await runs.latest(connection, 10)


async def stored(scene: Scene, number: int) -> dict[str, Any]:
    """Claude's figures in the table, of the run of a day."""
    slot = scene.started_at + timedelta(days=number)
    row = await scene.row("SELECT summary::text FROM batch_run WHERE slot = $1", slot)
    return claude_in(json.loads(row[0]))


def claude_in(summary: Mapping[str, Any] | None) -> dict[str, Any]:
    assert summary is not None
    return {name: figure for name, figure in summary.items() if name.startswith("claude_")}


async def test_figures_go_to_the_end_and_in_the_status_to_the_next_run(
    scene: Scene, database: str
) -> None:
    await run_daily(scene, -1)  # nobody's slot: the job is seen for the first time
    # Before the first run: not in its figures.
    await scene.member("before", attended=(1, 2, 3, 4))
    await scene.evaluate_and_ask()
    spent = await totals_of(scene)
    assert spent.hits == 1
    assert claude_in(await run_daily(scene, 1)) == NONE
    # Between the runs: answers of which one agrees and one differs, a fallback, and hits.
    scene.fake.play(Act.DISAGREE)
    scene.fake.play(Act.NORMAL, 3)
    scene.fake.play(Act.SERVER_ERROR)
    await five_situations(scene)
    await scene.classifier().run_once()
    # In the table they are brought up to date now and then, and when the next run begins.
    assert (await stored(scene, 1)) == NONE
    await housekeep_once(scene.pool, uuid4())
    kept = await stored(scene, 1)
    assert (kept["claude_calls"], kept["claude_hits"]) == (5, 0)
    await scene.evaluate()
    first = claude_in((await status_of(scene))[0].summary)
    assert first["claude_calls"] == 5
    assert first["claude_hits"] == 4
    assert first["claude_agreed"] + first["claude_differed"] == 4
    assert first["claude_differed"] >= 1
    assert first["claude_fallbacks"] == {"server_error": 1}
    assert first["claude_input_tokens"] > 4 * 500
    assert first["claude_output_tokens"] > 4 * 50
    assert 0 < first["claude_cost_usd"] < 0.1
    assert first == claude_in((await totals_of(scene)).since(spent))
    # The next run has figures of its own, and those of the first stand still.
    await scene.shift(timedelta(days=2))
    assert (await run_daily(scene, 2)) is not None
    await scene.execute("UPDATE verdict SET due_at = clock_timestamp()")
    await scene.classifier().run_once()
    assert await stored(scene, 1) == first
    second, first_again = await status_of(scene)
    assert claude_in(first_again.summary) == first
    assert second.summary["claude_calls"] == 1
    assert second.summary["claude_fallbacks"] == {}
    shown = engagement("recompute", "--status", settings=settings_for(database=database)).stdout
    assert "claude calls 5, claude input tokens" in shown
    assert "claude hits 4, claude agreed" in shown
    assert "claude fallbacks server_error 1" in shown


async def test_what_the_run_itself_looks_up_is_in_its_summary(scene: Scene) -> None:
    await run_daily(scene, -1)
    await five_situations(scene)
    await scene.classifier().run_once()
    await scene.execute("DELETE FROM due_member")
    # As a prompt of another release leaves them: the run looks their verdicts up.
    await scene.execute("UPDATE engagement SET verdict_key = NULL")
    hits = (await totals_of(scene)).hits
    summary = await run_daily(scene, 1)
    assert claude_in(summary)["claude_hits"] == 5
    assert claude_in(summary) == {**NONE, "claude_hits": 5}
    assert (await totals_of(scene)).hits == hits + 5
    # What is stored is what was logged.
    stored = await scene.row("SELECT summary ->> 'claude_hits' FROM batch_run")
    assert stored[0] == "5"


async def test_without_claude_the_figures_are_nought(scene: Scene) -> None:
    scene.judge_by(RulesJudge())
    await run_daily(scene, -1)
    await five_situations(scene)
    assert claude_in(await run_daily(scene, 1)) == NONE
    (status,) = await status_of(scene)
    assert claude_in(status.summary) == NONE
    assert _figures(status, tuple(NONE)) == (
        "  claude calls 0, claude input tokens 0, claude output tokens 0, claude cost usd 0.0000, "
        "claude hits 0, claude agreed 0, claude differed 0, claude fallbacks 0"
    )


async def test_a_run_of_an_older_release_keeps_what_it_said(scene: Scene) -> None:
    await scene.execute(
        "INSERT INTO batch_run (job, slot, status, summary) "
        "VALUES ('compute-engagement-scores', now(), 'done', '{\"claude_calls\": 7}')"
    )
    (status,) = await status_of(scene)
    assert claude_in(status.summary) == {"claude_calls": 7}


async def test_hits_are_counted_by_the_page_and_only_if_they_are_kept(scene: Scene) -> None:
    await five_situations(scene)
    await scene.classifier().run_once()
    await scene.evaluate()
    assert (await totals_of(scene)).hits == 5
    statements: list[str] = []
    reader = CaseReader(ExplanationCache(), implicit_membership=True)
    await scene.mark_all()
    async with acquired(scene.pool) as connection:
        raw = connection._con if hasattr(connection, "_con") else connection
        raw.add_query_logger(lambda record: statements.append(record.query))
        attempt = connection.transaction()
        await attempt.start()
        await Evaluating(reader, scene.judge).evaluate_due(connection, 100)
        await attempt.rollback()
    assert len([s for s in statements if "claude_hit" in s]) == 1
    assert (await totals_of(scene)).hits == 5


async def test_evaluations_do_not_wait_for_each_others_hits(scene: Scene) -> None:
    await five_situations(scene)
    await scene.classifier().run_once()
    reader = CaseReader(ExplanationCache(), implicit_membership=True)
    evaluating = Evaluating(reader, scene.judge)
    await scene.mark_all()
    async with transaction(scene.pool) as one, transaction(scene.pool) as other:
        for connection in (one, other):
            await connection.execute("SET LOCAL lock_timeout = '2s'")
            page = await evaluating.evaluate_due(connection, 2)
            assert page.evaluated == 2


async def test_hits_of_past_days_are_brought_together(scene: Scene) -> None:
    await scene.execute(
        "INSERT INTO claude_hit SELECT current_date - d, b, 10 "
        "FROM generate_series(0, 3) AS d, generate_series(1, 3) AS b"
    )
    await scene.execute("INSERT INTO claude_usage (day, hits) VALUES (current_date - 3, 1)")
    before = await totals_of(scene)
    assert before.hits == 121
    for removed in (6, 0):
        async with transaction(scene.pool) as connection:
            assert (await housekeep(connection))["claude_hit"] == removed
    assert (await scene.row("SELECT count(*) FROM claude_hit"))[0] == 6
    assert await totals_of(scene) == before


async def test_totals_are_read_back_as_they_were_written(scene: Scene) -> None:
    await five_situations(scene)
    scene.fake.play(Act.SERVER_ERROR)
    await scene.classifier().run_once()
    spent = await totals_of(scene)
    assert Totals.from_json(spent.to_json()) == spent


def test_the_help_says_until_when_the_figures_go() -> None:
    shown = " ".join(CliRunner().invoke(recompute, ["--help"]).output.split())
    assert "until the next one begins" in shown
