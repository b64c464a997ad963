"""Members as they see themselves: kind words, and nothing internal."""

from __future__ import annotations

from typing import Final

from service.api.models.members import (
    Me,
    NextStep,
)
from service.api.presenting.evidence import prevention
from service.api.presenting.members import text_values
from service.api.values import (
    MemberRecord,
)
from service.levels import STATUS_LABELS, Level
from service.texts import in_words, is_clean, render_user


def me(record: MemberRecord | None, org_name: str) -> Me:
    """What a member reads about themselves."""
    if record is None or record.level is None or record.user_template is None:
        return Me(status_label=None, user_explanation=None, computed_at=None, next_step=None)
    return Me(
        status_label=STATUS_LABELS[record.level],
        user_explanation=render_user(record.user_template, text_values(record, org_name)),
        computed_at=record.computed_at,
        next_step=_next_step(record),
    )


def _next_step(record: MemberRecord) -> NextStep | None:
    """Keeping a level that is about to go comes before reaching the next one."""
    if record.override is not None:
        return None
    kept = prevention(record)
    if kept is not None and kept.events is not None and record.level in _KEPT:
        assert record.level is not None
        text = (
            f"Come to {_events(kept.events)} before {in_words(kept.before)} and you stay "
            f"“{STATUS_LABELS[record.level]}”."
        )
        return _clean(NextStep(text=text, events=kept.events, before=kept.before))
    better = record.improvement
    if better is None:
        return None
    by = "" if better.before is None else f" before {in_words(better.before)}"
    text = (
        f"Come to {_events(better.events)}{by} and your status becomes "
        f"“{STATUS_LABELS[better.level]}”."
    )
    return _clean(NextStep(text=text, events=better.events, before=better.before))


_KEPT: Final = frozenset({Level.HIGHLY_ENGAGED, Level.MODERATE})


def _events(number: int) -> str:
    return "1 more event" if number == 1 else f"{number} more events"


def _clean(step: NextStep) -> NextStep | None:
    return step if is_clean(step.text) else None
