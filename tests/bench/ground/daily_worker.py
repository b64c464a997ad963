"""What a worker does for the daily run, as a process of its own.

    python -m tests.bench.ground.daily_worker DATABASE_URL

Prints `ready`, begins on a line from standard input, and works until standard input ends.
"""

from __future__ import annotations

import asyncio
import sys
from uuid import uuid4

from db import evaluation
from db.evaluating import Evaluating, RulesJudge
from db.evaluation import CaseReader
from db.explanations import ExplanationCache
from db.pool import open_pool
from service.interpreter import prepare_interpreter
from service.settings import load_settings
from streams.daily import LOOPS, DailyRun, daily_of


async def main(database: str) -> None:
    """Run the loops of a worker's daily run."""
    settings = load_settings({"DATABASE_URL": database})
    pool = await open_pool(
        settings, purpose="work", size=LOOPS + 3, prepare=evaluation.prepare_connection
    )
    reader = CaseReader(ExplanationCache(), implicit_membership=settings.implicit_membership)
    daily = daily_of(settings, pool, Evaluating(reader, RulesJudge()), uuid4())
    over = asyncio.Event()
    loops = [DailyRun(daily, published=lambda: None, idle_poll_s=0.05) for _ in range(LOOPS)]
    await pool.fetchval("SELECT 1")
    prepare_interpreter()
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    await asyncio.to_thread(sys.stdin.readline)
    tasks = [asyncio.create_task(loop.run(over.is_set)) for loop in loops]
    await asyncio.to_thread(sys.stdin.read)
    over.set()
    await asyncio.wait(tasks, timeout=60)
    pool.terminate()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
