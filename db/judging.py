"""Judges of members within a transaction: Claude's stored verdicts where there are any.

Nobody here talks to Claude; what is missing is put in the queue, and the classifier fills it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from db import verdicts
from db.claude_usage import count_hits
from db.evaluating import Opinion
from db.evaluation import MemberCase
from db.pool import Connection
from service.classifier.judging import (
    Lookup,
    Question,
    StoredVerdict,
    by_rules,
    is_unchanged,
    judge,
    kept_judgement,
    question_for,
)
from service.classifier.metrics import CLAUDE_METRICS
from service.evaluation import Evaluation


class ClaudeJudge:
    """For the worker: looks verdicts up and asks for those that are missing.

    `lookups` counts how they ended; the difference of two copies tells what a run did.
    """

    def __init__(self, model: str, *, queue_limit: int = verdicts.QUEUE_LIMIT) -> None:
        self._model = model
        self._queue_limit = queue_limit
        self.lookups: Counter[Lookup] = Counter()

    async def judge(
        self, connection: Connection, cases: Sequence[tuple[MemberCase, Evaluation]]
    ) -> Sequence[Opinion]:
        """One opinion per case, in order; see `verdicts.look_up` for locks and statements."""
        questions = [question_for(m.standing, m.case, e, self._model) for m, e in cases]
        wanted = {q.key: q.situation for q in questions if q is not None}
        # A key may come with and without its situation: what one member asks helps the other.
        wanted |= {q.key: q.situation for q in questions if q is not None and q.situation}
        found = await verdicts.look_up(
            connection, wanted, self._model, queue_limit=self._queue_limit
        )
        hits_before = self.lookups[Lookup.HIT]
        opinions = [
            self._opinion(member, evaluation, question, found)
            for (member, evaluation), question in zip(cases, questions, strict=True)
        ]
        hits = self.lookups[Lookup.HIT] - hits_before
        if hits:
            await count_hits(connection, hits)
        return opinions

    def _opinion(
        self,
        member: MemberCase,
        evaluation: Evaluation,
        question: Question | None,
        found: dict[bytes, StoredVerdict],
    ) -> Opinion:
        if question is None:
            return Opinion(None)
        judged = judge(member.standing, member.case, evaluation, question, found.get(question.key))
        self.lookups[judged.lookup] += 1
        CLAUDE_METRICS.lookups.labels(judged.lookup).inc()
        return Opinion(judged.judgement, judged.verdict_key)


class KeepingJudge:
    """For whoever may not ask: Claude's judgement stays while the rules say the same.

    When anything has changed the key is dropped, so that the worker's next evaluation looks the
    verdict up. Whoever uses this marks the member due then, since what changed it may have been
    evaluated before.
    """

    async def judge(
        self, _connection: Connection, cases: Sequence[tuple[MemberCase, Evaluation]]
    ) -> Sequence[Opinion]:
        """One opinion per case, in order. No statement."""
        return [_kept(member, evaluation) for member, evaluation in cases]


def _kept(member: MemberCase, evaluation: Evaluation) -> Opinion:
    standing, case = member.standing, member.case
    if evaluation.ruling is None:
        return Opinion(None)
    judgement = kept_judgement(standing, case, evaluation) or by_rules(evaluation)
    unchanged = is_unchanged(standing, evaluation, case)
    return Opinion(judgement, standing.verdict_key if unchanged else None)
