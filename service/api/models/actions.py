"""What is done to members, and sessions."""

from __future__ import annotations

from datetime import datetime
from typing import Final, Literal

from pydantic import (
    ConfigDict,
    Field,
)

from service.api.models.common import (
    MAX_NOTES,
    NOTE_PATTERN,
    T1,
    Answer,
    Body,
    Instant,
    Notes,
)
from service.levels import Level


class OverrideRequest(Body):
    """A level to show instead of the computed one, and why."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "level": "highly_engaged",
                    "notes": "Runs the workshop; does not sign in.",
                    "expires_at": "2099-12-31T23:59:00Z",
                }
            ]
        }
    )

    level: Level
    notes: Notes
    expires_at: Instant | None = None


class ClearRequest(Body):
    """Why an override ends, if there is something to say."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"notes": "The workshop is over."}]})

    notes: str | None = Field(None, max_length=MAX_NOTES, pattern=NOTE_PATTERN)


class Accepted(Answer):
    """The member will be evaluated within moments."""

    status: Literal["accepted"] = "accepted"


REMOVED: Final = {
    "attendances": 12, "rsvps": 4, "memberships": 1, "profile updates": 2, "dead letters": 0,
}  # fmt: skip
PSEUDONYMISED: Final = {"level changes": 3, "override actions": 1, "authorships": 0}


class RemainingData(Answer):
    """Data that goes by retention, and until when it may stay."""

    where: str = Field(examples=["change topic"])
    until: str = Field(examples=["its retention time"])


class Receipt(Answer):
    """What an erasure came to, in rows by kind of data, and what still expires by itself."""

    org_id: str = Field(examples=["riverside"])
    user_id: str = Field(examples=["ada.lovelace"])
    erased_at: datetime = Field(examples=[T1])
    removed: dict[str, int] = Field(examples=[REMOVED])
    pseudonymised: dict[str, int] = Field(
        description="Kept, with a random token in place of the person", examples=[PSEUDONYMISED]
    )
    remaining: list[RemainingData]


class SessionAnswer(Answer):
    """A session was opened; the cookie is in the headers. Whatever it changes needs the token."""

    expires_in_s: int = Field(examples=[28800])
    csrf_token: str = Field(
        description="Goes into the header X-CSRF-Token of whatever is not GET or HEAD",
        examples=["9c56cc51b374c3ba189210d5b6d4bf57790d351c96c47c02190ecf1e43"],
    )
