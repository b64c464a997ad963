"""Fills the queue of verdicts: claims situations, asks Claude, guards, stores.

Runs beside everything else of a worker. No transaction is open during a call, nobody waits for it,
and whatever fails leaves the rules' result in place and the situation in the queue.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import timedelta
from typing import Final, TypeVar

import structlog

from db import verdict_queue
from db.claude_usage import Limits, Spent, count_fallback
from db.explanations import explanation_ids
from db.pool import Connection, Pool, transaction
from db.verdict_queue import Claim
from service.classifier.asking import Asker, CallFailed, Failure, Reply
from service.classifier.breaker import MAX_WISHED_S, Breaker
from service.classifier.claude import RESERVED_TOKENS
from service.classifier.guard import Fault, Verdict, check
from service.classifier.metrics import CLAUDE_METRICS
from service.classifier.prices import cost_usd
from service.classifier.prompt import request_for
from service.errors import Retryable
from service.settings import Settings
from streams.backoff import Backoff

log = structlog.get_logger(__name__)

IDLE_POLL_S: Final = 2.0
BLOCKED_POLL_S: Final = 30.0
STOP_TIMEOUT_S: Final = 5.0
# A paid answer is worth a long wait for the database, but not for ever.
STORE_TIMEOUT_S: Final = 600.0
FIRST_WAIT_S: Final = 15.0
MAX_WAIT_S: Final = 600.0
# A request that they do not accept will hardly be accepted in a minute.
FIRST_WAIT_REJECTED_S: Final = 3_600.0
MAX_WAIT_REJECTED_S: Final = 86_400.0
MEASURE_EVERY_S: Final = 5.0

T = TypeVar("T")


def limits_of(settings: Settings) -> Limits:
    """The budgets as configured."""
    return Limits(
        settings.claude_concurrency, settings.claude_daily_calls, settings.claude_daily_tokens
    )


class Classifier:
    """One per worker. `settled` is called after a commit that made members due."""

    def __init__(
        self,
        pool: Pool,
        asker: Asker,
        model: str,
        limits: Limits,
        *,
        settled: Callable[[], None] = lambda: None,
        breaker: Breaker | None = None,
    ) -> None:
        self._pool = pool
        self._asker = asker
        self._model = model
        self._limits = limits
        self._settled = settled
        self._breaker = breaker or Breaker()
        self._wake = asyncio.Event()
        self._blocked: str | None = None
        self._measured_at = 0.0

    def wake(self) -> None:
        """Something may have been put in the queue."""
        self._wake.set()

    async def run_once(self) -> int:
        """Ask what may be asked now, once each; how many situations were settled.

        Raises Retryable when the database is away before anything was asked.
        """
        claims = await self._claim(self._limits.concurrency)
        outcomes = await asyncio.gather(*(self._fill(claim) for claim in claims))
        return sum(outcomes)

    async def run(self, should_stop: Callable[[], bool]) -> None:
        """Keep up to `concurrency` calls under way until told to stop. An outage only delays."""
        backoff = Backoff(first_s=0.2, most_s=10.0)
        calls: set[asyncio.Task[bool]] = set()
        try:
            while not should_stop():
                self._wake.clear()
                try:
                    claims = await self._claim(self._limits.concurrency - len(calls))
                except Retryable as error:
                    log.warning("claim_failed", action="retry", error=str(error))
                    await backoff.wait()
                    continue
                backoff.reset()
                calls |= {asyncio.create_task(self._fill(claim)) for claim in claims}
                if not claims:
                    await self._measure()
                    await self._pause(calls)
                for call in [call for call in calls if call.done()]:
                    calls.remove(call)
                    call.result()
        finally:
            await self._finish(calls)

    async def _measure(self) -> None:
        if time.monotonic() - self._measured_at < MEASURE_EVERY_S:
            return
        self._measured_at = time.monotonic()
        with suppress(Retryable):
            async with transaction(self._pool) as connection:
                waiting = await verdict_queue.count_waiting(connection, self._model)
            CLAUDE_METRICS.waiting.set(waiting)

    async def _pause(self, calls: set[asyncio.Task[bool]]) -> None:
        """Until a call ends, somebody wakes us, or it is time to look again."""
        wait_s = BLOCKED_POLL_S if self._blocked else max(IDLE_POLL_S, self._breaker.pause_s())
        woken = asyncio.create_task(self._wake.wait())
        try:
            await asyncio.wait(
                {*calls, woken}, timeout=min(wait_s, BLOCKED_POLL_S),
                return_when=asyncio.FIRST_COMPLETED,
            )  # fmt: skip
        finally:
            woken.cancel()

    async def _finish(self, calls: set[asyncio.Task[bool]]) -> None:
        """Give what is under way a moment: it is paid for. The lease of the rest runs out."""
        if calls:
            await asyncio.wait(calls, timeout=STOP_TIMEOUT_S)
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
        await self._asker.aclose()

    async def _claim(self, wanted: int) -> list[Claim]:
        wanted = self._breaker.permits(wanted)
        if wanted <= 0:
            return []
        async with transaction(self._pool) as connection:
            claims, blocked = await verdict_queue.claim(
                connection, self._model, self._limits, wanted=wanted, tokens=RESERVED_TOKENS
            )
            if blocked is not None and blocked != self._blocked:
                await count_fallback(connection, blocked)
        if blocked is not None and blocked != self._blocked:
            log.warning("claude_blocked", action="wait", reason=blocked)
            CLAUDE_METRICS.fallbacks.labels(blocked).inc()
        self._blocked = blocked
        if claims:
            # At once, before anything else is claimed: while it is open this is the probe.
            self._breaker.begin()
        return claims

    # ---------------------------------------------------------------------------- one situation

    async def _fill(self, claim: Claim) -> bool:
        """Ask and store what came of it; whether the situation is settled.

        At most one call per claim, and one more if the guard refuses the first answer. A database
        that stays away costs the answer: the lease runs out, somebody asks again.
        """
        current: Claim | bool = claim
        try:
            while not isinstance(current, bool):
                current = await self._fill_or_put_off(current)
        except Retryable as error:
            log.exception("answer_lost", action="give_up", error=str(error))
            return False
        except Exception:
            # Not even putting it off worked. One situation is not worth the worker.
            log.exception("putting_off_failed", action="give_up")
            return False
        return current

    async def _fill_or_put_off(self, claim: Claim) -> Claim | bool:
        """One call; a defect in dealing with it costs this situation its turn, not the worker."""
        try:
            return await self._ask_and_store(claim)
        except Retryable:
            raise
        except Exception as error:
            log.exception("reply_failed", action="postpone")
            await self._put_off(claim, _unexpected(error))
            return False

    async def _ask_and_store(self, claim: Claim) -> Claim | bool:
        """Whether the situation is settled, or the claim of a second and last call for it."""
        reply = await self._ask(claim)
        if reply is None:
            return False
        verdict = check(reply, claim.situation)
        spent = Spent(reply.usage, cost_usd(self._model, reply.usage))
        if isinstance(verdict, Verdict):
            return await self._answer(claim, verdict, spent)
        log.info("answer_refused", action="refuse", fault=verdict, again=claim.fault is None)
        if claim.fault is not None:
            return await self._refuse(claim, verdict, spent)
        return await self._ask_again(claim, verdict, spent) or False

    async def _ask(self, claim: Claim) -> Reply | None:
        """One attempt; None, with the situation put off, when it brought no answer."""
        started = time.perf_counter()
        try:
            fault = None if claim.fault is None else Fault(claim.fault)
            reply = await self._asker.ask(request_for(claim.situation, fault))
        except CallFailed as failure:
            await self._postpone(claim, failure)
            return None
        except Retryable:
            self._breaker.abandoned()
            raise
        except Exception as error:
            log.exception("call_failed", action="postpone")
            await self._postpone(claim, _unexpected(error))
            return None
        except BaseException:
            self._breaker.abandoned()
            raise
        finally:
            CLAUDE_METRICS.call_seconds.observe(time.perf_counter() - started)
        self._breaker.succeeded()
        usage = reply.usage
        CLAUDE_METRICS.calls.labels("answered").inc()
        CLAUDE_METRICS.tokens.labels("input").inc(usage.input_tokens)
        CLAUDE_METRICS.tokens.labels("output").inc(usage.output_tokens)
        CLAUDE_METRICS.cost_usd.inc(float(cost_usd(self._model, usage)))
        return reply

    async def _answer(self, claim: Claim, verdict: Verdict, spent: Spent) -> bool:
        async def store(connection: Connection) -> None:
            ids = await explanation_ids(connection, [verdict.texts])
            await verdict_queue.answer(connection, claim, verdict.level, ids[verdict.texts], spent)

        await self._store(store)
        agreed = verdict.level is claim.situation.level
        CLAUDE_METRICS.verdicts.labels("agreed" if agreed else "differed").inc()
        self._settled()
        return True

    async def _refuse(self, claim: Claim, fault: Fault, spent: Spent) -> bool:
        await self._store(lambda c: verdict_queue.refuse(c, claim, fault.value, spent))
        CLAUDE_METRICS.verdicts.labels("refused").inc()
        CLAUDE_METRICS.fallbacks.labels(fault.value).inc()
        self._settled()
        return True

    async def _ask_again(self, claim: Claim, fault: Fault, spent: Spent) -> Claim | None:
        return await self._store(
            lambda c: verdict_queue.ask_again(c, claim, fault.value, spent, self._limits)
        )

    async def _postpone(self, claim: Claim, failure: CallFailed) -> None:
        """No answer came."""
        self._breaker.failed(failure)
        CLAUDE_METRICS.calls.labels(failure.failure.value).inc()
        await self._put_off(claim, failure)

    async def _put_off(self, claim: Claim, failure: CallFailed) -> None:
        """Leave the situation to the rules for a while, longer each time."""
        reason = failure.failure.value
        wait_s = wait_after(failure, claim.failures)
        log.warning("claude_failed", action="postpone", error=str(failure), wait_s=round(wait_s))
        CLAUDE_METRICS.fallbacks.labels(reason).inc()
        await self._store(
            lambda c: verdict_queue.postpone(
                c, claim, reason, timedelta(seconds=wait_s), maybe_billed=failure.maybe_billed
            )
        )

    async def _store(self, work: Callable[[Connection], Awaitable[T]]) -> T:
        """Do it in one transaction, as often as the database needs; repeats change nothing."""
        backoff = Backoff(first_s=0.1, most_s=5.0)
        give_up_at = time.monotonic() + STORE_TIMEOUT_S
        while True:
            try:
                async with transaction(self._pool) as connection:
                    return await work(connection)
            except Retryable as error:
                if time.monotonic() > give_up_at:
                    raise
                log.warning("store_failed", action="retry", error=str(error))
            await backoff.wait()


def _unexpected(error: Exception) -> CallFailed:
    """A defect as a failure of the call. It may have been paid for: what is reserved stays."""
    return CallFailed(Failure.UNEXPECTED, type(error).__name__, maybe_billed=True)


def wait_after(failure: CallFailed, failures_before: int) -> float:
    """Seconds until a situation is tried again: doubling, heeding the server's wish, bounded.

    Whatever longer wish was told, the breaker finds out when it is over.
    """
    first_s, most_s = FIRST_WAIT_S, MAX_WAIT_S
    if failure.failure is Failure.REJECTED:
        first_s, most_s = FIRST_WAIT_REJECTED_S, MAX_WAIT_REJECTED_S
    doubled_s = first_s * 2.0 ** min(failures_before, 16)
    wished_s = min(MAX_WISHED_S, failure.retry_after_s or 0.0)
    return min(most_s, max(doubled_s, wished_s))
