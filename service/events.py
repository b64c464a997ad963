"""Wire models of the five input topics: the one definition of what a producer may send.

Decoding, the dead-letter codes and the JSON Schemas all follow from these models. Unknown fields
are ignored. Field order is the order of the columns that intake hands to the database.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Final, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints

MAX_ID_LENGTH: Final = 128
ID_PATTERN: Final = r"[A-Za-z0-9][A-Za-z0-9._@|-]{0,127}"
MAX_TEXT_LENGTH: Final = 200
MAX_VALUE_BYTES: Final = 64 * 1024

# RFC 3339 with or without an offset; a missing offset has a code of its own.
_TIME: Final = re.compile(
    r"(\d{4}-\d\d-\d\d)[Tt](\d\d:\d\d:\d\d)(?:\.(\d+))?([Zz]|[+-]\d\d:[0-5]\d)?", re.ASCII
)


class InputKind(StrEnum):
    """The five kinds of input record."""

    ATTENDANCE = "attendance"
    RSVP = "rsvp"
    PROFILE_UPDATE = "profile-update"
    MEMBERSHIP = "membership"
    ORGANIZATION = "organization"


def parse_instant(value: object) -> datetime:
    """RFC 3339 text to a datetime in UTC, truncated to microseconds; naive when it has no offset.

    Raises ValueError for anything else, also for instants outside the years 1 to 9999.
    """
    if isinstance(value, datetime):
        return value
    if not isinstance(value, str) or (match := _TIME.fullmatch(value)) is None:
        raise ValueError("must be an RFC 3339 date and time with an offset")
    date, time, fraction, offset = match.groups()
    text = f"{date}T{time}.{(fraction or '0')[:6].ljust(6, '0')}"
    parsed = datetime.fromisoformat(text + ("+00:00" if offset in ("Z", "z") else offset or ""))
    if parsed.tzinfo is None:
        return parsed
    try:
        return parsed.astimezone(UTC)
    except OverflowError:
        raise ValueError("is outside the years 1 to 9999") from None


def _without_nul(value: object) -> object:
    if isinstance(value, str) and "\0" in value:
        raise ValueError("must not contain NUL")
    return value


# Ids are checked after the types, since a bad id has a code of its own.
Id = Annotated[str, Field(json_schema_extra={"pattern": f"^{ID_PATTERN}$", "maxLength": 128})]
Instant = Annotated[datetime, BeforeValidator(parse_instant, json_schema_input_type=datetime)]
Text = Annotated[str, StringConstraints(max_length=MAX_TEXT_LENGTH), BeforeValidator(_without_nul)]


class InputRecord(BaseModel):
    """What every input record has: `id`, the message id, and `recorded_at`, when it was learned."""

    model_config = ConfigDict(strict=True, extra="ignore", frozen=True)


class Attendance(InputRecord):
    """Somebody was, or was not, at a community event. Current per org, user and event."""

    id: Id
    org_id: Id
    user_id: Id
    event_id: Id
    status: Literal["attended", "partial", "absent", "void"]
    occurred_at: Instant
    recorded_at: Instant


class Rsvp(InputRecord):
    """Somebody answered an invitation. Current per org, user and event."""

    id: Id
    org_id: Id
    user_id: Id
    event_id: Id
    response: Literal["going", "maybe", "declined", "withdrawn"]
    responded_at: Instant
    recorded_at: Instant


class ProfileUpdate(InputRecord):
    """Somebody's profile was updated. Every update is kept, current per user and message id."""

    id: Id
    user_id: Id
    updated_at: Instant
    actor: Literal["member", "admin", "system"] = "member"
    recorded_at: Instant


class Membership(InputRecord):
    """Somebody joined or left, and may administrate. Current per org and user."""

    id: Id
    org_id: Id
    user_id: Id
    status: Literal["active", "left"]
    role: Literal["member", "admin"] = "member"
    display_name: Text | None = None
    joined_at: Instant
    recorded_at: Instant


class Organization(InputRecord):
    """An organisation's name and state. Current per org."""

    id: Id
    org_id: Id
    name: Text
    status: Literal["active", "suspended", "deleted"]
    recorded_at: Instant


MODELS: Final[dict[InputKind, type[InputRecord]]] = {
    InputKind.ATTENDANCE: Attendance,
    InputKind.RSVP: Rsvp,
    InputKind.PROFILE_UPDATE: ProfileUpdate,
    InputKind.MEMBERSHIP: Membership,
    InputKind.ORGANIZATION: Organization,
}
