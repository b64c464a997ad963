"""The clock of the shown level where Claude has another opinion than the rules."""

from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.evaluation import evaluate
from service.levels import Level
from service.standing import Published, wake_at
from service.thresholds import DEFAULT_THRESHOLDS
from service.timeline import Case
from tests.unit.test_standing import DAY, FRESH, NOW, case, settled

Clock = tuple[datetime | None, datetime | None, Level | None]


def clock_of(published: Published) -> Clock:
    return published.next_change_at, published.next_level_change_at, published.next_level


@pytest.mark.parametrize(
    ("days_ago", "judged", "expected"),
    [
        # The rules come to it in 20 days, together with a count; what follows is a change.
        ((70,), Level.AT_RISK, (20, 110, Level.INACTIVE)),
        ((70,), Level.MODERATE, (20, 20, Level.AT_RISK)),
        ((70,), Level.HIGHLY_ENGAGED, (20, 20, Level.AT_RISK)),
        ((70, 60, 50), Level.MODERATE, (20, 40, Level.AT_RISK)),
        ((100,), Level.MODERATE, (80, 80, Level.INACTIVE)),
        # Nothing follows: what is shown stays, though reason and texts will be the rules'.
        ((100,), Level.INACTIVE, (80, None, None)),
        ((200,), Level.AT_RISK, (None, None, None)),
    ],
)
def test_a_step_to_what_is_shown_already_is_no_change(
    days_ago: tuple[float, ...], judged: Level, expected: tuple[float | None, ...]
) -> None:
    what = case(*days_ago)
    standing = settled(FRESH, what, level=judged).standing
    at, level_at, level = expected
    assert clock_of(standing.published) == (
        None if at is None else NOW + timedelta(days=float(at)),
        None if level_at is None else NOW + timedelta(days=float(level_at)),
        level,
    )
    # Whoever has to be looked at, is.
    evaluation = evaluate(what, NOW)
    assert wake_at(what, evaluation, standing) == evaluation.next_change_at


def test_the_end_of_a_newness_that_only_claude_sees_is_foreseen() -> None:
    young = case(1, 2, 3, joined_days_ago=50)
    published = settled(FRESH, young, level=Level.NEW).standing.published
    assert clock_of(published) == (NOW + 10 * DAY, NOW + 10 * DAY, Level.HIGHLY_ENGAGED)
    # Or the rules see it first.
    younger = case(85, 1, 2, joined_days_ago=3)
    published = settled(FRESH, younger, level=Level.NEW).standing.published
    assert clock_of(published) == (NOW + 5 * DAY, NOW + 57 * DAY, Level.MODERATE)


@given(
    st.lists(st.integers(0, 250), max_size=5, unique=True),
    st.integers(0, 300),
    st.sampled_from(Level),
)
def test_as_days_pass_the_shown_level_first_changes_when_the_clock_says(
    days_ago: list[int], joined_days_ago: int, judged: Level
) -> None:
    what = case(*days_ago, joined_days_ago=joined_days_ago)
    rules_level = level_by_the_rules(what, NOW)
    if judged is Level.NEW and joined_days_ago >= DEFAULT_THRESHOLDS.new_member_days:
        return
    published = settled(FRESH, what, level=judged).standing.published
    found, holds = None, True
    for day in range(1, 400):
        at = NOW + day * DAY
        ruled = level_by_the_rules(what, at)
        is_new = joined_days_ago + day < DEFAULT_THRESHOLDS.new_member_days
        holds &= ruled is rules_level and (judged is not Level.NEW or is_new)
        shown = judged if holds or ruled is judged else ruled
        if shown is not judged:
            found = (at, shown)
            break
    assert (published.next_level_change_at, published.next_level) == (found or (None, None))
    if found is not None:
        assert published.next_change_at is not None
        assert published.next_change_at <= found[0]


def level_by_the_rules(what: Case, at: datetime) -> Level:
    ruling = evaluate(what, at).ruling
    assert ruling is not None
    return ruling.level
