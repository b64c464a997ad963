"""A whole worker and Claude: who is told what and when, and who never waits (fault 19)."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
import time
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from db import verdict_queue
from service.classifier.choice import claude_of
from service.demo.fake_claude import FakeClaude
from service.demo.fake_messages import Act
from service.levels import Level
from tests.command import ROOT
from tests.faults.reporting import Noted
from tests.kafka.claude_stage import (
    VERDICTS,
    Stage,
    activity,
    asking,
    assert_nothing_personal,
    member,
    opening,
    staged,
    until_asked,
)
from tests.oracle import check_history
from tests.servers import KafkaBroker, PostgresServer, cloned_database
from tests.worker_process import WorkerProcess

pytestmark = pytest.mark.timeout(240)

MARK = "zq7"
MODEL = "claude-haiku-5-5"
MEMBERS, RECORDS = 500, 5_000
TROUBLES = (Act.SLOW, Act.HANG, Act.OVERLOADED)
# Claude's worker may take so many times as long as the one with the rules, and a moment: it is not
# slower by itself, but the machine is busy. An answer would come much later still.
FACTOR, MOMENT_S = 3.0, 3.0
SLOW_S = 44.0
STOP_S = 15.0
BOARDS_LEVEL = Level.NEW
BELOVED = ":".join(member(MARK, 0))  # whose level the board sets


# ---------------------------------------------------------------------------------- everyday life


async def test_the_rules_at_once_and_claude_later(
    kafka_broker: KafkaBroker, database: str, topic_prefix: str
) -> None:
    now, may_answer = datetime.now(UTC), threading.Event()

    def when_told(answer: dict[str, Any]) -> dict[str, Any]:
        assert may_answer.wait(60)
        return answer

    with FakeClaude() as fake:
        fake.rewrite = when_told
        fake.script.extend([Act.DISAGREE, Act.NORMAL] * 200)
        async with staged(kafka_broker.bootstrap, database, topic_prefix, **asking(fake)) as stage:
            with WorkerProcess(stage.environment) as worker:
                sent = await stage.send(opening(MARK, 24, now))
                sent += await stage.send(activity(MARK, 24, 72, now))
                await stage.until_settled(sent)
                await until_asked(fake)
                assert (await stage.row(VERDICTS))["answered"] == 0
                at_once, _ = await stage.published()
                assert len(at_once) == 24
                for records in at_once.values():
                    assert {record["source"] for record in records} == {"rules"}
                    assert records[-1]["model_version"] == "rules-1"
                await stage.override(*member(MARK, 0), BOARDS_LEVEL)
                may_answer.set()
                await stage.until_answered()
                code, _ = await asyncio.to_thread(worker.end)
                assert code == 0, worker.stderr
            await assert_refined(stage, {key: one[-1] for key, one in at_once.items()})
        assert_nothing_personal(fake, MARK)


async def assert_refined(stage: Stage, by_rules: dict[str, dict[str, Any]]) -> None:
    """Everybody has Claude's level and texts in the end; only the board is above that."""
    levels, changes = await stage.published()
    moved = 0
    for key, before in by_rules.items():
        last = levels[key][-1]
        refined = [one for one in changes[key] if one["cause"] == "classifier"]
        assert f"The {MARK} Club" in last["admin_explanation"]
        assert f"The {MARK} Club" in last["user_explanation"]
        if key == BELOVED:
            assert (last["level"], last["source"]) == (BOARDS_LEVEL, "override")
            assert refined == []
            continue
        assert (last["source"], last["model_version"]) == ("claude", MODEL)
        assert last["admin_explanation"] != before["admin_explanation"]
        steps = [(one["from_level"], one["to_level"]) for one in refined]
        assert steps == [(before["level"], last["level"])] * (before["level"] != last["level"])
        moved += len(steps)
    assert 0 < moved < len(by_rules) - 1
    # Claude did have an opinion of that member, too: it is kept for when the override ends.
    org_id, user_id = member(MARK, 0)
    row = await stage.row(
        "SELECT m.level, e.computed_source FROM member_engagement m "
        "JOIN engagement e ON e.member_id = m.engagement_id WHERE m.org_id = $1 AND m.user_id = $2",
        org_id, user_id,
    )  # fmt: skip
    assert tuple(row) == (BOARDS_LEVEL, "claude")


# --------------------------------------------------------------------------------------- fault 19


class Times(NamedTuple):
    """Seconds from the first record on."""

    applied_s: float
    settled_s: float


async def test_fault_19_nobody_waits_for_claude(
    kafka_broker: KafkaBroker,
    postgres_server: PostgresServer,
    template_database: str,
    topic_prefix: str,
    tmp_path: Path,
    noted: Noted,
) -> None:
    """Four workers side by side on the same records: the rules, and Claude in three troubles."""
    now = datetime.now(UTC)
    async with AsyncExitStack() as exits:
        fakes = {act: exits.enter_context(FakeClaude(act)) for act in TROUBLES}
        stages: dict[str, Stage] = {}
        for name, more in {
            "rules": without_sdk(tmp_path),
            **{act.value: asking(fake) for act, fake in fakes.items()},
        }.items():
            url = await exits.enter_async_context(
                cloned_database(postgres_server, template_database)
            )
            stages[name] = await exits.enter_async_context(
                staged(
                    kafka_broker.bootstrap,
                    url,
                    f"{topic_prefix}{name}.",
                    inputs=topic_prefix,
                    **more,
                )
            )
        for fake in fakes.values():
            fake.delay_s = SLOW_S
        workers = [exits.enter_context(WorkerProcess(one.environment)) for one in stages.values()]
        times = await work_off(stages, fakes, now)
        levels = {name: await last_levels(stage) for name, stage in stages.items()}
        ends = await asyncio.gather(*(asyncio.to_thread(worker.end) for worker in workers))
        assert [code for code, _ in ends] == [0] * len(workers)
        assert all(took_s < STOP_S for _, took_s in ends), ends
        for act, fake in fakes.items():
            await assert_unanswered(stages[act.value], act)
            assert_nothing_personal(fake, MARK)
            assert 1 <= fake.most_at_once <= stages[act.value].settings.claude_concurrency
            wrong = levels[act.value].items() ^ levels["rules"].items()
            breaks = await broken_chains(stages[act.value], levels[act.value])
            assert (wrong, breaks) == (set(), [])
            noted(19, records=RECORDS, lost=len(wrong), doubled=len(breaks))
        assert len(levels["rules"]) == MEMBERS
        assert levels["rules"][BELOVED] == (BOARDS_LEVEL, "override")
        assert {source for _, source in levels["rules"].values()} == {"rules", "override"}
        assert len({level for level, _ in levels["rules"].values()}) == len(Level)
        assert_not_slower(times)
    assert not imported(tmp_path)


async def work_off(
    stages: dict[str, Stage], fakes: dict[Act, FakeClaude], now: datetime
) -> dict[str, Times]:
    """Send everything and time each worker, once Claude is in trouble already."""
    stage = stages["rules"]
    sent = await stage.send(opening(MARK, 1, now))
    await asyncio.gather(*(one.until_settled(sent) for one in stages.values()))
    await asyncio.gather(*(until_asked(fake) for fake in fakes.values()))
    for one in stages.values():
        await one.override(*member(MARK, 0), BOARDS_LEVEL)
    members = list(opening(MARK, MEMBERS, now))[sent:]
    records = [*members, *activity(MARK, MEMBERS, RECORDS - len(members), now)]
    total = sent + len(records)
    began = time.monotonic()

    async def timed(one: Stage) -> Times:
        await one.until_applied(total)
        applied_s = time.monotonic() - began
        await one.until_settled(total)
        return Times(applied_s, time.monotonic() - began)

    waiting = [asyncio.create_task(timed(one)) for one in stages.values()]
    await stage.send(records)
    return dict(zip(stages, await asyncio.gather(*waiting), strict=True))


def assert_not_slower(times: dict[str, Times]) -> None:
    """Neither taking in nor evaluating takes longer, however Claude is."""
    for name, took in times.items():
        for taken_s, by_rules_s in zip(took, times["rules"], strict=True):
            assert taken_s <= FACTOR * by_rules_s + MOMENT_S, (name, times)


async def last_levels(stage: Stage) -> dict[str, tuple[str, str]]:
    """What consumers see now: key -> level and source; both texts are there."""
    levels, _ = await stage.published()
    for records in levels.values():
        assert all(one["admin_explanation"] and one["user_explanation"] for one in records)
    return {key: (records[-1]["level"], records[-1]["source"]) for key, records in levels.items()}


async def broken_chains(stage: Stage, levels: dict[str, tuple[str, str]]) -> list[str]:
    """What is wrong with the history: one chain per member that ends in what consumers see."""
    current = {}
    for key, (level, _) in levels.items():
        org_id, _, user_id = key.partition(":")
        current[org_id, user_id] = level
    return check_history(await stage.history(), current)


async def assert_unanswered(stage: Stage, act: Act) -> None:
    """All that happened while many questions were waiting and none was answered."""
    verdicts = await stage.row(VERDICTS)
    assert verdicts["answered"] == 0
    assert verdicts["pending"] > stage.settings.claude_concurrency
    reasons = await stage.row("SELECT array_agg(reason) FROM claude_fallback")
    assert (reasons[0] or []) == (["overloaded"] if act is Act.OVERLOADED else [])
    # No attempt may take longer, and nobody else asks meanwhile.
    attempt_s = claude_of(stage.settings)._timeout_s
    assert attempt_s <= 45
    assert timedelta(seconds=attempt_s) < verdict_queue.LEASE


# Without a key the SDK is not even imported: a module of its name tells.


def without_sdk(folder: Path) -> dict[str, str]:
    """Settings of a worker that notes in `folder` if it imports the SDK."""
    trap = folder / "trap"
    trap.mkdir()
    note = f"open({str(folder / 'imported')!r}, 'w').close()"
    (trap / "anthropic.py").write_text(f"{note}\n", encoding="utf-8")
    settings = {"PYTHONPATH": os.pathsep.join([str(trap), str(ROOT)])}
    # It does tell.
    subprocess.run(
        [sys.executable, "-P", "-c", "import anthropic"], env={**os.environ, **settings}, check=True
    )
    assert imported(folder)
    (folder / "imported").unlink()
    return settings


def imported(folder: Path) -> bool:
    """Whether it has."""
    return (folder / "imported").exists()
