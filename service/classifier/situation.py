"""The situation of a member as Claude is told: counts, coarse ages and thresholds, nothing else.

No name, id or date is in it, so members in the same situation share one answer, across
organisations and days. Counts are told apart only where a threshold makes a difference.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from datetime import datetime, timedelta
from enum import StrEnum
from functools import lru_cache
from typing import Any, Final, NamedTuple

from service.evaluation import Evaluation
from service.levels import Level, Reason
from service.signals import JoinedAtSource
from service.thresholds import Thresholds

# Above these the exact number no longer matters, unless a threshold is near.
_ROUND_NUMBERS: Final = (6, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000)
_MANY_RSVPS: Final = 2


class Span(NamedTuple):
    """A count between `low` and `high`, both included; `high` None means "or more"."""

    low: int
    high: int | None


class Age(StrEnum):
    """How long ago, in terms of the organisation's own thresholds."""

    NEVER = "never"
    RECENT = "recent"  # within a third of the activity window
    COUNTED = "counted"  # within the activity window
    QUIET = "quiet"  # before the window, not yet silent long enough
    LONG_AGO = "long_ago"


class Joined(StrEnum):
    """How long a member has been there, in the same terms."""

    NEW = "new"
    SETTLED = "settled"
    LONG = "long"


class Situation(NamedTuple):
    """What Claude is told. `thresholds` are the numbers alone: their version is always 0.

    `next_level`: what the rules will say if nothing more happens, None if they never change.
    `changes`: whether anything, a count included, changes by itself.
    """

    thresholds: Thresholds
    level: Level
    reason: Reason
    events: Span
    rsvps: Span
    last_attended: Age
    last_rsvp: Age
    profile_updated: bool
    joined: Joined
    inferred: bool
    next_level: Level | None
    changes: bool


def situation_of(evaluation: Evaluation, thresholds: Thresholds) -> Situation:
    """The situation of a scored member at the evaluation's instant; ValueError for others."""
    ruling, signals, as_of = evaluation.ruling, evaluation.signals, evaluation.as_of
    if ruling is None or signals.joined_at is None:
        raise ValueError("a member who is not scored is in no situation")
    limits = _limits(thresholds)
    rsvps = signals.rsvp_count_90d
    updated_at = signals.profile_updated_at
    return Situation(
        limits.numbers,
        ruling.level,
        ruling.reason,
        span_of(signals.events_attended_90d, limits.numbers),
        Span(rsvps, rsvps) if rsvps < _MANY_RSVPS else Span(_MANY_RSVPS, None),
        _age(signals.last_attended_at, as_of, limits),
        _age(signals.last_rsvp_at, as_of, limits),
        updated_at is not None and as_of - updated_at < limits.window,
        _joined(as_of - signals.joined_at, limits),
        signals.joined_at_source is JoinedAtSource.INFERRED,
        evaluation.next_level,
        evaluation.next_change_at is not None,
    )


@lru_cache(maxsize=16_384)
def span_of(count: int, thresholds: Thresholds) -> Span:
    """The exact count where it is small or near a threshold; otherwise a range around it."""
    low, high = thresholds.moderate_min_events, thresholds.highly_engaged_min_events
    most = high + 2
    if count >= most:
        return Span(most, None)
    near = any(edge - 2 <= count <= edge + 1 for edge in (low, high))
    if near or count < _ROUND_NUMBERS[0]:
        return Span(count, count)
    edges = sorted({*_ROUND_NUMBERS, max(low - 2, 0), low + 2, high - 2})
    position = bisect_right(edges, count)
    return Span(edges[position - 1], edges[position] - 1)


def recent_days(thresholds: Thresholds) -> int:
    """What counts as recent: a third of the activity window."""
    return max(1, thresholds.activity_window_days // 3)


class _Limits(NamedTuple):
    """The thresholds as lengths of time, made once per set."""

    numbers: Thresholds
    recent: timedelta
    window: timedelta
    inactive_after: timedelta
    new_for: timedelta


@lru_cache(maxsize=4096)
def _limits(thresholds: Thresholds) -> _Limits:
    return _Limits(
        thresholds._replace(version=0),
        timedelta(days=recent_days(thresholds)),
        thresholds.window,
        thresholds.inactive_after,
        thresholds.new_for,
    )


def _age(at: datetime | None, as_of: datetime, limits: _Limits) -> Age:
    if at is None:
        return Age.NEVER
    age = as_of - at
    if age >= limits.inactive_after:
        return Age.LONG_AGO
    if age >= limits.window:
        return Age.QUIET
    return Age.RECENT if age < limits.recent else Age.COUNTED


def _joined(age: timedelta, limits: _Limits) -> Joined:
    if age < limits.new_for:
        return Joined.NEW
    return Joined.SETTLED if age < limits.inactive_after else Joined.LONG


# ----------------------------------------------------------------------------------------- JSON


def to_json(situation: Situation) -> str:
    """One canonical line; `from_json` reads it back."""
    plain: dict[str, Any] = situation._asdict()
    plain["thresholds"] = situation.thresholds.numbers
    return json.dumps(plain, sort_keys=True, separators=(",", ":"))


def from_json(text: str) -> Situation:
    """The situation that `to_json` wrote; ValueError or KeyError for anything else."""
    plain = json.loads(text)
    return Situation(
        Thresholds(*plain["thresholds"]),
        Level(plain["level"]),
        Reason(plain["reason"]),
        Span(*plain["events"]),
        Span(*plain["rsvps"]),
        Age(plain["last_attended"]),
        Age(plain["last_rsvp"]),
        plain["profile_updated"],
        Joined(plain["joined"]),
        plain["inferred"],
        None if plain["next_level"] is None else Level(plain["next_level"]),
        plain["changes"],
    )
