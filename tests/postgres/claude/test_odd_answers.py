"""Answers that nobody foresaw cost their own situation a turn, and the worker nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from db import verdict_queue
from service.classifier import guard
from service.classifier.asking import CallFailed, Failure, Reply, Request, Usage
from service.classifier.breaker import Breaker
from service.classifier.guard import Fault
from service.demo.fake_messages import Act
from service.errors import Retryable
from streams import classifier as under_test
from streams.classifier import Classifier
from tests.postgres.claude.scene import AMPLE, MODEL, Scene, five_situations, totals_of

WAIT = """
SELECT status, last_failure, leased_until, failures,
       extract(epoch FROM due_at - clock_timestamp())::float8 AS wait_s FROM verdict"""


class Stub:
    """An asker that does what it is told."""

    def __init__(self, outcome: Callable[[], Reply]) -> None:
        self.outcome = outcome
        self.asked = 0

    async def ask(self, request: Request) -> Reply:
        self.asked += 1
        return self.outcome()

    async def aclose(self) -> None:
        pass


def raising(error: BaseException) -> Callable[..., Reply]:
    def outcome(*_: object) -> Reply:
        raise error

    return outcome


def classifier_with(scene: Scene, asker: Stub, breaker: Breaker | None = None) -> Classifier:
    return Classifier(scene.pool, asker, MODEL, AMPLE, breaker=breaker or Breaker())


async def ask_now(scene: Scene, classifier: Classifier) -> int:
    await scene.execute("UPDATE verdict SET due_at = clock_timestamp()")
    return await classifier.run_once()


@pytest.mark.parametrize(
    "usage",
    [
        {"output_tokens": None},
        {"input_tokens": None},
        {"input_tokens": 900.5},
        {"output_tokens": "80"},
        {"output_tokens": True},
        {"output_tokens": -1},
        {"input_tokens": -900, "cache_read_input_tokens": 1_000},
        {"cache_read_input_tokens": "many"},
        {"cache_creation_input_tokens": -1},
        {"input_tokens": 2**63},
        {"output_tokens": 2**63 - 1},
        {"output_tokens": float("nan")},
        {"output_tokens": [80]},
    ],
    ids=str,
)
async def test_an_answer_whose_price_cannot_be_told_is_put_off(
    scene: Scene, usage: dict[str, Any]
) -> None:
    member = await scene.member("ada", attended=(10,))
    await scene.evaluate()
    scene.fake.usage = usage
    assert await scene.classifier().run_once() == 0
    row = await scene.row(WAIT)
    assert (row["status"], row["last_failure"], row["failures"]) == ("pending", "unreadable", 1)
    assert row["leased_until"] is None
    assert 5 < row["wait_s"] <= 15
    totals = await totals_of(scene)
    assert (totals.calls, totals.input_tokens, totals.output_tokens) == (1, 0, 0)
    assert totals.fallbacks == {"unreadable": 1}
    scene.fake.usage = {}
    assert await ask_now(scene, scene.classifier()) == 1
    await scene.evaluate()
    assert (await scene.engagement(member))["computed_source"] == "claude"


async def test_tokens_from_and_for_the_cache_are_counted(scene: Scene) -> None:
    await scene.member("ada", attended=(10,))
    await scene.evaluate()
    scene.fake.usage = {
        "input_tokens": 100,
        "output_tokens": 0,
        "cache_creation_input_tokens": None,
        "cache_read_input_tokens": 800,
    }
    assert await scene.classifier().run_once() == 1
    assert (await totals_of(scene)).input_tokens == 900


@pytest.mark.parametrize(
    "outcome",
    [
        raising(RuntimeError("a defect in the SDK")),
        raising(RecursionError()),
        lambda: Reply("tool_use", (), Usage(-1, 0)),  # the counters refuse it
        lambda: Reply("tool_use", (), Usage(2**64, 0)),  # the database does
        lambda: Reply("tool_use", None, Usage(1, 1)),  # type: ignore[arg-type] # the guard stumbles
    ],
)
async def test_a_defect_puts_the_situation_off_longer_each_time(
    scene: Scene, outcome: Callable[[], Reply]
) -> None:
    await scene.member("ada", attended=(10,))
    await scene.evaluate()
    asker = Stub(outcome)
    classifier = classifier_with(scene, asker)
    for number, wait_s in ((1, 15), (2, 30)):
        assert await ask_now(scene, classifier) == 0
        row = await scene.row(WAIT)
        assert (row["status"], row["last_failure"]) == ("pending", "unexpected")
        assert (row["leased_until"], row["failures"]) == (None, number)
        assert wait_s - 5 < row["wait_s"] <= wait_s
        assert (await totals_of(scene)).fallbacks == {"unexpected": number}
    # What may have been paid for stays set aside.
    assert (await scene.row("SELECT reserved_tokens FROM claude_usage"))[0] > 0
    assert await classifier.run_once() == 0
    assert asker.asked == 2


async def test_a_defect_in_the_second_call_puts_the_situation_off_too(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    outcomes = iter([Fault.LINK])
    # The second check finds the iterator empty.
    monkeypatch.setattr(under_test, "check", lambda *_: next(outcomes))
    await scene.member("ada", attended=(10,))
    await scene.evaluate()
    assert await scene.classifier().run_once() == 0
    row = await scene.row("SELECT *, due_at > clock_timestamp() AS waits FROM verdict")
    assert (row["status"], row["fault"], row["last_failure"]) == ("pending", "link", "unexpected")
    assert (row["leased_until"], row["failures"], row["waits"]) == (None, 1, True)
    # Asked again it is the second and last call still.
    monkeypatch.setattr(under_test, "check", guard.check)
    assert await ask_now(scene, scene.classifier()) == 1
    assert "was refused" in scene.fake.requests[-1].body["messages"][0]["content"]


async def test_what_cannot_even_be_put_off_ends_nothing(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def postpone(*_: object, **__: object) -> None:
        raise LookupError("a defect")

    monkeypatch.setattr(verdict_queue, "postpone", postpone)
    await scene.member("ada", attended=(10,))
    await scene.evaluate()
    scene.fake.play(Act.SERVER_ERROR)
    assert await scene.classifier().run_once() == 0


async def test_the_worker_goes_on_with_the_others(scene: Scene) -> None:
    scene.fake.usage = {"output_tokens": None}
    await five_situations(scene)
    stopping = asyncio.Event()
    running = asyncio.create_task(scene.classifier().run(stopping.is_set))
    try:
        async with asyncio.timeout(30):
            while (await totals_of(scene)).calls < 3:  # noqa: ASYNC110 - the database tells
                await asyncio.sleep(0.05)
        await asyncio.sleep(0.5)
        assert not running.done()
    finally:
        stopping.set()
        await asyncio.wait_for(running, 30)


class Clock:
    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize("where", ["asking", "making the request", "the fault that is stored"])
async def test_a_probe_ends_with_whatever_goes_wrong(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    await scene.member("ada", attended=(10,))
    await scene.evaluate()
    clock = Clock()
    breaker = Breaker(clock)
    breaker.failed(CallFailed(Failure.DENIED, "told so"))
    clock.now += breaker.pause_s()
    asker = Stub(raising(RuntimeError("a defect")))
    classifier = classifier_with(scene, asker, breaker)
    if where == "making the request":
        monkeypatch.setattr(under_test, "request_for", raising(RuntimeError("a defect")))
    elif where == "the fault that is stored":
        await scene.execute("UPDATE verdict SET fault = 'of a later release'")
    assert await ask_now(scene, classifier) == 0
    # It was a failure: the pause is on again, and then the next probe may go out.
    assert breaker.permits(1) == 0
    clock.now += breaker.pause_s()
    assert breaker.permits(1) == 1


async def test_a_database_that_is_away_still_costs_the_answer_only(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def answer(*_: object) -> None:
        raise Retryable("away")

    monkeypatch.setattr(under_test, "STORE_TIMEOUT_S", 0.0)
    monkeypatch.setattr(verdict_queue, "answer", answer)
    await scene.member("ada", attended=(10,))
    await scene.evaluate()
    assert await scene.classifier().run_once() == 0
    row = await scene.row(WAIT)
    assert (row["last_failure"], row["failures"]) == (None, 0)
    assert row["leased_until"] is not None


async def test_cancelling_stays_cancelling(scene: Scene) -> None:
    await scene.member("ada", attended=(10,))
    await scene.evaluate()
    breaker = Breaker()
    classifier = classifier_with(scene, Stub(raising(asyncio.CancelledError())), breaker)
    with pytest.raises(asyncio.CancelledError):
        await classifier.run_once()
    row = await scene.row(WAIT)
    assert (row["last_failure"], row["failures"]) == (None, 0)
