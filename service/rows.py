"""Rows of a table as input records: columns, message ids, keys. Used by import and validate.

A row's message id is the uuid5 of its kind and contents, so sending it again changes nothing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple
from uuid import NAMESPACE_URL, uuid5

from service.decoding import decode
from service.errors import InvalidInput
from service.events import MODELS, InputKind, InputRecord

ID_NAMESPACE: Final = uuid5(NAMESPACE_URL, "engagement.import")

# What a row says about its own time; the other kinds have to say when it was recorded.
_OWN_TIME: Final = {
    InputKind.ATTENDANCE: "occurred_at",
    InputKind.RSVP: "responded_at",
    InputKind.PROFILE_UPDATE: "updated_at",
}


class Columns(NamedTuple):
    """The columns that a table of one kind must and may have."""

    required: tuple[str, ...]
    optional: tuple[str, ...]


class RowRecord(NamedTuple):
    """One row as it goes over the wire, checked."""

    key: bytes
    value: bytes
    record: InputRecord


def columns_of(kind: InputKind) -> Columns:
    """The columns of a kind, in the order of the wire's fields."""
    required: list[str] = []
    optional: list[str] = []
    for name, info in MODELS[kind].model_fields.items():
        if name == "id":
            continue
        needless = not info.is_required() or (name == "recorded_at" and kind in _OWN_TIME)
        (optional if needless else required).append(name)
    return Columns(tuple(required), tuple(optional))


def check_columns(kind: InputKind, names: Sequence[str]) -> None:
    """Raise InvalidInput unless these are the columns of a table of this kind."""
    columns = columns_of(kind)
    problems = []
    if missing := [name for name in columns.required if name not in names]:
        problems.append(f"without {', '.join(missing)}")
    if unknown := [name for name in names if name not in columns.required + columns.optional]:
        problems.append(f"with unknown {', '.join(unknown)}")
    if len(set(names)) < len(names):
        problems.append("with a column twice")
    if problems:
        may = f"; may have {', '.join(columns.optional)}" if columns.optional else ""
        raise InvalidInput(
            f"columns {' and '.join(problems)}: {kind} needs {','.join(columns.required)}{may}"
        )


def kind_of_fields(names: Sequence[str]) -> InputKind | None:
    """The kind whose own fields these are, by the field that only it has."""
    telling = {name: kind for kind, name in _OWN_TIME.items()}
    telling |= {"joined_at": InputKind.MEMBERSHIP, "name": InputKind.ORGANIZATION}
    return next((telling[name] for name in names if name in telling), None)


def record_of(kind: InputKind, row: Mapping[str, str | None]) -> RowRecord:
    """The record that a row stands for; empty cells are absent fields. Raises DeadLetter."""
    body = {name: text.strip() for name, text in row.items() if text and text.strip()}
    own_time = _OWN_TIME.get(kind)
    if own_time in body:
        body.setdefault("recorded_at", body[own_time])
    name = f"{kind}/{json.dumps(body, sort_keys=True, ensure_ascii=False)}"
    body = {"id": str(uuid5(ID_NAMESPACE, name)), **body}
    value = json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()
    return RowRecord(key_of(body), value, decode(kind, value))


def key_of(body: Mapping[str, object]) -> bytes:
    """The Kafka key of a body: its ids of organisation and user, as far as it has them."""
    return ":".join(str(body[name]) for name in ("org_id", "user_id") if name in body).encode()
