"""What is known of a member (`Activity`) and the seven signals at an instant.

"Within N days" of `as_of` means 0 <= as_of - t < N * 24 h: an event counts from its own instant on
and stops counting exactly N days later. Nothing dated after `as_of` counts.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from typing import NamedTuple


class JoinedAtSource(StrEnum):
    """Where the joining date comes from."""

    MEMBERSHIP = "membership"
    INFERRED = "inferred"


class Dates(NamedTuple):
    """Instants of one kind of activity.

    `recent` ascends and holds every instant after some horizon that is at least one activity window
    before the earliest `as_of` asked for; future ones too. `before` is the latest instant at or
    before that horizon, or None.
    """

    recent: Sequence[datetime] = ()
    before: datetime | None = None

    def number_within(self, as_of: datetime, window: timedelta) -> int:
        """How many lie within `window` before `as_of`."""
        recent = self.recent
        if not recent:
            return 0
        # Usually nothing is ahead of as_of: skip one search.
        upper = len(recent) if recent[-1] <= as_of else bisect_right(recent, as_of)
        return upper - bisect_right(recent, as_of - window, 0, upper)

    def latest(self, as_of: datetime) -> datetime | None:
        """The latest at or before `as_of`, any age."""
        recent = self.recent
        if not recent:
            return self.before
        if recent[-1] <= as_of:
            return recent[-1]
        position = bisect_right(recent, as_of)
        return recent[position - 1] if position else self.before


NO_DATES = Dates()


class Activity(NamedTuple):
    """The facts about one member of one organisation that decide anything.

    `attended`: community events attended (status attended or partial), `rsvps`: community events
    with response going, `profile`: profile updates by the member. `joined_at` is the membership's,
    or inferred; None when nothing tells.
    """

    attended: Dates = NO_DATES
    rsvps: Dates = NO_DATES
    profile: Dates = NO_DATES
    joined_at: datetime | None = None
    joined_at_source: JoinedAtSource | None = None


class Signals(NamedTuple):
    """The seven signals of a member at an instant. Field names are the wire's."""

    events_attended_90d: int
    last_attended_at: datetime | None
    rsvp_count_90d: int
    last_rsvp_at: datetime | None
    profile_updated_at: datetime | None
    joined_at: datetime | None
    joined_at_source: JoinedAtSource | None


def signals_at(activity: Activity, window: timedelta, as_of: datetime) -> Signals:
    """The signals at `as_of`, counting within `window`."""
    attended, rsvps, profile, joined_at, joined_at_source = activity
    return Signals(
        attended.number_within(as_of, window),
        attended.latest(as_of),
        rsvps.number_within(as_of, window),
        rsvps.latest(as_of),
        profile.latest(as_of),
        joined_at,
        joined_at_source,
    )
