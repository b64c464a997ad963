"""Instants as they are on the wire: RFC 3339 with an offset, `Z` where we write them."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Final

TIME_PATTERN: Final = (
    r"([0-9]{4}-[0-9]{2}-[0-9]{2})[Tt]([0-9]{2}:[0-9]{2}:[0-9]{2})(?:\.([0-9]+))?"
    r"([Zz]|[+-][0-9]{2}:[0-5][0-9])"
)
# With or without an offset; a missing offset has a code of its own.
_TIME: Final = re.compile(f"{TIME_PATTERN}?")
_KAFKA_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_FIRST: Final = datetime.min.replace(tzinfo=UTC)
_LAST: Final = datetime.max.replace(tzinfo=UTC)


def parse_instant(value: object) -> datetime:
    """RFC 3339 text to a datetime in UTC, truncated to microseconds; naive when it has no offset.

    Raises ValueError for anything else, also for instants outside the years 1 to 9999.
    """
    if isinstance(value, datetime):
        return value
    if not isinstance(value, str) or (match := _TIME.fullmatch(value)) is None:
        raise ValueError("must be an RFC 3339 date and time with an offset")
    date, time, fraction, offset = match.groups()
    text = f"{date}T{time}.{(fraction or '0')[:6].ljust(6, '0')}"
    parsed = datetime.fromisoformat(text + ("+00:00" if offset in ("Z", "z") else offset or ""))
    if parsed.tzinfo is None:
        return parsed
    try:
        return parsed.astimezone(UTC)
    except OverflowError:
        raise ValueError("is outside the years 1 to 9999") from None


def from_kafka(milliseconds: int) -> datetime:
    """A record's timestamp, which may be any number: the nearest instant that there is."""
    try:
        return _KAFKA_EPOCH + timedelta(milliseconds=milliseconds)
    except OverflowError:
        return _FIRST if milliseconds < 0 else _LAST


def wire_time(at: datetime) -> str:
    """RFC 3339, to the microsecond; `Z` for what is in UTC, else with its own offset."""
    return at.isoformat().replace("+00:00", "Z")
