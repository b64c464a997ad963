from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.classifier import keys
from service.classifier.keys import KEY_BYTES, is_current, verdict_key
from service.classifier.situation import (
    Age,
    Joined,
    Situation,
    Span,
    from_json,
    situation_of,
    span_of,
    to_json,
)
from service.evaluation import evaluate
from service.levels import Level, Reason
from service.signals import Activity, JoinedAtSource
from service.thresholds import DEFAULT_THRESHOLDS, Thresholds
from service.timeline import Case
from tests.unit.test_templates import ALL_THRESHOLDS, DAYS, NOW, evaluation_of

MODEL = "claude-haiku-5-5"


def test_what_claude_is_told_of_a_regular() -> None:
    evaluation = evaluation_of((5, 20, 50, 80), rsvps=(40, 45, 200), profile=(91,), joined=100)
    assert situation_of(evaluation, DEFAULT_THRESHOLDS._replace(version=7)) == Situation(
        DEFAULT_THRESHOLDS,
        Level.HIGHLY_ENGAGED,
        Reason.FREQUENT_ATTENDANCE,
        Span(4, 4),
        Span(2, None),
        Age.RECENT,
        Age.COUNTED,
        profile_updated=False,
        joined=Joined.SETTLED,
        inferred=False,
        next_level=Level.MODERATE,
        changes=True,
    )


def test_what_claude_is_told_of_somebody_silent() -> None:
    evaluation = evaluation_of((300,), joined=400, source=JoinedAtSource.INFERRED)
    situation = situation_of(evaluation, DEFAULT_THRESHOLDS)
    assert situation.last_attended is Age.LONG_AGO
    assert situation.last_rsvp is Age.NEVER
    assert situation.joined is Joined.LONG
    assert situation.inferred
    assert situation.next_level is None
    assert not situation.changes


def test_a_member_who_is_not_scored_is_in_no_situation() -> None:
    evaluation = evaluate(Case(Activity(), DEFAULT_THRESHOLDS, eligible=False), NOW)
    with pytest.raises(ValueError, match="not scored"):
        situation_of(evaluation, DEFAULT_THRESHOLDS)


@pytest.mark.parametrize(
    ("days", "age"),
    [
        (0, Age.RECENT),
        (29.99, Age.RECENT),
        (30, Age.COUNTED),
        (89.99, Age.COUNTED),
        (90, Age.QUIET),
        (179.99, Age.QUIET),
        (180, Age.LONG_AGO),
    ],
)
def test_ages_are_coarse(days: float, age: Age) -> None:
    situation = situation_of(evaluation_of((days,), joined=10), DEFAULT_THRESHOLDS)
    assert situation.last_attended is age


@pytest.mark.parametrize(
    ("count", "thresholds", "span"),
    [
        (0, DEFAULT_THRESHOLDS, Span(0, 0)),
        (4, DEFAULT_THRESHOLDS, Span(4, 4)),
        (5, DEFAULT_THRESHOLDS, Span(5, None)),
        (900, DEFAULT_THRESHOLDS, Span(5, None)),
        (5, Thresholds(40, 20), Span(5, 5)),
        (7, Thresholds(40, 20), Span(6, 9)),
        (17, Thresholds(40, 20), Span(10, 17)),
        (18, Thresholds(40, 20), Span(18, 18)),
        (21, Thresholds(40, 20), Span(21, 21)),
        (22, Thresholds(40, 20), Span(22, 37)),
        (37, Thresholds(40, 20), Span(22, 37)),
        (38, Thresholds(40, 20), Span(38, 38)),
        (41, Thresholds(40, 20), Span(41, 41)),
        (42, Thresholds(40, 20), Span(42, None)),
    ],
)
def test_counts_are_capped_with_the_thresholds_in_mind(
    count: int, thresholds: Thresholds, span: Span
) -> None:
    assert span_of(count, thresholds) == span


@settings(max_examples=500, deadline=None)
@given(
    st.integers(0, 12_000),
    st.integers(1, 9_999).flatmap(
        lambda low: st.tuples(st.just(low), st.integers(low + 1, 10_000))
    ),
)
def test_a_span_holds_the_count_and_tells_thresholds_apart(
    count: int, minima: tuple[int, int]
) -> None:
    low, high = minima
    span = span_of(count, Thresholds(high, low))
    assert span.low <= count
    assert span.high is None or count <= span.high
    for threshold in minima:
        assert (count >= threshold) == (span.low >= threshold)
        if span.high is not None:
            assert (count >= threshold) == (span.high >= threshold)
    # The next member of the same span has the very same one.
    assert span_of(span.low, Thresholds(high, low)) == span


@settings(max_examples=300, deadline=None)
@given(DAYS, DAYS, DAYS, st.integers(0, 500), ALL_THRESHOLDS)
def test_situations_survive_json(
    attended: tuple[int, ...],
    rsvps: tuple[int, ...],
    profile: tuple[int, ...],
    joined: int,
    thresholds: Thresholds,
) -> None:
    evaluation = evaluation_of(attended, rsvps, profile, joined, thresholds)
    situation = situation_of(evaluation, thresholds)
    assert from_json(to_json(situation)) == situation


def test_members_who_differ_in_dates_only_share_a_key() -> None:
    one = evaluation_of((3, 11, 25), rsvps=(4,), joined=300)
    other = evaluation_of((1, 12, 29), rsvps=(29,), joined=380)
    keys = {verdict_key(situation_of(e, DEFAULT_THRESHOLDS), MODEL) for e in (one, other)}
    assert len(keys) == 1
    assert len(keys.pop()) == KEY_BYTES


def test_the_key_covers_evidence_thresholds_and_model() -> None:
    base = situation_of(evaluation_of((3, 11, 25)), DEFAULT_THRESHOLDS)
    others = [
        situation_of(evaluation_of((3, 11, 25, 26)), DEFAULT_THRESHOLDS),
        base._replace(thresholds=DEFAULT_THRESHOLDS._replace(inactive_after_days=181)),
        base._replace(next_level=None),
    ]
    keys = {verdict_key(situation, MODEL) for situation in (base, *others)}
    keys.add(verdict_key(base, "claude-haiku-4-5"))
    assert len(keys) == 5


def test_a_key_tells_whether_it_is_of_this_model() -> None:
    key = verdict_key(situation_of(evaluation_of(), DEFAULT_THRESHOLDS), MODEL)
    assert is_current(key, MODEL)
    assert not is_current(key, "claude-haiku-4-5")


def test_a_later_prompt_makes_other_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    situation = situation_of(evaluation_of(), DEFAULT_THRESHOLDS)
    before = verdict_key(situation, MODEL)
    monkeypatch.setattr(keys, "PROMPT_VERSION", "next")
    keys._tag.cache_clear()
    keys.verdict_key.cache_clear()
    try:
        after = verdict_key(situation, MODEL)
        assert after != before
        assert not is_current(before, MODEL)
    finally:
        monkeypatch.undo()
        keys._tag.cache_clear()
        keys.verdict_key.cache_clear()


def test_a_later_day_alone_rarely_makes_another_situation() -> None:
    # Coarse on purpose: over a quiet month most situations stay as they are.
    changes = 0
    before = None
    for day in range(31):
        evaluation = evaluation_of((92 + day,), joined=400)
        situation = situation_of(evaluation, DEFAULT_THRESHOLDS)
        changes += before is not None and situation != before
        before = situation
    assert changes == 0
    assert timedelta(days=30) < DEFAULT_THRESHOLDS.inactive_after
