"""Signals, rules and clocks against the oracle, and every boundary by hand."""

from dataclasses import asdict
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.evaluation import evaluate, level_began_at
from service.levels import Level, Reason
from service.signals import Activity, Dates, JoinedAtSource
from service.thresholds import DEFAULT_THRESHOLDS, Thresholds
from service.timeline import Case, Override, shown_at
from tests.oracle import Override as OracleOverride
from tests.oracle import Thresholds as OracleThresholds
from tests.oracle.clock import candidates, nearest_improvement, next_changes
from tests.oracle.rules import Standing, decide, shown_level, signals_at

AS_OF = datetime(2026, 6, 1, 12, 0, tzinfo=UTC)
DAY = timedelta(days=1)
SECOND = timedelta(seconds=1)

# Whole days around the windows make ties and exact boundaries common.
instants = st.one_of(
    st.integers(-400, 30).map(lambda days: AS_OF + days * DAY),
    st.integers(-40_000_000, 3_000_000).map(lambda s: AS_OF + timedelta(seconds=s)),
)
thresholds_values = st.builds(
    lambda moderate, more, window, silence, new: OracleThresholds(
        moderate + more, moderate, window, new, window + silence
    ),
    st.integers(1, 4), st.integers(1, 4), st.integers(1, 120), st.integers(0, 200),
    st.integers(0, 120),
)  # fmt: skip


@st.composite
def standings(draw: st.DrawFn) -> Standing:
    attended = sorted(draw(st.lists(instants, max_size=8)))
    going = sorted(draw(st.lists(instants, max_size=5)))
    known = draw(st.sampled_from(["membership", "inferred"]))
    first_seen = min([*attended, *going], default=None)
    joined_at = draw(instants) if known == "membership" else first_seen
    override = None
    if draw(st.booleans()):
        level = draw(st.sampled_from([level.value for level in Level]))
        expires_at = draw(st.none() | instants.filter(lambda at: at > AS_OF))
        override = OracleOverride(level, "because", "admin", AS_OF - DAY, expires_at)
    return Standing(
        attended,
        going,
        sorted(draw(st.lists(instants, max_size=3))),
        joined_at,
        None if joined_at is None else known,
        draw(st.booleans()) or draw(st.booleans()),
        draw(thresholds_values),
        override,
    )


def case_of(standing: Standing, reach: datetime) -> Case:
    """The same case for the product, dates split at `reach` as the database hands them over."""

    def dates(found: list[datetime]) -> Dates:
        recent = [at for at in found if at > reach]
        return Dates(recent, max((at for at in found if at <= reach), default=None))

    source = standing.joined_at_source
    override = standing.override
    return Case(
        Activity(
            dates(standing.attended),
            dates(standing.going),
            dates(standing.profile),
            standing.joined_at,
            None if source is None else JoinedAtSource(source),
        ),
        Thresholds(**asdict(standing.thresholds)),
        standing.may_be_scored,
        None if override is None
        else Override(Level(override.level), override.set_at, override.expires_at),
    )  # fmt: skip


@settings(max_examples=600)
@given(standings())
def test_evaluation_equals_the_oracle(standing: Standing) -> None:
    case = case_of(standing, AS_OF - standing.thresholds.window)
    evaluation = evaluate(case, AS_OF)
    assert evaluation.signals._asdict() == signals_at(standing, AS_OF)
    verdict = decide(standing, AS_OF)
    if evaluation.ruling is None:
        assert verdict.level is None
    else:
        assert tuple(evaluation.ruling) == tuple(verdict)
    assert (
        evaluation.next_change_at,
        evaluation.next_level_change_at,
        evaluation.next_level,
    ) == tuple(next_changes(standing, AS_OF))
    assert shown_at(case, AS_OF) == shown_level(standing, AS_OF)


def dated_ahead(standing: Standing) -> bool:
    """Then a rise that is already on its way may end the offer; the two word that differently."""
    return any(at > AS_OF for at in standing.attended)


@settings(max_examples=300)
@given(standings().filter(lambda s: s.may_be_scored))
def test_improvement_is_one_that_the_oracle_finds(standing: Standing) -> None:
    evaluation = evaluate(case_of(standing, AS_OF - standing.thresholds.window), AS_OF)
    expected = nearest_improvement(standing, AS_OF)
    improvement = evaluation.improvement
    if evaluation.ruling is None:
        assert improvement is None
        return
    assert (improvement is None) == (expected is None)
    if improvement is not None and expected is not None:
        assert improvement.events == expected.more_events
        assert improvement.level == expected.level
        assert improvement.before == expected.before or dated_ahead(standing)


@settings(max_examples=400)
@given(standings().filter(lambda s: s.override is None), st.integers(1, 200))
def test_level_began_where_the_oracle_sees_it_begin(standing: Standing, days: int) -> None:
    since = AS_OF - days * DAY
    began_at = level_began_at(case_of(standing, since - standing.thresholds.window), since, AS_OF)
    now = shown_level(standing, AS_OF)
    steps = [since, *(at for at in candidates(standing, since) if at <= AS_OF)]
    different = [at for at in steps if shown_level(standing, at) != now]
    if not different:
        assert began_at == AS_OF
    else:
        assert began_at == min(at for at in steps if at > max(different))


def member(
    *,
    attended: tuple[timedelta, ...] = (),
    joined: timedelta,
    rsvp: timedelta | None = None,
) -> Case:
    dates = Dates(sorted(AS_OF - ago for ago in attended))
    rsvps = Dates(() if rsvp is None else (AS_OF - rsvp,))
    activity = Activity(dates, rsvps, Dates(), AS_OF - joined, JoinedAtSource.MEMBERSHIP)
    return Case(activity, DEFAULT_THRESHOLDS, eligible=True)


@pytest.mark.parametrize(
    ("offset", "expected"),
    [
        (-SECOND, Reason.FREQUENT_ATTENDANCE),
        (timedelta(0), Reason.SOME_ATTENDANCE),
        (SECOND, Reason.SOME_ATTENDANCE),
    ],
)
def test_an_event_stops_counting_exactly_one_window_later(
    offset: timedelta, expected: Reason
) -> None:
    case = member(attended=(DAY, 2 * DAY, 90 * DAY + offset), joined=300 * DAY)
    ruling = evaluate(case, AS_OF).ruling
    assert ruling is not None
    assert ruling.reason is expected


@pytest.mark.parametrize(
    ("offset", "expected"),
    [
        (-SECOND, Reason.RECENTLY_JOINED),
        (timedelta(0), Reason.NEVER_ATTENDED),
        (SECOND, Reason.NEVER_ATTENDED),
    ],
)
def test_newness_ends_exactly_after_its_days(offset: timedelta, expected: Reason) -> None:
    ruling = evaluate(member(joined=60 * DAY + offset), AS_OF).ruling
    assert ruling is not None
    assert ruling.reason is expected


@pytest.mark.parametrize(
    ("offset", "expected"),
    [
        (-SECOND, Level.AT_RISK),
        (timedelta(0), Level.INACTIVE),
        (SECOND, Level.INACTIVE),
    ],
)
def test_silence_makes_inactive_exactly_after_its_days(offset: timedelta, expected: Level) -> None:
    case = member(joined=400 * DAY, rsvp=180 * DAY + offset)
    ruling = evaluate(case, AS_OF).ruling
    assert ruling is not None
    assert ruling.level is expected


@pytest.mark.parametrize("offset", [-SECOND, timedelta(0), SECOND])
def test_an_event_counts_from_its_own_instant_on(offset: timedelta) -> None:
    case = member(attended=(-offset,), joined=300 * DAY)
    assert evaluate(case, AS_OF).signals.events_attended_90d == (1 if offset <= timedelta(0) else 0)


@pytest.mark.parametrize("offset", [-SECOND, timedelta(0), SECOND])
def test_nobody_is_scored_before_joining(offset: timedelta) -> None:
    evaluation = evaluate(member(joined=-offset), AS_OF)
    assert (evaluation.ruling is None) == (offset > timedelta(0))
    if evaluation.ruling is None:
        assert evaluation.next_level_change_at == AS_OF + offset
        assert evaluation.next_level is Level.NEW
