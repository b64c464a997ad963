"""The bodies of the API, with examples: OpenAPI follows from these."""

from __future__ import annotations

from datetime import date, datetime
from typing import Annotated, Final, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    StrictInt,
)

from service.api.values import OrganizationStatus
from service.events import parse_instant
from service.levels import Direction, Level, Reason
from service.records import Cause, SignalsRecord, Source
from service.thresholds import MAX_DAYS, MAX_EVENTS

MAX_NOTES: Final = 2000
NOTES_PATTERN: Final = r"^[^\u0000]*[^\s\u0000][^\u0000]*$"
NOTE_PATTERN: Final = r"^[^\u0000]*$"

T1: Final = "2026-11-20T18:30:00Z"
T2: Final = "2027-02-18T18:30:00Z"


def _aware(at: datetime) -> datetime:
    if at.tzinfo is None:
        raise ValueError("must have an offset from UTC")
    return at


Instant = Annotated[
    datetime,
    BeforeValidator(parse_instant, json_schema_input_type=datetime),
    AfterValidator(_aware),
]


class Body(BaseModel):
    """What callers send: exactly these fields."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Answer(BaseModel):
    """What callers get; more fields may come, so ignore those that you do not know."""

    model_config = ConfigDict(frozen=True)


# ------------------------------------------------------------------------------------- members


class NextStep(Answer):
    """What would help next."""

    text: str = Field(examples=["Come to 1 more event before 18 February 2027 to stay on course."])
    events: int | None = Field(examples=[1])
    before: datetime | None = Field(examples=[T2])


class Me(Answer):
    """How a member stands, in words for the member. Empty while nothing has been computed yet."""

    status_label: str | None = Field(examples=["Taking part"])
    user_explanation: str | None = Field(
        examples=["You took part in 2 events at Riverside Makers since August. See you soon!"]
    )
    computed_at: datetime | None = Field(examples=[T1])
    next_step: NextStep | None


class MemberItem(Answer):
    """A member in the list."""

    user_id: str = Field(examples=["ada.lovelace"])
    display_name: str | None = Field(examples=["Ada Lovelace"])
    level: Level
    computed_level: Level
    reason: Reason
    source: Source
    level_since: datetime | None = Field(examples=[T1])
    events_attended_90d: int = Field(examples=[2])
    rsvp_count_90d: int = Field(examples=[1])
    last_attended_at: datetime | None = Field(examples=[T1])
    joined_at: datetime | None = Field(examples=[T1])
    override_level: Level | None
    override_expires_at: datetime | None = Field(examples=[T2])
    next_level_change_at: datetime | None = Field(examples=[T2])
    next_level: Level | None
    computed_at: datetime = Field(examples=[T1])
    revision: int = Field(examples=[7])


class MemberPage(Answer):
    """A page of members. `next`: the cursor of the page after, null on the last one."""

    items: list[MemberItem]
    next: str | None = Field(examples=["WyI1ZjM2YjJlYSIsInVzZXItMSIsMTJd"])


class ThresholdNumbers(Answer):
    """The numbers that decide."""

    highly_engaged_min_events: int = Field(examples=[3])
    moderate_min_events: int = Field(examples=[1])
    activity_window_days: int = Field(examples=[90])
    new_member_days: int = Field(examples=[60])
    inactive_after_days: int = Field(examples=[180])


class Comparison(Answer):
    """A signal beside the threshold that it was held against; rules are tried in order."""

    rule: int = Field(examples=[3])
    signal: str = Field(examples=["events_attended_90d"])
    value: int | datetime | None = Field(examples=[2])
    threshold: str = Field(examples=["moderate_min_events"])
    threshold_value: int = Field(examples=[1])
    met: bool


class Improvement(Answer):
    """The nearest way up: `events` more before `before` (null: any time) give `level`."""

    events: int = Field(examples=[1])
    before: datetime | None = Field(examples=[T2])
    level: Level


class Prevention(Answer):
    """What would keep the level at the next change: `events` more attended, or any activity."""

    events: int | None = Field(examples=[1])
    any_activity: bool
    before: datetime = Field(examples=[T2])


class Evidence(Answer):
    """Why the computed level is what it is. The numbers shown are the numbers that decided."""

    rule: int | None = Field(examples=[3])
    reason: Reason | None
    as_of: datetime | None = Field(examples=[T1])
    thresholds_version: int = Field(examples=[0])
    thresholds: ThresholdNumbers
    comparisons: list[Comparison]
    counted_event_ids: list[str] = Field(examples=[["evt-2026-11-20", "evt-2026-10-02"]])
    counted_events_total: int = Field(examples=[2])
    improvement: Improvement | None
    prevention: Prevention | None


class OverrideAnswer(Answer):
    """An override that is active now."""

    level: Level
    notes: str = Field(examples=["Runs the workshop; does not sign in."])
    overridden_by: str = Field(examples=["grace.hopper"])
    overridden_by_name: str | None = Field(examples=["Grace Hopper"])
    overridden_at: datetime = Field(examples=[T1])
    expires_at: datetime | None = Field(examples=[T2])


class Member(Answer):
    """Everything about a member. `level` null: not scored, with the last texts gone too."""

    org_id: str = Field(examples=["riverside"])
    user_id: str = Field(examples=["ada.lovelace"])
    display_name: str | None = Field(examples=["Ada Lovelace"])
    membership: Literal["active", "left"] | None
    role: Literal["member", "admin"] | None
    level: Level | None
    computed_level: Level | None
    previous_level: Level | None
    level_since: datetime | None = Field(examples=[T1])
    reason: Reason | None
    source: Source | None
    signals: SignalsRecord
    evidence: Evidence
    admin_explanation: str | None = Field(
        examples=["Ada Lovelace attended 2 events of Riverside Makers within 90 days."]
    )
    user_explanation: str | None = Field(examples=["You took part in 2 events."])
    status_label: str | None = Field(examples=["Taking part"])
    override: OverrideAnswer | None
    next_change_at: datetime | None = Field(examples=[T2])
    next_level_change_at: datetime | None = Field(examples=[T2])
    next_level: Level | None
    model_version: str | None = Field(examples=["rules-1"])
    computed_at: datetime | None = Field(examples=[T1])
    revision: int = Field(examples=[7])


class LevelChange(Answer):
    """A change of the shown level."""

    kind: Literal["level"] = "level"
    recorded_at: datetime = Field(examples=[T1])
    effective_at: datetime = Field(examples=[T1])
    from_level: Level | None
    to_level: Level | None
    cause: Cause
    reason: Reason | None
    computed_level: Level | None
    source: Source | None
    revision: int = Field(examples=[7])


class OverrideChange(Answer):
    """An action on overrides; `performed_by` is a user id, or `system`."""

    kind: Literal["override"] = "override"
    recorded_at: datetime = Field(examples=[T1])
    action: Literal["override", "clear", "expire"]
    previous_level: Level | None
    new_level: Level | None
    notes: str | None = Field(examples=["Runs the workshop; does not sign in."])
    performed_by: str = Field(examples=["grace.hopper"])
    performed_by_name: str | None = Field(examples=["Grace Hopper"])
    expires_at: datetime | None = Field(examples=[T2])


HistoryItem = Annotated[LevelChange | OverrideChange, Field(discriminator="kind")]


class HistoryPage(Answer):
    """Level changes and override actions, newest first."""

    items: list[HistoryItem]
    next: str | None = Field(examples=["WyIyMDI2LTExLTIwVDE4OjMwOjAwKzAwOjAwIiwibGV2ZWwiLDNd"])


# ------------------------------------------------------------------------------------- actions


class OverrideRequest(Body):
    """A level to show instead of the computed one, and why."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "level": "highly_engaged",
                "notes": "Runs the workshop; does not sign in.",
                "expires_at": "2099-12-31T23:59:00Z",
            }
        }
    )

    level: Level
    notes: str = Field(min_length=1, max_length=MAX_NOTES, pattern=NOTES_PATTERN)
    expires_at: Instant | None = None


class ClearRequest(Body):
    """Why an override ends, if there is something to say."""

    model_config = ConfigDict(json_schema_extra={"example": {"notes": "The workshop is over."}})

    notes: str | None = Field(None, max_length=MAX_NOTES, pattern=NOTE_PATTERN)


class Accepted(Answer):
    """The member will be evaluated within moments."""

    status: Literal["accepted"] = "accepted"


class RemainingData(Answer):
    """Data that goes by retention, and until when it may stay."""

    where: str = Field(examples=["engagement.change.v1"])
    until: str = Field(examples=["the topic's retention of 90 days"])


class Receipt(Answer):
    """What an erasure removed, by kind of data, and what still expires by itself."""

    org_id: str = Field(examples=["riverside"])
    user_id: str = Field(examples=["ada.lovelace"])
    erased_at: datetime = Field(examples=[T1])
    removed: dict[str, int] = Field(examples=[{"attendance": 12, "rsvp": 4}])
    remaining: list[RemainingData]


# -------------------------------------------------------------------------------- organisation


class LevelCount(Answer):
    """How many members show a level."""

    level: Level
    members: int = Field(examples=[120])


class Movement(Answer):
    """How many levels changed on a day (UTC), by direction."""

    day: date = Field(examples=["2026-11-20"])
    direction: Direction
    members: int = Field(examples=[4])


class LastRun(Answer):
    """The latest daily recompute, one for all organisations."""

    slot: datetime = Field(examples=["2026-11-20T04:00:00Z"])
    status: str = Field(examples=["done"])
    started_at: datetime = Field(examples=["2026-11-20T04:00:01Z"])
    finished_at: datetime | None = Field(examples=["2026-11-20T04:00:09Z"])


class SummaryAnswer(Answer):
    """The organisation at `as_of`, which may be a few seconds ago."""

    org_id: str = Field(examples=["riverside"])
    name: str = Field(examples=["Riverside Makers"])
    status: OrganizationStatus
    as_of: datetime = Field(examples=[T1])
    members: int = Field(examples=[480])
    levels: list[LevelCount]
    movements: list[Movement]
    overrides: int = Field(examples=[3])
    overrides_expiring_30d: int = Field(examples=[1])
    falls_due_30d: int = Field(examples=[17])
    last_run: LastRun | None


class ThresholdsBody(Body):
    """The numbers that decide; together they must make sense, see the 422."""

    highly_engaged_min_events: Annotated[StrictInt, Field(ge=2, le=MAX_EVENTS)]
    moderate_min_events: Annotated[StrictInt, Field(ge=1, le=MAX_EVENTS - 1)]
    activity_window_days: Annotated[StrictInt, Field(ge=1, le=MAX_DAYS)]
    new_member_days: Annotated[StrictInt, Field(ge=0, le=MAX_DAYS)]
    inactive_after_days: Annotated[StrictInt, Field(ge=1, le=MAX_DAYS)]


_NUMBERS: Final[dict[str, JsonValue]] = {
    "highly_engaged_min_events": 4,
    "moderate_min_events": 2,
    "activity_window_days": 90,
    "new_member_days": 60,
    "inactive_after_days": 180,
}


class PreviewRequest(ThresholdsBody):
    """Numbers to try out."""

    model_config = ConfigDict(json_schema_extra={"example": _NUMBERS})


class ThresholdsRequest(ThresholdsBody):
    """Numbers to put in force, the version that they were compared with, and why."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {**_NUMBERS, "base_version": 0, "note": "We meet more often now."}
        }
    )

    base_version: Annotated[StrictInt, Field(ge=0, le=2**31 - 1)]
    note: str = Field("", max_length=MAX_NOTES, pattern=NOTE_PATTERN)


class ThresholdsItem(ThresholdNumbers):
    """One version. Version 0 is the defaults, without author and time."""

    version: int = Field(examples=[1])
    author: str | None = Field(examples=["grace.hopper"])
    author_name: str | None = Field(examples=["Grace Hopper"])
    note: str = Field(examples=["We meet more often now."])
    created_at: datetime | None = Field(examples=[T1])


class ThresholdsAnswer(Answer):
    """The version in force, and the latest ones before it."""

    current: ThresholdsItem
    versions: list[ThresholdsItem]


class Transition(Answer):
    """How many members would go from one level to another, those who stay included."""

    from_level: Level
    to_level: Level
    members: int = Field(examples=[5])


class Example(Answer):
    """A member who would move."""

    user_id: str = Field(examples=["ada.lovelace"])
    display_name: str | None = Field(examples=["Ada Lovelace"])
    from_level: Level
    to_level: Level


class PreviewAnswer(Answer):
    """What other thresholds would do, by the rules; overrides stay. Nothing was written."""

    base_version: int = Field(examples=[0])
    as_of: datetime = Field(examples=[T1])
    members: int = Field(examples=[480])
    members_changed: int = Field(examples=[31])
    now: list[LevelCount]
    then: list[LevelCount]
    matrix: list[Transition]
    examples: list[Example]
    level_records: int = Field(examples=[480])
    change_records: int = Field(examples=[31])
    claude_calls: int = Field(examples=[0])


# ------------------------------------------------------------------------------------- sessions


class SessionAnswer(Answer):
    """A session was opened; the cookie is in the headers. Unsafe requests need the token."""

    user_id: str = Field(examples=["grace.hopper"])
    expires_in_s: int = Field(examples=[28800])
    csrf_token: str = Field(examples=["9c56cc51b374c3ba189210d5b6d4bf57790d351c96c47c02190ecf1e43"])
