"""How pages say things to administrators."""

from __future__ import annotations

from datetime import date, datetime
from typing import Final

from service.levels import Direction, Level, Reason
from service.records import Cause, Source

LEVELS: Final = {
    Level.HIGHLY_ENGAGED: "Highly engaged",
    Level.MODERATE: "Moderate",
    Level.NEW: "New",
    Level.AT_RISK: "At risk",
    Level.INACTIVE: "Inactive",
}
# From most to least engaged, as charts and lists show them.
ORDER: Final = tuple(LEVELS)
# Style sheets are public, so their class names say nothing.
LEVEL_CLASSES: Final = {level: f"lv{number}" for number, level in enumerate(ORDER, start=1)}

REASONS: Final = {
    Reason.FREQUENT_ATTENDANCE: "attends often",
    Reason.RECENTLY_JOINED: "joined recently",
    Reason.SOME_ATTENDANCE: "attends sometimes",
    Reason.NO_ACTIVITY: "no sign of activity for long",
    Reason.LAPSED: "attended before, not lately",
    Reason.NEVER_ATTENDED: "has not attended yet",
}
SOURCES: Final = {
    Source.RULES: "rules",
    Source.CLAUDE: "Claude, within the rules",
    Source.OVERRIDE: "override",
}
CAUSES: Final = {
    Cause.OVERRIDE_SET: "an override was set",
    Cause.OVERRIDE_CLEARED: "an override was cleared",
    Cause.OVERRIDE_EXPIRED: "an override expired",
    Cause.MEMBERSHIP: "membership changed",
    Cause.THRESHOLDS: "thresholds changed",
    Cause.SIGNALS: "activity arrived",
    Cause.CLASSIFIER: "the explanation was refined",
    Cause.TIME: "time passed",
}
DIRECTIONS: Final = {
    Direction.RISE: "Rose",
    Direction.FALL: "Fell",
    Direction.SIDEWAYS: "Sideways",
    Direction.ENTERED: "Came",
    Direction.LEFT: "Went",
}
ACTIONS: Final = {
    "override": "set an override",
    "clear": "cleared the override",
    "expire": "the override expired",
}
SIGNALS: Final = {
    "events_attended_90d": "Events in the window",
    "joined_at": "Joined",
    "latest_activity_at": "Latest activity of any kind",
}
THRESHOLDS: Final = {
    "highly_engaged_min_events": "Events for “Highly engaged”",
    "moderate_min_events": "Events for “Moderate”",
    "activity_window_days": "Days that an event counts",
    "new_member_days": "Days that a member is “New”",
    "inactive_after_days": "Days of silence until “Inactive”",
}
THRESHOLD_HINTS: Final = {
    "highly_engaged_min_events": "This many events attended within the window, or more.",
    "moderate_min_events": "This many, or more; fewer than for “Highly engaged”.",
    "activity_window_days": "How long an event counts; at most the days of silence below.",
    "new_member_days": "After joining. 0: nobody is “New”.",
    "inactive_after_days": "Without attending, responding, updating the profile or joining.",
}
_MONTHS: Final = ("Jan", "Feb", "Mar", "Apr", "May", "Jun",
                  "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")  # fmt: skip


NOTHING: Final = "\N{EN DASH}"


def day(at: date | None) -> str:
    """23 Nov 2026."""
    return NOTHING if at is None else f"{at.day} {_MONTHS[at.month - 1]} {at.year}"


def short_day(at: date) -> str:
    """23 Nov."""
    return f"{at.day} {_MONTHS[at.month - 1]}"


def month(at: date) -> str:
    """Nov, or Jan 2027 where a year begins."""
    name = _MONTHS[at.month - 1]
    return f"{name} {at.year}" if at.month == 1 else name


def minute(at: datetime | None) -> str:
    """23 Nov 2026, 18:30 UTC."""
    return NOTHING if at is None else f"{day(at)}, {at:%H:%M} UTC"


def number(value: int) -> str:
    """12 345, with a thin space."""
    return f"{value:,}".replace(",", "\u202f")


def share(part: int, whole: int) -> str:
    """12 %, or <1 %."""
    if whole == 0 or part == 0:
        return "0\u202f%"
    percent = 100 * part / whole
    return "<1\u202f%" if percent < 1 else f"{percent:.0f}\u202f%"


def events(value: int) -> str:
    """1 event, 2 events."""
    return f"{number(value)} event" if value == 1 else f"{number(value)} events"


def members(value: int) -> str:
    """1 member, 2 members."""
    return f"{number(value)} member" if value == 1 else f"{number(value)} members"
