"""When a verdict is looked up, and what a member's level and texts are with or without one.

Pure. A member is never kept waiting: without a verdict the rules decide, except that a level and
texts of Claude's stay while the rules say what they said before, so nobody flaps as records arrive.
"""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

from service.classifier.guard import levels_near
from service.classifier.keys import is_current, verdict_key
from service.classifier.situation import Situation, situation_of
from service.classifier.templates import MODEL_VERSION, rules_texts
from service.evaluation import Evaluation, evaluate
from service.levels import Level
from service.records import Source
from service.standing import Judgement, Standing
from service.texts import Texts
from service.thresholds import Thresholds
from service.timeline import Case


class VerdictStatus(StrEnum):
    """How far a situation is."""

    PENDING = "pending"
    ANSWERED = "answered"
    REFUSED = "refused"  # the guard refused two answers: the rules' result is final


class StoredVerdict(NamedTuple):
    """What is stored under a key. Level, texts and id are there exactly when it is answered."""

    status: VerdictStatus
    level: Level | None = None
    texts: Texts | None = None
    explanation_id: int | None = None
    model_version: str = ""


class Question(NamedTuple):
    """What to look up. `situation` None: take what is stored, but do not ask for it."""

    key: bytes
    situation: Situation | None


class Lookup(StrEnum):
    """How a look-up ended, for the counters."""

    HIT = "hit"
    KEPT = "kept"  # Claude's earlier level and texts stay
    WAITING = "waiting"
    REFUSED = "refused"
    NO_ROOM = "no_room"  # the queue is full, or nothing may be asked now
    NOT_ALLOWED = "not_allowed"  # time has moved the verdict's level out of what is allowed


class Judged(NamedTuple):
    """The judgement, the key to store with it (None: look up afresh next time), and how."""

    judgement: Judgement
    verdict_key: bytes | None
    lookup: Lookup


def by_rules(evaluation: Evaluation) -> Judgement:
    """The rules' own judgement of a scored member."""
    assert evaluation.ruling is not None
    return Judgement(evaluation.ruling.level, rules_texts(evaluation), Source.RULES, MODEL_VERSION)


def question_for(
    standing: Standing, case: Case, evaluation: Evaluation, model: str
) -> Question | None:
    """What to look up for a member; None for one who is not scored.

    A fresh key is made when level, reason, a signal, thresholds, prompt or model changed; otherwise
    the stored one is looked at again, so that days that pass cost nothing. Under an override
    nothing new is asked, and the situation is the one without it.
    """
    if evaluation.ruling is None:
        return None
    stored = standing.verdict_key
    if (
        stored is not None
        and is_current(stored, model)
        and is_unchanged(standing, evaluation, case)
    ):
        return Question(stored, None)
    if case.override is not None:
        evaluation = evaluate(case._replace(override=None), evaluation.as_of)
    situation = situation_of(evaluation, case.thresholds)
    key = verdict_key(situation, model)
    return Question(key, situation if case.override is None else None)


def judge(
    standing: Standing,
    case: Case,
    evaluation: Evaluation,
    question: Question,
    found: StoredVerdict | None,
) -> Judged:
    """The judgement of a scored member, given what was found under the question's key, if anything.

    `found` None: nothing is stored and nothing will be, since the queue is full or may not be used.
    """
    if found is not None and found.status is VerdictStatus.ANSWERED:
        assert found.level is not None
        assert found.texts is not None
        if is_allowed(found.level, evaluation, case.thresholds):
            judgement = Judgement(found.level, found.texts, Source.CLAUDE, found.model_version)
            return Judged(judgement, question.key, Lookup.HIT)
        return Judged(by_rules(evaluation), None, Lookup.NOT_ALLOWED)
    if found is not None and found.status is VerdictStatus.REFUSED:
        return Judged(by_rules(evaluation), question.key, Lookup.REFUSED)
    key = None if found is None else question.key
    kept = kept_judgement(standing, case, evaluation)
    if kept is not None:
        return Judged(kept, key, Lookup.KEPT)
    return Judged(by_rules(evaluation), key, Lookup.NO_ROOM if found is None else Lookup.WAITING)


def kept_judgement(standing: Standing, case: Case, evaluation: Evaluation) -> Judgement | None:
    """Claude's earlier judgement, while the rules say the same and the guard still allows it."""
    published, ruling = standing.published, evaluation.ruling
    if (
        ruling is None
        or published.computed_source is not Source.CLAUDE
        or published.computed_level is None
        or published.texts is None
        or published.model_version is None
        or standing.rules_level is not ruling.level
        or published.reason is not ruling.reason
        or not is_allowed(published.computed_level, evaluation, case.thresholds)
    ):
        return None
    return Judgement(
        published.computed_level, published.texts, Source.CLAUDE, published.model_version
    )


def is_allowed(level: Level, evaluation: Evaluation, thresholds: Thresholds) -> bool:
    """Whether Claude's level is within what the guard allows at this instant."""
    ruling, signals = evaluation.ruling, evaluation.signals
    if ruling is None or signals.joined_at is None:
        return False
    return level in levels_near(
        ruling.level,
        is_new=evaluation.as_of - signals.joined_at < thresholds.new_for,
        enough_events=signals.events_attended_90d >= thresholds.moderate_min_events,
    )


def is_unchanged(standing: Standing, evaluation: Evaluation, case: Case) -> bool:
    """Whether nothing that calls for another look-up differs from the last evaluation."""
    published, ruling = standing.published, evaluation.ruling
    return (
        ruling is not None
        and standing.rules_level is ruling.level
        and published.reason is ruling.reason
        and published.signals == evaluation.signals
        and published.thresholds_version == case.thresholds.version
    )
