"""What bodies have in common."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Final

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from service.instants import parse_instant

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


def _some_text(text: str) -> str:
    if not text.strip():
        raise ValueError("must not be blank")
    if "\0" in text:
        raise ValueError("must not hold NUL")
    return text


# The pattern says the same, but nobody reads it as that.
Notes = Annotated[
    str,
    Field(max_length=MAX_NOTES, json_schema_extra={"minLength": 1, "pattern": NOTES_PATTERN}),
    AfterValidator(_some_text),
]


def _whole(value: object) -> object:
    # To JSON, 3 and 3.0 are one number; text and truth values are none.
    return int(value) if isinstance(value, float) and value.is_integer() else value


# For a StrictInt, after its bounds, which the schema then has as its own.
WHOLE: Final = BeforeValidator(_whole)


class Body(BaseModel):
    """What callers send: exactly these fields."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Answer(BaseModel):
    """What callers get; more fields may come, so ignore those that you do not know."""

    model_config = ConfigDict(frozen=True)


class ThresholdNumbers(Answer):
    """The numbers that decide."""

    highly_engaged_min_events: int = Field(examples=[3])
    moderate_min_events: int = Field(examples=[1])
    activity_window_days: int = Field(examples=[90])
    new_member_days: int = Field(examples=[60])
    inactive_after_days: int = Field(examples=[180])
