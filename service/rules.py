"""The six rules. The first that matches decides; the last one always does.

| # | level          | when                                              | reason              |
| 1 | highly_engaged | events >= highly_engaged_min_events               | frequent_attendance |
| 2 | new            | joined within new_member_days                     | recently_joined     |
| 3 | moderate       | events >= moderate_min_events                     | some_attendance     |
| 4 | inactive       | latest activity inactive_after_days or more ago   | no_activity         |
| 5 | at_risk        | otherwise, has attended before                    | lapsed              |
| 6 | at_risk        | otherwise                                         | never_attended      |

Joining counts as activity for rule 4.
"""

from __future__ import annotations

from datetime import datetime
from typing import Final, NamedTuple

from service.levels import Level, Reason
from service.signals import Signals
from service.thresholds import Thresholds


class Ruling(NamedTuple):
    """What the rules say: the number of the rule, the level and the reason."""

    rule: int
    level: Level
    reason: Reason


FREQUENT: Final = Ruling(1, Level.HIGHLY_ENGAGED, Reason.FREQUENT_ATTENDANCE)
RECENT: Final = Ruling(2, Level.NEW, Reason.RECENTLY_JOINED)
SOME: Final = Ruling(3, Level.MODERATE, Reason.SOME_ATTENDANCE)
SILENT: Final = Ruling(4, Level.INACTIVE, Reason.NO_ACTIVITY)
LAPSED: Final = Ruling(5, Level.AT_RISK, Reason.LAPSED)
NEVER: Final = Ruling(6, Level.AT_RISK, Reason.NEVER_ATTENDED)


def classify(signals: Signals, thresholds: Thresholds, as_of: datetime) -> Ruling:
    """The one ruling for a scored member, whose `joined_at` is at or before `as_of`."""
    events, last_attended_at, _, last_rsvp_at, profile_updated_at, joined_at, _ = signals
    if joined_at is None:
        raise ValueError("a scored member has a joining date")
    if events >= thresholds.highly_engaged_min_events:
        return FREQUENT
    if as_of - joined_at < thresholds.new_for:
        return RECENT
    if events >= thresholds.moderate_min_events:
        return SOME
    latest = joined_at
    for at in (last_attended_at, last_rsvp_at, profile_updated_at):
        if at is not None and at > latest:
            latest = at
    if as_of - latest >= thresholds.inactive_after:
        return SILENT
    return LAPSED if last_attended_at is not None else NEVER
