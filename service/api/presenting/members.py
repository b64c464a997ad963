"""Members as administrators see them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from pydantic import TypeAdapter

from service.api.models.actions import Receipt, RemainingData
from service.api.models.members import (
    HistoryItem,
    LevelChange,
    Member,
    MemberItem,
    OverrideAnswer,
    OverrideChange,
)
from service.api.presenting.evidence import evidence
from service.api.values import (
    ErasureReceipt,
    HistoryEntry,
    LevelChangeEntry,
    MemberRecord,
    MemberRow,
    Standing,
)
from service.levels import STATUS_LABELS
from service.records import SignalsRecord
from service.texts import TextValues, render_admin, render_user


def text_values(record: MemberRecord, org_name: str) -> TextValues:
    """What the placeholders of a member's texts stand for now."""
    improvement = record.improvement
    return TextValues(
        org_name=org_name,
        member_name=record.display_name,
        thresholds=record.thresholds,
        events=record.signals.events_attended_90d,
        last_attended_at=record.signals.last_attended_at,
        last_rsvp_at=record.signals.last_rsvp_at,
        profile_updated_at=record.signals.profile_updated_at,
        joined_at=record.signals.joined_at,
        next_change_at=record.next_change_at,
        next_level_change_at=record.next_level_change_at,
        next_level=record.next_level,
        improvement_events=None if improvement is None else improvement.events,
        improvement_before=None if improvement is None else improvement.before,
        override_expires_at=None if record.override is None else record.override.expires_at,
    )


def member(record: MemberRecord, org_id: str, standing: Standing) -> Member:
    """Everything that an administrator sees of a member."""
    values = text_values(record, standing.org_name)
    admin, user = record.admin_template, record.user_template
    scored = record.level is not None
    return Member(
        org_id=org_id,
        user_id=record.user_id,
        display_name=record.display_name,
        membership=record.membership,
        role=record.role,
        level=record.level,
        computed_level=record.computed_level,
        previous_level=record.previous_level,
        level_since=record.level_since,
        reason=record.reason,
        source=record.source,
        signals=SignalsRecord(**record.signals._asdict()),
        evidence=evidence(record),
        admin_explanation=render_admin(admin, values) if scored and admin is not None else None,
        user_explanation=render_user(user, values) if scored and user is not None else None,
        status_label=None if record.level is None else STATUS_LABELS[record.level],
        override=_override(record),
        next_change_at=record.next_change_at,
        next_level_change_at=record.next_level_change_at,
        next_level=record.next_level,
        model_version=record.model_version,
        computed_at=record.computed_at,
        revision=record.revision,
    )


def _override(record: MemberRecord) -> OverrideAnswer | None:
    override = record.override
    if override is None:
        return None
    return OverrideAnswer(
        level=override.level,
        notes=override.notes,
        overridden_by=override.performed_by,
        overridden_by_name=override.performed_by_name,
        overridden_at=override.overridden_at,
        expires_at=override.expires_at,
    )


_ITEMS: Final = TypeAdapter(list[MemberItem])


def member_items(rows: Sequence[MemberRow]) -> list[MemberItem]:
    """Rows of the list, all at once: a fifth of what it takes one by one."""
    return _ITEMS.validate_python(rows, from_attributes=True)


def history_item(entry: HistoryEntry) -> HistoryItem:
    """A change or an action."""
    if isinstance(entry, LevelChangeEntry):
        return LevelChange(
            recorded_at=entry.at,
            effective_at=entry.effective_at,
            from_level=entry.from_level,
            to_level=entry.to_level,
            cause=entry.cause,
            reason=entry.reason,
            computed_level=entry.computed_level,
            source=entry.source,
            revision=entry.number,
        )
    return OverrideChange(
        recorded_at=entry.at,
        action=entry.action,
        previous_level=entry.previous_level,
        new_level=entry.new_level,
        notes=entry.notes,
        performed_by=entry.performed_by,
        performed_by_name=entry.performed_by_name,
        expires_at=entry.expires_at,
    )


def receipt(receipt: ErasureReceipt) -> Receipt:
    """What an erasure came to."""
    return Receipt(
        org_id=receipt.org_id,
        user_id=receipt.user_id,
        erased_at=receipt.erased_at,
        removed=dict(receipt.removed),
        pseudonymised=dict(receipt.pseudonymised),
        remaining=[RemainingData(where=r.where, until=r.until) for r in receipt.remaining],
    )
