"""The oracle against tables written by hand: current records and erasure."""

import itertools
from datetime import timedelta
from typing import Any

import pytest

from tests.oracle import Oracle
from tests.unit.oracle_log import NOW, ORG, SECOND, USER, attend, days, erase, level_of, put


@pytest.mark.parametrize(
    ("status", "counted"), [("attended", 1), ("partial", 1), ("absent", 0), ("void", 0)]
)
def test_the_later_record_of_an_event_is_the_truth_in_any_order(status: str, counted: int) -> None:
    first: dict[str, Any] = {"id": "m1", "status": "attended"}
    later: dict[str, Any] = {"id": "m0", "status": status, "recorded_at": NOW - days(4)}
    for order in itertools.permutations([first, later, first]):
        oracle = Oracle()
        for fields in order:
            put(oracle, "attendance", NOW - days(5), **fields)
        assert oracle.signals(ORG, USER, NOW)["events_attended_90d"] == counted
        assert oracle.facts("attendance")[0]["id"] == "m0"
        assert oracle.clashes == 0


@pytest.mark.parametrize("response", ["maybe", "declined", "withdrawn"])
def test_only_going_counts(response: str) -> None:
    oracle = Oracle()
    put(oracle, "rsvp", NOW - days(2))
    assert oracle.signals(ORG, USER, NOW)["rsvp_count_90d"] == 1
    put(oracle, "rsvp", NOW - days(1), response=response)
    signals = oracle.signals(ORG, USER, NOW)
    assert (signals["rsvp_count_90d"], signals["last_rsvp_at"]) == (0, None)
    assert oracle.members() == [(ORG, USER)]
    assert level_of(oracle) is None


def test_ids_decide_between_equal_times_and_compare_as_bytes() -> None:
    for order in itertools.permutations(["Z", "a", "a1", "a-"]):
        oracle = Oracle()
        for message_id in order:
            put(oracle, "attendance", NOW - days(5), id=message_id)
        assert oracle.facts("attendance")[0]["id"] == "a1"


def test_a_clash_is_counted_and_the_greater_body_wins() -> None:
    absent: dict[str, Any] = {"status": "absent"}
    later: dict[str, Any] = {
        "occurred_at": NOW - days(5) + timedelta(microseconds=1),
        "status": "absent",
    }
    for order in itertools.permutations([{}, absent, later, {}]):
        oracle = Oracle()
        for fields in order:
            put(oracle, "attendance", NOW - days(5), recorded_at=NOW - days(5), **fields)
        # The occurred_at comes before the status in the sorted keys, and later times are greater.
        assert oracle.facts("attendance")[0]["occurred_at"] == later["occurred_at"]
        assert oracle.clashes >= 2
    oracle = Oracle()
    for fields in [{}, absent]:
        put(oracle, "attendance", NOW - days(5), **fields)
    assert (oracle.facts("attendance")[0]["status"], oracle.clashes) == ("attended", 1)


def test_canonical_bodies_compare_as_utf8() -> None:
    oracle = Oracle()
    for name in ["z", "\u00e9", "A", "y"]:
        put(oracle, "membership", NOW, display_name=name)
    assert oracle.facts("membership")[0]["display_name"] == "\u00e9"
    put(oracle, "membership", NOW)  # no name is null, which is greater than any opening quote
    assert oracle.facts("membership")[0]["display_name"] is None


def test_every_profile_update_is_kept() -> None:
    oracle = Oracle()
    put(oracle, "profile-update", NOW - days(2), id="p1")
    put(oracle, "profile-update", NOW - days(1), id="p2", actor="admin")
    put(oracle, "profile-update", NOW - days(9), id="p1", recorded_at=NOW)
    assert [one["id"] for one in oracle.facts("profile-update")] == ["p1", "p2"]
    assert oracle.signals(ORG, USER, NOW)["profile_updated_at"] == NOW - days(9)


def test_an_erasure_forgets_what_was_recorded_until_then_in_any_order() -> None:
    steps: list[tuple[Any, ...]] = [
        ("attendance", NOW - days(5), {"event_id": "before"}),
        ("attendance", NOW - days(4), {"event_id": "at"}),
        ("attendance", NOW - days(5), {"event_id": "told", "recorded_at": NOW - days(3)}),
        ("membership", NOW - days(100), {"recorded_at": NOW - days(4)}),
        ("rsvp", NOW - days(4) + SECOND, {}),
        ("tombstone", NOW - days(4)),
    ]
    for order in itertools.permutations(steps):
        oracle = Oracle()
        for step in order:
            if step[0] == "tombstone":
                assert erase(oracle, step[1]) is None
            else:
                put(oracle, step[0], step[1], **step[2])
        assert [one["event_id"] for one in oracle.facts("attendance")] == ["told"]
        assert len(oracle.facts("rsvp")) == 1
        assert oracle.facts("membership") == []
        assert oracle.signals(ORG, USER, NOW)["joined_at"] == NOW - days(5)


def test_profile_updates_go_with_the_last_organisation_and_stay_away() -> None:
    oracle = Oracle()
    attend(oracle, NOW - days(9))
    put(oracle, "membership", NOW - days(9), org_id="choir", status="left")
    put(oracle, "profile-update", NOW - days(8), id="p1")
    put(oracle, "attendance", NOW - days(9), user_id="eve")
    put(oracle, "profile-update", NOW - days(8), id="p1", user_id="eve")
    erase(oracle, NOW - days(5))
    assert len(oracle.facts("profile-update")) == 2
    erase(oracle, NOW - days(4), b"choir:ada")
    assert [one["user_id"] for one in oracle.facts("profile-update")] == ["eve"]
    put(oracle, "profile-update", NOW - days(4), id="p2")
    put(oracle, "profile-update", NOW - days(3), id="p3")
    assert [one["id"] for one in oracle.facts("profile-update")] == ["p3", "p1"]
    assert oracle.members() == [(ORG, "eve")]


def test_an_earlier_erasure_after_a_later_one_changes_nothing() -> None:
    oracle = Oracle()
    erase(oracle, NOW - days(1))
    erase(oracle, NOW - days(9))
    put(oracle, "attendance", NOW - days(5))
    assert oracle.members() == []


def test_an_earlier_erasure_elsewhere_does_not_let_profile_updates_in() -> None:
    oracle = Oracle()
    erase(oracle, NOW - days(1))
    erase(oracle, NOW - days(9), b"choir:ada")
    put(oracle, "profile-update", NOW - days(5))
    assert oracle.facts("profile-update") == []


@pytest.mark.parametrize("key", [None, b"", b"club", b"club:", b"club:ada:x", b"club:a a", b"\xff"])
def test_a_tombstone_that_names_nobody(key: bytes | None) -> None:
    assert Oracle().apply("membership", key, None, now=NOW) == "bad_id"
