"""Wire models of the five input topics: the one definition of what a producer may send.

Decoding, the dead-letter codes and the JSON Schemas all follow from these models. Unknown fields
are ignored. Field order is the order of the columns that intake hands to the database.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Final, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints

from service.instants import TIME_PATTERN, parse_instant

MAX_ID_LENGTH: Final = 128
ID_PATTERN: Final = r"[A-Za-z0-9][A-Za-z0-9._@|-]{0,127}"
MAX_TEXT_LENGTH: Final = 200
MAX_VALUE_BYTES: Final = 64 * 1024


class InputKind(StrEnum):
    """The five kinds of input record."""

    ATTENDANCE = "attendance"
    RSVP = "rsvp"
    PROFILE_UPDATE = "profile-update"
    MEMBERSHIP = "membership"
    ORGANIZATION = "organization"


def _without_nul(value: object) -> object:
    if isinstance(value, str) and "\0" in value:
        raise ValueError("must not contain NUL")
    return value


# Ids and offsets are checked after the types, since they have codes of their own: here the patterns
# are for whoever reads the JSON Schemas.
Id = Annotated[str, Field(json_schema_extra={"pattern": f"^{ID_PATTERN}$", "maxLength": 128})]
Instant = Annotated[
    datetime,
    BeforeValidator(parse_instant, json_schema_input_type=datetime),
    Field(json_schema_extra={"pattern": f"^{TIME_PATTERN}$"}),
]
Text = Annotated[
    str,
    StringConstraints(max_length=MAX_TEXT_LENGTH),
    BeforeValidator(_without_nul),
    Field(json_schema_extra={"pattern": "^[^\\u0000]*$"}),
]


class InputRecord(BaseModel):
    """What every input record has: `id`, the message id, and `recorded_at`, when it was learned."""

    model_config = ConfigDict(
        strict=True, extra="ignore", frozen=True, use_attribute_docstrings=True
    )


# The meaning of fields that several kinds share; the others say theirs below themselves.
SHARED_FIELDS: Final = {
    "id": "Message id. May be left out of the value when the header `ce_id` has it.",
    "org_id": "The organisation.",
    "user_id": "The person.",
    "event_id": "The community event.",
    "recorded_at": "When the producer learned this: of two records about the same thing, the one "
    "recorded later is the truth, however late or early it arrives.",
}


class Attendance(InputRecord):
    """Somebody was, or was not, at a community event. Current per org, user and event."""

    id: Id
    org_id: Id
    user_id: Id
    event_id: Id
    status: Literal["attended", "partial", "absent", "void"]
    """`attended` and `partial` count; `absent` and `void` take back what was said before."""
    occurred_at: Instant
    """When the community event took place."""
    recorded_at: Instant


class Rsvp(InputRecord):
    """Somebody answered an invitation. Current per org, user and event."""

    id: Id
    org_id: Id
    user_id: Id
    event_id: Id
    response: Literal["going", "maybe", "declined", "withdrawn"]
    """Only `going` counts."""
    responded_at: Instant
    """When the answer was given."""
    recorded_at: Instant


class ProfileUpdate(InputRecord):
    """Somebody's profile was updated. Every update is kept, current per user and message id."""

    id: Id
    user_id: Id
    updated_at: Instant
    """When the profile was changed."""
    actor: Literal["member", "admin", "system"] = "member"
    """Who changed it. Only updates by `member` are a sign of engagement."""
    recorded_at: Instant


class Membership(InputRecord):
    """Somebody joined or left, and may administrate. Current per org and user."""

    id: Id
    org_id: Id
    user_id: Id
    status: Literal["active", "left"]
    """Whether the person belongs to the organisation now."""
    role: Literal["member", "admin"] = "member"
    """An `admin` whose status is `active` may see and override everything in this organisation."""
    display_name: Text | None = None
    """What administrators read instead of the id."""
    joined_at: Instant
    """When the person joined, for the last time."""
    recorded_at: Instant


class Organization(InputRecord):
    """An organisation's name and state. Current per org."""

    id: Id
    org_id: Id
    name: Text
    """The name that the texts use."""
    status: Literal["active", "suspended", "deleted"]
    """`suspended`: no evaluation until it is `active` again. `deleted`: as if all had left."""
    recorded_at: Instant


MODELS: Final[dict[InputKind, type[InputRecord]]] = {
    InputKind.ATTENDANCE: Attendance,
    InputKind.RSVP: Rsvp,
    InputKind.PROFILE_UPDATE: ProfileUpdate,
    InputKind.MEMBERSHIP: Membership,
    InputKind.ORGANIZATION: Organization,
}
