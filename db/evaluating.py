"""The use case at the heart: evaluate a page of members in the caller's transaction.

Lock, read, decide by the pure functions of `service`, write. Shared by the evaluator of the worker,
the daily recompute and whatever an administrator does to one member.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import NamedTuple, Protocol

from db import due, evaluation, offsets
from db.evaluation import CaseReader, MemberCase, OrganizationState
from db.pool import Connection
from db.results import Result, write_results
from service.classifier.judging import by_rules
from service.classifier.templates import override_texts
from service.evaluation import Evaluation, evaluate
from service.expiry import close_ended, joined
from service.messages import message_of
from service.records import Cause
from service.standing import Judgement, Outcome, settle, wake_at
from service.texts import Texts


class Opinion(NamedTuple):
    """What a judge says of one member; `judgement` None when the member is not scored.

    `verdict_key`: the situation that was, or has to be, put to Claude.
    """

    judgement: Judgement | None
    verdict_key: bytes | None = None


class Judge(Protocol):
    """Decides the computed level and its texts, within the caller's transaction."""

    async def judge(
        self, connection: Connection, cases: Sequence[tuple[MemberCase, Evaluation]]
    ) -> Sequence[Opinion]:
        """One opinion per case, in order. Never waits for anything but the database."""
        ...


class RulesJudge:
    """The embedded default."""

    async def judge(
        self, _connection: Connection, cases: Sequence[tuple[MemberCase, Evaluation]]
    ) -> Sequence[Opinion]:
        """The rules' judgement of each."""
        return [Opinion(by_rules(e) if e.ruling is not None else None) for _, e in cases]


class Page(NamedTuple):
    """What a page came to: members taken, evaluated, level changes by cause, messages made.

    `held_back`: others are due, too, but will probably be marked again in a moment.
    """

    taken: int
    evaluated: int
    changes: Mapping[Cause, int]
    publications: int
    put_back: int
    held_back: bool = False


class Evaluating:
    """Evaluates pages. Holds no state of its own but the cache of texts."""

    def __init__(self, reader: CaseReader, judge: Judge) -> None:
        self.reader = reader
        self.judge = judge

    async def evaluate_due(
        self, connection: Connection, limit: int, *, settled: bool = False
    ) -> Page:
        """Take up to about `limit` due members (see `due.take`) and evaluate them."""
        causes = await due.take(connection, limit, settled=settled)
        page = await self.evaluate_members(connection, causes)
        return page._replace(held_back=causes.held_back)

    async def evaluate_members(
        self, connection: Connection, causes: Mapping[int, Collection[str]]
    ) -> Page:
        """Evaluate members (member_id -> causes); those held by somebody else are marked again."""
        results, put_back = await self.evaluate_each(connection, causes)
        changes = Counter(
            publication.change.cause
            for result in results
            for publication in result.outcome.publications
            if publication.change is not None
        )
        publications = sum(len(r.outcome.publications) for r in results)
        return Page(len(causes), len(results), changes, publications, put_back)

    async def evaluate_each(
        self, connection: Connection, causes: Mapping[int, Collection[str]]
    ) -> tuple[list[Result], int]:
        """As `evaluate_members`: what became of each member, and how many were marked again."""
        if not causes:
            return [], 0
        locked = await evaluation.lock(connection, causes.keys())
        missed = causes.keys() - (locked.members.keys() if locked else set())
        await due.put_back(connection, causes, missed)
        if locked is None:
            return [], len(missed)
        ids, organizations, as_of = locked
        members = await self.reader.read(connection, ids, organizations, as_of)
        members = await self._without_suspended(connection, members, organizations)
        results = await self._decide(connection, members, causes, as_of)
        await self.write(connection, results, as_of)
        return results, len(missed)

    async def foresee(
        self, connection: Connection, members: Mapping[int, str]
    ) -> tuple[list[MemberCase], dict[int, Result]]:
        """What evaluating these members (member_id -> org_id) now would come to; writes no result.

        Members of suspended organisations have none, except for those who leave. A judge may ask
        for verdicts: roll the transaction back to write nothing at all.
        """
        as_of = await offsets.read_now(connection)
        organizations = await evaluation.read_organizations(connection, set(members.values()))
        cases = await self.reader.read(connection, members, organizations, as_of)
        evaluated = [c for c in cases if not _waits(c, organizations)]
        causes: dict[int, Collection[str]] = dict.fromkeys(members, ())
        results = await self._decide(connection, evaluated, causes, as_of)
        return cases, {result.member.member_id: result for result in results}

    async def look_back(
        self, connection: Connection, members: Mapping[int, str], as_of: datetime
    ) -> list[tuple[MemberCase, Evaluation]]:
        """These members at any instant, from the current records, by the rules alone.

        Without overrides; later-dated facts count as future ones. Nobody of a suspended
        organisation is scored, nor has a clock. Writes nothing.
        """
        organizations = await evaluation.read_organizations(connection, set(members.values()))
        found = []
        for member in await self.reader.read(connection, members, organizations, as_of):
            evaluated = evaluate(member.case._replace(override=None), as_of)
            if organizations[member.subject.org_id].status == "suspended":
                evaluated = evaluated._replace(next_change_at=None)
            found.append((member, evaluated))
        return found

    async def write(
        self, connection: Connection, results: Sequence[Result], recorded_at: datetime
    ) -> None:
        """Write results of members that the transaction holds."""
        texts = {pair for result in results for pair in _texts_of(result.outcome)}
        ids = await self.reader.explanations.ids(connection, texts)
        await write_results(connection, results, ids, recorded_at)

    async def _without_suspended(
        self,
        connection: Connection,
        members: Sequence[MemberCase],
        organizations: Mapping[str, OrganizationState],
    ) -> list[MemberCase]:
        """Members of suspended organisations wait, except for those who leave."""
        waiting = [m for m in members if _waits(m, organizations)]
        if not waiting:
            return list(members)
        await evaluation.put_to_sleep(connection, [m.member_id for m in waiting])
        skipped = {m.member_id for m in waiting}
        return [m for m in members if m.member_id not in skipped]

    async def _decide(
        self,
        connection: Connection,
        members: Sequence[MemberCase],
        causes: Mapping[int, Collection[str]],
        as_of: datetime,
    ) -> list[Result]:
        begun: list[tuple[MemberCase, Outcome, Evaluation]] = []
        for member in members:
            # Two workers' clocks are one, but transactions begin before they get the lock.
            at = max(as_of, member.standing.computed_at or as_of)
            closed = close_ended(member.standing, member.case, at)
            current = member
            if closed.standing.stored_override is None and member.case.override is not None:
                current = member._replace(case=member.case._replace(override=None))
            begun.append((current, closed, evaluate(current.case, at)))
        opinions = await self.judge.judge(connection, [(m, e) for m, _, e in begun])
        return [
            decide(member, closed, evaluated, opinion, causes[member.member_id], as_of)
            for (member, closed, evaluated), opinion in zip(begun, opinions, strict=True)
        ]


def decide(
    member: MemberCase,
    closed: Outcome,
    evaluated: Evaluation,
    opinion: Opinion,
    causes: Collection[str],
    recorded_at: datetime,
    forced_cause: Cause | None = None,
) -> Result:
    """Settle one member and make its messages. `closed` is what `close_ended` gave."""
    outcome = settle(
        closed.standing,
        member.case,
        evaluated,
        opinion.judgement,
        causes=causes,
        has_membership=member.has_membership,
        verdict_key=opinion.verdict_key,
        forced_cause=forced_cause,
    )
    outcome = joined(closed, outcome)
    thresholds = member.case.thresholds
    messages = [
        message_of(member.subject, publication, thresholds, recorded_at)
        for publication in outcome.publications
    ]
    due_at = wake_at(member.case, evaluated, outcome.standing)
    return Result(member, evaluated, outcome, messages, due_at)


def _waits(member: MemberCase, organizations: Mapping[str, OrganizationState]) -> bool:
    """Nobody is evaluated in a suspended organisation, except for those who leave."""
    return organizations[member.subject.org_id].status == "suspended" and not member.has_left


def _texts_of(outcome: Outcome) -> list[Texts]:
    published, stored = outcome.standing.published, outcome.standing.stored_override
    found = [] if published.texts is None else [published.texts]
    if stored is not None:
        override = stored.override
        found.append(override_texts(override.level, override.expires_at is not None))
    return found
