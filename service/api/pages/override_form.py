"""The override form: what was entered, what it means, and what is wrong with it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from service.api.models.common import MAX_NOTES
from service.levels import Level

# How long an override may be chosen to last; `at` gives a time of its own.
EXPIRIES: Final = {
    "never": "Until cleared",
    "7": "7 days",
    "30": "30 days",
    "90": "90 days",
    "at": "Until a time (UTC)",
}


@dataclass(frozen=True)
class Draft:
    """What was entered into the override form, and what is wrong with it."""

    level: str = ""
    notes: str = ""
    expiry: str = "never"
    expires_at: str = ""
    revision: int = 0
    clear_notes: str = ""
    problems: tuple[tuple[str, str], ...] = ()

    @property
    def errors(self) -> dict[str, str]:
        """Field to problem."""
        return dict(self.problems)


def draft_of(form: Mapping[str, str]) -> Draft:
    """The fields as they came."""
    revision = form.get("revision", "")
    return Draft(
        level=form.get("level", ""),
        notes=form.get("notes", "").replace("\r\n", "\n").strip(),
        expiry=form.get("expiry", "never"),
        expires_at=form.get("expires_at", ""),
        revision=int(revision) if revision.isdecimal() and len(revision) < 18 else -1,  # noqa: PLR2004
    )


def outcome_of(draft: Draft, now: datetime) -> dict[str, Any]:
    """The chosen level and expiry, where they make sense."""
    level = Level(draft.level) if draft.level in set(Level) else None
    expires_at = None
    if draft.expiry == "at":
        try:
            expires_at = datetime.fromisoformat(draft.expires_at)
            if expires_at.tzinfo is None:
                expires_at = expires_at.replace(tzinfo=UTC)
            expires_at = expires_at.astimezone(UTC)
        except (ValueError, OverflowError):
            expires_at = None
    elif draft.expiry in EXPIRIES and draft.expiry != "never":
        expires_at = now + timedelta(days=int(draft.expiry))
    return {"level": level, "expires_at": expires_at}


def checked(draft: Draft, outcome: Mapping[str, Any]) -> Draft:
    """The draft with what is wrong with it."""
    problems = []
    if outcome["level"] is None:
        problems.append(("level", "Choose a level."))
    if not draft.notes:
        problems.append(("notes", "Say why: those who come after you will want to know."))
    elif len(draft.notes) > MAX_NOTES or "\0" in draft.notes:
        problems.append(("notes", f"At most {MAX_NOTES} characters of plain text."))
    if draft.expiry not in EXPIRIES:
        problems.append(("expiry", "Choose how long."))
    elif draft.expiry == "at" and outcome["expires_at"] is None:
        problems.append(("expires_at", "Give a day and a time."))
    return replace(draft, problems=tuple(problems))
