"""The five engagement levels, their order and the words a member may see for them."""

from __future__ import annotations

from enum import StrEnum
from typing import Final


class Level(StrEnum):
    """How engaged a member is with an organisation. The values are the wire's codes."""

    HIGHLY_ENGAGED = "highly_engaged"
    MODERATE = "moderate"
    AT_RISK = "at_risk"
    NEW = "new"
    INACTIVE = "inactive"


class Reason(StrEnum):
    """Which rule decided. The values are the wire's codes."""

    FREQUENT_ATTENDANCE = "frequent_attendance"
    RECENTLY_JOINED = "recently_joined"
    SOME_ATTENDANCE = "some_attendance"
    NO_ACTIVITY = "no_activity"
    LAPSED = "lapsed"
    NEVER_ATTENDED = "never_attended"


# `new` stands outside the ladder: it says how long somebody is here, not how active.
LADDER: Final = (Level.INACTIVE, Level.AT_RISK, Level.MODERATE, Level.HIGHLY_ENGAGED)

# For "did it rise or fall": `new` ranks with `moderate`.
RANK: Final = {
    Level.INACTIVE: 0,
    Level.AT_RISK: 1,
    Level.NEW: 2,
    Level.MODERATE: 2,
    Level.HIGHLY_ENGAGED: 3,
}

# What a member reads instead of the code; never a hurtful word.
STATUS_LABELS: Final = {
    Level.HIGHLY_ENGAGED: "Highly engaged",
    Level.MODERATE: "Taking part",
    Level.NEW: "New here",
    Level.AT_RISK: "We'd love to see you",
    Level.INACTIVE: "Welcome back any time",
}


def is_fall(before: Level | None, after: Level | None) -> bool:
    """Whether a move from one level to another is for the worse; no level ranks lowest."""
    rank_before = -1 if before is None else RANK[before]
    rank_after = -1 if after is None else RANK[after]
    return rank_after < rank_before


class Direction(StrEnum):
    """Which way a change of level goes."""

    RISE = "rise"
    FALL = "fall"
    SIDEWAYS = "sideways"
    ENTERED = "entered"
    LEFT = "left"


def direction(before: Level | None, after: Level | None) -> Direction:
    """The direction of a change; no level is outside, so coming and going are their own."""
    if before is None:
        return Direction.ENTERED
    if after is None:
        return Direction.LEFT
    difference = RANK[after] - RANK[before]
    if difference == 0:
        return Direction.SIDEWAYS
    return Direction.RISE if difference > 0 else Direction.FALL
