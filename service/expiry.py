"""The end of an override whose time has come: a change of its own, before anything else.

Pure, like `service.standing`.
"""

from __future__ import annotations

from datetime import datetime

from service.classifier.judging import by_rules, kept_judgement
from service.evaluation import Evaluation, evaluate
from service.records import Cause
from service.standing import (
    SYSTEM,
    Change,
    Outcome,
    OverrideAction,
    Publication,
    Published,
    Standing,
    computed,
    not_before,
    shown_source,
)
from service.timeline import Case


def close_expired(standing: Standing, case: Case, as_of: datetime) -> Outcome:
    """End an override that has expired by `as_of`; otherwise nothing.

    The level falls back to the computed one as it is at the instant of expiry, which may be another
    than at the last evaluation: nobody may have looked in between. Whoever has a level had one
    then, also if they have left since. Reading `case.activity` as `settle` does, it must reach
    back one activity window before the last evaluation.
    """
    stored = standing.stored_override
    if stored is None or stored.override.active_at(as_of):
        return Outcome(standing, (), ())
    expired, published = stored.override, standing.published
    assert expired.expires_at is not None
    eligible = case.eligible or published.level is not None
    then = evaluate(case._replace(override=None, eligible=eligible), expired.expires_at)
    after = _without_override(standing, case, then)
    action = OverrideAction(
        "expire", expired.level, after.computed_level, None, SYSTEM, expired.expires_at
    )
    if published.level is None or after.level == published.level:
        # Nothing moved: what is evaluated next tells that the override is gone.
        return Outcome(standing._replace(stored_override=None), (), (action,))
    effective_at = not_before(expired.expires_at, published.level_since)
    change = Change(published.level, after.level, Cause.OVERRIDE_EXPIRED, effective_at)
    after = after._replace(previous_level=published.level, level_since=effective_at)
    revision = standing.revision + 1
    publication = Publication(revision, after, change, shown_source(after), then)
    ended = standing._replace(
        revision=revision,
        computed_at=then.as_of,
        published=after,
        rules_level=standing.rules_level if then.ruling is None else then.ruling.level,
        stored_override=None,
    )
    return Outcome(ended, (publication,), (action,))


def _without_override(standing: Standing, case: Case, then: Evaluation) -> Published:
    if then.ruling is None:
        # By what is known now there was no level, which is found out next.
        return as_before(standing.published)
    judgement = kept_judgement(standing, case, then) or by_rules(then)
    return computed(standing, case, then, judgement, None)


def as_before(published: Published) -> Published:
    """What was computed last, without the override, and without its clocks, which are over."""
    return published._replace(
        override=None,
        level=published.computed_level,
        next_change_at=None,
        next_level_change_at=None,
        next_level=None,
    )


def joined(closed: Outcome, settled: Outcome) -> Outcome:
    """What `close_expired` and the `settle` that follows come to together.

    The state that the expiry leaves has the clocks of its instant. Where the level stays with it,
    what was settled is published in its place: one state, with the change that the expiry is. An
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
