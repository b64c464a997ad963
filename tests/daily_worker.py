"""A worker's share in the daily run as a process of its own, to be killed.

    python -m tests.daily_worker DATABASE_URL [STEPS]

Leases are short here, so that the others need not wait. Says `step` after every piece of work.
After STEPS of them it does nothing more and waits to be killed: however fast a machine is, it
can't end the run before that.
"""

from __future__ import annotations

import asyncio
import math
import sys
from datetime import timedelta
from uuid import uuid4

from db import evaluation, run_pages
from db.evaluating import Evaluating, RulesJudge
from db.evaluation import CaseReader
from db.explanations import ExplanationCache
from db.pool import open_pool
from service.settings import load_settings
from streams.daily import daily_of

LEASE = timedelta(seconds=1)
CHUNK = 50
LONG = 120


async def main(database: str, steps: float) -> None:
    """Work until there is nothing left for a while, or until `steps` are done."""
    run_pages.LEASE = LEASE  # type: ignore[misc]
    run_pages.CHUNK = CHUNK  # type: ignore[misc]
    settings = load_settings({"DATABASE_URL": database})
    pool = await open_pool(settings, purpose="work", size=4, prepare=evaluation.prepare_connection)
    reader = CaseReader(ExplanationCache(), implicit_membership=True)
    daily = daily_of(settings, pool, Evaluating(reader, RulesJudge()), uuid4())
    idle = 0
    while idle < 30:
        step = await daily.step()
        idle = 0 if step is not None else idle + 1
        if step is None:
            await asyncio.sleep(0.1)
        else:
            print("step", flush=True)  # noqa: T201 - whoever started us reads it
            steps -= 1
        if steps <= 0:
            await asyncio.sleep(LONG)
    pool.terminate()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else math.inf))
