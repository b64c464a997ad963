"""Signals, rules and level of one member at one instant."""

from bisect import bisect_right
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple, TypedDict

MAX_EVENTS = 10_000
MAX_DAYS = 3_650


@dataclass(frozen=True)
class Thresholds:
    """An organisation's thresholds; the defaults are version 0. ValueError if out of bounds."""

    highly_engaged_min_events: int = 3
    moderate_min_events: int = 1
    activity_window_days: int = 90
    new_member_days: int = 60
    inactive_after_days: int = 180

    def __post_init__(self) -> None:
        if not MAX_EVENTS >= self.highly_engaged_min_events > self.moderate_min_events >= 1:
            raise ValueError(f"event thresholds out of bounds: {self}")
        if not 0 <= self.new_member_days <= MAX_DAYS:
            raise ValueError(f"new_member_days out of bounds: {self}")
        if not 1 <= self.activity_window_days <= self.inactive_after_days <= MAX_DAYS:
            raise ValueError(f"window or inactivity out of bounds: {self}")

    @property
    def window(self) -> timedelta:
        return timedelta(days=self.activity_window_days)

    @property
    def new_for(self) -> timedelta:
        return timedelta(days=self.new_member_days)

    @property
    def inactive_after(self) -> timedelta:
        return timedelta(days=self.inactive_after_days)


@dataclass(frozen=True)
class Override:
    """A level set by an admin, in effect from `set_at` until before `expires_at`."""

    level: str
    notes: str
    performed_by: str
    set_at: datetime
    expires_at: datetime | None

    def is_active(self, as_of: datetime) -> bool:
        return self.set_at <= as_of and (self.expires_at is None or as_of < self.expires_at)


class Signals(TypedDict):
    """The seven signals."""

    events_attended_90d: int
    last_attended_at: datetime | None
    rsvp_count_90d: int
    last_rsvp_at: datetime | None
    profile_updated_at: datetime | None
    joined_at: datetime | None
    joined_at_source: str | None


@dataclass(frozen=True)
class Standing:
    """All that the levels of one member follow from, at whatever instant. Times are sorted."""

    attended: list[datetime]
    going: list[datetime]
    profile: list[datetime]
    joined_at: datetime | None
    joined_at_source: str | None
    may_be_scored: bool
    """Membership and organisation allow a level once `joined_at` has come."""
    thresholds: Thresholds
    override: Override | None = None


class Verdict(NamedTuple):
    """What the rules say; all None for a member who is not scored."""

    rule: int | None
    level: str | None
    reason: str | None


class State(NamedTuple):
    """What the clock of a member watches."""

    level: str | None
    events_attended: int
    rsvps: int


def within(instant: datetime, as_of: datetime, span: timedelta) -> bool:
    return timedelta(0) <= as_of - instant < span


def count_within(instants: list[datetime], as_of: datetime, span: timedelta) -> int:
    """How many of the sorted instants are `within` the span: after `as_of - span`, to `as_of`."""
    return bisect_right(instants, as_of) - bisect_right(instants, as_of - span)


def latest(instants: list[datetime], as_of: datetime) -> datetime | None:
    """The latest of the sorted instants at or before `as_of`."""
    position = bisect_right(instants, as_of)
    return instants[position - 1] if position else None


def signals_at(standing: Standing, as_of: datetime) -> Signals:
    window = standing.thresholds.window
    return Signals(
        events_attended_90d=count_within(standing.attended, as_of, window),
        last_attended_at=latest(standing.attended, as_of),
        rsvp_count_90d=count_within(standing.going, as_of, window),
        last_rsvp_at=latest(standing.going, as_of),
        profile_updated_at=latest(standing.profile, as_of),
        joined_at=standing.joined_at,
        joined_at_source=standing.joined_at_source,
    )


def decide(standing: Standing, as_of: datetime) -> Verdict:  # noqa: PLR0911 - one per rule
    """The first rule that matches."""
    thresholds = standing.thresholds
    signals = signals_at(standing, as_of)
    joined_at = signals["joined_at"]
    if not standing.may_be_scored or joined_at is None or joined_at > as_of:
        return Verdict(None, None, None)
    if signals["events_attended_90d"] >= thresholds.highly_engaged_min_events:
        return Verdict(1, "highly_engaged", "frequent_attendance")
    if within(joined_at, as_of, thresholds.new_for):
        return Verdict(2, "new", "recently_joined")
    if signals["events_attended_90d"] >= thresholds.moderate_min_events:
        return Verdict(3, "moderate", "some_attendance")
    activity = (
        signals["last_attended_at"],
        signals["last_rsvp_at"],
        signals["profile_updated_at"],
        joined_at,
    )
    last_activity_at = max(instant for instant in activity if instant is not None)
    if as_of - last_activity_at >= thresholds.inactive_after:
        return Verdict(4, "inactive", "no_activity")
    if signals["last_attended_at"] is not None:
        return Verdict(5, "at_risk", "lapsed")
    return Verdict(6, "at_risk", "never_attended")


def shown_level(standing: Standing, as_of: datetime) -> str | None:
    """The override's level while one is active, else the rules'; None if not scored."""
    computed = decide(standing, as_of).level
    if computed is not None and standing.override and standing.override.is_active(as_of):
        return standing.override.level
    return computed


def state_at(standing: Standing, as_of: datetime) -> State:
    window = standing.thresholds.window
    return State(
        level=shown_level(standing, as_of),
        events_attended=count_within(standing.attended, as_of, window),
        rsvps=count_within(standing.going, as_of, window),
    )
