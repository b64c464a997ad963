"""The numbers an organisation may set, and when they are valid."""

from __future__ import annotations

from datetime import timedelta
from functools import cache
from typing import Final, NamedTuple

from service.errors import InvalidThresholds

MAX_EVENTS: Final = 10_000
MAX_DAYS: Final = 3_650


# Asked for several times a member; making one costs 1 us.
_days = cache(lambda number: timedelta(days=number))


class Thresholds(NamedTuple):
    """One immutable version of an organisation's thresholds. Version 0 is the defaults."""

    highly_engaged_min_events: int = 3
    moderate_min_events: int = 1
    activity_window_days: int = 90
    new_member_days: int = 60
    inactive_after_days: int = 180
    version: int = 0

    @property
    def numbers(self) -> tuple[int, int, int, int, int]:
        """What an organisation sets, in this order: all but the version."""
        return self[:5]

    @property
    def window(self) -> timedelta:
        """How long an event counts."""
        return _days(self.activity_window_days)

    @property
    def new_for(self) -> timedelta:
        """How long a member is new after joining."""
        return _days(self.new_member_days)

    @property
    def inactive_after(self) -> timedelta:
        """Silence of this length or more makes a member inactive."""
        return _days(self.inactive_after_days)


DEFAULT_THRESHOLDS: Final = Thresholds()


def check(thresholds: Thresholds) -> Thresholds:
    """Return the thresholds unchanged, or raise InvalidThresholds naming the field at fault."""
    high, low = thresholds.highly_engaged_min_events, thresholds.moderate_min_events
    problems: list[tuple[str, str]] = []
    if not low >= 1:
        problems.append(("moderate_min_events", "must be at least 1"))
    if not low < high <= MAX_EVENTS:
        problems.append(
            (
                "highly_engaged_min_events",
                f"must be above moderate_min_events and at most {MAX_EVENTS}",
            )
        )
    if not 0 <= thresholds.new_member_days <= MAX_DAYS:
        problems.append(("new_member_days", f"must be between 0 and {MAX_DAYS}"))
    if not 1 <= thresholds.activity_window_days <= thresholds.inactive_after_days:
        problems.append(
            ("activity_window_days", "must be at least 1 and at most inactive_after_days")
        )
    if not 1 <= thresholds.inactive_after_days <= MAX_DAYS:
        problems.append(("inactive_after_days", f"must be between 1 and {MAX_DAYS}"))
    if problems:
        raise InvalidThresholds(problems)
    return thresholds
