"""Decode and check one batch of one partition: what to apply, what to erase, what is refused.

Pure: no Faust, no SQL, no clock. Most records are decoded by msgspec structs derived from the wire
models (1 us each instead of 7 us); whatever those refuse goes through the models themselves, which
alone decide on the dead-letter code. A property test holds that both give the same values.
"""

from __future__ import annotations

import json
import re
import string
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import chain
from operator import itemgetter
from typing import (
    Annotated,
    Any,
    Final,
    NamedTuple,
    Never,
    Protocol,
    Union,
    cast,
    get_args,
    get_type_hints,
)

import msgspec

from service.decoding import decode, decode_erasure
from service.errors import DeadLetter, DeadLetterCode
from service.events import (
    MAX_ID_LENGTH,
    MAX_TEXT_LENGTH,
    MAX_VALUE_BYTES,
    MODELS,
    Id,
    InputKind,
    Instant,
    Text,
)
from service.instants import from_kafka

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
    """A membership tombstone: forget what was recorded about the member until `erased_at`.

    That is the end of the millisecond which Kafka has dated it: what was recorded right before it
    goes, too.
    """

    org_id: str
    user_id: str
    erased_at: datetime
    offset: int


_FIRST_INSTANT: Final = datetime.min.replace(tzinfo=UTC)
_LAST_INSTANT: Final = datetime.max.replace(tzinfo=UTC)
_LAST_IN_MILLISECOND: Final = 999


@dataclass(slots=True)
class Decoded:
    """What a batch comes to.

    `rows`: the newest record per natural key, as tuples in the order of the model's fields.
    `departures`: of who is back within the batch, the newest record by which they were gone.
    `clashes`: records of equal (recorded_at, id) but other content, within the batch.
    `consecutive_failures`: refusals in a row up to the end, counted on from the batch before.
    `stop_after`: offset of the record at which the limit was reached; the rest was not looked at.
    `latest_accepted`, `earliest_refused`: between these instants the limit on future dates may move
    without changing anything here.
    """

    kind: InputKind
    rows: list[Row] = field(default_factory=list)
    departures: list[Row] = field(default_factory=list)
    erasures: list[Erasure] = field(default_factory=list)
    refusals: list[Refusal] = field(default_factory=list)
    clashes: int = 0
    accepted: int = 0
    consecutive_failures: int = 0
    stop_after: int | None = None
    latest_accepted: datetime = _FIRST_INSTANT
    earliest_refused: datetime = _LAST_INSTANT

    @property
    def is_plain(self) -> bool:
        """Whether there is nothing but rows to apply."""
        return not self.refusals and not self.erasures and not self.departures

    def keep_newest(self, rows: Sequence[Row]) -> None:
        """Keep of all rows, in their order, those that have to be applied."""
        self.rows, self.clashes = newest(self.kind, rows)
        if self.kind in GONE and len(self.rows) < len(rows):
            self.departures = _departures(self.kind, rows, self.rows)

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

# Where the status is, and the one that ends overrides.
GONE: Final = {InputKind.MEMBERSHIP: (3, "left"), InputKind.ORGANIZATION: (3, "deleted")}

_STRUCT_TYPES: Final[list[tuple[Any, Any]]] = [
    (Id, Annotated[str, msgspec.Meta(max_length=MAX_ID_LENGTH)]),
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
_TIMES: Final = {
    kind: [
        position
        for position, name in enumerate(model.model_fields)
        if get_type_hints(model, include_extras=True)[name] == Instant
    ]
    for kind, model in MODELS.items()
}
_TEXT: Final = {InputKind.MEMBERSHIP: 5, InputKind.ORGANIZATION: 2}
_IDS: Final = {
    InputKind.ATTENDANCE: (0, 1, 2, 3),
    InputKind.RSVP: (0, 1, 2, 3),
    InputKind.PROFILE_UPDATE: (0, 1),
    InputKind.MEMBERSHIP: (0, 1, 2),
    InputKind.ORGANIZATION: (0, 1),
}

CHUNK: Final = 500

# Ids of a whole chunk are checked at once: nothing but these bytes, and none of the marks first.
_ID_BYTES: Final = (string.ascii_letters + string.digits + "._@|-").encode()
_NOT_FIRST: Final = re.compile(rb"\n[._@|\n-]")

# Times that msgspec reads otherwise than we do: it rounds beyond microseconds, accepts a space
# between date and time, and offsets without a colon (those other than zero show in the time zone).
# Every pattern begins with a byte that is rare, which `re` looks for at the speed of memory.
_LONG_FRACTION: Final = re.compile(rb"[.]\d{7}")
_SPACE_IN_TIME: Final = re.compile(rb"-\d\d \d\d:")
_OFFSET_ENDS: Final = (b'+0000"', b'-0000"')
_BEFORE_OFFSET: Final = re.compile(rb":\d\d(?:[.]\d{1,6})?\Z")
_LONGEST_BEFORE_OFFSET: Final = 10


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
    latest = None if not rows or None in rows else _latest_time(kind, cast("list[Row]", rows))
    if latest is not None and latest <= latest_allowed and not rejected:
        decoded.accepted, decoded.latest_accepted = len(rows), latest
        decoded.keep_newest(cast("list[Row]", rows))
        return decoded
    failures = consecutive_failures
    accepted: list[Row] = []
    for record, plain_row in zip(records, rows, strict=True):
        try:
            row = plain_row or _decode_one(kind, record, decoded, latest_allowed)
            if row is not None:
                _check_row(kind, row, decoded, latest_allowed)
                if rejected and record.offset in rejected:
                    _refuse(DeadLetterCode.REJECTED, "the database refuses its values")
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
    decoded.keep_newest(accepted)
    return decoded


def _latest_time(kind: InputKind, rows: Sequence[Row]) -> datetime:
    latest: datetime = max(max(map(itemgetter(at), rows)) for at in _TIMES[kind])
    return latest


def _check_row(kind: InputKind, row: Row, decoded: Decoded, latest_allowed: datetime) -> None:
    latest = _latest_time(kind, [row])
    if latest > latest_allowed:
        _refuse_future(decoded, latest)
    decoded.latest_accepted = max(decoded.latest_accepted, latest)


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


def _departures(kind: InputKind, rows: Sequence[Row], current: Sequence[Row]) -> list[Row]:
    """The newest record by which who is not gone now was gone: what that ended stays ended."""
    status, gone = GONE[kind]
    key_of, _, _ = NATURAL[kind]
    back = {key_of(row) for row in current if row[status] != gone}
    found, _ = newest(kind, (row for row in rows if row[status] == gone and key_of(row) in back))
    return found


def _decode_all(kind: InputKind, records: Sequence[RawRecord]) -> list[Row | None]:
    """Rows of the records that are plainly well-formed; None for those that need a closer look."""
    rows: list[Row | None] = []
    # So many at once as stay in the processor's cache while one check after the other reads them.
    for first in range(0, len(records), CHUNK):
        rows += _decode_chunk(kind, [record.value for record in records[first : first + CHUNK]])
    return rows


def _decode_chunk(kind: InputKind, values: Sequence[bytes | None]) -> list[Row | None]:
    rows = _read_all(kind, values)
    raw = b"\n".join([value for value in values if value is not None])
    rows_fine, raw_fine = _are_plain(kind, rows), _raw_is_plain(raw)
    if rows_fine and raw_fine:
        return rows
    return [
        row
        if row is not None
        and (raw_fine or _raw_is_plain(value or b""))
        and (rows_fine or _are_plain(kind, [row]))
        else None
        for row, value in zip(rows, values, strict=True)
    ]


def _read_all(kind: InputKind, values: Sequence[bytes | None]) -> list[Row | None]:
    """What msgspec reads, None where it refuses. All at once if it can, since that is faster."""
    read, as_tuple = _DECODERS[kind], msgspec.structs.astuple
    present = [value for value in values if value is not None]
    if len(present) == len(values) and max(map(len, present), default=0) <= MAX_VALUE_BYTES:
        with suppress(msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return [as_tuple(read(value)) for value in present]
    rows: list[Row | None] = []
    for value in values:
        row: Row | None = None
        if value is not None and len(value) <= MAX_VALUE_BYTES:
            with suppress(msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
                row = as_tuple(read(value))
        rows.append(row)
    return rows


def _are_plain(kind: InputKind, rows: Sequence[Row | None]) -> bool:
    """Whether the values of these rows are beyond doubt ours, too; checked by the column."""
    columns: list[tuple[Any, ...]] = list(
        zip(*(row for row in rows if row is not None), strict=True)
    )
    if not columns:
        return True
    for at in _TIMES[kind]:
        zones = [time.tzinfo for time in columns[at]]
        if zones.count(UTC) != len(zones):
            return False
    text_at = _TEXT.get(kind)
    if text_at is not None and any("\0" in (text or "") for text in columns[text_at]):
        return False
    return _ids_are_plain([columns[at] for at in _IDS[kind]])


def _ids_are_plain(columns: Sequence[Sequence[str]]) -> bool:
    # Every id between two line ends.
    joined = "\n".join(["", *chain.from_iterable(columns), ""]).encode("utf-8", "replace")
    count = sum(map(len, columns))
    return (
        joined.translate(None, _ID_BYTES) == b"\n" * (count + 1)
        and _NOT_FIRST.search(joined) is None
    )


def _raw_is_plain(raw: bytes) -> bool:
    if not raw.isascii():
        try:
            raw.decode("utf-8")
        except UnicodeDecodeError:
            return False
    if _LONG_FRACTION.search(raw) or (b" " in raw and _SPACE_IN_TIME.search(raw)):
        return False
    return not any(_has_offset(raw, end) for end in _OFFSET_ENDS)


def _has_offset(raw: bytes, end: bytes) -> bool:
    """Whether a time ends like this. An id may, too: what comes before tells them apart."""
    # A plus is rare, and nowhere found sooner than what begins with it. From behind, since Python
    # looks for so short an end in so long a text with less ado than from the front.
    at = raw.rfind(end) if end[:1] in raw else -1
    while at >= 0:
        if _BEFORE_OFFSET.search(raw[max(0, at - _LONGEST_BEFORE_OFFSET) : at]):
            return True
        at = raw.rfind(end, 0, at)
    return False


def _decode_one(
    kind: InputKind, record: RawRecord, decoded: Decoded, latest_allowed: datetime
) -> Row | None:
    """The row by the models themselves; None for an erasure. Raises DeadLetter."""
    if record.value is None and kind is InputKind.MEMBERSHIP:
        org_id, user_id = decode_erasure(record.key)
        sent_at = from_kafka(record.timestamp)
        last_in_it = sent_at.microsecond // 1000 * 1000 + _LAST_IN_MILLISECOND
        erased_at = sent_at.replace(microsecond=last_in_it)
        if erased_at > latest_allowed:
            _refuse_future(decoded, erased_at)
        decoded.latest_accepted = max(decoded.latest_accepted, erased_at)
        decoded.erasures.append(Erasure(org_id, user_id, erased_at, record.offset))
        return None
    model = decode(kind, record.value, record.headers)
    return tuple(getattr(model, name) for name in type(model).model_fields)
