"""Values of the API, made up for tests."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from service.api.values import (
    MemberRecord,
)
from service.levels import Level, Reason
from service.records import Source
from service.signals import JoinedAtSource, Signals
from service.thresholds import DEFAULT_THRESHOLDS

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)


def record(**changes: Any) -> MemberRecord:
    base = MemberRecord(
        user_id="ada", display_name="Ada", membership="active", role="member",
        level=Level.MODERATE, computed_level=Level.MODERATE, rules_level=Level.MODERATE,
        previous_level=None, level_since=NOW, reason=Reason.SOME_ATTENDANCE, rule=3,
        source=Source.RULES,
        signals=Signals(1, NOW, 0, None, None, NOW, JoinedAtSource.MEMBERSHIP),
        thresholds=DEFAULT_THRESHOLDS, counted_event_ids=["e"], improvement=None, override=None,
        admin_template="{member} at {org}", user_template="You at {org}", next_change_at=None,
        next_level_change_at=None, next_level=None, events_left=0, model_version="rules-1",
        computed_at=NOW, revision=3,
    )  # fmt: skip
    return replace(base, **changes)
