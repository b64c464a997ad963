"""What Claude costs: 100 000 members, 30 daily runs and every record in between.

Situations, look-ups, queue, prompt, guard and texts are the product's, on a real PostgreSQL; the
questions go through the real SDK to the stand-in on loopback, which fails now and then. Evaluations
happen in memory, at the instants at which a worker would make them. Tokens are estimated from the
length of what is sent and said; prices are list prices.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from itertools import cycle
from pathlib import Path
from typing import Any, NamedTuple

import structlog

from db import claude_usage, verdict_queue, verdicts
from db.claude_usage import Limits
from db.migrate import migrate
from db.pool import Pool, acquired, open_pool, transaction
from service.classifier.asking import Failure, Usage
from service.classifier.claude import Claude
from service.classifier.judging import Lookup, judge, question_for
from service.classifier.prices import cost_usd
from service.demo.fake_claude import FakeClaude
from service.demo.fake_messages import Act
from service.demo.local import LocalPostgres
from service.demo.population import Population
from service.evaluation import Evaluation, evaluate
from service.records import Cause, Source
from service.settings import load_settings
from service.standing import settle
from service.texts import is_clean, render_admin, render_user, values_of
from service.thresholds import DEFAULT_THRESHOLDS, Thresholds
from streams.classifier import Classifier
from tests.bench.ground.report import report, say, table
from tests.bench.simulated_members import SimulatedMember, days_between, simulated

MEMBERS, QUICK_MEMBERS = 100_000, 3_000
ORGANISATIONS = 12
RUNS = 30
HISTORY_DAYS = 430
LAST_RUN_AT = datetime(2026, 6, 1, 4, tzinfo=UTC)
PAGE = 1_000
AMPLE = Limits(concurrency=8, daily_calls=10**9, daily_tokens=10**12)
# Every so many questions something goes wrong: one of these, or a hurtful word.
TROUBLE_EVERY, HURTFUL_EVERY = 40, 37
TROUBLES = (Act.OVERLOADED, Act.WRONG_LEVEL, Act.RESET, Act.CUT_OFF, Act.EXTRA_FIELD, Act.REFUSAL)
# Names that a member's text must not show, or must not let complete a hurtful word.
NAMES = {1: "At-Risk Youth Network", 2: "Risk Society", 3: "Active Minds", 4: "IN_ACTIVE Duty"}
OTHER_THRESHOLDS = {5: Thresholds(6, 2, version=1), 6: Thresholds(5, 1, 60, 30, 120, version=3)}


def main(
    json_path: Path | None = None,
    quick: bool = False,
    *,
    members: int | None = None,
    model: str = "claude-haiku-5-5",
) -> dict[str, Any]:
    """Calls, tokens and cost over 30 days, beside one call per member and day."""
    del json_path  # written by the front door
    # Each planned failure would be a line.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    return asyncio.run(_run(members or (QUICK_MEMBERS if quick else MEMBERS), model))


async def _run(count: int, model: str) -> dict[str, Any]:
    started = time.monotonic()
    with LocalPostgres() as server, FakeClaude() as fake:
        _prepare(fake)
        url = server.create_database("claude")
        await migrate(url)
        pool = await open_pool(load_settings({"DATABASE_URL": url}), purpose="bench", size=10)
        asker = Claude("no-real-key", model, base_url=fake.base_url)
        try:
            simulation = Simulation(pool, Classifier(pool, asker, model, AMPLE), model)
            await simulation.run(list(_population(count)))
            totals, waiting = await _spent(pool, model)
        finally:
            await asker.aclose()
            pool.terminate()
    return _report(count, model, simulation, totals, waiting, time.monotonic() - started)


def _population(count: int) -> Iterable[SimulatedMember]:
    population = Population(1, ORGANISATIONS, count, HISTORY_DAYS, ends_at=LAST_RUN_AT)
    names, thresholds = {}, {}
    for number, organisation in enumerate(population.organisations):
        names[organisation.org_id] = NAMES.get(number, organisation.name)
        thresholds[organisation.org_id] = OTHER_THRESHOLDS.get(number, DEFAULT_THRESHOLDS)
    say(f"making up {count:,} members and what they do")
    return simulated(population, names, thresholds)


def _prepare(fake: FakeClaude) -> None:
    troubles = cycle(TROUBLES)
    for number in range(1, 200_000):
        fake.script.append(next(troubles) if number % TROUBLE_EVERY == 0 else Act.NORMAL)
    answers = iter(range(1, 10**9))

    def sometimes_hurtful(answer: dict[str, Any]) -> dict[str, Any]:
        if next(answers) % HURTFUL_EVERY:
            return answer
        return {**answer, "user_explanation": "With {org} you are At\u200b-Risk of being missed."}

    fake.rewrite = sometimes_hurtful


class Occasion(NamedTuple):
    """One evaluation that a worker would make."""

    member: SimulatedMember
    at: datetime
    cause: Cause


class Simulation:
    """Thirty days of a worker, and what is counted on the way."""

    def __init__(self, pool: Pool, classifier: Classifier, model: str) -> None:
        self._pool = pool
        self._classifier = classifier
        self._model = model
        self._waiting: set[SimulatedMember] = set()
        self.evaluations = 0
        self.member_days = 0
        self.lookups: Counter[Lookup] = Counter()
        self.keys: set[bytes] = set()
        self.sources: Counter[str] = Counter()
        self.changes: Counter[str] = Counter()
        self.without_texts = 0
        self.hurtful = 0

    async def run(self, members: list[SimulatedMember]) -> None:
        """The backlog first, then thirty days with a run at the end of each."""
        first_at = LAST_RUN_AT - timedelta(days=RUNS)
        for member in members:
            member.hear(first_at)
        await self._evaluate([Occasion(m, first_at, Cause.SIGNALS) for m in members])
        await self._answer()
        for run_at in days_between(first_at + timedelta(days=1), LAST_RUN_AT):
            while occasions := [o for m in members if (o := _occasion(m, run_at))]:
                await self._evaluate(occasions)
                await self._answer()
            await self._evaluate([Occasion(m, run_at, Cause.TIME) for m in members])
            await self._answer()
            self._check(members)
            calls = (await _spent(self._pool, self._model))[0].calls
            say(f"run of {run_at:%d %b}: {self.member_days:,} member days, {calls:,} calls")

    async def _evaluate(self, occasions: list[Occasion]) -> None:
        for start in range(0, len(occasions), PAGE):
            page = [(o, evaluate(o.member.case(), o.at)) for o in occasions[start : start + PAGE]]
            questions = [
                question_for(o.member.standing, o.member.case(), evaluation, self._model)
                for o, evaluation in page
            ]
            wanted = {q.key: q.situation for q in questions if q is not None}
            wanted |= {q.key: q.situation for q in questions if q is not None and q.situation}
            async with transaction(self._pool) as connection:
                found = await verdicts.look_up(connection, wanted, self._model)
            for (occasion, evaluation), question in zip(page, questions, strict=True):
                self.evaluations += 1
                if question is None:
                    self._settle(occasion, evaluation, None, None)
                    continue
                member = occasion.member
                judged = judge(
                    member.standing, member.case(), evaluation, question, found.get(question.key)
                )
                self.keys.add(question.key)
                self.lookups[judged.lookup] += 1
                self._settle(occasion, evaluation, judged.judgement, judged.verdict_key)
                waits = judged.lookup in (Lookup.WAITING, Lookup.KEPT, Lookup.NO_ROOM)
                (self._waiting.add if waits else self._waiting.discard)(member)

    def _settle(
        self, occasion: Occasion, evaluation: Evaluation, judgement: Any, key: bytes | None
    ) -> None:
        member = occasion.member
        outcome = settle(
            member.standing,
            member.case(),
            evaluation,
            judgement,
            causes={occasion.cause},
            has_membership=member.has_record,
            verdict_key=key,
        )
        for publication in outcome.publications:
            if publication.change is not None:
                self.changes[publication.change.cause] += 1
        member.standing = outcome.standing

    async def _answer(self) -> None:
        """Let the classifier work, then evaluate whoever waited, as its due marks would."""
        while await self._classifier.run_once():
            pass
        waiting = [m for m in self._waiting if m.standing.computed_at is not None]
        if waiting:
            second = timedelta(seconds=1)
            await self._evaluate(
                [
                    Occasion(m, m.standing.computed_at + second, Cause.CLASSIFIER)
                    for m in waiting
                    if m.standing.computed_at is not None
                ]
            )

    def _check(self, members: list[SimulatedMember]) -> None:
        """Everybody who is scored has both texts, and nobody reads a hurtful word."""
        self.sources.clear()
        for member in members:
            standing = member.standing
            published = standing.published
            if published.level is None:
                continue
            self.member_days += 1
            self.sources[published.computed_source or Source.RULES] += 1
            assert standing.computed_at is not None
            values = values_of(
                evaluate(member.case(), standing.computed_at), member.thresholds, member.org_name
            )
            texts = published.texts
            if texts is None or not render_admin(texts.admin, values):
                self.without_texts += 1
                continue
            shown = render_user(texts.user, values)
            self.without_texts += not shown
            self.hurtful += not is_clean(shown)


def _occasion(member: SimulatedMember, until: datetime) -> Occasion | None:
    """The next instant before `until` at which the member is due: a record, or their clock."""
    told_at = member.next_told_at()
    wake_at = member.standing.published.next_change_at
    at = min((at for at in (told_at, wake_at) if at is not None and at < until), default=None)
    if at is None:
        return None
    heard = member.hear(at)
    computed_at = member.standing.computed_at
    at = at if computed_at is None or at > computed_at else computed_at
    return Occasion(member, at, Cause.SIGNALS if heard else Cause.TIME)


async def _spent(pool: Pool, model: str) -> tuple[claude_usage.Totals, int]:
    async with acquired(pool) as connection:
        return (
            await claude_usage.totals(connection),
            await verdict_queue.count_waiting(connection, model),
        )


def _report(
    count: int,
    model: str,
    simulation: Simulation,
    totals: claude_usage.Totals,
    waiting: int,
    seconds: float,
) -> dict[str, Any]:
    unanswered = sum(totals.fallbacks.get(failure.value, 0) for failure in Failure)
    answered = max(1, totals.calls - unanswered)
    mean = Usage(totals.input_tokens // answered, totals.output_tokens // answered)
    plain_calls = simulation.member_days
    plain_cost = cost_usd(model, mean) * plain_calls
    tokens = totals.input_tokens + totals.output_tokens
    settled = max(1, totals.agreed + totals.differed)
    metrics: dict[str, float] = {
        "claude.calls_vs_plain": totals.calls / plain_calls,
        "claude.cost_usd": float(totals.cost_usd),
        "claude.plain_cost_usd": float(plain_cost),
        "claude.calls": totals.calls,
        "claude.plain_calls": plain_calls,
        "claude.tokens": tokens,
        "claude.situations": len(simulation.keys),
        "claude.still_waiting": waiting,
        "claude.agreement": totals.agreed / settled,
        "claude.fallbacks": sum(totals.fallbacks.values()),
        "claude.evaluations": simulation.evaluations,
        "claude.without_texts": simulation.without_texts,
        "claude.hurtful_texts": simulation.hurtful,
        "claude.seconds": seconds,
    }
    title = f"{count:,} members, {RUNS} daily runs, {model}"
    rows = [
        ["one answer per situation", f"{totals.calls:,}", f"{tokens:,}", f"{totals.cost_usd:.2f}"],
        [
            "one call per member and day",
            f"{plain_calls:,}",
            f"{plain_calls * mean.tokens:,}",
            f"{plain_cost:,.2f}",
        ],
    ]
    counted = [
        *(["look-ups: " + name.value, f"{n:,}"] for name, n in simulation.lookups.items()),
        *([f"fallbacks: {name}", f"{n:,}"] for name, n in sorted(totals.fallbacks.items())),
        *([f"changes by {name}", f"{n:,}"] for name, n in simulation.changes.items()),
        *([f"members with a level of {name}", f"{n:,}"] for name, n in simulation.sources.items()),
    ]
    return report(
        "claude",
        metrics,
        tables=[
            table(title, ("way", "calls", "tokens", "USD at list price"), rows),
            table("what happened", ("", "number"), counted),
        ],
    )
