"""Decode and check one batch of one partition: what to apply, what to erase, what is refused.

Pure: no Faust, no SQL, no clock. Most records are decoded by msgspec structs derived from the wire
models (1 us each instead of 7 us); whatever those refuse goes through the models themselves, which
alone decide on the dead-letter code. A property test holds that both give the same values.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from operator import itemgetter
from typing import (
    Annotated,
    Any,
    Final,
    NamedTuple,
    Never,
    Protocol,
    Union,
    get_args,
    get_type_hints,
)

import msgspec

from service.decoding import decode, decode_erasure, is_id
from service.errors import DeadLetter, DeadLetterCode
from service.events import (
    ID_PATTERN,
    MAX_TEXT_LENGTH,
    MAX_VALUE_BYTES,
    MODELS,
    Id,
    InputKind,
    Instant,
    Text,
)

Row = tuple[Any, ...]


class RawRecord(Protocol):
    """The part of aiokafka's ConsumerRecord that intake reads."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes]]


class Refusal(NamedTuple):
    """One record that can never be applied, with the reason."""

    record: RawRecord
    code: DeadLetterCode
    message: str


class Erasure(NamedTuple):
    """A membership tombstone: forget what was recorded about the member until `erased_at`."""

    org_id: str
    user_id: str
    erased_at: datetime


_FIRST_INSTANT: Final = datetime.min.replace(tzinfo=UTC)
_LAST_INSTANT: Final = datetime.max.replace(tzinfo=UTC)


@dataclass(slots=True)
class Decoded:
    """What a batch comes to.

    `rows`: the newest record per natural key, as tuples in the order of the model's fields.
    `clashes`: records of equal (recorded_at, id) but other content, within the batch.
    `consecutive_failures`: refusals in a row up to the end, counted on from the batch before.
    `stop_after`: offset of the record at which the limit was reached; the rest was not looked at.
    `latest_accepted`, `earliest_refused`: between these instants the limit on future dates may move
    without changing anything here.
    """

    kind: InputKind
    rows: list[Row] = field(default_factory=list)
    erasures: list[Erasure] = field(default_factory=list)
    refusals: list[Refusal] = field(default_factory=list)
    clashes: int = 0
    accepted: int = 0
    consecutive_failures: int = 0
    stop_after: int | None = None
    latest_accepted: datetime = _FIRST_INSTANT
    earliest_refused: datetime = _LAST_INSTANT

    def holds_at(self, latest_allowed: datetime) -> bool:
        """Whether decoding with this limit would have come to the same."""
        return self.latest_accepted <= latest_allowed < self.earliest_refused


class Natural(NamedTuple):
    """How rows of one kind are identified and ordered.

    `clash_rank` extends (recorded_at, id) by the rest of the canonical body in the order of its
    sorted keys; only looked at when those two are equal.
    """

    key: Callable[[Row], Any]
    version: Callable[[Row], Any]
    clash_rank: Callable[[Row], Any]


def _json(text: str | None) -> str:
    return json.dumps(text, ensure_ascii=False)


# Positions are those of the fields in service/events.py.
NATURAL: Final[dict[InputKind, Natural]] = {
    InputKind.ATTENDANCE: Natural(itemgetter(1, 2, 3), itemgetter(6, 0), itemgetter(5, 4)),
    InputKind.RSVP: Natural(itemgetter(1, 2, 3), itemgetter(6, 0), itemgetter(5, 4)),
    InputKind.PROFILE_UPDATE: Natural(itemgetter(1, 0), itemgetter(4, 0), itemgetter(3, 2)),
    InputKind.MEMBERSHIP: Natural(
        itemgetter(1, 2), itemgetter(7, 0), lambda row: (_json(row[5]), row[6], row[4], row[3])
    ),
    InputKind.ORGANIZATION: Natural(
        itemgetter(1), itemgetter(4, 0), lambda row: (_json(row[2]), row[3])
    ),
}

_STRUCT_TYPES: Final[list[tuple[Any, Any]]] = [
    (Id, str),
    (Instant, Annotated[datetime, msgspec.Meta(tz=True)]),
    (Text, Annotated[str, msgspec.Meta(max_length=MAX_TEXT_LENGTH)]),
]


def _struct_type(annotation: Any) -> Any:
    for ours, theirs in _STRUCT_TYPES:
        if annotation == ours:
            return theirs
    if type(None) in get_args(annotation):
        inner = [_struct_type(part) for part in get_args(annotation) if part is not type(None)]
        return Union[(*inner, None)]
    return annotation


def _struct(kind: InputKind) -> type[msgspec.Struct]:
    model = MODELS[kind]
    hints = get_type_hints(model, include_extras=True)
    fields: list[Any] = []
    for name, info in model.model_fields.items():
        definition = (name, _struct_type(hints[name]))
        fields.append(definition if info.is_required() else (*definition, info.default))
    return msgspec.defstruct(model.__name__, fields, kw_only=True, gc=False)


_DECODERS: Final = {kind: msgspec.json.Decoder(_struct(kind)).decode for kind in InputKind}
_TIME_FIELDS: Final = {
    kind: [
        position
        for position, name in enumerate(model.model_fields)
        if get_type_hints(model, include_extras=True)[name] == Instant
    ]
    for kind, model in MODELS.items()
}
_TEXT_FIELDS: Final = {
    InputKind.MEMBERSHIP: itemgetter(5),
    InputKind.ORGANIZATION: itemgetter(2),
}
_ID_FIELDS: Final = {
    InputKind.ATTENDANCE: itemgetter(0, 1, 2, 3),
    InputKind.RSVP: itemgetter(0, 1, 2, 3),
    InputKind.PROFILE_UPDATE: itemgetter(0, 1),
    InputKind.MEMBERSHIP: itemgetter(0, 1, 2),
    InputKind.ORGANIZATION: itemgetter(0, 1),
}
_IDS: Final = re.compile(rf"(?:{ID_PATTERN}+\n)*+", re.ASCII)

# Times that msgspec reads otherwise than we do: it rounds beyond microseconds, accepts offsets
# without a colon, and a space between date and time.
_OTHER_TIMES: Final = re.compile(rb':\d\d(?:[.]\d{7}|[.\d]*[+-]\d{4}")|-\d\d \d\d:')


def decode_batch(
    kind: InputKind,
    records: Sequence[RawRecord],
    *,
    latest_allowed: datetime,
    consecutive_failures: int = 0,
    max_consecutive_failures: int,
    rejected: Collection[int] = (),
) -> Decoded:
    """Decode `records` in order. Times after `latest_allowed` are refused as future-dated.

    Offsets in `rejected` are those of records that the database does not take. Stops looking after
    the refusal that makes `max_consecutive_failures` in a row.
    """
    decoded = Decoded(kind)
    rows = _decode_all(kind, records)
    failures = consecutive_failures
    accepted: list[Row] = []
    times = _TIME_FIELDS[kind]
    latest_accepted = decoded.latest_accepted
    for record, plain_row in zip(records, rows, strict=True):
        try:
            row = plain_row or _decode_one(kind, record, decoded, latest_allowed)
            if row is not None:
                latest = max([row[position] for position in times])
                if latest > latest_allowed:
                    _refuse_future(decoded, latest)
                if rejected and record.offset in rejected:
                    _refuse(DeadLetterCode.REJECTED, "the database refuses its values")
                latest_accepted = max(latest_accepted, latest)
                accepted.append(row)
            decoded.accepted += 1
            failures = 0
        except DeadLetter as error:
            decoded.refusals.append(Refusal(record, error.code, error.message))
            failures += 1
            if failures >= max_consecutive_failures:
                decoded.stop_after = record.offset
                break
    decoded.consecutive_failures = failures
    decoded.latest_accepted = max(decoded.latest_accepted, latest_accepted)
    decoded.rows, decoded.clashes = newest(kind, accepted)
    return decoded


def _refuse(code: DeadLetterCode, message: str) -> Never:
    raise DeadLetter(code, message)


def _refuse_future(decoded: Decoded, at: datetime) -> Never:
    decoded.earliest_refused = min(decoded.earliest_refused, at)
    _refuse(DeadLetterCode.FUTURE_DATED, "a time is too far ahead")


def newest(kind: InputKind, rows: Iterable[Row]) -> tuple[list[Row], int]:
    """The newest row per natural key, in order of first appearance, and the number of clashes."""
    key_of, version_of, clash_rank_of = NATURAL[kind]
    latest: dict[Any, Row] = {}
    clashes = 0
    for row in rows:
        key = key_of(row)
        other = latest.setdefault(key, row)
        if other is row:
            continue
        version, other_version = version_of(row), version_of(other)
        if version > other_version:
            latest[key] = row
        elif version == other_version and row != other:
            clashes += 1
            if clash_rank_of(row) > clash_rank_of(other):
                latest[key] = row
    return list(latest.values()), clashes


def _decode_all(kind: InputKind, records: Sequence[RawRecord]) -> list[Row | None]:
    """Rows of the records that are plainly well-formed; None for those that need a closer look."""
    read, as_tuple = _DECODERS[kind], msgspec.structs.astuple
    rows: list[Row | None] = []
    for record in records:
        value = record.value
        row: Row | None = None
        if value is not None and len(value) <= MAX_VALUE_BYTES:
            try:
                row = as_tuple(read(value))
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
                row = None
        rows.append(row)
    _drop_doubtful(kind, records, rows)
    return rows


def _drop_doubtful(kind: InputKind, records: Sequence[RawRecord], rows: list[Row | None]) -> None:
    """Set to None whatever the models have to judge; checks of the whole batch come first."""
    ids_of = _ID_FIELDS[kind]
    ids = [part for row in rows if row is not None for part in ids_of(row)]
    joined = "\n".join(ids) + "\n" if ids else ""
    ids_fine = _IDS.fullmatch(joined) is not None and joined.count("\n") == len(ids)
    raw = b"\n".join(record.value or b"" for record in records)
    bytes_fine = raw.isascii() and _OTHER_TIMES.search(raw) is None
    text_of = _TEXT_FIELDS.get(kind)
    times = _TIME_FIELDS[kind]
    for index, row in enumerate(rows):
        if row is not None and (
            any(row[position].tzinfo is not UTC for position in times)
            or (not ids_fine and not all(is_id(part) for part in ids_of(row)))
            or (not bytes_fine and not _plain(records[index].value or b""))
            or (text_of is not None and "\0" in (text_of(row) or ""))
        ):
            rows[index] = None


def _plain(value: bytes) -> bool:
    try:
        value.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return _OTHER_TIMES.search(value) is None


def _decode_one(
    kind: InputKind, record: RawRecord, decoded: Decoded, latest_allowed: datetime
) -> Row | None:
    """The row by the models themselves; None for an erasure. Raises DeadLetter."""
    if record.value is None and kind is InputKind.MEMBERSHIP:
        org_id, user_id = decode_erasure(record.key)
        erased_at = datetime.fromtimestamp(record.timestamp / 1000, UTC)
        if erased_at > latest_allowed:
            _refuse_future(decoded, erased_at)
        decoded.latest_accepted = max(decoded.latest_accepted, erased_at)
        decoded.erasures.append(Erasure(org_id, user_id, erased_at))
        return None
    model = decode(kind, record.value, record.headers)
    return tuple(getattr(model, name) for name in type(model).model_fields)
