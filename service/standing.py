"""What was last decided and published about a member, and how a new evaluation changes it.

Pure. The caller reads `Standing` under a lock, gets back an `Outcome`, and writes all of it in one
transaction: the new standing, at most one history row per publication, and the messages.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import Final, NamedTuple

from service.evaluation import Evaluation, level_began_at
from service.levels import Level, Reason
from service.records import Cause, Source
from service.signals import Signals
from service.texts import Texts
from service.thresholds import Thresholds
from service.timeline import Case, Override

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
    """One published state; `published.level` None is a tombstone."""

    revision: int
    published: Published
    change: Change | None
    shown_source: Source | None


class Outcome(NamedTuple):
    """What has to be written. `publications` are in revision order, two at the most."""

    standing: Standing
    publications: tuple[Publication, ...]
    override_actions: tuple[OverrideAction, ...]


def shown_source(published: Published) -> Source | None:
    """Who decided the shown level."""
    return Source.OVERRIDE if published.override is not None else published.computed_source


def close_expired(standing: Standing, as_of: datetime) -> Outcome:
    """End an override whose time has come, as a change of its own; otherwise nothing.

    The level falls back to the computed one as it stands, from the instant of expiry on.
    """
    stored = standing.stored_override
    if stored is None or stored.override.active_at(as_of):
        return Outcome(standing, (), ())
    expired = stored.override
    published = standing.published
    action = OverrideAction(
        "expire", expired.level, published.computed_level, None, SYSTEM, expired.expires_at
    )
    assert expired.expires_at is not None
    after = published._replace(override=None, level=published.computed_level)
    change = None
    if after.level != published.level:
        effective_at = _not_before(expired.expires_at, published.level_since)
        change = Change(published.level, after.level, Cause.OVERRIDE_EXPIRED, effective_at)
        after = after._replace(previous_level=published.level, level_since=effective_at)
    if change is None:
        # Nothing moved: what is evaluated next tells that the override is gone.
        return Outcome(standing._replace(stored_override=None), (), (action,))
    revision = standing.revision + 1
    publication = Publication(revision, after, change, shown_source(after))
    ended = standing._replace(revision=revision, published=after, stored_override=None)
    return Outcome(ended, (publication,), (action,))


def joined(closed: Outcome, settled: Outcome) -> Outcome:
    """What `close_expired` and the `settle` that follows come to together.

    The state that the expiry leaves has the clocks of before. Where the level stays with it, what
    was settled is published in its place: one state, with the change that the expiry is. An
    override that follows at once is a state of its own: the expiry was not its doing.
    """
    publications = closed.publications + settled.publications
    standing = settled.standing
    if closed.publications and settled.publications:
        (expiry,), (state,) = closed.publications, settled.publications
        if state.change is None and state.published.override is None:
            publications = (state._replace(revision=expiry.revision, change=expiry.change),)
            standing = standing._replace(revision=expiry.revision)
    return Outcome(standing, publications, closed.override_actions + settled.override_actions)


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

    `before` has no expired override any more (`close_expired` comes first), and `case.override` is
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
        after = _computed(before, case, evaluation, judgement, stored)
    change = None
    if after.level != before.published.level:
        cause = forced_cause or _cause(before, after, causes, has_membership=has_membership)
        effective_at = evaluation.as_of
        if cause is Cause.TIME and before.computed_at is not None:
            effective_at = _began_at(before, before.computed_at, case, evaluation)
        effective_at = _not_before(effective_at, before.published.level_since)
        change = Change(before.published.level, after.level, cause, effective_at)
        after = after._replace(level_since=effective_at, previous_level=before.published.level)
    publications: tuple[Publication, ...] = ()
    revision = before.revision
    if change is not None or (after.level is not None and after != before.published):
        revision += 1
        publications = (Publication(revision, after, change, shown_source(after)),)
    standing = Standing(
        revision,
        evaluation.as_of,
        after,
        None if evaluation.ruling is None else evaluation.ruling.level,
        stored,
        verdict_key,
    )
    return Outcome(standing, publications, actions)


def _computed(
    before: Standing,
    case: Case,
    evaluation: Evaluation,
    judgement: Judgement,
    stored: StoredOverride | None,
) -> Published:
    assert evaluation.ruling is not None
    thresholds: Thresholds = case.thresholds
    override = None if stored is None else stored.override
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
        evaluation.next_change_at,
        evaluation.next_level_change_at,
        evaluation.next_level,
        judgement.model_version,
    )


def _cause(
    before: Standing, after: Published, causes: Collection[str], *, has_membership: bool
) -> Cause:
    first = before.published.level_since is None
    if Cause.MEMBERSHIP in causes or (first and has_membership):
        return Cause.MEMBERSHIP
    known = before.published.thresholds_version
    if known is not None and after.thresholds_version not in (None, known):
        return Cause.THRESHOLDS
    if Cause.SIGNALS in causes or first:
        return Cause.SIGNALS
    # Who was marked for a verdict and moved by the rules alone was moved by the clock.
    if Cause.CLASSIFIER in causes and Source.CLAUDE in (
        before.published.computed_source,
        after.computed_source,
    ):
        return Cause.CLASSIFIER
    return Cause.TIME


def _began_at(
    before: Standing, computed_at: datetime, case: Case, evaluation: Evaluation
) -> datetime:
    """When the level began that only time has brought, looking back to the last evaluation."""
    began_at = level_began_at(case, computed_at, evaluation.as_of)
    if began_at < evaluation.as_of:
        return began_at
    # The rules saw no newness, so that its end is no step of theirs.
    newness_ended_at = _newness_ends_at(case, evaluation, before)
    if newness_ended_at is not None and computed_at < newness_ended_at < evaluation.as_of:
        return newness_ended_at
    return began_at


def _not_before(at: datetime, earliest: datetime | None) -> datetime:
    return at if earliest is None or at >= earliest else earliest


def wake_at(case: Case, evaluation: Evaluation, standing: Standing) -> datetime | None:
    """When the member has to be looked at again if nothing arrives.

    A crossing, an expiry, or the end of a newness that only Claude still saw.
    """
    if not case.eligible:
        return None
    instants = [
        at
        for at in (
            evaluation.next_change_at,
            None if standing.stored_override is None
            else standing.stored_override.override.expires_at,
            _newness_ends_at(case, evaluation, standing),
        )
        if at is not None
    ]  # fmt: skip
    return min(instants, default=None)


def _newness_ends_at(case: Case, evaluation: Evaluation, standing: Standing) -> datetime | None:
    """Claude may call a highly engaged member new, but no longer than the thresholds do."""
    joined_at = evaluation.signals.joined_at
    if (
        joined_at is None
        or standing.published.computed_level is not Level.NEW
        or standing.rules_level is Level.NEW
    ):
        return None
    return joined_at + case.thresholds.new_for
