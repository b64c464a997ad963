"""The real SDK against the stand-in on loopback: what goes over the wire, and how failures end."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator

import pytest

from service.classifier.asking import CallFailed, Failure
from service.classifier.claude import Claude, request_body
from service.classifier.guard import Fault, Verdict, check
from service.classifier.prompt import request_for
from service.classifier.situation import situation_of
from service.demo.fake_claude import FakeClaude
from service.demo.fake_messages import Act
from service.thresholds import DEFAULT_THRESHOLDS
from tests.unit.test_templates import evaluation_of

SITUATION = situation_of(evaluation_of((10, 40), rsvps=(5,)), DEFAULT_THRESHOLDS)
REQUEST = request_for(SITUATION)
TIMEOUT_S = 2.0


@pytest.fixture(scope="module")
def server() -> Iterator[FakeClaude]:
    with FakeClaude() as fake:
        yield fake


@pytest.fixture
def fake(server: FakeClaude) -> FakeClaude:
    server.script.clear()
    server.requests.clear()
    return server


@pytest.fixture
async def claude(fake: FakeClaude) -> AsyncIterator[Claude]:
    asker = Claude("no-real-key", "claude-haiku-5-5", base_url=fake.base_url, timeout_s=TIMEOUT_S)
    yield asker
    await asker.aclose()


@pytest.mark.parametrize("model", ["claude-haiku-5-5", "claude-haiku-4-5"])
async def test_the_request_arrives_as_it_was_written(fake: FakeClaude, model: str) -> None:
    asker = Claude("no-real-key", model, base_url=fake.base_url)
    try:
        reply = await asker.ask(REQUEST)
    finally:
        await asker.aclose()
    assert isinstance(check(reply, SITUATION), Verdict)
    assert fake.requests[0].body == request_body(model, REQUEST)
    assert reply.usage.input_tokens > 500
    assert reply.usage.output_tokens > 50


@pytest.mark.parametrize("act", [Act.NORMAL, Act.DISAGREE, Act.SLOW, Act.THINKING_FIRST])
async def test_answers_that_are_fine(fake: FakeClaude, claude: Claude, act: Act) -> None:
    fake.delay_s = 0.3
    fake.play(act)
    assert isinstance(check(await claude.ask(REQUEST), SITUATION), Verdict)


@pytest.mark.parametrize(
    ("act", "fault"),
    [
        (Act.CUT_OFF, Fault.CUT_OFF),
        (Act.REFUSAL, Fault.REFUSAL),
        (Act.WRONG_TOOL, Fault.WRONG_TOOL),
        (Act.TWO_CALLS, Fault.SEVERAL_CALLS),
        (Act.TEXT_ONLY, Fault.NO_CALL),
        (Act.THINKING_ONLY, Fault.NO_CALL),
        (Act.MISSING_FIELD, Fault.SCHEMA),
        (Act.EXTRA_FIELD, Fault.SCHEMA),
        (Act.UNKNOWN_LEVEL, Fault.SCHEMA),
        (Act.WRONG_LEVEL, Fault.LEVEL),
        (Act.TOO_LONG, Fault.TOO_LONG),
    ],
)
async def test_answers_that_the_guard_refuses(
    fake: FakeClaude, claude: Claude, act: Act, fault: Fault
) -> None:
    fake.play(act)
    reply = await claude.ask(REQUEST)
    assert check(reply, SITUATION) is fault
    assert reply.usage.tokens > 0  # paid for all the same


@pytest.mark.parametrize(
    ("act", "failure", "retry_after_s", "maybe_billed"),
    [
        (Act.RATE_LIMITED, Failure.RATE_LIMITED, 5.0, False),
        (Act.RATE_LIMITED_FOR_A_DAY, Failure.RATE_LIMITED, 86_400.0, False),
        (Act.OVERLOADED, Failure.OVERLOADED, None, False),
        (Act.SERVER_ERROR, Failure.SERVER_ERROR, None, False),
        (Act.DENIED, Failure.DENIED, None, False),
        (Act.REJECTED, Failure.REJECTED, None, False),
        (Act.RESET, Failure.CONNECTION, None, True),
        (Act.NOT_JSON, Failure.UNREADABLE, None, True),
        (Act.HANG, Failure.TIMEOUT, None, True),
    ],
)
async def test_failures_end_in_time_and_are_told_apart(
    fake: FakeClaude,
    claude: Claude,
    act: Act,
    failure: Failure,
    retry_after_s: float | None,
    maybe_billed: bool,
) -> None:
    await claude.ask(REQUEST)  # opens the connection, which takes its time
    fake.requests.clear()
    fake.play(act)
    started = time.monotonic()
    with pytest.raises(CallFailed) as caught:
        await claude.ask(REQUEST)
    assert time.monotonic() - started < TIMEOUT_S + 0.5
    assert caught.value.failure is failure
    assert caught.value.retry_after_s == retry_after_s
    assert caught.value.maybe_billed is maybe_billed
    # Retries are ours: the SDK asked once.
    assert len(fake.requests) == 1


async def test_nobody_listens() -> None:
    asker = Claude("no-real-key", "claude-haiku-5-5", base_url="http://127.0.0.1:1")
    with pytest.raises(CallFailed) as caught:
        await asker.ask(REQUEST)
    await asker.aclose()
    assert caught.value.failure is Failure.CONNECTION
    assert not caught.value.maybe_billed, "nothing was sent"


async def test_an_error_never_repeats_what_was_sent(fake: FakeClaude, claude: Claude) -> None:
    fake.play(Act.REJECTED)
    with pytest.raises(CallFailed) as caught:
        await claude.ask(REQUEST)
    assert str(caught.value) == "rejected: status 400"


async def test_calls_run_side_by_side(fake: FakeClaude, claude: Claude) -> None:
    await claude.ask(REQUEST)
    fake.most_at_once = 0
    fake.delay_s = 0.3
    fake.play(Act.SLOW, 5)
    await asyncio.gather(*(claude.ask(REQUEST) for _ in range(5)))
    assert fake.most_at_once == 5


@pytest.mark.parametrize(
    "module",
    [
        "service.classifier.claude",
        "service.classifier.judging",
        "service.demo.fake_claude",
        "db.judging",
        "db.actions",
        "streams.classifier",
        "streams.runtime",
        "service.api.app",
        "service.cli.main",
    ],
)
def test_the_sdk_is_imported_by_the_first_question_only(module: str) -> None:
    program = f"import sys, {module}; sys.exit('anthropic' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
