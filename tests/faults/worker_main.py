"""A worker as `faust -A streams.app worker` starts it, with failpoints and mutations of a test.

    python -m tests.faults.worker_main PLAN.json

The plan: `folder`, `name` (becomes part of its connections' application_name), `failpoints`,
`mutations`, `constants` (module:NAME -> number), `clock` (see `tests.faults.clocks`). Everything is
done by wrapping what the modules of the product hold, before the worker starts.
"""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from contextvars import ContextVar
from datetime import timedelta
from importlib import import_module
from pathlib import Path
from typing import Any

from tests.faults import clocks, mutations
from tests.faults.failpoints import Failpoint, Plan

LOST_NUMBERS = 1_000

in_batch: ContextVar[bool] = ContextVar("in_batch", default=False)
in_page: ContextVar[bool] = ContextVar("in_page", default=False)


def main() -> None:
    """Read the plan, wrap, become a Faust worker."""
    given = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    if given["clock"]:
        clocks.make_wrong(given["clock"])
    plan = Plan(Path(given["folder"]), [Failpoint(**one) for one in given["failpoints"]])
    for name in given["mutations"]:
        mutations.MUTATIONS[name]()
    for name, number in given["constants"].items():
        set_constant(name, number)
    install(plan)
    name_connections(given["name"])
    from faust.cli.faust import cli

    cli(["-A", "streams.app", "worker", "-l", "info"])


def set_constant(name: str, number: float) -> None:
    """Give module:NAME another value; where it is a time span, of so many seconds."""
    path, _, constant = name.partition(":")
    module = import_module(path)
    is_span = isinstance(getattr(module, constant), timedelta)
    setattr(module, constant, timedelta(seconds=number) if is_span else number)


def name_connections(name: str) -> None:
    """Let the server see which worker a connection belongs to."""
    runtime: Any = import_module("streams.runtime")
    original = runtime.open_pool

    async def open_pool(settings: Any, *, purpose: str, **options: Any) -> Any:
        return await original(settings, purpose=f"{purpose}-{name}", **options)

    runtime.open_pool = open_pool


def before(owner: Any, attribute: str, plan: Plan, place: str) -> None:
    """Arrive at a place before a coroutine function of the product runs."""
    original = getattr(owner, attribute)

    async def wrapped(*args: Any, **options: Any) -> Any:
        await plan.arrive(place)
        return await original(*args, **options)

    setattr(owner, attribute, wrapped)


def after(owner: Any, attribute: str, plan: Plan, place: str) -> None:
    """Arrive at a place after a coroutine function of the product has returned something."""
    original = getattr(owner, attribute)

    async def wrapped(*args: Any, **options: Any) -> Any:
        result = await original(*args, **options)
        if result:
            await plan.arrive(place)
        return result

    setattr(owner, attribute, wrapped)


def around_commit(
    module: Any, plan: Plan, places: tuple[str, str], concerns_us: ContextVar[bool]
) -> None:
    """Arrive at places before and after the COMMIT of a module's transactions."""
    original = module.transaction

    @asynccontextmanager
    async def transaction(pool: Any) -> AsyncIterator[Any]:
        concerns_us.set(False)
        async with original(pool) as connection:
            yield connection
            if concerns_us.get():
                await plan.arrive(places[0])
        if concerns_us.get():
            await plan.arrive(places[1])

    module.transaction = transaction


def go_step_by_step(applier: Any) -> None:
    """Apply all but small batches in a transaction with something between its steps."""
    original = applier._apply_plain

    async def only_small(self: Any, part: Any) -> bool:
        return part.batch.is_small and bool(await original(self, part))

    applier._apply_plain = only_small


def install(plan: Plan) -> None:
    """Wrap every place."""
    offsets: Any = import_module("db.offsets")
    applying: Any = import_module("streams.applying")
    evaluator: Any = import_module("streams.evaluator")
    lanes: Any = import_module("streams.lanes")
    before(offsets, "claim", plan, "claim")
    before(offsets, "advance", plan, "fence")
    after(applying, "apply_rows", plan, "upserts")
    offsets.advance = _noting(offsets.advance, in_batch, lambda _: True)
    around_commit(applying, plan, ("commit", "committed"), in_batch)
    # Plain batches are one statement, which commits: nothing of ours lies between.
    within = ("commit", "upserts", "fence")
    for place in within:
        before(applying, "apply_plain", plan, place)
    after(applying, "apply_plain", plan, "committed")
    if any(one.place in within for one in plan.failpoints):
        go_step_by_step(applying.BatchApplier)
    after(import_module("db.due"), "take", plan, "taken")
    after(import_module("db.evaluation").CaseReader, "read", plan, "read")
    evaluating: Any = import_module("db.evaluating").Evaluating
    evaluating.evaluate_due = _noting(
        evaluating.evaluate_due, in_page, lambda page: page.evaluated > 0
    )
    around_commit(evaluator, plan, ("evaluated", "settled"), in_page)
    install_in_relay(plan)
    install_in_consumer(plan)
    daily = import_module("db.daily").Daily
    before(daily, "_survey", plan, "survey")
    before(daily, "_close", plan, "close")
    admit = lanes.Lanes.admit

    def admit_or_drop(self: Any, batch: Any) -> None:
        one = plan.due("admit")
        if one is None or one.action != "drop":
            admit(self, batch)

    lanes.Lanes.admit = admit_or_drop


def install_in_consumer(plan: Plan) -> None:
    """The way of records from Kafka."""
    thread: Any = import_module("streams.transport").ConsumerThread
    fetch = thread._fetch_records

    async def fetch_or_lose(self: Any, *args: Any, **options: Any) -> Any:
        found = await fetch(self, *args, **options)
        if not any(one.records for one in found.values()):
            return found
        one = plan.due("fetched")
        return {} if one is not None and one.action == "drop" else found

    thread._fetch_records = fetch_or_lose


def install_in_relay(plan: Plan) -> None:
    """The places on the way of a page to Kafka."""
    after(import_module("db.outbox"), "next_page", plan, "paged")
    before(import_module("streams.relay").Relay, "_send", plan, "send")
    after(import_module("streams.relay").Relay, "_send", plan, "sent")
    numbers: Any = import_module("aiokafka.producer.transaction_manager").TransactionManager
    increment = numbers.increment_sequence_number

    def increment_or_lose(self: Any, tp: Any, by: int) -> None:
        one = plan.due("sequence")
        increment(self, tp, by + (LOST_NUMBERS if one is not None and one.action == "drop" else 0))

    numbers.increment_sequence_number = increment_or_lose


def _noting(
    original: Callable[..., Awaitable[Any]],
    flag: ContextVar[bool],
    does_work: Callable[[Any], bool],
) -> Callable[..., Awaitable[Any]]:
    """Raise the flag that says what the transaction is about, once there is something to commit."""

    async def wrapped(*args: Any, **options: Any) -> Any:
        result = await original(*args, **options)
        flag.set(does_work(result))
        return result

    return wrapped


if __name__ == "__main__":
    main()
