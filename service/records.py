"""Wire models of the two output topics, their ids and headers: what consumers rely on."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Final, Literal
from uuid import NAMESPACE_URL, UUID, uuid5

from pydantic import BaseModel, ConfigDict

from service.levels import Level, Reason
from service.signals import JoinedAtSource

LEVEL_STREAM: Final = "engagement.level.v1"
CHANGE_STREAM: Final = "engagement.change.v1"
LEVEL_TYPE: Final = "engagement.level.computed.v1"
CHANGE_TYPE: Final = "engagement.level.changed.v1"
SOURCE: Final = "engagement-scoring"


class Source(StrEnum):
    """Who decided the shown level."""

    RULES = "rules"
    CLAUDE = "claude"
    OVERRIDE = "override"


class Cause(StrEnum):
    """Why a level changed; the first that applies, in this order."""

    OVERRIDE_SET = "override_set"
    OVERRIDE_CLEARED = "override_cleared"
    OVERRIDE_EXPIRED = "override_expired"
    MEMBERSHIP = "membership"
    THRESHOLDS = "thresholds"
    SIGNALS = "signals"
    CLASSIFIER = "classifier"
    TIME = "time"


class OutputRecord(BaseModel):
    """Consumers must ignore fields that they do not know."""

    model_config = ConfigDict(frozen=True)


class SignalsRecord(OutputRecord):
    """The seven signals that decided."""

    events_attended_90d: int
    last_attended_at: datetime | None
    rsvp_count_90d: int
    last_rsvp_at: datetime | None
    profile_updated_at: datetime | None
    joined_at: datetime | None
    joined_at_source: JoinedAtSource | None


class OverrideRecord(OutputRecord):
    """A level set by an administrator; neither who nor why is public."""

    level: Level
    overridden_at: datetime
    expires_at: datetime | None


class LevelRecord(OutputRecord):
    """The full current state of a member; key `org_id:user_id`; a tombstone when there is none."""

    org_id: str
    user_id: str
    level: Level
    computed_level: Level
    previous_level: Level | None
    level_since: datetime
    reason: Reason
    source: Source
    signals: SignalsRecord
    thresholds_version: int
    activity_window_days: int
    admin_explanation: str
    user_explanation: str
    override: OverrideRecord | None
    next_change_at: datetime | None
    next_level_change_at: datetime | None
    next_level: Level | None
    model_version: str
    computed_at: datetime
    revision: int


class ChangeRecord(OutputRecord):
    """One change of the shown level; key `org_id:user_id`."""

    id: UUID
    org_id: str
    user_id: str
    from_level: Level | None
    to_level: Level | None
    cause: Cause
    reason: Reason | None
    effective_at: datetime
    recorded_at: datetime
    revision: int
    computed_level: Level | None
    source: Literal["rules", "claude", "override"] | None


def message_key(org_id: str, user_id: str) -> str:
    """The Kafka key of everything about one member; order holds per key."""
    return f"{org_id}:{user_id}"


def level_message_id(key: str, revision: int) -> UUID:
    """The same for every repeat of one published state."""
    return uuid5(NAMESPACE_URL, f"{LEVEL_STREAM}/{key}/{revision}")


def change_id(key: str, revision: int) -> UUID:
    """The same for every repeat of one change; also its `ce_id`."""
    return uuid5(NAMESPACE_URL, f"{CHANGE_STREAM}/{key}/{revision}")
