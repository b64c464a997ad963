"""What happens to a member if nothing more arrives: the instants at which level or counts change.

The shown level is a step function of time. It steps when an event enters or leaves the activity
window, when newness ends, when silence gets long enough, when a joining date ahead is reached and
when an override ends. All of it assumes the rules, whatever a classifier said.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Final, NamedTuple

from service.levels import Level
from service.rules import classify
from service.signals import Activity, Dates, signals_at
from service.thresholds import Thresholds

NEVER: Final = datetime.max.replace(tzinfo=UTC)


class Override(NamedTuple):
    """A level set by an administrator; `expires_at` None means until cleared."""

    level: Level
    overridden_at: datetime
    expires_at: datetime | None = None

    def active_at(self, at: datetime) -> bool:
        """Whether it still holds: expiry ends it to the instant."""
        return self.expires_at is None or at < self.expires_at


class Case(NamedTuple):
    """Everything that decides about one member.

    `eligible`: membership and organisation allow scoring; from `joined_at` on the member is scored.
    `left_at`: when the service last learned that the member left, or the organisation was deleted,
    by the clock that dates overrides.
    """

    activity: Activity
    thresholds: Thresholds
    eligible: bool
    override: Override | None = None
    left_at: datetime | None = None


Step = tuple[datetime, Level | None]


def is_scored(case: Case, at: datetime) -> bool:
    """Whether the member has a level at `at`."""
    joined_at = case.activity.joined_at
    return case.eligible and joined_at is not None and joined_at <= at


def shown_at(case: Case, at: datetime) -> Level | None:
    """The level the world sees at `at` by rules and override; None when not scored."""
    if not is_scored(case, at):
        return None
    if case.override is not None and case.override.active_at(at):
        return case.override.level
    signals = signals_at(case.activity, case.thresholds.window, at)
    return classify(signals, case.thresholds, at).level


def level_steps(case: Case, after: datetime) -> Iterator[Step]:
    """Ascending (instant, new shown level) after `after`, each a real change."""
    return steps_from(case, after, shown_at(case, after))


def steps_from(case: Case, after: datetime, shown: Level | None) -> Iterator[Step]:
    """`level_steps` for whoever knows already what is shown at `after`."""
    if not case.eligible or case.activity.joined_at is None:
        return
    steps = _generic_steps if _anything_ahead(case.activity, after) else _settled_steps
    for at, level in steps(case, after):
        if level != shown:
            shown = level
            yield at, level


def next_count_change(case: Case, after: datetime) -> datetime | None:
    """The earliest instant after `after` at which one of the two counts changes."""
    changes = [
        at
        for dates in (case.activity.attended, case.activity.rsvps)
        if (at := _next_change_of(dates, case.thresholds, after)) is not None
    ]
    return min(changes) if changes else None


def _next_change_of(dates: Dates, thresholds: Thresholds, after: datetime) -> datetime | None:
    recent, window = dates.recent, thresholds.window
    if not recent:
        return None
    count = dates.number_within(after, window)
    if recent[-1] <= after:
        # Nothing ahead: the oldest one that still counts leaves first.
        return recent[len(recent) - count] + window if count else None
    instants = {at for at in recent if at > after}
    instants.update(at + window for at in recent if at + window > after)
    return next((at for at in sorted(instants) if dates.number_within(at, window) != count), None)


def _anything_ahead(activity: Activity, after: datetime) -> bool:
    attended, rsvps, profile, joined_at, _ = activity
    return (
        (bool(attended.recent) and attended.recent[-1] > after)
        or (bool(rsvps.recent) and rsvps.recent[-1] > after)
        or (bool(profile.recent) and profile.recent[-1] > after)
        or (joined_at is not None and joined_at > after)
    )


def _settled_steps(case: Case, after: datetime) -> Iterator[Step]:
    """Nothing is dated ahead, so only five instants can matter; measured 5 times faster."""
    activity, thresholds, _, override, _ = case
    assert activity.joined_at is not None
    recent = activity.attended.recent
    count = activity.attended.number_within(after, thresholds.window)

    def falls_below(minimum: int) -> datetime:
        return recent[len(recent) - minimum] + thresholds.window if count >= minimum else after

    high_until = falls_below(thresholds.highly_engaged_min_events)
    moderate_until = falls_below(thresholds.moderate_min_events)
    new_until = activity.joined_at + thresholds.new_for
    inactive_from = _last_sign(activity, after) + thresholds.inactive_after
    override_until = after
    if override is not None and override.active_at(after):
        override_until = override.expires_at or NEVER
    instants = (high_until, moderate_until, new_until, inactive_from, override_until)
    for at in sorted([at for at in instants if after < at < NEVER]):
        if at < override_until:
            continue
        if at < high_until:
            yield at, Level.HIGHLY_ENGAGED
        elif at < new_until:
            yield at, Level.NEW
        elif at < moderate_until:
            yield at, Level.MODERATE
        elif at < inactive_from:
            yield at, Level.AT_RISK
        else:
            yield at, Level.INACTIVE


def _last_sign(activity: Activity, at: datetime) -> datetime:
    """The latest activity at or before `at`, joining included."""
    assert activity.joined_at is not None
    latest = activity.joined_at
    for dates in (activity.attended, activity.rsvps, activity.profile):
        found = dates.latest(at)
        if found is not None and found > latest:
            latest = found
    return latest


def _generic_steps(case: Case, after: datetime) -> Iterator[Step]:
    """Something is dated ahead: look at every instant at which anything could change."""
    activity, thresholds, _, override, _ = case
    assert activity.joined_at is not None
    instants = {activity.joined_at, activity.joined_at + thresholds.new_for}
    instants.add(activity.joined_at + thresholds.inactive_after)
    for at in activity.attended.recent:
        instants.update((at, at + thresholds.window))
    for dates in (activity.attended, activity.rsvps, activity.profile):
        instants.update(at + thresholds.inactive_after for at in dates.recent)
        instants.update(at for at in dates.recent if at > after)
        if dates.before is not None:
            instants.add(dates.before + thresholds.inactive_after)
    if override is not None and override.expires_at is not None:
        instants.add(override.expires_at)
    for at in sorted(instants):
        if at > after:
            yield at, shown_at(case, at)
