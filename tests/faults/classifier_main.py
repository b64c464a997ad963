"""A classifier that ends like kill -9 at a place: `claimed`, `asked`, `again`, `stored` or never.

python -m tests.faults.classifier_main DATABASE_URL CLAUDE_URL PLACE
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

from db import verdict_queue
from db.claude_usage import Limits
from db.pool import open_pool
from service.classifier.claude import Claude
from service.settings import load_settings
from streams.classifier import Classifier

KILLED = 137
LEASE_S = 1.0


async def main(database: str, claude_url: str, place: str) -> None:
    """Fill the queue until it is empty, or until the place is reached."""
    pool = await open_pool(load_settings({"DATABASE_URL": database}), purpose="test", size=4)
    asker = Claude("no-real-key", "claude-haiku-5-5", base_url=claude_url, timeout_s=10)
    limits = Limits(concurrency=2, daily_calls=1_000, daily_tokens=100_000_000)
    classifier: Any = Classifier(pool, asker, "claude-haiku-5-5", limits)
    if place == "claimed":
        die_after(classifier, "_claim", when=bool)
    elif place == "asked":
        die_after(classifier, "_ask")
    elif place == "again":
        die_after(classifier, "_ask_again")
    elif place == "stored":
        die_after(classifier, "_answer")
    while await classifier.run_once():
        pass
    await asker.aclose()
    pool.terminate()


def die_after(owner: Any, name: str, when: Callable[[Any], bool] = lambda _: True) -> None:
    """End the process when the method has done its work."""
    original: Callable[..., Awaitable[Any]] = getattr(owner, name)

    async def wrapped(*args: Any) -> Any:
        result = await original(*args)
        if when(result):
            os._exit(KILLED)
        return result

    setattr(owner, name, wrapped)


def shorten_leases() -> None:
    """A test does not wait for two minutes."""
    for function in (verdict_queue.claim, verdict_queue.ask_again):
        lease = timedelta(seconds=LEASE_S)
        if function.__kwdefaults__ and "lease" in function.__kwdefaults__:
            function.__kwdefaults__["lease"] = lease
        else:
            function.__defaults__ = (lease,)


if __name__ == "__main__":
    shorten_leases()
    asyncio.run(main(*sys.argv[1:]))
