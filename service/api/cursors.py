"""Opaque cursors: where a page ended, and which question it belongs to."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from datetime import UTC, datetime
from typing import Any, Final

from service.api.problems import Problem
from service.api.values import (
    HistoryEntry,
    HistoryPosition,
    MemberPosition,
    MemberQuery,
    MemberRow,
    MemberSort,
)
from service.decoding import is_id

MAX_LENGTH: Final = 400
PATTERN: Final = r"^[A-Za-z0-9_-]+$"

_MAX_NUMBER: Final = 2**63 - 1
_MAX_STEP: Final = 2**15 - 1
_TEXT_SORTS: Final = frozenset({MemberSort.USER_ID, MemberSort.USER_ID_DESC})
_NUMBER_SORTS: Final = frozenset({MemberSort.EVENTS, MemberSort.EVENTS_ASC})


def member_cursor(query: MemberQuery, last: MemberRow) -> str:
    """The cursor of the page after `last`."""
    name = query.sort.value.removeprefix("-")
    value = last.next_level_change_at if query.sort is MemberSort.DUE else getattr(last, name)
    if isinstance(value, datetime):
        value = value.isoformat()
    return _encode([_fingerprint(query), value, last.number])


def member_position(query: MemberQuery, cursor: str) -> MemberPosition:
    """Where the page begins. Raises Problem when the cursor is not one for this question."""
    fingerprint, value, number = _decode(cursor, 3)
    if fingerprint != _fingerprint(query) or not _is_number(number):
        raise _bad_cursor()
    if value is None:
        return MemberPosition(None, number)
    if query.sort in _TEXT_SORTS:
        # Other text may be such as the database does not know: NUL, half a character.
        if not isinstance(value, str) or not is_id(value):
            raise _bad_cursor()
        return MemberPosition(value, number)
    if query.sort in _NUMBER_SORTS:
        if not _is_number(value) or value > 2**31 - 1:
            raise _bad_cursor()
        return MemberPosition(value, number)
    return MemberPosition(_instant(value), number)


def history_cursor(last: HistoryEntry) -> str:
    """The cursor of the page after `last`."""
    return _encode([last.at.isoformat(), last.step, last.number])


def history_position(cursor: str) -> HistoryPosition:
    """Where the page begins. Raises Problem."""
    at, step, number = _decode(cursor, 3)
    if not _is_number(step) or step > _MAX_STEP or not _is_number(number):
        raise _bad_cursor()
    return HistoryPosition(_instant(at), step, number)


def _fingerprint(query: MemberQuery) -> str:
    question = [
        sorted(query.levels),
        query.override,
        query.due_within_days,
        query.text,
        query.sort,
    ]
    return hashlib.sha256(json.dumps(question).encode()).hexdigest()[:8]


def _is_number(value: object) -> bool:
    return type(value) is int and 0 <= value <= _MAX_NUMBER


def _instant(value: object) -> datetime:
    try:
        at = datetime.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        at = None
    if at is None or at.tzinfo is None:
        raise _bad_cursor()
    try:
        return at.astimezone(UTC)
    except OverflowError:
        raise _bad_cursor() from None


def _encode(parts: list[Any]) -> str:
    text = json.dumps(parts, separators=(",", ":"))
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def _decode(cursor: str, length: int) -> list[Any]:
    try:
        text = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
        parts = json.loads(text)
    except (binascii.Error, ValueError, RecursionError):
        raise _bad_cursor() from None
    if not isinstance(parts, list) or len(parts) != length:
        raise _bad_cursor()
    return parts


def _bad_cursor() -> Problem:
    return Problem(
        422, "invalid-cursor", "The cursor is not one for these filters: begin without it."
    )
