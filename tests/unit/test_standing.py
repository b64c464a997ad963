"""What a new evaluation makes of what was published: changes, causes, overrides, tombstones."""

from collections.abc import Collection
from datetime import UTC, datetime, timedelta

from service.evaluation import evaluate
from service.expiry import close_ended, joined
from service.levels import Level
from service.records import Cause, Source
from service.signals import Activity, Dates, JoinedAtSource
from service.standing import (
    NOTHING_PUBLISHED,
    Judgement,
    Outcome,
    Standing,
    StoredOverride,
    settle,
    wake_at,
)
from service.texts import Texts
from service.thresholds import DEFAULT_THRESHOLDS, Thresholds
from service.timeline import Case, Override

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
DAY = timedelta(days=1)
TEXTS = Texts("{member} of {org}", "with {org}")
FRESH = Standing(0, None, NOTHING_PUBLISHED)


def case(
    *attended_days_ago: float,
    joined_days_ago: float = 400,
    eligible: bool = True,
    override: Override | None = None,
    thresholds: Thresholds = DEFAULT_THRESHOLDS,
) -> Case:
    dates = Dates(sorted(NOW - days * DAY for days in attended_days_ago))
    activity = Activity(
        dates, Dates(), Dates(), NOW - joined_days_ago * DAY, JoinedAtSource.MEMBERSHIP
    )
    return Case(activity, thresholds, eligible, override)


def settled(
    before: Standing,
    what: Case,
    at: datetime = NOW,
    causes: Collection[str] = ("signals",),
    *,
    has_membership: bool = True,
    level: Level | None = None,
    forced: Cause | None = None,
) -> Outcome:
    evaluation = evaluate(what, at)
    judgement = None
    if evaluation.ruling is not None:
        judged = level or evaluation.ruling.level
        judgement = Judgement(judged, TEXTS, Source.CLAUDE if level else Source.RULES, "test")
    return settle(
        before, what, evaluation, judgement,
        causes=causes, has_membership=has_membership, forced_cause=forced,
    )  # fmt: skip


def test_a_first_level_with_a_membership_record_is_caused_by_it() -> None:
    (publication,) = settled(FRESH, case(1)).publications
    assert publication.revision == 1
    assert publication.change is not None
    assert publication.change.cause is Cause.MEMBERSHIP
    assert publication.change.from_level is None
    assert publication.published.previous_level is None
    assert publication.published.level_since == NOW


def test_a_first_level_without_one_is_caused_by_signals() -> None:
    (publication,) = settled(FRESH, case(1), has_membership=False).publications
    assert publication.change is not None
    assert publication.change.cause is Cause.SIGNALS


def test_nothing_new_publishes_nothing() -> None:
    first = settled(FRESH, case(1)).standing
    again = settled(first, case(1), NOW + timedelta(hours=1))
    assert again.publications == ()
    assert again.standing.revision == 1


def test_a_changed_count_publishes_without_a_change() -> None:
    first = settled(FRESH, case(1)).standing
    (publication,) = settled(first, case(1, 2)).publications
    assert publication.revision == 2
    assert publication.change is None
    assert publication.published.signals.events_attended_90d == 2


def test_time_dates_a_change_to_when_the_level_began() -> None:
    first = settled(FRESH, case(1)).standing
    late = NOW + 100 * DAY
    (publication,) = settled(first, case(1), late, causes=()).publications
    assert publication.change is not None
    assert publication.change.cause is Cause.TIME
    assert publication.change.effective_at == NOW + 89 * DAY
    assert publication.published.previous_level is Level.MODERATE


def test_signals_go_before_time_and_date_a_change_to_the_evaluation() -> None:
    first = settled(FRESH, case(1)).standing
    late = NOW + 100 * DAY
    (publication,) = settled(first, case(1), late, causes=("signals",)).publications
    assert publication.change is not None
    assert (publication.change.cause, publication.change.effective_at) == (Cause.SIGNALS, late)


def test_thresholds_go_before_signals_and_republish_even_without_a_change() -> None:
    first = settled(FRESH, case(1)).standing
    raised = Thresholds(5, 2, version=1)
    (publication,) = settled(first, case(1, thresholds=raised)).publications
    assert publication.change is not None
    assert publication.change.cause is Cause.THRESHOLDS
    same = Thresholds(5, 1, version=2)
    (publication,) = settled(first, case(1, thresholds=same)).publications
    assert publication.change is None
    assert publication.published.thresholds_version == 2


def test_a_verdict_that_moves_the_level_is_the_cause() -> None:
    first = settled(FRESH, case(1)).standing
    outcome = settled(first, case(1), causes=("classifier",), level=Level.HIGHLY_ENGAGED)
    (publication,) = outcome.publications
    assert publication.change is not None
    assert publication.change.cause is Cause.CLASSIFIER
    assert publication.shown_source is Source.CLAUDE


def test_leaving_publishes_a_tombstone_and_ends_an_override() -> None:
    stored = StoredOverride(Override(Level.NEW, NOW), "admin", "because")
    before = settled(FRESH, case(1)).standing._replace(stored_override=stored)
    before = settled(before, case(1, override=stored.override), forced=Cause.OVERRIDE_SET).standing
    outcome = settled(before, case(1, eligible=False), causes=("membership",))
    (publication,) = outcome.publications
    assert publication.published.level is None
    assert publication.change is not None
    assert (publication.change.from_level, publication.change.to_level) == (Level.NEW, None)
    assert [action.action for action in outcome.override_actions] == ["clear"]
    assert outcome.standing.stored_override is None
    assert settled(outcome.standing, case(1, eligible=False)).publications == ()


def test_a_spell_without_score_keeps_the_override() -> None:
    stored = StoredOverride(Override(Level.NEW, NOW), "admin", "because")
    before = settled(FRESH, case(1)).standing._replace(stored_override=stored)
    outcome = settled(before, case(joined_days_ago=-1, override=stored.override))
    assert outcome.standing.published.level is None
    assert outcome.standing.stored_override == stored
    assert outcome.override_actions == ()


def overridden(expires_at: datetime) -> Standing:
    """The rules say moderate, an override says new until then."""
    stored = StoredOverride(Override(Level.NEW, NOW, expires_at), "admin", "because")
    before = settled(FRESH, case(1)).standing._replace(stored_override=stored)
    return settled(before, case(1, override=stored.override), forced=Cause.OVERRIDE_SET).standing


def test_an_expired_override_is_closed_as_a_change_of_its_own() -> None:
    expires_at = NOW + DAY
    before = overridden(expires_at)
    assert before.published.level is Level.NEW
    assert close_ended(before, case(1), expires_at - timedelta(microseconds=1)).publications == ()
    outcome = close_ended(before, case(1), expires_at + DAY)
    (publication,) = outcome.publications
    assert publication.change is not None
    assert publication.change.cause is Cause.OVERRIDE_EXPIRED
    assert publication.change.effective_at == expires_at
    assert publication.change.to_level is Level.MODERATE
    assert publication.published.override is None
    assert [action.action for action in outcome.override_actions] == ["expire"]


def test_an_override_that_agreed_expires_without_a_change_but_is_told() -> None:
    expires_at = NOW + DAY
    stored = StoredOverride(Override(Level.MODERATE, NOW, expires_at), "admin", "because")
    before = settled(FRESH, case(1)).standing._replace(stored_override=stored)
    before = settled(before, case(1, override=stored.override)).standing
    closed = close_ended(before, case(1), expires_at)
    assert closed.publications == ()
    assert [action.action for action in closed.override_actions] == ["expire"]
    (publication,) = settled(closed.standing, case(1), expires_at, causes=()).publications
    assert publication.change is None
    assert publication.published.override is None


def test_an_expiry_is_told_once_with_the_clocks_of_what_follows() -> None:
    expires_at, late = NOW + DAY, NOW + 2 * DAY
    before = overridden(expires_at)
    closed = close_ended(before, case(1), late)
    outcome = joined(closed, settled(closed.standing, case(1), late, causes=()))
    (publication,) = outcome.publications
    assert publication.change == closed.publications[0].change
    assert publication.revision == outcome.standing.revision == before.revision + 1
    assert publication.published == outcome.standing.published
    evaluation = evaluate(case(1), late)
    assert evaluation.next_change_at is not None
    assert publication.published.next_change_at == evaluation.next_change_at > late
    assert publication.published.next_level == evaluation.next_level
    assert publication.shown_source is Source.RULES
    assert [action.action for action in outcome.override_actions] == ["expire"]


def test_what_changes_the_level_besides_an_expiry_is_a_change_of_its_own() -> None:
    expires_at, late = NOW + DAY, NOW + 2 * DAY
    before = overridden(expires_at)
    busy = case(1, -1.4, -1.5)
    closed = close_ended(before, busy, late)
    outcome = joined(closed, settled(closed.standing, busy, late))
    changes = [p.change for p in outcome.publications if p.change is not None]
    assert [(c.cause, c.to_level) for c in changes] == [
        (Cause.OVERRIDE_EXPIRED, Level.MODERATE),
        (Cause.SIGNALS, Level.HIGHLY_ENGAGED),
    ]
    assert [p.revision for p in outcome.publications] == [3, 4]
    assert outcome.standing.revision == 4


def test_what_has_come_after_an_expiry_is_no_matter_of_it() -> None:
    """Nobody looked when it expired. Reads showed what was computed last, until somebody did."""
    before, late = overridden(NOW + DAY), NOW + 2 * DAY
    stricter = case(1, thresholds=Thresholds(5, 2, version=1))
    # Events of before the expiry that nobody had told by then.
    busy = case(1, 2, 3)
    for known, level, cause in (
        (stricter, Level.AT_RISK, Cause.THRESHOLDS),
        (busy, Level.HIGHLY_ENGAGED, Cause.SIGNALS),
    ):
        closed = close_ended(before, known, late)
        outcome = joined(closed, settled(closed.standing, known, late, causes=()))
        assert [p.change for p in outcome.publications] == [
            (Level.NEW, Level.MODERATE, Cause.OVERRIDE_EXPIRED, NOW + DAY),
            (Level.MODERATE, level, cause, late),
        ]
        first, last = (p.published for p in outcome.publications)
        assert (first.thresholds_version, first.signals) == (0, before.published.signals)
        assert (last.thresholds_version, last.level_since) == (known.thresholds.version, late)


def test_an_expiry_that_moves_nothing_does_not_explain_what_came_later() -> None:
    stored = StoredOverride(Override(Level.MODERATE, NOW, NOW + DAY), "admin", "because")
    before = settled(FRESH, case(1)).standing._replace(stored_override=stored)
    before = settled(before, case(1, override=stored.override)).standing
    busy, late = case(1, 2, 3), NOW + 2 * DAY
    closed = close_ended(before, busy, late)
    outcome = joined(closed, settled(closed.standing, busy, late, causes=()))
    assert [p.change for p in outcome.publications] == [
        (Level.MODERATE, Level.HIGHLY_ENGAGED, Cause.SIGNALS, late)
    ]
    assert [action.action for action in outcome.override_actions] == ["expire"]


def test_an_override_right_after_an_expiry_is_a_state_of_its_own() -> None:
    late = NOW + 2 * DAY
    closed = close_ended(overridden(NOW + DAY), case(1), late)
    again = StoredOverride(Override(Level.MODERATE, late), "admin", "because")
    begun = closed.standing._replace(stored_override=again)
    outcome = joined(closed, settled(begun, case(1, override=again.override), late))
    expiry, state = outcome.publications
    assert expiry.change is not None
    assert (expiry.change.cause, expiry.shown_source) == (Cause.OVERRIDE_EXPIRED, Source.RULES)
    assert (state.change, state.shown_source) == (None, Source.OVERRIDE)
    assert (expiry.revision, state.revision, outcome.standing.revision) == (3, 4, 4)


def test_an_expired_override_falls_back_to_what_the_rules_say_by_then() -> None:
    """Newness has ended underneath, and nobody looked."""
    young = case(joined_days_ago=59)
    expires_at, late = NOW + 2 * DAY, NOW + 3 * DAY
    stored = StoredOverride(Override(Level.HIGHLY_ENGAGED, NOW, expires_at), "admin", "because")
    shown = young._replace(override=stored.override)
    first = settled(FRESH, young).standing._replace(stored_override=stored)
    before = settled(first, shown, forced=Cause.OVERRIDE_SET).standing
    assert before.published.computed_level is Level.NEW
    for at in (expires_at, late):
        closed = close_ended(before, young, at)
        (action,) = closed.override_actions
        assert (action.previous_level, action.new_level) == (Level.HIGHLY_ENGAGED, Level.AT_RISK)
        (publication,) = joined(closed, settled(closed.standing, young, at, causes=())).publications
        assert publication.change is not None
        assert publication.change == (
            Level.HIGHLY_ENGAGED, Level.AT_RISK, Cause.OVERRIDE_EXPIRED, expires_at,
        )  # fmt: skip
        assert publication.evaluation.signals == publication.published.signals
        assert publication.published.next_change_at == evaluate(young, at).next_change_at


def test_an_override_that_agrees_with_what_the_rules_say_by_then_changes_nothing() -> None:
    young = case(joined_days_ago=59)
    expires_at = NOW + 2 * DAY
    stored = StoredOverride(Override(Level.AT_RISK, NOW, expires_at), "admin", "because")
    first = settled(FRESH, young).standing._replace(stored_override=stored)
    before = settled(
        first, young._replace(override=stored.override), forced=Cause.OVERRIDE_SET
    ).standing
    closed = close_ended(before, young, expires_at)
    outcome = joined(closed, settled(closed.standing, young, expires_at, causes=()))
    (publication,) = outcome.publications
    assert publication.change is None
    assert [action.action for action in outcome.override_actions] == ["expire"]


def test_claude_s_level_outlives_an_override_while_the_rules_say_the_same() -> None:
    expires_at = NOW + DAY
    stored = StoredOverride(Override(Level.NEW, NOW, expires_at), "admin", "because")
    first = settled(FRESH, case(1), level=Level.AT_RISK).standing._replace(stored_override=stored)
    before = settled(
        first, case(1, override=stored.override), level=Level.AT_RISK, forced=Cause.OVERRIDE_SET
    ).standing
    (publication,) = close_ended(before, case(1), expires_at).publications
    assert publication.published.level is Level.AT_RISK
    assert publication.shown_source is Source.CLAUDE
    # A hundred days later the rules say at risk themselves.
    stored = StoredOverride(Override(Level.NEW, NOW, NOW + 100 * DAY), "admin", "because")
    (publication,) = close_ended(
        before._replace(stored_override=stored), case(1), NOW + 100 * DAY
    ).publications
    assert publication.published.level is Level.AT_RISK
    assert publication.shown_source is Source.RULES


def test_a_step_of_the_computed_level_wakes_under_an_override() -> None:
    young = case(joined_days_ago=59)
    stored = StoredOverride(Override(Level.HIGHLY_ENGAGED, NOW), "admin", "because")
    shown = young._replace(override=stored.override)
    first = settled(FRESH, young).standing._replace(stored_override=stored)
    standing = settled(first, shown, forced=Cause.OVERRIDE_SET).standing
    evaluation = evaluate(shown, NOW)
    assert evaluation.next_change_at is None
    woken_at = wake_at(shown, evaluation, standing)
    assert woken_at == NOW + DAY
    (publication,) = settled(standing, shown, woken_at, causes=()).publications
    assert publication.change is None
    assert publication.published.computed_level is Level.AT_RISK


def test_what_was_read_decides_the_cause_where_its_mark_is_still_to_come() -> None:
    first = settled(FRESH, case(1)).standing
    later = NOW + DAY

    def cause_of(before: Standing, what: Case, causes: Collection[str] = ()) -> Cause:
        (publication,) = settled(before, what, later, causes).publications
        assert publication.change is not None
        return publication.change.cause

    gone = case(1, eligible=False)
    assert cause_of(first, gone, ("signals",)) is Cause.MEMBERSHIP
    assert cause_of(first, gone) is Cause.MEMBERSHIP
    left = settled(first, gone, causes=("membership",)).standing
    assert cause_of(left, case(1), ("signals",)) is Cause.MEMBERSHIP
    # Joined lately after all.
    assert cause_of(first, case(1, joined_days_ago=10)) is Cause.MEMBERSHIP
    # Facts of before, and of the time since.
    assert cause_of(first, case(1, 2, 3)) is Cause.SIGNALS
    assert cause_of(first, case(1, -0.25, -0.5)) is Cause.SIGNALS
    assert cause_of(first, case()) is Cause.SIGNALS


def test_what_was_dated_ahead_comes_with_time() -> None:
    ahead = case(1, -0.25, -0.5)
    first = settled(FRESH, ahead).standing
    assert first.published.next_level is Level.HIGHLY_ENGAGED
    (publication,) = settled(first, ahead, NOW + DAY, causes=()).publications
    assert publication.change is not None
    assert (publication.change.cause, publication.change.effective_at) == (
        Cause.TIME, NOW + 0.5 * DAY,
    )  # fmt: skip


def test_of_several_steps_that_were_foreseen_time_brings_the_last() -> None:
    """New for six hours more, an event announced in twelve; nobody looks for a day."""
    ahead = case(-0.5, joined_days_ago=59.75)
    first = settled(FRESH, ahead).standing
    assert first.published.next_level is Level.AT_RISK
    (publication,) = settled(first, ahead, NOW + DAY, causes=()).publications
    assert publication.change == (Level.NEW, Level.MODERATE, Cause.TIME, NOW + 0.5 * DAY)


def test_what_was_dated_ahead_comes_with_time_whatever_claude_says_of_it() -> None:
    ahead = case(-0.25)
    first = settled(FRESH, ahead).standing
    assert first.published.next_level is Level.MODERATE
    (publication,) = settled(
        first, ahead, NOW + DAY, causes=(), level=Level.HIGHLY_ENGAGED
    ).publications
    assert publication.change is not None
    assert publication.change.cause is Cause.TIME


def test_a_stored_verdict_moves_a_level_where_the_rules_stand_still() -> None:
    waning = case(1, 89.5)
    first = settled(FRESH, waning).standing
    (publication,) = settled(first, waning, NOW + DAY, causes=(), level=Level.AT_RISK).publications
    assert publication.change is not None
    assert publication.change.cause is Cause.CLASSIFIER


def test_who_turns_out_to_join_later_has_no_level_because_of_the_membership() -> None:
    first = settled(FRESH, case(1)).standing
    (publication,) = settled(first, case(1, joined_days_ago=-2), NOW + DAY).publications
    assert publication.change is not None
    assert (publication.change.to_level, publication.change.cause) == (None, Cause.MEMBERSHIP)


def test_who_has_left_since_had_what_the_rules_say_when_the_override_expired() -> None:
    young = case(joined_days_ago=59)
    expires_at, late = NOW + 2 * DAY, NOW + 3 * DAY
    stored = StoredOverride(Override(Level.HIGHLY_ENGAGED, NOW, expires_at), "admin", "because")
    first = settled(FRESH, young).standing._replace(stored_override=stored)
    shown = young._replace(override=stored.override)
    before = settled(first, shown, forced=Cause.OVERRIDE_SET).standing
    gone = young._replace(eligible=False)
    closed = close_ended(before, gone, late)
    outcome = joined(closed, settled(closed.standing, gone, late, causes=("membership",)))
    assert [p.change and p.change[:3] for p in outcome.publications] == [
        (Level.HIGHLY_ENGAGED, Level.AT_RISK, Cause.OVERRIDE_EXPIRED),
        (Level.AT_RISK, None, Cause.MEMBERSHIP),
    ]
    # Nothing tells of a level any more: the clocks of the override are over all the same.
    unknown = case(joined_days_ago=-9)
    (publication,) = close_ended(before, unknown, late).publications
    assert publication.published.next_change_at is None
    assert publication.published.next_level_change_at is None


def test_who_leaves_had_a_level_before() -> None:
    before = settled(FRESH, case(1)).standing
    left = settled(before, case(1, eligible=False), causes=("membership",)).standing
    assert (left.published.level, left.published.previous_level) == (None, Level.MODERATE)
    # And has none before the next one.
    again = settled(left, case(1), causes=("membership",)).standing
    assert (again.published.level, again.published.previous_level) == (Level.MODERATE, None)


def test_a_newness_that_only_claude_saw_ends_when_the_thresholds_say() -> None:
    young = case(1, 2, 3, joined_days_ago=50)
    first = settled(FRESH, young, level=Level.NEW).standing
    assert first.rules_level is Level.HIGHLY_ENGAGED
    ended_at = NOW + 10 * DAY
    for late in (ended_at, ended_at + 5 * DAY):
        (publication,) = settled(first, young, late, causes=()).publications
        assert publication.change is not None
        assert (publication.change.cause, publication.change.effective_at) == (Cause.TIME, ended_at)
    # Later a step of the rules is what began last.
    later = NOW + 100 * DAY
    (publication,) = settled(first, young, later, causes=()).publications
    assert publication.change is not None
    assert publication.change.effective_at == NOW + 89 * DAY


def test_nothing_is_dated_before_the_change_before_it() -> None:
    first = settled(FRESH, case(1)).standing
    since = first.published._replace(level_since=NOW + 95 * DAY)
    late = NOW + 100 * DAY
    outcome = settled(first._replace(published=since), case(1), late, causes=())
    (publication,) = outcome.publications
    assert publication.change is not None
    assert publication.change.effective_at == NOW + 95 * DAY
