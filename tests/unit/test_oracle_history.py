"""The check of the level history finds each way of breaking a chain."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.oracle import check_history

START = datetime(2026, 1, 1, tzinfo=UTC)


def row(revision: int, from_level: str | None, to_level: str | None, **more: Any) -> dict[str, Any]:
    return {
        "org_id": "club",
        "user_id": "ada",
        "revision": revision,
        "from_level": from_level,
        "to_level": to_level,
        "effective_at": START + timedelta(days=revision),
    } | more


GOOD = [row(1, None, "new"), row(4, "new", "moderate"), row(5, "moderate", None)]
CURRENT: dict[tuple[str, str], str | None] = {("club", "ada"): None}


def test_good_chains_in_any_order() -> None:
    assert check_history(GOOD, CURRENT) == []
    assert check_history(reversed(GOOD), CURRENT) == []
    assert check_history(GOOD, {}) == []
    assert check_history(GOOD[:2], {("club", "ada"): "moderate"}) == []
    same_time = [one | {"effective_at": START} for one in GOOD]
    assert check_history(same_time, CURRENT) == []


@pytest.mark.parametrize(
    ("rows", "current", "problem"),
    [
        (GOOD[:2], None, "ends in moderate, but the level is None"),
        (GOOD[:2], "new", "ends in moderate, but the level is new"),
        ([], "new", "ends in None, but the level is new"),
        (GOOD[1:], None, "the first row is from new, not from null"),
        ([GOOD[0], GOOD[2]], None, "revision 5 is from moderate, not from new"),
        ([*GOOD, GOOD[0]], None, "revision 1 is there twice"),
        ([*GOOD, row(6, None, None)], None, "revision 6 changes nothing"),
        ([*GOOD, row(6, None, "keen")], "keen", "revision 6 has unknown level keen"),
        ([row(0, None, "new")], "new", "revision 0 is not positive"),
        (
            [*GOOD, row(6, None, "new", effective_at=START)],
            "new",
            "revision 6 takes effect before the row before it",
        ),
    ],
)
def test_broken_chains(rows: list[dict[str, Any]], current: str | None, problem: str) -> None:
    found = check_history(rows, {("club", "ada"): current})
    assert [one for one in found if one.startswith("club:ada: ") and problem in one]


def test_members_are_apart() -> None:
    other = [one | {"user_id": "eve"} for one in GOOD[:1]]
    assert check_history([*GOOD, *other], CURRENT | {("club", "eve"): "new"}) == []
