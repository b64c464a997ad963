from __future__ import annotations

from datetime import UTC, datetime, timedelta
from time import perf_counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.classifier.templates import all_texts, override_texts, rules_texts
from service.evaluation import Evaluation, evaluate
from service.levels import Level, Reason
from service.signals import Activity, Dates, JoinedAtSource
from service.texts import (
    PLACEHOLDERS,
    is_clean,
    placeholders_in,
    render_admin,
    render_user,
    values_of,
)
from service.thresholds import DEFAULT_THRESHOLDS, Thresholds
from service.timeline import Case

NOW = datetime(2026, 11, 1, 12, tzinfo=UTC)


def days_ago(days: float) -> datetime:
    return NOW - timedelta(days=days)


def evaluation_of(
    attended: tuple[float, ...] = (),
    rsvps: tuple[float, ...] = (),
    profile: tuple[float, ...] = (),
    joined: float = 400,
    thresholds: Thresholds = DEFAULT_THRESHOLDS,
    source: JoinedAtSource = JoinedAtSource.MEMBERSHIP,
) -> Evaluation:
    def dates(days: tuple[float, ...]) -> Dates:
        return Dates(sorted(days_ago(day) for day in days))

    activity = Activity(dates(attended), dates(rsvps), dates(profile), days_ago(joined), source)
    return evaluate(Case(activity, thresholds, eligible=True), NOW)


def rendered(evaluation: Evaluation, thresholds: Thresholds = DEFAULT_THRESHOLDS) -> list[str]:
    texts = rules_texts(evaluation)
    values = values_of(evaluation, thresholds, "Riverside")
    return [render_admin(texts.admin, values), render_user(texts.user, values)]


def test_every_pair_names_the_organisation_and_hurts_nobody() -> None:
    for admin, user in all_texts():
        assert {"org", "member"} <= placeholders_in(admin) <= PLACEHOLDERS
        assert "org" in placeholders_in(user) <= PLACEHOLDERS
        assert not {"member", "next_level"} & placeholders_in(user)
        assert is_clean(user)
        for text in (admin, user):
            assert len(text) <= 600
            assert "  " not in text
            assert text == text.strip()
            assert text.endswith(".")
            assert not text.startswith("{")
            assert ". {org}" not in text
            assert ". {member}" not in text


def test_pairs_are_interned() -> None:
    assert len({id(texts) for texts in all_texts()}) == len(set(all_texts())) == len(all_texts())
    one = rules_texts(evaluation_of((10, 20)))
    assert one is rules_texts(evaluation_of((11, 21)))


READINGS = [
    (
        evaluation_of((5, 10, 20, 30)),
        """
        Highly engaged with Riverside: this member attended 4 events in the last 90 days,
        most recently on 27 October 2026; 3 are enough for this level. Without another
        event the level becomes moderate on 10 January 2027, so an invitation before then
        keeps it.
        """,
        """
        You have been to 4 events with Riverside in the last 90 days, most recently on 27
        October 2026. Thank you: people like you make it what it is. Coming along once
        more before 10 January 2027 keeps you among our regulars.
        """,
    ),
    (
        evaluation_of((10,)),
        """
        Moderately engaged with Riverside: this member attended one event in the last 90
        days, most recently on 22 October 2026; 3 are needed for highly engaged. 2 more
        events before 20 January 2027 make the level highly engaged. With nothing further
        the level becomes at risk on 20 January 2027.
        """,
        """
        You have been to one event with Riverside in the last 90 days, most recently on 22
        October 2026. It is good to have you there. 2 more events before 20 January 2027
        make you one of our regulars.
        """,
    ),
    (
        evaluation_of(joined=20),
        """
        New to Riverside: this member joined on 12 October 2026 and has not attended an
        event in the last 90 days. 3 events within 90 days make the level highly engaged.
        With nothing further the level becomes at risk on 11 December 2026.
        """,
        """
        You joined on 12 October 2026: welcome to Riverside. Pick any event that appeals
        to you: it is the best way to meet people.
        """,
    ),
    (
        evaluation_of((100,), rsvps=(95,)),
        """
        At risk of drifting away from Riverside: this member last attended on 24 July
        2026, and nothing in the last 90 days. An invitation accepted on 29 July 2026
        shows interest: a good moment to call. One attended event within 90 days makes the
        level moderate. With nothing further the level becomes inactive on 25 January
        2027.
        """,
        """
        We enjoyed seeing you on 24 July 2026, and everyone with Riverside would be glad
        to see you again. You accepted an invitation on 29 July 2026; we hope that it
        works out.
        """,
    ),
    (
        evaluation_of(joined=100),
        """
        At risk of never arriving at Riverside: this member joined on 24 July 2026 and has
        not attended an event yet. A welcome from someone they may know helps most. One
        attended event within 90 days makes the level moderate. With nothing further the
        level becomes inactive on 20 January 2027.
        """,
        """
        You joined on 24 July 2026, and everyone with Riverside would love to meet you. A
        first event is the easiest way to get to know people: choose one that appeals to
        you, and somebody will show you round.
        """,
    ),
    (
        evaluation_of((300,), profile=(200,)),
        """
        Inactive at Riverside: this member last attended an event on 5 January 2026, and
        the last sign of activity was on 15 April 2026. Asking whether their interests
        have changed is a friendly way to begin. One attended event within 90 days makes
        the level moderate.
        """,
        """
        We remember your visit on 5 January 2026, and your place with Riverside is kept.
        Whenever you feel like it, come to any event: no catching up needed.
        """,
    ),
]


@pytest.mark.parametrize(
    ("evaluation", "admin", "user"),
    READINGS,
    ids=["frequent", "some", "recent", "lapsed", "never", "silent"],
)
def test_how_each_reason_reads(evaluation: Evaluation, admin: str, user: str) -> None:
    assert rendered(evaluation) == [" ".join(admin.split()), " ".join(user.split())]


def test_a_threshold_above_one_is_told() -> None:
    thresholds = Thresholds(highly_engaged_min_events=5, moderate_min_events=2)
    evaluation = evaluation_of((10,), thresholds=thresholds)
    admin, _ = rendered(evaluation, thresholds)
    assert "attended one event in the last 90 days" in admin
    assert "2 are needed for moderate" in admin
    assert "One more event before 20 January 2027 makes the level moderate." in admin


def test_silent_members_are_told_apart() -> None:
    texts = [
        rendered(evaluation_of((300,)))[0],
        rendered(evaluation_of((300,), rsvps=(250,)))[0],
        rendered(evaluation_of(rsvps=(250,)))[0],
        rendered(evaluation_of())[0],
    ]
    assert len(set(texts)) == len(texts)
    assert "attended an event on 5 January 2026, with no activity since" in texts[0]
    assert "joined on 27 September 2025, with no activity since" in texts[3]


def test_an_inferred_joining_is_not_called_joining() -> None:
    evaluation = evaluation_of((10,), joined=10, source=JoinedAtSource.INFERRED)
    admin, user = rendered(evaluation)
    assert "was first seen on 22 October 2026" in admin
    assert "joined" not in user


def test_under_an_override() -> None:
    for level in Level:
        until, unlimited = override_texts(level, True), override_texts(level, False)
        assert "override_until" in placeholders_in(until.admin)
        assert "override_until" not in placeholders_in(unlimited.admin)
        assert until.user == unlimited.user
        assert {until, unlimited} <= set(all_texts())


def test_a_member_who_is_not_scored_has_no_texts() -> None:
    evaluation = evaluate(Case(Activity(), DEFAULT_THRESHOLDS, eligible=False), NOW)
    with pytest.raises(ValueError, match="not scored"):
        rules_texts(evaluation)


DAYS = st.lists(st.integers(-2, 400), max_size=6).map(tuple)
ALL_THRESHOLDS = st.builds(
    Thresholds,
    highly_engaged_min_events=st.integers(3, 6),
    moderate_min_events=st.integers(1, 2),
    activity_window_days=st.integers(1, 120),
    new_member_days=st.integers(0, 200),
    inactive_after_days=st.integers(120, 200),
)


@settings(max_examples=500, deadline=None)
@given(DAYS, DAYS, DAYS, st.integers(0, 500), ALL_THRESHOLDS, st.sampled_from(list(JoinedAtSource)))
def test_every_scored_member_has_both_texts(
    attended: tuple[int, ...],
    rsvps: tuple[int, ...],
    profile: tuple[int, ...],
    joined: int,
    thresholds: Thresholds,
    source: JoinedAtSource,
) -> None:
    evaluation = evaluation_of(attended, rsvps, profile, joined, thresholds, source)
    assert evaluation.ruling is not None
    admin, user = rendered(evaluation, thresholds)
    assert "Riverside" in admin
    assert "Riverside" in user
    assert "this member" in admin
    assert is_clean(user)
    # Every date that the texts give is known: no stand-in is needed.
    assert "a later date" not in admin + user
    assert "an earlier date" not in admin + user
    opening = {
        Reason.FREQUENT_ATTENDANCE: "Highly engaged",
        Reason.RECENTLY_JOINED: "New to",
        Reason.SOME_ATTENDANCE: "Moderately engaged",
        Reason.NO_ACTIVITY: "Inactive",
        Reason.LAPSED: "At risk",
        Reason.NEVER_ATTENDED: "At risk",
    }[evaluation.ruling.reason]
    assert admin.startswith(opening)


def test_choosing_is_cheap() -> None:
    cases = [evaluation_of(attended) for attended in ((5, 10, 20), (10,), (), (99,))]
    best = 1.0
    for _ in range(50):
        begun = perf_counter()
        for evaluation in cases:
            rules_texts(evaluation)
        best = min(best, (perf_counter() - begun) / len(cases))
    assert best < 1e-6 * 4  # four times the bar, for a busy machine
