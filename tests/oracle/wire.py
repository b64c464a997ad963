"""From the bytes of one input record to its fields, or to the code of its dead letter."""

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

MAX_VALUE_BYTES = 64 * 1024
MAX_TEXT_CHARACTERS = 200

Record = dict[str, Any]
"""The wire's fields of one record; times are aware UTC datetimes, everything else is text."""

Headers = Iterable[tuple[str, bytes | None]]


class RefusedError(Exception):
    """A record that can never be applied; `code` names why."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


@dataclass(frozen=True)
class Kind:
    """What the value of one topic must hold, and which of its fields are its natural key."""

    natural_key: tuple[str, ...]
    ids: tuple[str, ...]
    times: tuple[str, ...]
    choices: dict[str, tuple[str, ...]]
    defaults: dict[str, str] = field(default_factory=dict)
    texts: tuple[str, ...] = ()
    optional_texts: tuple[str, ...] = ()


KINDS = {
    "attendance": Kind(
        natural_key=("org_id", "user_id", "event_id"),
        ids=("id", "org_id", "user_id", "event_id"),
        times=("occurred_at", "recorded_at"),
        choices={"status": ("attended", "partial", "absent", "void")},
    ),
    "rsvp": Kind(
        natural_key=("org_id", "user_id", "event_id"),
        ids=("id", "org_id", "user_id", "event_id"),
        times=("responded_at", "recorded_at"),
        choices={"response": ("going", "maybe", "declined", "withdrawn")},
    ),
    "profile-update": Kind(
        natural_key=("user_id", "id"),
        ids=("id", "user_id"),
        times=("updated_at", "recorded_at"),
        choices={"actor": ("member", "admin", "system")},
        defaults={"actor": "member"},
    ),
    "membership": Kind(
        natural_key=("org_id", "user_id"),
        ids=("id", "org_id", "user_id"),
        times=("joined_at", "recorded_at"),
        choices={"status": ("active", "left"), "role": ("member", "admin")},
        defaults={"role": "member"},
        optional_texts=("display_name",),
    ),
    "organization": Kind(
        natural_key=("org_id",),
        ids=("id", "org_id"),
        times=("recorded_at",),
        choices={"status": ("active", "suspended", "deleted")},
        texts=("name",),
    ),
}

ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@|-]{0,127}")
NO_TEXT = re.compile("[\\0\\ud800-\\udfff]")  # an escape can make half a pair, which is no text
TIME = re.compile(
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})[Tt]([0-9]{2}):([0-9]{2}):([0-9]{2})(?:\.([0-9]+))?"
    r"(?:([Zz])|([+-])([0-9]{2}):([0-9]{2}))?"
)
HOURS_A_DAY = 24
MINUTES_AN_HOUR = 60


def decode(
    kind: Kind, value: bytes, headers: Headers, *, now: datetime, max_skew: timedelta
) -> Record:
    """The record's fields with defaults filled in.

    Raises RefusedError with the code of the first check that fails, in the specified order.
    """
    if len(value) > MAX_VALUE_BYTES:
        raise RefusedError("too_large")
    body = _parse_json(value)
    record = _checked_fields(kind, body, headers)
    if not all(ID.fullmatch(record[name]) for name in kind.ids):
        raise RefusedError("bad_id")
    if any(record[name].tzinfo is None for name in kind.times):
        raise RefusedError("naive_time")
    if any(record[name] > now + max_skew for name in kind.times):
        raise RefusedError("future_dated")
    return record


def _refuse_constant(name: str) -> Any:
    raise ValueError(name)


# Numbers are never a field of ours, and Python refuses to convert very long ones: their value is
# not looked at, only that they are no text.
_JSON = json.JSONDecoder(parse_int=len, parse_float=len, parse_constant=_refuse_constant)


def _parse_json(value: bytes) -> Any:
    try:
        return _JSON.decode(value.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise RefusedError("not_json") from error


def _checked_fields(kind: Kind, body: Any, headers: Headers) -> Record:
    """The known fields, each of the right type; ids and offsets of times are not looked at yet."""
    if not isinstance(body, dict):
        raise RefusedError("schema")
    given: dict[str, Any] = kind.defaults | body
    if "id" not in given:
        given["id"] = _header_id(headers)
    record: Record = {}
    for name in kind.ids:
        record[name] = _text(given.get(name))
    for name, choices in kind.choices.items():
        record[name] = _text(given.get(name))
        if record[name] not in choices:
            raise RefusedError("schema")
    for name in kind.texts:
        record[name] = _free_text(given.get(name))
    for name in kind.optional_texts:
        text = given.get(name)
        record[name] = None if text is None else _free_text(text)
    for name in kind.times:
        record[name] = parse_time(_text(given.get(name)))
    return record


def _header_id(headers: Headers) -> str | None:
    found = None
    for name, content in headers:
        if name == "ce_id" and content is not None:
            found = content.decode("utf-8", errors="replace")  # replaced bytes make a bad id
    return found


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise RefusedError("schema")
    return value


def _free_text(value: Any) -> str:
    text = _text(value)
    if len(text) > MAX_TEXT_CHARACTERS or NO_TEXT.search(text):
        raise RefusedError("schema")
    return text


def parse_time(text: str) -> datetime:
    """An RFC 3339 time as aware UTC, or as naive datetime if only its offset is missing.

    Raises RefusedError("schema") for anything else.
    """
    match = TIME.fullmatch(text)
    if match is None:
        raise RefusedError("schema")
    year, month, day, hour, minute, second, fraction, zulu, sign, ahead_h, ahead_m = match.groups()
    microsecond = int((fraction or "")[:6].ljust(6, "0"))
    try:
        local = datetime(  # noqa: DTZ001 - the offset follows, and may be missing
            int(year), int(month), int(day), int(hour), int(minute), int(second), microsecond
        )
        if zulu is not None:
            return local.replace(tzinfo=UTC)
        if sign is None:
            return local
        if int(ahead_h) >= HOURS_A_DAY or int(ahead_m) >= MINUTES_AN_HOUR:
            raise RefusedError("schema")
        ahead = timedelta(hours=int(ahead_h), minutes=int(ahead_m))
        utc = local - ahead if sign == "+" else local + ahead
    except (ValueError, OverflowError) as error:
        raise RefusedError("schema") from error
    return utc.replace(tzinfo=UTC)


def canonical_body(record: Record) -> bytes:
    """The bytes that decide between two records of equal `(recorded_at, id)`: the greater wins."""
    plain = {
        name: value.replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"
        if isinstance(value, datetime)
        else value
        for name, value in record.items()
    }
    text = json.dumps(plain, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    return text.encode("utf-8")


def member_of_key(key: bytes | None) -> tuple[str, str]:
    """`(org_id, user_id)` of a membership tombstone's key; RefusedError("bad_id") if it is none."""
    parts = (key or b"").decode("utf-8", errors="replace").split(":")
    if len(parts) != len(("org_id", "user_id")) or not all(ID.fullmatch(part) for part in parts):
        raise RefusedError("bad_id")
    return parts[0], parts[1]
