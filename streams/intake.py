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
_TIMES: Final = {
    kind: [
        itemgetter(position)
        for position, name in enumerate(model.model_fields)
        if get_type_hints(model, include_extras=True)[name] == Instant
    ]
    for kind, model in MODELS.items()
}
_TEXT: Final = {
    InputKind.MEMBERSHIP: itemgetter(5),
    InputKind.ORGANIZATION: itemgetter(2),
}
_IDS: Final = {
    InputKind.ATTENDANCE: itemgetter(0, 1, 2, 3),
    InputKind.RSVP: itemgetter(0, 1, 2, 3),
    InputKind.PROFILE_UPDATE: itemgetter(0, 1),
    InputKind.MEMBERSHIP: itemgetter(0, 1, 2),
    InputKind.ORGANIZATION: itemgetter(0, 1),
}

# Ids of a whole batch are checked at once: nothing but these bytes, and none of the marks first.
_ID_BYTES: Final = (string.ascii_letters + string.digits + "._@|-").encode()
_NOT_FIRST: Final = tuple(f"\n{mark}".encode() for mark in "._@|-\n")

# Times that msgspec reads otherwise than we do, with every digit as zero: it rounds beyond
# microseconds and accepts a space between date and time. Last, with digits as they are: offsets
# without a colon (those other than zero show in the time zone).
_DIGITS_AS_ZERO: Final = bytes.maketrans(b"123456789", b"000000000")
_OTHER_TIMES: Final = (b".0000000", b"00-00 00:")
_OFFSET_ENDS: Final = (b'+0000"', b'-0000"')
_OTHER_OFFSETS: Final = re.compile(rb':\d\d(?:[.]\d+)?[+-]0000"')


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
    latest = _latest_time(kind, rows)
    if latest is not None and latest <= latest_allowed and not rejected:
        decoded.accepted, decoded.latest_accepted = len(rows), latest
        decoded.rows, decoded.clashes = newest(kind, cast("list[Row]", rows))
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
    decoded.rows, decoded.clashes = newest(kind, accepted)
    return decoded


def _latest_time(kind: InputKind, rows: Sequence[Row | None]) -> datetime | None:
    """The latest time of the batch, or None when a record needs a closer look."""
    if not rows or None in rows:
        return None
    sure = cast("Sequence[Row]", rows)
    latest: datetime = max(max(map(get, sure)) for get in _TIMES[kind])
    return latest


def _check_row(kind: InputKind, row: Row, decoded: Decoded, latest_allowed: datetime) -> None:
    latest = max(get(row) for get in _TIMES[kind])
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
    plain = [row for row in rows if row is not None]
    raw = b"\n".join([record.value or b"" for record in records])
    rows_fine, raw_fine = _are_plain(kind, plain), _raw_is_plain(raw)
    if rows_fine and raw_fine:
        return
    for index, row in enumerate(rows):
        if row is not None and not (
            (raw_fine or _raw_is_plain(records[index].value or b""))
            and (rows_fine or _are_plain(kind, [row]))
        ):
            rows[index] = None


def _are_plain(kind: InputKind, rows: Sequence[Row]) -> bool:
    """Whether these values are beyond doubt ours, too."""
    for get in _TIMES[kind]:
        zones = [get(row).tzinfo for row in rows]
        if zones.count(UTC) != len(zones):
            return False
    text_of = _TEXT.get(kind)
    if text_of is not None and any("\0" in (text_of(row) or "") for row in rows):
        return False
    return _ids_are_plain(list(chain.from_iterable(map(_IDS[kind], rows))))


def _ids_are_plain(ids: Sequence[str]) -> bool:
    joined = "\n".join(["", *ids, ""]).encode("utf-8", "replace")
    return (
        joined.translate(None, _ID_BYTES) == b"\n" * (len(ids) + 1)
        and max(map(len, ids), default=1) <= MAX_ID_LENGTH
        and not any(first in joined for first in _NOT_FIRST)
    )


def _raw_is_plain(raw: bytes) -> bool:
    if not raw.isascii():
        try:
            raw.decode("utf-8")
        except UnicodeDecodeError:
            return False
    # An id may end like an offset: look closer before the whole batch is doubted.
    if any(end in raw for end in _OFFSET_ENDS) and _OTHER_OFFSETS.search(raw) is not None:
        return False
    zeros = raw.translate(_DIGITS_AS_ZERO)
    return not any(form in zeros for form in _OTHER_TIMES)


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
