"""When a member's level or counts change next, found by trying every instant that could matter."""

from dataclasses import replace
from datetime import datetime
from typing import NamedTuple

from tests.oracle.rules import Standing, count_within, decide, state_at

RANKS = {"inactive": 0, "at_risk": 1, "moderate": 2, "new": 2, "highly_engaged": 3}


class NextChanges(NamedTuple):
    next_change_at: datetime | None
    next_level_change_at: datetime | None
    next_level: str | None


class Improvement(NamedTuple):
    """`more_events` attended at an instant before `before` (None: at any time) give `level`."""

    more_events: int
    level: str
    before: datetime | None


def candidates(standing: Standing, as_of: datetime) -> list[datetime]:
    """Every instant after `as_of` at which a signal, a rule or the override can turn, in order."""
    thresholds = standing.thresholds
    instants: set[datetime] = set()
    for instant in standing.attended + standing.going:
        instants |= {instant, instant + thresholds.window, instant + thresholds.inactive_after}
    for instant in standing.profile:
        instants |= {instant, instant + thresholds.inactive_after}
    if standing.joined_at is not None:
        joined_at = standing.joined_at
        instants |= {
            joined_at,
            joined_at + thresholds.new_for,
            joined_at + thresholds.inactive_after,
        }
    if standing.override is not None:
        instants.add(standing.override.set_at)
        if standing.override.expires_at is not None:
            instants.add(standing.override.expires_at)
    return sorted(instant for instant in instants if instant > as_of)


def next_changes(standing: Standing, as_of: datetime) -> NextChanges:
    """The two clocks of a member, if nothing more arrives."""
    now = state_at(standing, as_of)
    next_change_at = None
    for instant in candidates(standing, as_of):
        then = state_at(standing, instant)
        if then != now and next_change_at is None:
            next_change_at = instant
        if then.level != now.level:
            return NextChanges(next_change_at, instant, then.level)
    return NextChanges(next_change_at, None, None)


def nearest_improvement(standing: Standing, as_of: datetime) -> Improvement | None:
    """The fewest more attended events that would lift the level to moderate or better.

    With the instant until which they would. None if the member is not scored or nothing is better.
    """
    level = decide(standing, as_of).level
    if level is None:
        return None
    thresholds = standing.thresholds
    counted = count_within(standing.attended, as_of, thresholds.window)
    for enough in (thresholds.moderate_min_events, thresholds.highly_engaged_min_events):
        more_events = max(0, enough - counted)
        better = _level_with(standing, as_of, more_events)
        if RANKS[better] > RANKS[level]:
            return Improvement(more_events, better, _until(standing, as_of, more_events, better))
    return None


def _level_with(standing: Standing, as_of: datetime, more_events: int) -> str:
    attended = sorted([*standing.attended, *([as_of] * more_events)])
    level = decide(replace(standing, attended=attended), as_of).level
    if level is None:
        raise ValueError("the member is not scored")
    return level


def _until(standing: Standing, as_of: datetime, more_events: int, level: str) -> datetime | None:
    for instant in candidates(standing, as_of):
        if RANKS[_level_with(standing, instant, more_events)] < RANKS[level]:
            return instant
    return None
