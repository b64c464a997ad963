"""One input record from bytes, or the dead-letter code that says why it can never be applied.

The checks run in the order of the codes: size, presence, JSON, schema, ids, offsets of times. That
a time is too far ahead is found where the database's clock is known.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from datetime import datetime
from typing import Final, Never

from pydantic import ValidationError

from service.errors import DeadLetter, DeadLetterCode, plain
from service.events import ID_PATTERN, MAX_VALUE_BYTES, MODELS, InputKind, InputRecord

Headers = Sequence[tuple[str, bytes | None]]

_ID: Final = re.compile(ID_PATTERN, re.ASCII)
_ID_FIELDS: Final = ("id", "org_id", "user_id", "event_id")


def decode(kind: InputKind, value: bytes | None, headers: Headers = ()) -> InputRecord:
    """The record of this kind in `value`. Raises DeadLetter. A tombstone is `null_value` here."""
    if value is None:
        raise DeadLetter(DeadLetterCode.NULL_VALUE, "the value is null")
    if len(value) > MAX_VALUE_BYTES:
        raise DeadLetter(
            DeadLetterCode.TOO_LARGE, f"the value has {len(value)} bytes, over {MAX_VALUE_BYTES}"
        )
    body = _parse(value)
    if not isinstance(body, dict):
        raise DeadLetter(DeadLetterCode.SCHEMA, "the value is not a JSON object")
    if "id" not in body and (message_id := _ce_id(headers)) is not None:
        body["id"] = message_id
    try:
        record = MODELS[kind].model_validate(body)
    except ValidationError as error:
        raise DeadLetter(DeadLetterCode.SCHEMA, _explain(error)) from None
    _check_ids(record)
    _check_offsets(record)
    return record


def decode_erasure(key: bytes | None) -> tuple[str, str]:
    """(org_id, user_id) that a membership tombstone erases. Raises DeadLetter."""
    org_id, colon, user_id = (key or b"").decode("utf-8", "replace").partition(":")
    if not (colon and is_id(org_id) and is_id(user_id)):
        raise DeadLetter(DeadLetterCode.BAD_ID, "the key of a tombstone must be org_id:user_id")
    return org_id, user_id


def is_id(text: str) -> bool:
    """Whether this is a well-formed id."""
    return _ID.fullmatch(text) is not None


def times_of(record: InputRecord) -> list[tuple[str, datetime]]:
    """(field, instant) of every time field."""
    return [(name, value) for name, value in record if isinstance(value, datetime)]


def _parse(value: bytes) -> object:
    def refuse(constant: str) -> Never:
        raise ValueError(f"{constant} is not JSON")

    try:
        # No field is a number, so their value does not matter; int() would refuse very long ones.
        return json.loads(value.decode("utf-8"), parse_constant=refuse, parse_int=float)
    except (ValueError, RecursionError) as error:
        message = "the value is not UTF-8 JSON"
        if isinstance(error, json.JSONDecodeError):
            message += f": {error.msg} at character {error.pos}"
        raise DeadLetter(DeadLetterCode.NOT_JSON, message) from None


def _ce_id(headers: Headers) -> str | None:
    found = None
    for name, value in headers:
        if name == "ce_id" and value is not None:
            found = value.decode("utf-8", "replace")
    return found


def _check_ids(record: InputRecord) -> None:
    for field in _ID_FIELDS:
        value = getattr(record, field, None)
        if value is not None and not is_id(value):
            raise DeadLetter(DeadLetterCode.BAD_ID, f"{field} is not a well-formed id")


def _check_offsets(record: InputRecord) -> None:
    for field, instant in times_of(record):
        if instant.tzinfo is None:
            raise DeadLetter(DeadLetterCode.NAIVE_TIME, f"{field} has no UTC offset")


def _explain(error: ValidationError) -> str:
    # Never the value: dead letters are read by more people than the record was meant for.
    problems = error.errors(include_input=False, include_url=False, include_context=False)
    first = problems[0]
    where = ".".join(str(part) for part in first["loc"]) or "value"
    return f"{where}: {plain(first['msg'])}"[:300]
