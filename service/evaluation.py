"""Decide about one member at one instant: signals, ruling, the two clocks, the way up."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

from service.levels import Level
from service.rules import Ruling, classify
from service.signals import Signals, signals_at
from service.timeline import Case, is_scored, level_steps, next_count_change, steps_from


class Improvement(NamedTuple):
    """The nearest way up: `events` more attended before `before` (None: any time) give `level`."""

    events: int
    before: datetime | None
    level: Level


class Evaluation(NamedTuple):
    """What the rules say of a member at `as_of`. `ruling` is None when the member is not scored."""

    as_of: datetime
    signals: Signals
    ruling: Ruling | None
    next_change_at: datetime | None
    next_level_change_at: datetime | None
    next_level: Level | None
    improvement: Improvement | None


def evaluate(case: Case, as_of: datetime) -> Evaluation:
    """Evaluate by the rules. Pure: the same case and instant give the same answer."""
    thresholds = case.thresholds
    signals = signals_at(case.activity, thresholds.window, as_of)
    ruling, shown = None, None
    if is_scored(case, as_of):
        ruling = classify(signals, thresholds, as_of)
        override = case.override
        active = override is not None and override.active_at(as_of)
        shown = override.level if override is not None and active else ruling.level
    next_level_change_at, next_level = next(steps_from(case, as_of, shown), (None, None))
    next_change_at = next_count_change(case, as_of)
    if next_level_change_at is not None and (
        next_change_at is None or next_level_change_at < next_change_at
    ):
        next_change_at = next_level_change_at
    return Evaluation(
        as_of,
        signals,
        ruling,
        next_change_at,
        next_level_change_at,
        next_level,
        None if ruling is None else _improvement(case, signals, ruling, as_of),
    )


def level_began_at(case: Case, since: datetime, as_of: datetime) -> datetime:
    """When the level shown at `as_of` began, looking back no further than `since`.

    `case.activity` must reach back one activity window before `since`. Without a step in between
    the answer is `as_of`.
    """
    began_at = as_of
    for at, _ in level_steps(case, since):
        if at > as_of:
            break
        began_at = at
    return began_at


def _improvement(
    case: Case, signals: Signals, ruling: Ruling, as_of: datetime
) -> Improvement | None:
    thresholds = case.thresholds
    count = signals.events_attended_90d
    if ruling.level is Level.HIGHLY_ENGAGED:
        return None
    if ruling.level in (Level.NEW, Level.MODERATE):
        target, level = thresholds.highly_engaged_min_events, Level.HIGHLY_ENGAGED
    else:
        target, level = thresholds.moderate_min_events, Level.MODERATE
    missing = target - count
    kept = target - missing
    before = None
    if kept:
        # Until so few of what counts now are left that `missing` more would not do.
        dates, window = case.activity.attended, thresholds.window
        leaving = (at + window for at in dates.recent if at + window > as_of)
        before = next(at for at in leaving if dates.number_within(at, window) < kept)
    return Improvement(missing, before, level)
