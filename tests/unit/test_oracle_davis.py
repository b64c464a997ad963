"""The oracle on the attendance of eighteen women in 1936, against tables worked out by hand.

The dates of the fourteen events in order: E11 23 February, E5 25 February, E2 2 March, E7 15 March,
E12 7 April, E9 8 April, E3 12 April, E6 19 May, E10 10 June, E1 27 June, E14 3 August,
E8 16 September, E4 26 September, E13 21 November, each at 20:00. Nobody has a membership record.
"""

import csv
import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.oracle import Oracle

ROWS = Path(__file__).parents[2] / "service/demo/data/davis_southern_women.csv"
H, M, R, N, I = "highly_engaged", "moderate", "at_risk", "new", "inactive"  # noqa: E741

# Events in the 90 days before, and level. 20 April: E11 to E3 count, and whoever came for the first
# time on or after 20 February is new. 1 July: E12 to E1 count; all joined by 8 April. 30 November:
# E8, E4, E13 count; who came last on 8 April has been away for 236 days. 1 June 1937: the last
# event of all was 192 days ago.
EXPECTED = {
    "evelyn-jefferson": [(4, H), (4, H), (2, M), (0, I)],
    "laura-mandeville": [(4, H), (3, H), (1, M), (0, I)],
    "theresa-anderson": [(5, H), (3, H), (2, M), (0, I)],
    "brenda-rogers": [(3, H), (3, H), (2, M), (0, I)],
    "charlotte-mcdowd": [(3, H), (1, M), (1, M), (0, I)],
    "frances-anderson": [(2, N), (2, M), (1, M), (0, I)],
    "eleanor-nye": [(2, N), (1, M), (1, M), (0, I)],
    "pearl-oglethorpe": [(1, N), (2, M), (1, M), (0, I)],
    "ruth-desand": [(3, H), (1, M), (1, M), (0, I)],
    "verne-sanderson": [(3, H), (2, M), (1, M), (0, I)],
    "myra-liddel": [(2, N), (3, H), (1, M), (0, I)],
    "katherina-rogers": [(2, N), (3, H), (2, M), (0, I)],
    "sylvia-avondale": [(3, H), (3, H), (2, M), (0, I)],
    "nora-fayette": [(4, H), (4, H), (1, M), (0, I)],
    "helen-lloyd": [(3, H), (2, M), (1, M), (0, I)],
    "dorothy-murchison": [(1, N), (1, M), (1, M), (0, I)],
    "olivia-carleton": [(2, N), (1, M), (0, I), (0, I)],
    "flora-price": [(2, N), (1, M), (0, I), (0, I)],
}
INSTANTS = [(1936, 4, 20), (1936, 7, 1), (1936, 11, 30), (1937, 6, 1)]


def at(year: int, month: int, day: int, hour: int = 20) -> datetime:
    return datetime(year, month, day, hour, tzinfo=UTC)


@pytest.fixture(scope="module")
def oracle() -> Oracle:
    found = Oracle()
    with ROWS.open(newline="") as rows:
        for number, row in enumerate(csv.DictReader(rows)):
            body = row | {"id": f"row-{number}", "recorded_at": row["occurred_at"]}
            value = json.dumps(body).encode()
            assert found.apply("attendance", None, value, now=at(2026, 1, 1)) is None
    return found


@pytest.mark.parametrize("position", range(len(INSTANTS)))
def test_levels_and_counts(oracle: Oracle, position: int) -> None:
    found = oracle.evaluate_all(at(*INSTANTS[position], hour=0), "old-city")
    assert {
        user: (one["signals"]["events_attended_90d"], one["level"])
        for (_, user), one in found.items()
    } == {user: counts[position] for user, counts in EXPECTED.items()}


def test_before_the_first_event_all_are_known_and_none_is_scored(oracle: Oracle) -> None:
    found = oracle.evaluate("old-city", "pearl-oglethorpe", at(1936, 1, 1))
    assert (found["level"], found["reason"]) == (None, None)
    assert found["signals"]["joined_at"] == at(1936, 4, 8)
    assert found["next_level_change_at"] == at(1936, 4, 8)
    assert found["next_level"] == N


@pytest.mark.parametrize(
    ("as_of", "user", "next_change_at", "next_level_change_at", "next_level"),
    [
        # New since E5 for 60 days, then 2 events; E6 makes 3 only after that.
        ((1936, 4, 20), "frances-anderson", (1936, 4, 25), (1936, 4, 25), M),
        # New since E9 for 60 days; E9 leaves the window 30 days later.
        ((1936, 4, 20), "dorothy-murchison", (1936, 6, 7), (1936, 6, 7), M),
        # E9 leaves, then E3: 3 and then 2 are left; E8 comes in September.
        ((1936, 7, 1), "evelyn-jefferson", (1936, 7, 7), (1936, 7, 11), M),
        ((1936, 7, 1), "olivia-carleton", (1936, 7, 7), (1936, 7, 7), R),
        # 180 days after E9.
        ((1936, 8, 1), "olivia-carleton", (1936, 10, 5), (1936, 10, 5), I),
        ((1936, 11, 30), "nora-fayette", (1937, 2, 19), (1937, 2, 19), R),
        ((1936, 11, 30), "flora-price", None, None, None),
        ((1937, 6, 1), "nora-fayette", None, None, None),
    ],
)
def test_clocks(
    oracle: Oracle,
    as_of: tuple[int, int, int],
    user: str,
    next_change_at: tuple[int, int, int] | None,
    next_level_change_at: tuple[int, int, int] | None,
    next_level: str | None,
) -> None:
    found = oracle.evaluate("old-city", user, at(*as_of, hour=0))
    assert found["next_change_at"] == (next_change_at and at(*next_change_at))
    assert found["next_level_change_at"] == (next_level_change_at and at(*next_level_change_at))
    assert found["next_level"] == next_level
