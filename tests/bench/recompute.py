"""The daily run over a million members, beside the floor: one bare statement on the same tables.

The floor aggregates the facts per member, applies the six rules and updates the level where it
differs; it writes no history, no message and no clock. It is measured in the same run, next to
what it is compared with, and rolled back. The quiet nights come first: everybody is stale, nothing
has changed. Then half a year passes at once, and 85 of 100 members change.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from statistics import median
from typing import Any, Final

import asyncpg

from db import evaluation, runs
from db.evaluating import Evaluating, RulesJudge
from db.evaluation import CaseReader
from db.explanations import ExplanationCache
from db.migrate import migrate
from db.preview import Previewing
from db.runs import JOB
from service.demo.local import LocalPostgres
from service.thresholds import Thresholds
from tests.bench.ground import report
from tests.bench.ground.servers import POSTGRES_SETTINGS
from tests.bench.ground.weekly import BASE, FACTS_PER_MEMBER, fill

MEMBERS: Final = 1_000_000
QUICK_MEMBERS: Final = 10_000
WORKERS: Final = 2
RUN_TIMEOUT_S: Final = 3_600.0
PLAIN_SAMPLE: Final = 50
PLAIN_PAUSE_S: Final = 0.1
PREVIEWED: Final = Thresholds(5, 2, 60, 30, 120)

FIRST_NIGHT: Final = datetime(BASE.year, BASE.month, BASE.day, 12, 15, tzinfo=BASE.tzinfo)
SLOT: Final = BASE.replace(hour=4, minute=0) + timedelta(seconds=10)
QUIET_NIGHTS: Final = [SLOT + timedelta(days=n) for n in (2, 3, 4)]
LAST_NIGHT: Final = SLOT + timedelta(days=190)

CLOCK: Final = """
CREATE OR REPLACE FUNCTION engagement_now() RETURNS timestamptz
    LANGUAGE sql STABLE PARALLEL SAFE RETURN timestamptz '{at}'"""

LEVELS: Final = """
a AS (
    SELECT member_id,
           count(*) FILTER (WHERE occurred_at > $1::timestamptz - interval '90 days') AS n,
           max(occurred_at) AS last, min(occurred_at) AS first
    FROM attendance_fact WHERE status IN ('attended', 'partial') AND occurred_at <= $1 GROUP BY 1
), r AS (
    SELECT member_id, max(responded_at) AS last, min(responded_at) AS first
    FROM rsvp_fact WHERE response = 'going' AND responded_at <= $1 GROUP BY 1
), p AS (
    SELECT user_id, max(updated_at) AS last
    FROM profile_fact WHERE actor = 'member' AND updated_at <= $1 GROUP BY 1
), s AS (
    SELECT m.member_id, coalesce(a.n, 0) AS events, a.last AS attended_at, r.last AS answered_at,
           p.last AS updated_at,
           CASE WHEN f.member_id IS NULL THEN least(a.first, r.first) ELSE f.joined_at END
               AS joined_at
    FROM member m
    LEFT JOIN a USING (member_id) LEFT JOIN r USING (member_id) LEFT JOIN p USING (user_id)
    LEFT JOIN membership_fact f USING (member_id)
), l AS (
    SELECT member_id, CASE
        WHEN joined_at IS NULL THEN NULL
        WHEN events >= 3 THEN 'highly_engaged'
        WHEN joined_at > $1 - interval '60 days' THEN 'new'
        WHEN events >= 1 THEN 'moderate'
        WHEN greatest(attended_at, answered_at, updated_at, joined_at) <= $1 - interval '180 days'
            THEN 'inactive'
        ELSE 'at_risk' END AS level
    FROM s
)"""
FLOOR: Final = f"""
WITH {LEVELS}
UPDATE engagement e SET level = l.level FROM l
WHERE e.member_id = l.member_id AND e.level IS DISTINCT FROM l.level"""
DISAGREEING: Final = f"""
WITH {LEVELS}
SELECT count(*) FROM engagement e JOIN l USING (member_id)
WHERE e.level IS DISTINCT FROM l.level"""


def main(
    json_path: Path | None = None,
    quick: bool = False,
    *,
    members: int | None = None,
    workers: int = WORKERS,
) -> dict[str, Any]:
    """`--members` with five facts each; `--workers` processes share the run, as in production."""
    count = members or (QUICK_MEMBERS if quick else MEMBERS)
    with ExitStack() as stack:
        server = stack.enter_context(LocalPostgres(settings=POSTGRES_SETTINGS))
        figures = asyncio.run(_Bench(server, count, workers).run())
    return _report(count, workers, figures)


class _Bench:
    def __init__(self, server: LocalPostgres, members: int, workers: int) -> None:
        self._server = server
        self._members = members
        self._workers = workers
        self._url = ""

    async def run(self) -> dict[str, float]:
        """Fill, and then the nights; seconds and counts by name."""
        async with self._connected("postgres") as connection:
            await connection.execute("CREATE DATABASE recompute")
        self._url = self._server.dsn("recompute")
        await migrate(self._url)
        async with self._connected() as connection:
            report.say(f"filling: {self._members:,} members, {FACTS_PER_MEMBER} facts each")
            await fill(connection, self._members)
            await connection.execute(
                "INSERT INTO batch_job VALUES ($1, $2)", JOB, BASE - timedelta(days=30)
            )
            await self._night(connection, FIRST_NIGHT, floor=False)
            quiet = [await self._night(connection, at) for at in QUIET_NIGHTS]
            changing = await self._night(connection, LAST_NIGHT)
            plain_s = await self._plain(connection)
            preview_s = await self._preview(connection)
        return {
            "floor_s": changing["floor_s"],
            "run_s": changing["run_s"],
            "changed": changing["changed"],
            "quiet_floor_s": median(n["floor_s"] for n in quiet),
            "quiet_run_s": median(n["run_s"] for n in quiet),
            "quiet_ratio": median(n["run_s"] / n["floor_s"] for n in quiet),
            "plain_s": plain_s,
            "preview_s": preview_s,
        }

    async def _night(
        self, connection: asyncpg.Connection, at: datetime, *, floor: bool = True
    ) -> dict[str, float]:
        """One run at this instant, the floor before it."""
        await connection.execute(CLOCK.format(at=at.isoformat()))
        # What the relay would have sent, and autovacuum cleaned up.
        await connection.execute("TRUNCATE outbox")
        await connection.execute("VACUUM ANALYZE", timeout=1_800)
        await connection.execute("CHECKPOINT", timeout=600)
        figures = {"floor_s": 0.0}
        if floor:
            figures["floor_s"] = await self._floor(connection, at)
        figures["run_s"] = await self._run(connection)
        summary = (await runs.latest(connection, 1))[0].summary
        figures["changed"] = float(summary["changed"])
        wrong = await connection.fetchval(DISAGREEING, at, timeout=1_800)
        if wrong or summary["members"] != self._members or summary["failed"]:
            raise RuntimeError(f"{wrong} levels differ from the floor's; {summary}")
        history = await connection.fetchval("SELECT count(*) FROM outbox WHERE change_body <> ''")
        if history != summary["changed"]:
            raise RuntimeError(f"{summary['changed']} changes, {history} messages")
        report.say(
            f"night of {at:%d %B}: floor {figures['floor_s']:.1f} s, run {figures['run_s']:.1f} s, "
            f"{summary['changed']:,} changed"
        )
        return figures

    async def _floor(self, connection: asyncpg.Connection, at: datetime) -> float:
        attempt = connection.transaction()
        await attempt.start()
        began_s = time.perf_counter()
        await connection.execute(FLOOR, at, timeout=1_800)
        seconds = time.perf_counter() - began_s
        await attempt.rollback()
        await connection.execute("VACUUM engagement", timeout=1_800)
        await connection.execute("CHECKPOINT", timeout=600)
        return seconds

    async def _run(self, connection: asyncpg.Connection) -> float:
        """Seconds from the start of the workers' loops to the end of the run."""
        with _processes(self._workers, self._url) as processes:
            began_s = time.perf_counter()
            for process in processes:
                assert process.stdin is not None
                process.stdin.write("go\n")
                process.stdin.flush()
            while time.perf_counter() - began_s < RUN_TIMEOUT_S:
                latest = await runs.latest(connection, 1)
                now = await connection.fetchval("SELECT engagement_now()")
                if latest and latest[0].finished_at == now:
                    return time.perf_counter() - began_s
                await asyncio.sleep(0.02)
        raise TimeoutError("the run does not end")

    async def _plain(self, connection: asyncpg.Connection) -> float:
        """The plain way, for a few, taken for all: one by one, with a pause between."""
        await evaluation.prepare_connection(connection)
        reader = CaseReader(ExplanationCache(), implicit_membership=True)
        evaluating = Evaluating(reader, RulesJudge())
        sample = min(PLAIN_SAMPLE, self._members)
        began_s = time.perf_counter()
        for member_id in range(1, sample + 1):
            async with connection.transaction():
                await evaluating.evaluate_members(connection, {member_id: ()})
        each_s = (time.perf_counter() - began_s) / sample
        return (each_s + PLAIN_PAUSE_S) * self._members

    async def _preview(self, connection: asyncpg.Connection) -> float:
        """Other thresholds for the largest organisation, a tenth of all members."""
        previewing = Previewing(implicit_membership=True, model=None)
        began_s = time.perf_counter()
        async with connection.transaction(readonly=True):
            found = await previewing.preview(connection, "org-0000", PREVIEWED, FIRST_NIGHT)
        if found.members == 0:
            raise RuntimeError("the preview found nobody")
        return time.perf_counter() - began_s

    @asynccontextmanager
    async def _connected(self, database: str = "recompute") -> AsyncIterator[asyncpg.Connection]:
        connection = await asyncpg.connect(
            self._server.dsn(database), server_settings={"jit": "off", "timezone": "UTC"}
        )
        try:
            yield connection
        finally:
            await connection.close(timeout=10)


@contextmanager
def _processes(number: int, url: str) -> Iterator[list[subprocess.Popen[str]]]:
    command = [sys.executable, "-m", "tests.bench.ground.daily_worker", url]
    made: list[subprocess.Popen[str]] = []
    try:
        for _ in range(number):
            made.append(  # noqa: PERF401 - those that are there are ended when the next fails
                subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            )
        for process in made:
            assert process.stdout is not None
            if process.stdout.readline().strip() != "ready":
                raise RuntimeError("a worker did not start")
        yield made
    finally:
        for process in made:
            try:
                process.communicate(timeout=30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.communicate()


def _report(members: int, workers: int, figures: dict[str, float]) -> dict[str, Any]:
    metrics = {
        "recompute.vs_floor": figures["run_s"] / figures["floor_s"],
        "recompute.quiet_vs_floor": figures["quiet_ratio"],
        "recompute.members_s": members / figures["run_s"],
        "recompute.floor_s": figures["floor_s"],
        "recompute.quiet_floor_s": figures["quiet_floor_s"],
        "recompute.quiet_members_s": members / figures["quiet_run_s"],
        "recompute.plain_s": figures["plain_s"],
        "recompute.preview_s": figures["preview_s"],
    }
    share = figures["changed"] / members
    rows = [
        ["quiet night, all stale", _s(figures["quiet_floor_s"]), _s(figures["quiet_run_s"]),
         f"{metrics['recompute.quiet_vs_floor']:.2f}"],
        [f"{share:.0%} change", _s(figures["floor_s"]), _s(figures["run_s"]),
         f"{metrics['recompute.vs_floor']:.2f}"],
        ["one by one, 100 ms between", "", _s(figures["plain_s"]),
         f"{figures['plain_s'] / figures['floor_s']:,.0f}"],
    ]  # fmt: skip
    notes = [
        f"{workers} workers on the machine of the database; {FACTS_PER_MEMBER} facts a member.",
        "Floor: one statement that aggregates the facts and updates a level column, no more.",
        "One by one: taken from the first few members.",
        f"Preview of thresholds for {members // 10:,} members: {figures['preview_s']:.1f} s.",
    ]
    title = f"recompute: {members:,} members"
    table = report.table(title, ("night", "floor", "run", "times the floor"), rows, notes)
    return report.report("recompute", metrics, tables=[table])


def _s(seconds: float) -> str:
    return f"{seconds:,.1f} s"
