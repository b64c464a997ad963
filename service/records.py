"""Wire models of the two output topics, their ids and headers: what consumers rely on."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from hashlib import sha1
from typing import Final, Literal
from uuid import NAMESPACE_URL, UUID

from pydantic import BaseModel, ConfigDict

from service.levels import Level, Reason
from service.signals import JoinedAtSource

LEVEL_STREAM: Final = "engagement.level.v1"
CHANGE_STREAM: Final = "engagement.change.v1"
LEVEL_TYPE: Final = "engagement.level.computed.v1"
CHANGE_TYPE: Final = "engagement.level.changed.v1"
SOURCE: Final = "engagement-scoring"

_NAMESPACE: Final = NAMESPACE_URL.bytes
_VARIANTS: Final = "89ab"


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

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)


class SignalsRecord(OutputRecord):
    """The seven signals that decided."""

    events_attended_90d: int
    """Community events attended within the activity window (90 days unless changed)."""
    last_attended_at: datetime | None
    """Latest attendance, of any age."""
    rsvp_count_90d: int
    """Invitations accepted within the activity window."""
    last_rsvp_at: datetime | None
    """Latest accepted invitation, of any age."""
    profile_updated_at: datetime | None
    """Latest profile update by the member."""
    joined_at: datetime | None
    joined_at_source: JoinedAtSource | None
    """`membership`: from a record; `inferred`: the earliest activity."""


class OverrideRecord(OutputRecord):
    """A level set by an administrator; neither who nor why is public."""

    level: Level
    overridden_at: datetime
    expires_at: datetime | None
    """Null: until an administrator clears it."""


class LevelRecord(OutputRecord):
    """The full current state of a member; key `org_id:user_id`; a tombstone when there is none."""

    org_id: str
    user_id: str
    level: Level
    """What the world sees: the override's level while one is active, else `computed_level`."""
    computed_level: Level
    """What the rules or Claude say."""
    previous_level: Level | None
    """`level` before its last change; null: there was none."""
    level_since: datetime
    """When `level` last changed."""
    reason: Reason
    """Which rule applies; of the computed level, also under an override."""
    source: Source
    """Who decided `level`."""
    signals: SignalsRecord
    thresholds_version: int
    """The organisation's thresholds that decided; 0 is the defaults."""
    activity_window_days: int
    admin_explanation: str
    """For the organisation's administrators only."""
    user_explanation: str
    """For the member; never names a hurtful level."""
    override: OverrideRecord | None
    next_change_at: datetime | None
    """When level or a count changes if nothing more arrives, by the rules; null: never."""
    next_level_change_at: datetime | None
    """The same for the level alone."""
    next_level: Level | None
    """The level from `next_level_change_at` on; null: no level, or no such change."""
    model_version: str
    """Which rules or which model wrote the texts."""
    computed_at: datetime
    revision: int
    """Grows by one per published state of the member, tombstones included; never restarts."""


class ChangeRecord(OutputRecord):
    """One change of the shown level; key `org_id:user_id`."""

    id: UUID
    """The same whenever the change is repeated; also in the header `ce_id`."""
    org_id: str
    user_id: str
    from_level: Level | None
    """Null: the member had no level."""
    to_level: Level | None
    """Null: the member has no level any more; a tombstone is on the level topic."""
    cause: Cause
    reason: Reason | None
    """Which rule applies now."""
    effective_at: datetime
    """When the level changed; may be before `recorded_at`, never before the change before."""
    recorded_at: datetime
    """When it was found and written down."""
    revision: int
    """The revision of the level record, or tombstone, that goes with it."""
    computed_level: Level | None
    source: Literal["rules", "claude", "override"] | None


def message_key(org_id: str, user_id: str) -> str:
    """The Kafka key of everything about one member; order holds per key."""
    return f"{org_id}:{user_id}"


def level_message_id(key: str, revision: int) -> str:
    """The same for every repeat of one published state."""
    return _uuid5(f"{LEVEL_STREAM}/{key}/{revision}")


def change_id(key: str, revision: int) -> str:
    """The same for every repeat of one change; also its `ce_id`."""
    return _uuid5(f"{CHANGE_STREAM}/{key}/{revision}")


def _uuid5(name: str) -> str:
    """Text of the UUID 5 of a name in the URL namespace; `uuid.uuid5` takes 6 times as long."""
    text = sha1(_NAMESPACE + name.encode(), usedforsecurity=False).hexdigest()
    variant = _VARIANTS[int(text[16], 16) & 3]
    return f"{text[:8]}-{text[8:12]}-5{text[13:16]}-{variant}{text[17:20]}-{text[20:32]}"
