"""The end of an override by itself, before anything else: its time, or its member's leaving.

Pure, like `service.standing`.
"""

from __future__ import annotations

from datetime import datetime

from service.classifier.judging import by_rules, kept_judgement
from service.evaluation import evaluate
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
    facts_differ,
    not_before,
    shown_source,
)
from service.timeline import Case, Override


def close_ended(standing: Standing, case: Case, as_of: datetime) -> Outcome:
    """End an override that has expired by `as_of`, or whose member has left since and is back.

    (Of who has not come back `settle` takes it together with the level.) An expiry is a change of
    its own: the level falls back to the computed one as it is at the instant of expiry, which may
    be another than at the last evaluation: nobody may have looked in between. What has come since,
    facts or thresholds, is no matter of the expiry: then it is the level computed last, which has
    been shown ever since. Whoever has a level had one then, also if they have left since. Reading
    `case.activity` as `settle` does, it must reach back one activity window before the last
    evaluation.
    """
    stored = standing.stored_override
    if stored is None:
        return Outcome(standing, (), ())
    if stored.override.active_at(as_of):
        has_left = case.left_at is not None and case.left_at > stored.override.overridden_at
        if has_left and case.eligible:
            return _close_for_who_left(standing, stored.override, case, as_of)
        return Outcome(standing, (), ())
    expired, published = stored.override, standing.published
    assert expired.expires_at is not None
    eligible = case.eligible or published.level is not None
    known = case._replace(override=None, eligible=eligible)
    then = evaluate(known, expired.expires_at)
    rules_level = standing.rules_level
    if then.ruling is None or _more_is_known(standing, known):
        # What comes of it is found out next.
        after = as_before(published)
        then = then._replace(
            signals=published.signals, next_change_at=None, next_level_change_at=None,
            next_level=None, improvement=None,
        )  # fmt: skip
    else:
        judgement = kept_judgement(standing, case, then) or by_rules(then)
        after, rules_level = computed(standing, case, then, judgement, None), then.ruling.level
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
        rules_level=rules_level,
        stored_override=None,
    )
    return Outcome(ended, (publication,), (action,))


def _close_for_who_left(
    standing: Standing, override: Override, case: Case, as_of: datetime
) -> Outcome:
    """Who is back gets the computed level, which what is evaluated next publishes."""
    now = evaluate(case._replace(override=None), as_of)
    shown = None
    if now.ruling is not None:
        shown = (kept_judgement(standing, case, now) or by_rules(now)).level
    action = OverrideAction("clear", override.level, shown, None, SYSTEM, None)
    return Outcome(standing._replace(stored_override=None), (), (action,))


def _more_is_known(standing: Standing, case: Case) -> bool:
    """Whether facts or thresholds are others than at the last evaluation."""
    version = standing.published.thresholds_version
    return version not in (None, case.thresholds.version) or facts_differ(standing, case)


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
    """What `close_ended` and the `settle` that follows come to together.

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
