from __future__ import annotations

import pytest
from prometheus_client import REGISTRY

from service.classifier.asking import CallFailed, Failure
from service.classifier.breaker import FIRST_PAUSE_S, MAX_PAUSE_S, Breaker
from streams.classifier import wait_after


class Clock:
    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def breaker(clock: Clock) -> Breaker:
    return Breaker(clock)


def failure(kind: Failure, retry_after_s: float | None = None) -> CallFailed:
    return CallFailed(kind, "told so", retry_after_s=retry_after_s)


def test_nothing_is_held_back_at_first(breaker: Breaker) -> None:
    assert breaker.permits(8) == 8
    assert not breaker.is_open


@pytest.mark.parametrize("kind", [Failure.OVERLOADED, Failure.TIMEOUT, Failure.CONNECTION])
def test_three_failures_in_a_row_open_it(breaker: Breaker, kind: Failure) -> None:
    for _ in range(2):
        breaker.failed(failure(kind))
    assert breaker.permits(8) == 8
    breaker.failed(failure(kind))
    assert breaker.permits(8) == 0


def test_an_answer_in_between_starts_the_count_anew(breaker: Breaker) -> None:
    for _ in range(5):
        breaker.failed(failure(Failure.OVERLOADED))
        breaker.failed(failure(Failure.OVERLOADED))
        breaker.succeeded()
    assert breaker.permits(1) == 1


@pytest.mark.parametrize(
    ("retry_after_s", "pause_s"), [(None, 15.0), (5.0, 15.0), (40.0, 40.0), (86_400.0, 60.0)]
)
def test_a_limit_opens_at_once_for_as_long_as_wished_within_reason(
    breaker: Breaker, clock: Clock, retry_after_s: float | None, pause_s: float
) -> None:
    breaker.failed(failure(Failure.RATE_LIMITED, retry_after_s))
    assert breaker.pause_s() == pause_s <= MAX_PAUSE_S
    clock.now += pause_s - 0.1
    assert breaker.permits(8) == 0
    clock.now += 0.1
    assert breaker.permits(8) == 1


@pytest.mark.parametrize(
    ("kind", "retry_after_s", "failed_before", "wait_s"),
    [
        (Failure.RATE_LIMITED, None, 0, 15.0),
        (Failure.RATE_LIMITED, 40.0, 0, 40.0),
        # Whoever was told to wait is not left behind when the others are answered again.
        (Failure.RATE_LIMITED, 3_600.0, 0, 60.0),
        (Failure.SERVER_ERROR, 900.0, 3, 120.0),
        (Failure.TIMEOUT, None, 40, 600.0),
        (Failure.REJECTED, None, 0, 3_600.0),
    ],
)
def test_a_situation_waits_as_long_as_wished_within_reason(
    kind: Failure, retry_after_s: float | None, failed_before: int, wait_s: float
) -> None:
    assert wait_after(failure(kind, retry_after_s), failed_before) == wait_s


def test_one_probe_decides(breaker: Breaker, clock: Clock) -> None:
    breaker.failed(failure(Failure.DENIED))
    clock.now += FIRST_PAUSE_S
    assert breaker.permits(8) == 1
    breaker.begin()
    assert breaker.permits(8) == 0
    breaker.failed(failure(Failure.DENIED))
    assert breaker.pause_s() == 2 * FIRST_PAUSE_S
    clock.now += 2 * FIRST_PAUSE_S
    breaker.begin()
    breaker.succeeded()
    assert breaker.permits(8) == 8
    breaker.failed(failure(Failure.DENIED))
    assert breaker.pause_s() == FIRST_PAUSE_S


def test_a_probe_that_was_cancelled_lets_another_go(breaker: Breaker, clock: Clock) -> None:
    breaker.failed(failure(Failure.DENIED))
    clock.now += FIRST_PAUSE_S
    breaker.begin()
    breaker.abandoned()
    assert breaker.permits(8) == 1


def test_the_gauge_follows_at_once(breaker: Breaker, clock: Clock) -> None:
    def gauge() -> float | None:
        return REGISTRY.get_sample_value("engagement_claude_breaker_open")

    assert gauge() == 0
    breaker.failed(failure(Failure.DENIED))
    assert gauge() == 1
    clock.now += FIRST_PAUSE_S
    breaker.begin()
    assert gauge() == 1  # until the probe succeeds
    breaker.failed(failure(Failure.TIMEOUT))
    assert gauge() == 1
    clock.now += breaker.pause_s()
    breaker.begin()
    breaker.succeeded()
    assert gauge() == 0


def test_stragglers_do_not_lengthen_the_pause(breaker: Breaker) -> None:
    for _ in range(8):
        breaker.failed(failure(Failure.OVERLOADED))
    assert breaker.pause_s() == FIRST_PAUSE_S


def test_pauses_grow_up_to_a_limit(breaker: Breaker, clock: Clock) -> None:
    breaker.failed(failure(Failure.DENIED))
    for _ in range(20):
        clock.now += breaker.pause_s()
        breaker.begin()
        breaker.failed(failure(Failure.DENIED))
    assert breaker.pause_s() == MAX_PAUSE_S
