"""Why a level is what it is, and what would change it."""

from __future__ import annotations

from service.api.models.common import ThresholdNumbers
from service.api.models.members import (
    Comparison,
    Evidence,
    Improvement,
    Prevention,
)
from service.api.values import (
    MemberRecord,
)
from service.levels import RANK, Level
from service.thresholds import Thresholds

# Rules in order: the signal that each looks at and the threshold that it is held against.
RULE_FREQUENT, RULE_NEW, RULE_SOME, RULE_SILENT = 1, 2, 3, 4


def evidence(record: MemberRecord) -> Evidence:
    """The numbers that decided, in the order in which the rules looked at them."""
    improvement = record.improvement
    return Evidence(
        rule=record.rule,
        reason=record.reason,
        as_of=record.computed_at,
        thresholds_version=record.thresholds.version,
        thresholds=numbers(record.thresholds),
        comparisons=comparisons(record),
        counted_event_ids=list(record.counted_event_ids),
        counted_events_total=record.signals.events_attended_90d,
        improvement=None
        if improvement is None
        else Improvement(
            events=improvement.events, before=improvement.before, level=improvement.level
        ),
        prevention=prevention(record),
    )


def comparisons(record: MemberRecord) -> list[Comparison]:
    """Each rule up to the one that decided, with what it compared."""
    rule, thresholds, signals = record.rule, record.thresholds, record.signals
    if rule is None:
        return []
    dates = [
        at
        for at in (
            signals.last_attended_at,
            signals.last_rsvp_at,
            signals.profile_updated_at,
            signals.joined_at,
        )
        if at is not None
    ]
    rows = [
        (
            RULE_FREQUENT,
            "events_attended_90d",
            signals.events_attended_90d,
            "highly_engaged_min_events",
        ),
        (RULE_NEW, "joined_at", signals.joined_at, "new_member_days"),
        (RULE_SOME, "events_attended_90d", signals.events_attended_90d, "moderate_min_events"),
        (RULE_SILENT, "latest_activity_at", max(dates, default=None), "inactive_after_days"),
    ]
    return [
        Comparison(
            rule=number,
            signal=signal,
            value=value,
            threshold=threshold,
            threshold_value=getattr(thresholds, threshold),
            met=number == rule,
        )
        for number, signal, value, threshold in rows
        if number <= rule
    ]


def prevention(record: MemberRecord) -> Prevention | None:
    """What would keep the shown level from falling at its next change."""
    at, level, then = record.next_level_change_at, record.level, record.next_level
    if at is None or level is None or then is None or record.override is not None:
        return None
    if RANK[then] >= RANK[level]:
        return None
    thresholds = record.thresholds
    if level is Level.HIGHLY_ENGAGED:
        needed = thresholds.highly_engaged_min_events - record.events_left
    elif level in (Level.MODERATE, Level.NEW):
        needed = thresholds.moderate_min_events - record.events_left
    else:
        return Prevention(events=1, any_activity=True, before=at)
    return Prevention(events=max(needed, 1), any_activity=False, before=at)


def numbers(thresholds: Thresholds) -> ThresholdNumbers:
    """The numbers of a version."""
    return ThresholdNumbers(
        highly_engaged_min_events=thresholds.highly_engaged_min_events,
        moderate_min_events=thresholds.moderate_min_events,
        activity_window_days=thresholds.activity_window_days,
        new_member_days=thresholds.new_member_days,
        inactive_after_days=thresholds.inactive_after_days,
    )
