"""What is said about an organisation, and its thresholds."""

from __future__ import annotations

from datetime import date, datetime
from typing import Annotated, Final

from pydantic import (
    ConfigDict,
    Field,
    JsonValue,
    StrictInt,
)

from service.api.models.common import (
    MAX_NOTES,
    NOTE_PATTERN,
    T1,
    WHOLE,
    Answer,
    Body,
    ThresholdNumbers,
)
from service.api.values import OrganizationStatus
from service.levels import Direction, Level
from service.thresholds import MAX_DAYS, MAX_EVENTS


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

    highly_engaged_min_events: Annotated[StrictInt, Field(ge=2, le=MAX_EVENTS), WHOLE]
    moderate_min_events: Annotated[StrictInt, Field(ge=1, le=MAX_EVENTS - 1), WHOLE]
    activity_window_days: Annotated[StrictInt, Field(ge=1, le=MAX_DAYS), WHOLE]
    new_member_days: Annotated[StrictInt, Field(ge=0, le=MAX_DAYS), WHOLE]
    inactive_after_days: Annotated[StrictInt, Field(ge=1, le=MAX_DAYS), WHOLE]


_NUMBERS: Final[dict[str, JsonValue]] = {
    "highly_engaged_min_events": 4,
    "moderate_min_events": 2,
    "activity_window_days": 90,
    "new_member_days": 60,
    "inactive_after_days": 180,
}


class PreviewRequest(ThresholdsBody):
    """Numbers to try out."""

    model_config = ConfigDict(json_schema_extra={"examples": [_NUMBERS]})


class ThresholdsRequest(ThresholdsBody):
    """Numbers to put in force, the version that they were compared with, and why."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{**_NUMBERS, "base_version": 0, "note": "We meet more often now."}]
        }
    )

    base_version: Annotated[StrictInt, Field(ge=0, le=2**31 - 1), WHOLE]
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
