"""What was last decided and published about a member, and how a new evaluation changes it.

Pure. The caller reads `Standing` under a lock, gets back an `Outcome`, and writes all of it in one
transaction: the new standing, at most one history row per publication, and the messages. An
override whose time has come is closed first (`service.expiry`).
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from itertools import islice
from typing import Final, NamedTuple

from service.evaluation import Evaluation, evaluate, level_began_at
from service.levels import Level, Reason
from service.records import Cause, Source
from service.signals import JoinedAtSource, Signals
from service.texts import Texts
from service.thresholds import Thresholds
from service.timeline import Case, Override, steps_from

NO_SIGNALS: Final = Signals(0, None, 0, None, None, None, None)
SYSTEM: Final = "system"


class StoredOverride(NamedTuple):
    """An override with its author and notes, which only administrators see."""

    override: Override
    overridden_by: str
    notes: str


class Published(NamedTuple):
    """What consumers see, but for ids, revision and `computed_at`: equal means nothing to say.

    `level` and everything that explains it is None while the member has no level. `previous_level`
    and `level_since` are of the last change, also of one to no level: the next must not be dated
    before it.
    """

    level: Level | None
    computed_level: Level | None
    previous_level: Level | None
    level_since: datetime | None
    reason: Reason | None
    computed_source: Source | None
    signals: Signals
    thresholds_version: int | None
    activity_window_days: int | None
    texts: Texts | None
    override: Override | None
    next_change_at: datetime | None
    next_level_change_at: datetime | None
    next_level: Level | None
    model_version: str | None


NOTHING_PUBLISHED: Final = Published(
    None, None, None, None, None, None, NO_SIGNALS, None, None, None, None, None, None, None, None
)  # fmt: skip


class Standing(NamedTuple):
    """The stored result of one member. `texts` in `published` are those of the computed level."""

    revision: int
    computed_at: datetime | None
    published: Published
    rules_level: Level | None = None
    stored_override: StoredOverride | None = None
    verdict_key: bytes | None = None


class Judgement(NamedTuple):
    """The computed level with its texts: the rules', or Claude's within what the guard allows."""

    level: Level
    texts: Texts
    source: Source
    model_version: str


class Change(NamedTuple):
    """One change of the shown level."""

    from_level: Level | None
    to_level: Level | None
    cause: Cause
    effective_at: datetime


class OverrideAction(NamedTuple):
    """One row of the override history."""

    action: str
    previous_level: Level | None
    new_level: Level | None
    notes: str | None
    performed_by: str
    expires_at: datetime | None


class Publication(NamedTuple):
    """One published state; `published.level` None is a tombstone.

    `evaluation`: the one that it came from, for what its texts refer to.
    """

    revision: int
    published: Published
    change: Change | None
    shown_source: Source | None
    evaluation: Evaluation


class Outcome(NamedTuple):
    """What has to be written. `publications` are in revision order, two at the most."""

    standing: Standing
    publications: tuple[Publication, ...]
    override_actions: tuple[OverrideAction, ...]


def shown_source(published: Published) -> Source | None:
    """Who decided the shown level."""
    return Source.OVERRIDE if published.override is not None else published.computed_source


def settle(
    before: Standing,
    case: Case,
    evaluation: Evaluation,
    judgement: Judgement | None,
    *,
    causes: Collection[str],
    has_membership: bool,
    verdict_key: bytes | None = None,
    forced_cause: Cause | None = None,
) -> Outcome:
    """What an evaluation comes to. `judgement` is None exactly when the member is not scored.

    `before` has no expired override any more (`service.expiry` comes first), and `case.override` is
    that of `before`. `causes`: why the member was due (values of `Cause`). `forced_cause`: an
    administrator's action that explains the change whatever else happened.
    """
    actions: tuple[OverrideAction, ...] = ()
    stored = before.stored_override
    if judgement is None:
        after = NOTHING_PUBLISHED._replace(
            signals=evaluation.signals,
            previous_level=before.published.previous_level,
            level_since=before.published.level_since,
            thresholds_version=case.thresholds.version,
            activity_window_days=case.thresholds.activity_window_days,
            next_change_at=evaluation.next_change_at,
            next_level_change_at=evaluation.next_level_change_at,
            next_level=evaluation.next_level,
        )
        # Corrections may take a score away for a while; only leaving ends the override.
        if stored is not None and not case.eligible:
            actions = (OverrideAction("clear", stored.override.level, None, None, SYSTEM, None),)
            stored = None
    else:
        after = computed(before, case, evaluation, judgement, stored)
    change = None
    if after.level != before.published.level:
        cause = forced_cause or _cause(
            before, after, case, evaluation, causes, has_membership=has_membership
        )
        effective_at = evaluation.as_of
        if cause is Cause.TIME and before.computed_at is not None:
            effective_at = _began_at(before, before.computed_at, case, evaluation)
        effective_at = not_before(effective_at, before.published.level_since)
        change = Change(before.published.level, after.level, cause, effective_at)
        after = after._replace(level_since=effective_at, previous_level=before.published.level)
    publications: tuple[Publication, ...] = ()
    revision = before.revision
    if change is not None or (after.level is not None and after != before.published):
        revision += 1
        publications = (Publication(revision, after, change, shown_source(after), evaluation),)
    standing = Standing(
        revision,
        evaluation.as_of,
        after,
        None if evaluation.ruling is None else evaluation.ruling.level,
        stored,
        verdict_key,
    )
    return Outcome(standing, publications, actions)


def computed(
    before: Standing,
    case: Case,
    evaluation: Evaluation,
    judgement: Judgement,
    stored: StoredOverride | None,
) -> Published:
    """What the world sees of a scored member after an evaluation, but for a change of the level."""
    assert evaluation.ruling is not None
    thresholds: Thresholds = case.thresholds
    override = None if stored is None else stored.override
    clock = _clock_of(case, evaluation, judgement.level if override is None else None)
    return Published(
        judgement.level if override is None else override.level,
        judgement.level,
        before.published.previous_level,
        before.published.level_since,
        evaluation.ruling.reason,
        judgement.source,
        evaluation.signals,
        thresholds.version,
        thresholds.activity_window_days,
        judgement.texts,
        override,
        clock.next_change_at,
        clock.next_level_change_at,
        clock.next_level,
        judgement.model_version,
    )


class _Clock(NamedTuple):
    next_change_at: datetime | None
    next_level_change_at: datetime | None
    next_level: Level | None


def _clock_of(case: Case, evaluation: Evaluation, judged: Level | None) -> _Clock:
    """The clock of a member whose shown level is `judged`; None: what the evaluation took it for.

    It assumes the rules from their next step on. One that leads to what Claude says already changes
    no level. (It is a crossing nevertheless, since reason and texts become the rules'.)
    """
    next_change_at, ruling = evaluation.next_change_at, evaluation.ruling
    if judged is None or ruling is None or judged is ruling.level:
        return _Clock(next_change_at, evaluation.next_level_change_at, evaluation.next_level)
    steps = list(islice(steps_from(case, evaluation.as_of, ruling.level), 2))
    ends_at = _newness_ends_at(case, evaluation, judged, ruling.level)
    if ends_at is not None and all(ends_at < at for at, _ in steps):
        # Without newness it is the rules' level again.
        steps = [(ends_at, ruling.level)]
        next_change_at = min(ends_at, next_change_at or ends_at)
    at, level = next(((at, to) for at, to in steps if to is not judged), (None, None))
    return _Clock(next_change_at, at, level)


def _cause(
    before: Standing,
    after: Published,
    case: Case,
    evaluation: Evaluation,
    causes: Collection[str],
    *,
    has_membership: bool,
) -> Cause:
    """Why the level changed. What was read may be newer than the marks: facts tell as well."""
    first = before.published.level_since is None
    if (
        Cause.MEMBERSHIP in causes
        or (first and has_membership)
        or _membership_differs(before, after, case)
    ):
        return Cause.MEMBERSHIP
    known = before.published.thresholds_version
    if known is not None and after.thresholds_version not in (None, known):
        return Cause.THRESHOLDS
    if Cause.SIGNALS in causes or first or facts_differ(before, case):
        return Cause.SIGNALS
    # Who was marked for a verdict and moved by the rules alone was moved by the clock.
    if Cause.CLASSIFIER in causes and Source.CLAUDE in (
        before.published.computed_source,
        after.computed_source,
    ):
        return Cause.CLASSIFIER
    # A stored verdict that was found without a mark, where time has not changed what the rules say.
    ruled = None if evaluation.ruling is None else evaluation.ruling.level
    if after.computed_source is Source.CLAUDE and before.rules_level is ruled:
        return Cause.CLASSIFIER
    return Cause.TIME


def _membership_differs(before: Standing, after: Published, case: Case) -> bool:
    """Whether the member has left or come back, or joined at another time, since `before`."""
    if after.level is None and not case.eligible:
        return True
    if before.computed_at is None:
        return False
    joined_at = before.published.signals.joined_at
    if before.published.level is None and joined_at is not None and joined_at <= before.computed_at:
        # So nothing else can have kept them from being scored.
        return True
    activity = case.activity
    return (
        activity.joined_at_source is JoinedAtSource.MEMBERSHIP and joined_at != activity.joined_at
    )


def facts_differ(before: Standing, case: Case) -> bool:
    """Whether what is known now would have given something else at the last evaluation.

    What was dated ahead then was foreseen by the clocks; what has come since was not.
    """
    if before.computed_at is None:
        return False
    published = before.published
    then = evaluate(case._replace(override=published.override), before.computed_at)
    judged = published.level if published.override is None else None
    return (then.signals, *_clock_of(case, then, judged)) != (
        published.signals,
        published.next_change_at,
        published.next_level_change_at,
        published.next_level,
    )


def _began_at(
    before: Standing, computed_at: datetime, case: Case, evaluation: Evaluation
) -> datetime:
    """When the level began that only time has brought, looking back to the last evaluation."""
    began_at = level_began_at(case, computed_at, evaluation.as_of)
    if began_at < evaluation.as_of:
        return began_at
    # The rules saw no newness, so that its end is no step of theirs.
    newness_ended_at = _newness_ends_at(
        case, evaluation, before.published.computed_level, before.rules_level
    )
    if newness_ended_at is not None and computed_at < newness_ended_at < evaluation.as_of:
        return newness_ended_at
    return began_at


def not_before(at: datetime, earliest: datetime | None) -> datetime:
    """`at`, but never before the change before it."""
    return at if earliest is None or at >= earliest else earliest


def wake_at(case: Case, evaluation: Evaluation, standing: Standing) -> datetime | None:
    """When the member has to be looked at again if nothing arrives.

    A crossing, an expiry, a step under an override, or the end of a newness that only Claude still
    saw.
    """
    if not case.eligible:
        return None
    judged, ruled = standing.published.computed_level, standing.rules_level
    candidates = [evaluation.next_change_at, _newness_ends_at(case, evaluation, judged, ruled)]
    if standing.stored_override is not None:
        candidates.append(standing.stored_override.override.expires_at)
        candidates.append(_next_step_beneath(case, evaluation))
    return min((at for at in candidates if at is not None), default=None)


def _next_step_beneath(case: Case, evaluation: Evaluation) -> datetime | None:
    """When the computed level changes next, whatever the override shows meanwhile."""
    ruled = None if evaluation.ruling is None else evaluation.ruling.level
    at, _ = next(steps_from(case._replace(override=None), evaluation.as_of, ruled), (None, None))
    return at


def _newness_ends_at(
    case: Case, evaluation: Evaluation, judged: Level | None, ruled: Level | None
) -> datetime | None:
    """Claude may call a highly engaged member new, but no longer than the thresholds do."""
    joined_at = evaluation.signals.joined_at
    if joined_at is None or judged is not Level.NEW or ruled is Level.NEW:
        return None
    return joined_at + case.thresholds.new_for
