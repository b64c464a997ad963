"""Records of the database as answers: texts rendered, evidence laid out."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Final

from service.api.models import (
    Comparison,
    Evidence,
    Example,
    HistoryItem,
    Improvement,
    LastRun,
    LevelChange,
    LevelCount,
    Me,
    Member,
    MemberItem,
    Movement,
    NextStep,
    OverrideAnswer,
    OverrideChange,
    Prevention,
    PreviewAnswer,
    Receipt,
    RemainingData,
    SummaryAnswer,
    ThresholdNumbers,
    ThresholdsAnswer,
    ThresholdsItem,
    Transition,
)
from service.api.values import (
    ErasureReceipt,
    HistoryEntry,
    LevelChangeEntry,
    MemberRecord,
    MemberRow,
    Standing,
    Summary,
    ThresholdsPreview,
    ThresholdsVersion,
)
from service.levels import RANK, STATUS_LABELS, Level
from service.records import SignalsRecord
from service.texts import TextValues, in_words, is_clean, render_admin, render_user
from service.thresholds import Thresholds

# Rules in order: the signal that each looks at and the threshold that it is held against.
RULE_FREQUENT, RULE_NEW, RULE_SOME, RULE_SILENT = 1, 2, 3, 4
DAY: Final = timedelta(days=1)


def text_values(record: MemberRecord, org_name: str) -> TextValues:
    """What the placeholders of a member's texts stand for now."""
    improvement = record.improvement
    return TextValues(
        org_name=org_name,
        member_name=record.display_name,
        thresholds=record.thresholds,
        events=record.signals.events_attended_90d,
        last_attended_at=record.signals.last_attended_at,
        last_rsvp_at=record.signals.last_rsvp_at,
        profile_updated_at=record.signals.profile_updated_at,
        joined_at=record.signals.joined_at,
        next_change_at=record.next_change_at,
        next_level_change_at=record.next_level_change_at,
        next_level=record.next_level,
        improvement_events=None if improvement is None else improvement.events,
        improvement_before=None if improvement is None else improvement.before,
        override_expires_at=None if record.override is None else record.override.expires_at,
    )


# ---------------------------------------------------------------------------- the member's own


def me(record: MemberRecord | None, org_name: str) -> Me:
    """What a member reads about themselves."""
    if record is None or record.level is None or record.user_template is None:
        return Me(status_label=None, user_explanation=None, computed_at=None, next_step=None)
    return Me(
        status_label=STATUS_LABELS[record.level],
        user_explanation=render_user(record.user_template, text_values(record, org_name)),
        computed_at=record.computed_at,
        next_step=_next_step(record),
    )


def _next_step(record: MemberRecord) -> NextStep | None:
    """Keeping a level that is about to go comes before reaching the next one."""
    if record.override is not None:
        return None
    kept = prevention(record)
    if kept is not None and kept.events is not None and record.level in _KEPT:
        assert record.level is not None
        text = (
            f"Come to {_events(kept.events)} before {in_words(kept.before)} and you stay "
            f"“{STATUS_LABELS[record.level]}”."
        )
        return _clean(NextStep(text=text, events=kept.events, before=kept.before))
    better = record.improvement
    if better is None:
        return None
    by = "" if better.before is None else f" before {in_words(better.before)}"
    text = (
        f"Come to {_events(better.events)}{by} and your status becomes "
        f"“{STATUS_LABELS[better.level]}”."
    )
    return _clean(NextStep(text=text, events=better.events, before=better.before))


_KEPT: Final = frozenset({Level.HIGHLY_ENGAGED, Level.MODERATE})


def _events(number: int) -> str:
    return "1 more event" if number == 1 else f"{number} more events"


def _clean(step: NextStep) -> NextStep | None:
    return step if is_clean(step.text) else None


# ------------------------------------------------------------------------------- administrators


def member(record: MemberRecord, org_id: str, standing: Standing) -> Member:
    """Everything that an administrator sees of a member."""
    values = text_values(record, standing.org_name)
    admin, user = record.admin_template, record.user_template
    scored = record.level is not None
    return Member(
        org_id=org_id,
        user_id=record.user_id,
        display_name=record.display_name,
        membership=record.membership,
        role=record.role,
        level=record.level,
        computed_level=record.computed_level,
        previous_level=record.previous_level,
        level_since=record.level_since,
        reason=record.reason,
        source=record.source,
        signals=SignalsRecord(**record.signals._asdict()),
        evidence=evidence(record),
        admin_explanation=render_admin(admin, values) if scored and admin is not None else None,
        user_explanation=render_user(user, values) if scored and user is not None else None,
        status_label=None if record.level is None else STATUS_LABELS[record.level],
        override=_override(record),
        next_change_at=record.next_change_at,
        next_level_change_at=record.next_level_change_at,
        next_level=record.next_level,
        model_version=record.model_version,
        computed_at=record.computed_at,
        revision=record.revision,
    )


def _override(record: MemberRecord) -> OverrideAnswer | None:
    override = record.override
    if override is None:
        return None
    return OverrideAnswer(
        level=override.level,
        notes=override.notes,
        overridden_by=override.performed_by,
        overridden_by_name=override.performed_by_name,
        overridden_at=override.overridden_at,
        expires_at=override.expires_at,
    )


def evidence(record: MemberRecord) -> Evidence:
    """The numbers that decided, in the order in which the rules looked at them."""
    improvement = record.improvement
    return Evidence(
        rule=record.rule,
        reason=record.reason,
        as_of=record.computed_at,
        thresholds_version=record.thresholds.version,
        thresholds=_numbers(record.thresholds),
        comparisons=comparisons(record),
        counted_event_ids=list(record.counted_event_ids),
        counted_events_total=record.signals.events_attended_90d,
        improvement=None
        if improvement is None
        else Improvement(
            events=improvement.events, before=improvement.before, level=improvement.level
        ),
        prevention=prevention(record),
    )


def comparisons(record: MemberRecord) -> list[Comparison]:
    """Each rule up to the one that decided, with what it compared."""
    rule, thresholds, signals = record.rule, record.thresholds, record.signals
    if rule is None:
        return []
    dates = [
        at
        for at in (
            signals.last_attended_at,
            signals.last_rsvp_at,
            signals.profile_updated_at,
            signals.joined_at,
        )
        if at is not None
    ]
    rows = [
        (
            RULE_FREQUENT,
            "events_attended_90d",
            signals.events_attended_90d,
            "highly_engaged_min_events",
        ),
        (RULE_NEW, "joined_at", signals.joined_at, "new_member_days"),
        (RULE_SOME, "events_attended_90d", signals.events_attended_90d, "moderate_min_events"),
        (RULE_SILENT, "latest_activity_at", max(dates, default=None), "inactive_after_days"),
    ]
    return [
        Comparison(
            rule=number,
            signal=signal,
            value=value,
            threshold=threshold,
            threshold_value=getattr(thresholds, threshold),
            met=number == rule,
        )
        for number, signal, value, threshold in rows
        if number <= rule
    ]


def prevention(record: MemberRecord) -> Prevention | None:
    """What would keep the shown level from falling at its next change."""
    at, level, then = record.next_level_change_at, record.level, record.next_level
    if at is None or level is None or then is None or record.override is not None:
        return None
    if RANK[then] >= RANK[level]:
        return None
    thresholds = record.thresholds
    if level is Level.HIGHLY_ENGAGED:
        needed = thresholds.highly_engaged_min_events - record.events_left
    elif level in (Level.MODERATE, Level.NEW):
        needed = thresholds.moderate_min_events - record.events_left
    else:
        return Prevention(events=1, any_activity=True, before=at)
    return Prevention(events=max(needed, 1), any_activity=False, before=at)


def _numbers(thresholds: Thresholds) -> ThresholdNumbers:
    return ThresholdNumbers(
        highly_engaged_min_events=thresholds.highly_engaged_min_events,
        moderate_min_events=thresholds.moderate_min_events,
        activity_window_days=thresholds.activity_window_days,
        new_member_days=thresholds.new_member_days,
        inactive_after_days=thresholds.inactive_after_days,
    )


def member_item(row: MemberRow) -> MemberItem:
    """A row of the list. Its values have their types already, so nothing is checked again."""
    fields = row._asdict()
    del fields["number"]
    return MemberItem.model_construct(**fields)


def history_item(entry: HistoryEntry) -> HistoryItem:
    """A change or an action."""
    if isinstance(entry, LevelChangeEntry):
        return LevelChange(
            recorded_at=entry.at,
            effective_at=entry.effective_at,
            from_level=entry.from_level,
            to_level=entry.to_level,
            cause=entry.cause,
            reason=entry.reason,
            computed_level=entry.computed_level,
            source=entry.source,
            revision=entry.number,
        )
    return OverrideChange(
        recorded_at=entry.at,
        action=entry.action,
        previous_level=entry.previous_level,
        new_level=entry.new_level,
        notes=entry.notes,
        performed_by=entry.performed_by,
        performed_by_name=entry.performed_by_name,
        expires_at=entry.expires_at,
    )


def receipt(receipt: ErasureReceipt) -> Receipt:
    """What an erasure came to."""
    return Receipt(
        org_id=receipt.org_id,
        user_id=receipt.user_id,
        erased_at=receipt.erased_at,
        removed=dict(receipt.removed),
        remaining=[RemainingData(where=r.where, until=r.until) for r in receipt.remaining],
    )


# --------------------------------------------------------------------------------- organisation


def summary(summary: Summary, org_id: str, standing: Standing) -> SummaryAnswer:
    """The organisation as a whole."""
    run = summary.last_run
    return SummaryAnswer(
        org_id=org_id,
        name=standing.org_name,
        status=standing.org_status,
        as_of=summary.as_of,
        members=sum(summary.levels.values()),
        levels=[LevelCount(level=level, members=summary.levels[level]) for level in Level],
        movements=[
            Movement(day=day, direction=direction, members=members)
            for (day, direction), members in sorted(summary.movements.items())
        ],
        overrides=summary.overrides,
        overrides_expiring_30d=summary.overrides_expiring_30d,
        falls_due_30d=summary.falls_due_30d,
        last_run=None if run is None else LastRun(**run._asdict()),
    )


def thresholds_item(version: ThresholdsVersion) -> ThresholdsItem:
    """One version of the thresholds."""
    return ThresholdsItem(
        **_numbers(version.thresholds).model_dump(),
        version=version.thresholds.version,
        author=version.author,
        author_name=version.author_name,
        note=version.note,
        created_at=version.created_at,
    )


def thresholds_answer(versions: Sequence[ThresholdsVersion]) -> ThresholdsAnswer:
    """The version in force and those before."""
    items = [thresholds_item(version) for version in versions]
    return ThresholdsAnswer(current=items[0], versions=items)


def preview(preview: ThresholdsPreview) -> PreviewAnswer:
    """What other thresholds would do."""
    matrix = preview.matrix
    return PreviewAnswer(
        base_version=preview.base_version,
        as_of=preview.as_of,
        members=preview.members,
        members_changed=preview.members_changed,
        now=[
            LevelCount(level=level, members=sum(matrix.get((level, to), 0) for to in Level))
            for level in Level
        ],
        then=[
            LevelCount(level=level, members=sum(matrix.get((start, level), 0) for start in Level))
            for level in Level
        ],
        matrix=[
            Transition(from_level=start, to_level=to, members=matrix.get((start, to), 0))
            for start in Level
            for to in Level
        ],
        examples=[Example(**example._asdict()) for example in preview.examples],
        level_records=preview.level_records,
        change_records=preview.change_records,
        claude_calls=preview.claude_calls,
    )
