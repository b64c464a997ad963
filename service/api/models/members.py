"""What is said about members."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import (
    Field,
)

from service.api.models.common import (
    T1,
    T2,
    Answer,
    ThresholdNumbers,
)
from service.levels import Level, Reason
from service.records import Cause, SignalsRecord, Source


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
    next: str | None = Field(examples=["WyIyMDI2LTExLTIwVDE4OjMwOjAwKzAwOjAwIiwzLDNd"])
