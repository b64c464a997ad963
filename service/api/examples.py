"""One example of every answer, as the description shows it: November at the Riverside Makers."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Final

from service.api.models.actions import (
    PSEUDONYMISED,
    REMOVED,
    Accepted,
    Receipt,
    RemainingData,
    SessionAnswer,
)
from service.api.models.common import Answer, ThresholdNumbers
from service.api.models.members import (
    Comparison,
    Evidence,
    HistoryPage,
    Improvement,
    LevelChange,
    Me,
    Member,
    MemberItem,
    MemberPage,
    NextStep,
    OverrideChange,
    Prevention,
)
from service.api.models.organizations import (
    Example,
    LastRun,
    LevelCount,
    Movement,
    PreviewAnswer,
    SummaryAnswer,
    ThresholdsAnswer,
    ThresholdsItem,
    Transition,
)
from service.api.values import OrganizationStatus
from service.levels import Direction, Level, Reason
from service.records import Cause, SignalsRecord, Source
from service.signals import JoinedAtSource

_ORG, _ORG_NAME = "riverside", "Riverside Makers"
_ADA, _ADA_NAME = "ada.lovelace", "Ada Lovelace"
_GRACE, _GRACE_NAME = "grace.hopper", "Grace Hopper"

_NOW: Final = datetime(2026, 11, 23, 9, tzinfo=UTC)
_JOINED: Final = datetime(2025, 3, 4, 17, tzinfo=UTC)
_BEFORE: Final = datetime(2026, 10, 2, 18, 30, tzinfo=UTC)
_LAST: Final = datetime(2026, 11, 20, 18, 30, tzinfo=UTC)
# When the older event, then the newer one, counts no more.
_COUNT_FALLS: Final = _BEFORE + timedelta(days=90)
_LEVEL_FALLS: Final = _LAST + timedelta(days=90)
_OVERRIDE_ENDS: Final = datetime(2026, 10, 1, 12, tzinfo=UTC)

_EVENTS: Final = ["evening-2026-11-20", "evening-2026-10-02"]
_NUMBERS: Final = ThresholdNumbers(
    highly_engaged_min_events=3,
    moderate_min_events=1,
    activity_window_days=90,
    new_member_days=60,
    inactive_after_days=180,
)
_SIGNALS: Final = SignalsRecord(
    events_attended_90d=2,
    last_attended_at=_LAST,
    rsvp_count_90d=1,
    last_rsvp_at=_LAST - timedelta(days=3),
    profile_updated_at=None,
    joined_at=_JOINED,
    joined_at_source=JoinedAtSource.MEMBERSHIP,
)
_USER_TEXT: Final = (
    "You have been to 2 events with Riverside Makers in the last 90 days, most recently on "
    "20 November 2026. It is good to have you there."
)
_EVIDENCE: Final = Evidence(
    rule=3,
    reason=Reason.SOME_ATTENDANCE,
    as_of=_NOW,
    thresholds_version=0,
    thresholds=_NUMBERS,
    comparisons=[
        Comparison(
            rule=1, signal="events_attended_90d", value=2,
            threshold="highly_engaged_min_events", threshold_value=3, met=False,
        ),
        Comparison(
            rule=2, signal="joined_at", value=_JOINED,
            threshold="new_member_days", threshold_value=60, met=False,
        ),
        Comparison(
            rule=3, signal="events_attended_90d", value=2,
            threshold="moderate_min_events", threshold_value=1, met=True,
        ),
    ],
    counted_event_ids=_EVENTS,
    counted_events_total=len(_EVENTS),
    improvement=Improvement(events=1, before=_COUNT_FALLS, level=Level.HIGHLY_ENGAGED),
    prevention=Prevention(events=1, any_activity=False, before=_LEVEL_FALLS),
)  # fmt: skip
_MEMBER: Final = Member(
    org_id=_ORG,
    user_id=_ADA,
    display_name=_ADA_NAME,
    membership="active",
    role="member",
    level=Level.MODERATE,
    computed_level=Level.MODERATE,
    previous_level=Level.AT_RISK,
    level_since=_BEFORE,
    reason=Reason.SOME_ATTENDANCE,
    source=Source.RULES,
    signals=_SIGNALS,
    evidence=_EVIDENCE,
    admin_explanation="Moderately engaged with Riverside Makers: Ada Lovelace attended 2 events in "
    "the last 90 days, most recently on 20 November 2026; 3 are needed for highly engaged.",
    user_explanation=_USER_TEXT,
    status_label="Taking part",
    override=None,
    next_change_at=_COUNT_FALLS,
    next_level_change_at=_LEVEL_FALLS,
    next_level=Level.AT_RISK,
    model_version="rules-1",
    computed_at=_NOW,
    revision=7,
)
_ITEM: Final = MemberItem(
    user_id=_ADA,
    display_name=_ADA_NAME,
    level=Level.MODERATE,
    computed_level=Level.MODERATE,
    reason=Reason.SOME_ATTENDANCE,
    source=Source.RULES,
    level_since=_BEFORE,
    events_attended_90d=2,
    rsvp_count_90d=1,
    last_attended_at=_LAST,
    joined_at=_JOINED,
    override_level=None,
    override_expires_at=None,
    next_level_change_at=_LEVEL_FALLS,
    next_level=Level.AT_RISK,
    computed_at=_NOW,
    revision=7,
)
_HISTORY: Final = HistoryPage(
    items=[
        LevelChange(
            recorded_at=_BEFORE, effective_at=_BEFORE, from_level=Level.AT_RISK,
            to_level=Level.MODERATE, cause=Cause.SIGNALS, reason=Reason.SOME_ATTENDANCE,
            computed_level=Level.MODERATE, source=Source.RULES, revision=6,
        ),
        OverrideChange(
            recorded_at=_OVERRIDE_ENDS, action="clear", previous_level=Level.MODERATE,
            new_level=Level.AT_RISK, notes="The workshop is over.", performed_by=_GRACE,
            performed_by_name=_GRACE_NAME, expires_at=None,
        ),
    ],
    next=None,
)  # fmt: skip
_COUNTS: Final = {
    Level.HIGHLY_ENGAGED: 96, Level.MODERATE: 148, Level.AT_RISK: 102, Level.NEW: 54,
    Level.INACTIVE: 80,
}  # fmt: skip
_SUMMARY: Final = SummaryAnswer(
    org_id=_ORG,
    name=_ORG_NAME,
    status=OrganizationStatus.ACTIVE,
    as_of=_NOW,
    members=sum(_COUNTS.values()),
    levels=[LevelCount(level=level, members=members) for level, members in _COUNTS.items()],
    movements=[
        Movement(day=date(2026, 11, 20), direction=Direction.RISE, members=4),
        Movement(day=date(2026, 11, 22), direction=Direction.FALL, members=2),
    ],
    overrides=3,
    overrides_expiring_30d=1,
    falls_due_30d=17,
    last_run=LastRun(
        slot=_NOW.replace(hour=4),
        status="done",
        started_at=_NOW.replace(hour=4, second=1),
        finished_at=_NOW.replace(hour=4, second=9),
    ),
)
_DEFAULTS: Final = ThresholdsItem(
    **_NUMBERS.model_dump(), version=0, author=None, author_name=None, note="", created_at=None
)
_SAVED: Final = ThresholdsItem(
    **(_NUMBERS.model_dump() | {"highly_engaged_min_events": 4, "moderate_min_events": 2}),
    version=1,
    author=_GRACE,
    author_name=_GRACE_NAME,
    note="We meet more often now.",
    created_at=_NOW,
)
# What the second version does.
_MOVES: Final = {
    (Level.HIGHLY_ENGAGED, Level.MODERATE): 22,
    (Level.MODERATE, Level.AT_RISK): 9,
}
_CHANGED: Final = sum(_MOVES.values())


def _preview() -> PreviewAnswer:
    left = {a: sum(n for (before, _), n in _MOVES.items() if before is a) for a in Level}
    came = {a: sum(n for (_, after), n in _MOVES.items() if after is a) for a in Level}
    stay = {(a, a): _COUNTS[a] - left[a] for a in Level}
    matrix = {(a, b): 0 for a in Level for b in Level} | stay | _MOVES
    return PreviewAnswer(
        base_version=0,
        as_of=_NOW,
        members=sum(_COUNTS.values()),
        members_changed=_CHANGED,
        now=[LevelCount(level=a, members=_COUNTS[a]) for a in Level],
        then=[LevelCount(level=a, members=_COUNTS[a] - left[a] + came[a]) for a in Level],
        matrix=[
            Transition(from_level=before, to_level=after, members=members)
            for (before, after), members in matrix.items()
        ],
        examples=[
            Example(
                user_id=_ADA, display_name=_ADA_NAME,
                from_level=Level.HIGHLY_ENGAGED, to_level=Level.MODERATE,
            )
        ],
        level_records=sum(_COUNTS.values()),
        change_records=_CHANGED,
        claude_calls=0,
    )  # fmt: skip


ANSWERS: Final[tuple[Answer, ...]] = (
    Me(
        status_label="Taking part",
        user_explanation=_USER_TEXT,
        computed_at=_NOW,
        next_step=NextStep(
            text="Come to 1 more event before 18 February 2027 and you stay “Taking part”.",
            events=1,
            before=_LEVEL_FALLS,
        ),
    ),
    _MEMBER,
    MemberPage(items=[_ITEM], next="WyI1ZjM2YjJlYSIsInVzZXItMSIsMTJd"),
    _HISTORY,
    _SUMMARY,
    ThresholdsAnswer(current=_SAVED, versions=[_SAVED, _DEFAULTS]),
    _preview(),
    Accepted(),
    Receipt(
        org_id=_ORG,
        user_id=_ADA,
        erased_at=_NOW,
        removed=REMOVED,
        pseudonymised=PSEUDONYMISED,
        remaining=[RemainingData(where="change topic", until="its retention time")],
    ),
    SessionAnswer(
        expires_in_s=28800,
        csrf_token="<64 hexadecimal digits>",  # noqa: S106
    ),
)
