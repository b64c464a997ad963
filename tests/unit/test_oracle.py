"""The oracle against tables written by hand: windows, rules, and who is scored."""

import ast
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

import tests.oracle
from tests.oracle import Oracle, Thresholds
from tests.unit.oracle_log import NOW, ORG, SECOND, USER, attend, days, level_of, put, rule_of


def test_shares_no_code_with_the_product() -> None:
    for path in Path(tests.oracle.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not {name.split(".")[0] for name in names} & {"service", "db", "streams"}


@pytest.mark.parametrize(
    ("age", "counted"),
    [
        (days(90) + SECOND, 0),
        (days(90), 0),
        (days(90) - SECOND, 1),
        (SECOND, 1),
        (timedelta(0), 1),
        (-SECOND, 0),
        (-timedelta(microseconds=1), 0),
    ],
)
def test_the_window_ends_before_ninety_days_and_starts_at_as_of(
    age: timedelta, counted: int
) -> None:
    oracle = Oracle()
    put(oracle, "attendance", NOW - age)
    put(oracle, "rsvp", NOW - age)
    put(oracle, "attendance", NOW - days(300), event_id="old")
    signals = oracle.signals(ORG, USER, NOW)
    assert (signals["events_attended_90d"], signals["rsvp_count_90d"]) == (counted, counted)
    assert signals["last_attended_at"] == (NOW - days(300) if age < timedelta(0) else NOW - age)
    assert signals["last_rsvp_at"] == (None if age < timedelta(0) else NOW - age)


@pytest.mark.parametrize(
    ("since_joined", "level"),
    [
        (-SECOND, None),
        (timedelta(0), "new"),
        (days(60) - SECOND, "new"),
        (days(60), "at_risk"),
        (days(60) + SECOND, "at_risk"),
        (days(180) - SECOND, "at_risk"),
        (days(180), "inactive"),
        (days(180) + SECOND, "inactive"),
    ],
)
def test_a_member_who_only_joined(since_joined: timedelta, level: str | None) -> None:
    oracle = Oracle()
    put(oracle, "membership", NOW - since_joined)
    assert level_of(oracle) == level


@pytest.mark.parametrize(("kind"), ["attendance", "rsvp", "profile-update"])
def test_any_activity_puts_off_inactivity_by_180_days(kind: str) -> None:
    oracle = Oracle()
    put(oracle, "membership", NOW - days(900))
    active_at = NOW - days(180)
    put(oracle, kind, active_at)
    lapsed = (5, "at_risk", "lapsed")
    never = (6, "at_risk", "never_attended")
    assert rule_of(oracle, NOW - SECOND) == (lapsed if kind == "attendance" else never)
    assert rule_of(oracle, NOW) == (4, "inactive", "no_activity")
    assert rule_of(oracle, NOW + SECOND) == (4, "inactive", "no_activity")


@pytest.mark.parametrize("actor", ["admin", "system"])
def test_only_the_members_own_profile_updates_count(actor: str) -> None:
    oracle = Oracle()
    put(oracle, "membership", NOW - days(900))
    put(oracle, "profile-update", NOW, actor=actor)
    assert oracle.signals(ORG, USER, NOW)["profile_updated_at"] is None
    assert level_of(oracle) == "inactive"


@pytest.mark.parametrize(
    ("joined_days_ago", "attended_days_ago", "expected"),
    [
        (10, [1, 2, 3], (1, "highly_engaged", "frequent_attendance")),
        (900, [1, 2, 3], (1, "highly_engaged", "frequent_attendance")),
        (10, [1, 2], (2, "new", "recently_joined")),
        (10, [], (2, "new", "recently_joined")),
        (900, [1, 2], (3, "moderate", "some_attendance")),
        (900, [89], (3, "moderate", "some_attendance")),
        (900, [180], (4, "inactive", "no_activity")),
        (900, [179, 300], (5, "at_risk", "lapsed")),
        (179, [800], (5, "at_risk", "lapsed")),
        (179, [], (6, "at_risk", "never_attended")),
        (180, [], (4, "inactive", "no_activity")),
        (900, [-0.5, 1], (3, "moderate", "some_attendance")),
    ],
)
def test_first_rule_that_matches(
    joined_days_ago: float, attended_days_ago: list[float], expected: tuple[int, str, str]
) -> None:
    oracle = Oracle()
    put(oracle, "membership", NOW - days(joined_days_ago))
    attend(oracle, *[NOW - days(ago) for ago in attended_days_ago])
    assert rule_of(oracle) == expected


def test_thresholds_in_force_are_the_last_ones_set_whatever_the_as_of() -> None:
    oracle = Oracle(thresholds={ORG: {"highly_engaged_min_events": 2}})
    put(oracle, "membership", NOW - days(900))
    attend(oracle, NOW - days(1), NOW - days(2))
    assert level_of(oracle) == "highly_engaged"
    assert oracle.evaluate(ORG, USER, NOW)["thresholds_version"] == 1
    assert oracle.set_thresholds(ORG, Thresholds(activity_window_days=2)) == 2
    found = oracle.evaluate(ORG, USER, NOW)
    assert (found["level"], found["thresholds_version"]) == ("moderate", 2)
    assert found["signals"]["events_attended_90d"] == 1


def test_no_days_for_new_members_means_that_nobody_is_new() -> None:
    oracle = Oracle(thresholds={ORG: Thresholds(new_member_days=0)})
    put(oracle, "membership", NOW)
    assert level_of(oracle) == "at_risk"


@pytest.mark.parametrize(
    "right",
    [
        {"highly_engaged_min_events": 10_000, "moderate_min_events": 9_999},
        {"highly_engaged_min_events": 2, "moderate_min_events": 1},
        {"new_member_days": 0},
        {"new_member_days": 3_650},
        {"activity_window_days": 1, "inactive_after_days": 1},
        {"activity_window_days": 3_650, "inactive_after_days": 3_650},
    ],
)
def test_thresholds_at_their_bounds(right: dict[str, int]) -> None:
    assert Thresholds(**right) == replace(Thresholds(), **right)


@pytest.mark.parametrize(
    "wrong",
    [
        {"highly_engaged_min_events": 1},
        {"highly_engaged_min_events": 10_001},
        {"moderate_min_events": 0},
        {"moderate_min_events": 3},
        {"new_member_days": -1},
        {"new_member_days": 3_651},
        {"activity_window_days": 0},
        {"activity_window_days": 181},
        {"inactive_after_days": 89},
        {"inactive_after_days": 3_651},
    ],
)
def test_thresholds_out_of_bounds(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="out of bounds"):
        Thresholds(**wrong)


def test_joining_is_inferred_from_the_earliest_counted_fact() -> None:
    oracle = Oracle()
    put(oracle, "attendance", NOW - days(100), event_id="void", status="void")
    put(oracle, "rsvp", NOW - days(70), event_id="perhaps", response="maybe")
    assert oracle.signals(ORG, USER, NOW)["joined_at"] is None
    assert level_of(oracle) is None
    put(oracle, "attendance", NOW - days(40))
    put(oracle, "rsvp", NOW - days(50))
    signals = oracle.signals(ORG, USER, NOW)
    assert (signals["joined_at"], signals["joined_at_source"]) == (NOW - days(50), "inferred")
    assert level_of(oracle) == "new"
    assert level_of(oracle, NOW - days(50)) == "new"
    assert level_of(oracle, NOW - days(50) - SECOND) is None
    put(oracle, "membership", NOW - days(500))
    signals = oracle.signals(ORG, USER, NOW)
    assert (signals["joined_at"], signals["joined_at_source"]) == (NOW - days(500), "membership")
    assert level_of(oracle) == "moderate"


def test_without_implicit_membership_a_record_is_needed() -> None:
    oracle = Oracle(implicit_membership=False)
    attend(oracle, NOW - days(1))
    assert rule_of(oracle) == (None, None, None)
    assert oracle.signals(ORG, USER, NOW)["events_attended_90d"] == 1
    put(oracle, "membership", NOW - days(500))
    assert level_of(oracle) == "moderate"


def test_left_beats_implicit_membership_and_rejoining_brings_older_facts_back() -> None:
    oracle = Oracle()
    attend(oracle, NOW - days(9), NOW - days(8), NOW - days(7))
    put(oracle, "membership", NOW - days(500), status="left", recorded_at=NOW - days(6))
    assert rule_of(oracle) == (None, None, None)
    put(oracle, "membership", NOW - days(500), status="active", recorded_at=NOW - days(7))
    assert level_of(oracle) is None
    put(oracle, "membership", NOW - days(2))
    assert oracle.signals(ORG, USER, NOW)["joined_at"] == NOW - days(2)
    assert level_of(oracle) == "highly_engaged"


@pytest.mark.parametrize("status", ["suspended", "deleted"])
def test_organisations_out_of_service_have_no_levels(status: str) -> None:
    oracle = Oracle()
    attend(oracle, NOW - days(9))
    assert oracle.organization(ORG) == {"name": ORG, "status": "active"}
    put(oracle, "organization", NOW - days(5), status=status)
    found = oracle.evaluate(ORG, USER, NOW)
    assert (found["level"], found["reason"], found["organization_status"]) == (None, None, status)
    assert found["next_level_change_at"] is None
    assert (found["next_change_at"] is None) == (status == "suspended")
    put(oracle, "organization", NOW - days(4), name="Again")
    assert oracle.organization(ORG) == {"name": "Again", "status": "active"}
    assert level_of(oracle) == "new"
