"""Setting and ending an override by hand: what becomes of a standing, and what history says.

Pure. The caller closes an expired override first, settles afterwards, and writes all of it in one
transaction.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

from service.errors import Conflict, InvalidInput
from service.levels import Level
from service.standing import Outcome, OverrideAction, StoredOverride
from service.timeline import Override

MAX_NOTES: Final = 2_000


def set_override(
    closed: Outcome,
    level: Level,
    *,
    notes: str,
    expires_at: datetime | None,
    performed_by: str,
    at: datetime,
) -> Outcome:
    """The standing with the override, and its history row; replaces an active one.

    Raises InvalidInput for notes that are blank, too long or hold NUL, and for an expiry that is
    not ahead or beyond the year 9999. An expiry is kept and published in UTC, whoever gave it.
    """
    _check_notes(notes)
    if expires_at is not None:
        try:
            expires_at = expires_at.astimezone(UTC)
        except OverflowError:
            raise InvalidInput("expires_at must be within the years 1 to 9999 of UTC") from None
        if expires_at <= at:
            raise InvalidInput("expires_at must be in the future")
    stored = StoredOverride(Override(level, at, expires_at), performed_by, notes)
    action = OverrideAction(
        "override", closed.standing.published.level, level, notes, performed_by, expires_at
    )
    return Outcome(
        closed.standing._replace(stored_override=stored),
        closed.publications,
        (*closed.override_actions, action),
    )


def clear_override(
    closed: Outcome, computed: Level | None, *, notes: str | None, performed_by: str
) -> Outcome:
    """The standing without its override, and the history row; `computed` is what shows from now.

    Raises Conflict when none is active, InvalidInput for notes as `set_override` does.
    """
    stored = closed.standing.stored_override
    if stored is None:
        raise Conflict("no override is active")
    if notes is not None:
        _check_notes(notes)
    action = OverrideAction("clear", stored.override.level, computed, notes, performed_by, None)
    return Outcome(
        closed.standing._replace(stored_override=None),
        closed.publications,
        (*closed.override_actions, action),
    )


def _check_notes(notes: str) -> None:
    if not notes.strip():
        raise InvalidInput("notes are required: say why")
    if len(notes) > MAX_NOTES:
        raise InvalidInput(f"notes may have {MAX_NOTES} characters at the most")
    if "\0" in notes:
        raise InvalidInput("notes may not hold NUL")
