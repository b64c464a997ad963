"""The oracle against tables written by hand: when things change, and overrides."""

import random
from datetime import datetime, timedelta
from typing import Any

import pytest

from tests.oracle import Oracle, Thresholds
from tests.unit.oracle_log import (
    NOW,
    ORG,
    SECOND,
    USER,
    attend,
    clock_of,
    days,
    erase,
    level_of,
    put,
)


def test_the_way_of_a_member_through_all_levels() -> None:
    oracle = Oracle()
    start = NOW - days(20)
    put(oracle, "membership", start)
    attend(oracle, start + days(1), start + days(2), start + days(3))
    way = [
        (start - SECOND, None, start, start, "new"),
        (start, "new", start + days(1), start + days(3), "highly_engaged"),
        (start + days(1), "new", start + days(2), start + days(3), "highly_engaged"),
        (start + days(3), "highly_engaged", start + days(91), start + days(91), "moderate"),
        (start + days(91), "moderate", start + days(92), start + days(93), "at_risk"),
        (start + days(93), "at_risk", start + days(183), start + days(183), "inactive"),
        (start + days(183), "inactive", None, None, None),
    ]
    for as_of, level, next_change_at, next_level_change_at, next_level in way:
        assert level_of(oracle, as_of) == level
        assert clock_of(oracle, as_of) == (next_change_at, next_level_change_at, next_level)


def test_a_crossing_that_changes_neither_level_nor_count_is_not_one() -> None:
    oracle = Oracle()
    put(oracle, "membership", NOW - days(900))
    # One leaves the window at the instant at which the other enters.
    attend(oracle, NOW - days(89.5), NOW + days(0.5))
    assert clock_of(oracle) == (NOW + days(90.5), NOW + days(90.5), "at_risk")


def test_a_count_that_changes_is_a_change_of_the_clock_only() -> None:
    oracle = Oracle()
    put(oracle, "membership", NOW - days(900))
    put(oracle, "rsvp", NOW - days(80))
    assert clock_of(oracle) == (NOW + days(10), NOW + days(100), "inactive")


def test_joining_in_the_future() -> None:
    oracle = Oracle()
    put(oracle, "membership", NOW + timedelta(hours=3), recorded_at=NOW)
    assert level_of(oracle) is None
    assert clock_of(oracle) == (NOW + timedelta(hours=3), NOW + timedelta(hours=3), "new")


def test_a_profile_update_puts_off_the_fall() -> None:
    oracle = Oracle()
    put(oracle, "membership", NOW - days(100))
    put(oracle, "profile-update", NOW - days(50))
    assert clock_of(oracle) == (NOW + days(130), NOW + days(130), "inactive")


def plain_state(
    joined: datetime, attended: list[datetime], going: list[datetime], as_of: datetime
) -> tuple[str | None, int, int]:
    """The definition once more, for window 2, new 1, inactive 4 days and explicit membership."""
    events = sum(1 for one in attended if timedelta(0) <= as_of - one < days(2))
    rsvps = sum(1 for one in going if timedelta(0) <= as_of - one < days(2))
    idle = min(as_of - one for one in [*attended, *going, joined] if one <= as_of or one == joined)
    if joined > as_of:
        level = None
    elif events >= 3:
        level = "highly_engaged"
    elif as_of - joined < days(1):
        level = "new"
    elif events >= 1:
        level = "moderate"
    else:
        level = "inactive" if idle >= days(4) else "at_risk"
    return level, events, rsvps


@pytest.mark.parametrize("seed", range(40))
def test_the_clocks_are_what_a_walk_hour_by_hour_finds(seed: int) -> None:
    rng = random.Random(seed)
    hour = timedelta(hours=1)
    small = Thresholds(activity_window_days=2, new_member_days=1, inactive_after_days=4)
    oracle = Oracle(thresholds={ORG: small}, max_future_skew_s=30 * 86_400)
    joined, *others = [NOW + rng.randrange(-150, 60) * hour for _ in range(rng.randrange(1, 12))]
    attended, going = others[::2], others[1::2]
    put(oracle, "membership", joined)
    attend(oracle, *attended)
    for number, instant in enumerate(going):
        put(oracle, "rsvp", instant, event_id=f"going-{number}")
    now = plain_state(joined, attended, going, NOW)
    found = oracle.evaluate(ORG, USER, NOW)
    signals = found["signals"]
    assert now == (found["level"], signals["events_attended_90d"], signals["rsvp_count_90d"])
    walk = [(NOW + number * hour) for number in range(1, 60 + 24 * 5)]
    states = [(instant, plain_state(joined, attended, going, instant)) for instant in walk]
    changes = [instant for instant, state in states if state != now]
    falls = [(instant, state[0]) for instant, state in states if state[0] != now[0]]
    assert found["next_change_at"] == (changes[0] if changes else None)
    assert (found["next_level_change_at"], found["next_level"]) == (
        falls[0] if falls else (None, None)
    )


@pytest.mark.parametrize(
    ("joined_days_ago", "attended_days_ago", "expected"),
    [
        (900, [80, 70], (1, "highly_engaged", NOW + days(10))),
        (900, [10], (2, "highly_engaged", NOW + days(80))),
        (900, [300], (1, "moderate", None)),
        (10, [5], (2, "highly_engaged", NOW + days(85))),
        (900, [1, 2, 3], None),
    ],
)
def test_nearest_improvement(
    joined_days_ago: float, attended_days_ago: list[float], expected: Any
) -> None:
    oracle = Oracle()
    put(oracle, "membership", NOW - days(joined_days_ago))
    attend(oracle, *[NOW - days(ago) for ago in attended_days_ago])
    assert oracle.nearest_improvement(ORG, USER, NOW) == expected


def test_an_override_is_shown_until_it_expires() -> None:
    oracle = Oracle()
    put(oracle, "membership", NOW - days(100))
    put(oracle, "rsvp", NOW - days(89))
    expires_at = NOW + days(200)
    oracle.set_override(ORG, USER, "moderate", "on leave", "boss", NOW, expires_at)
    assert level_of(oracle) == "at_risk"
    shown = [oracle.shown_level(ORG, USER, expires_at + step) for step in (-SECOND, SECOND * 0)]
    assert shown == ["moderate", "inactive"]
    assert oracle.shown_level(ORG, USER, NOW - SECOND) == "at_risk"
    # The RSVP leaves the window; becoming inactive on day 91 is hidden by the override.
    assert clock_of(oracle, with_override=True) == (NOW + days(1), expires_at, "inactive")
    assert clock_of(oracle) == (NOW + days(1), NOW + days(91), "inactive")
    found = oracle.evaluate(ORG, USER, NOW, with_override=True)
    assert (found["level"], found["computed_level"]) == ("moderate", "at_risk")
    oracle.set_override(ORG, USER, "inactive", "gone", "boss", NOW)
    assert clock_of(oracle, with_override=True) == (NOW + days(1), None, None)
    oracle.clear_override(ORG, USER, NOW)
    assert oracle.shown_level(ORG, USER, NOW) == "at_risk"
    with pytest.raises(ValueError, match="no override"):
        oracle.clear_override(ORG, USER, NOW)


@pytest.mark.parametrize("end", ["left", "erased", "deleted"])
def test_an_override_does_not_come_back(end: str) -> None:
    oracle = Oracle()
    put(oracle, "membership", NOW - days(100))
    oracle.set_override(ORG, USER, "moderate", "on leave", "boss", NOW - days(9))
    if end == "left":
        put(oracle, "membership", NOW - days(100), status="left", recorded_at=NOW - days(8))
    elif end == "erased":
        erase(oracle, NOW - days(8))
    else:
        put(oracle, "organization", NOW - days(8), status="deleted")
        put(oracle, "organization", NOW - days(7))
    put(oracle, "membership", NOW - days(5))
    assert oracle.shown_level(ORG, USER, NOW) == "new"


def test_an_override_outlives_what_does_not_end_it() -> None:
    oracle = Oracle()
    put(oracle, "membership", NOW - days(100))
    put(oracle, "membership", NOW - days(100), user_id="eve")
    for user_id in (USER, "eve"):
        oracle.set_override(ORG, user_id, "moderate", "on leave", "boss", NOW - days(9))
    put(oracle, "membership", NOW - days(100), role="admin", recorded_at=NOW - days(8))
    put(oracle, "membership", NOW - days(90), status="left", user_id="eve")
    put(oracle, "organization", NOW - days(8), status="suspended")
    assert oracle.shown_level(ORG, USER, NOW) is None
    put(oracle, "organization", NOW - days(7))
    put(oracle, "organization", NOW - days(6), status="deleted", org_id="choir")
    assert oracle.shown_level(ORG, USER, NOW) == "moderate"
    assert oracle.override(ORG, "eve", NOW) is None
    put(oracle, "membership", NOW - days(5), status="left", recorded_at=NOW - days(101))
    assert oracle.shown_level(ORG, USER, NOW) == "moderate"


def test_overrides_that_make_no_sense() -> None:
    oracle = Oracle()
    with pytest.raises(ValueError, match="not scored"):
        oracle.set_override(ORG, USER, "moderate", "", "boss", NOW)
    put(oracle, "membership", NOW)
    with pytest.raises(ValueError, match="expired"):
        oracle.set_override(ORG, USER, "moderate", "", "boss", NOW, NOW)


def test_no_improvement_for_whoever_is_not_scored() -> None:
    assert Oracle().nearest_improvement(ORG, USER, NOW) is None


def test_nearest_improvement_with_thresholds_far_apart() -> None:
    oracle = Oracle(thresholds={ORG: {"moderate_min_events": 3, "highly_engaged_min_events": 5}})
    put(oracle, "membership", NOW - days(900))
    attend(oracle, NOW - days(9))
    assert oracle.nearest_improvement(ORG, USER, NOW) == (2, "moderate", NOW + days(81))
    assert oracle.nearest_improvement(ORG, USER, NOW + days(400)) == (3, "moderate", None)
