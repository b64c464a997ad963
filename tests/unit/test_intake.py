"""Decoding by compiled structs comes to what the wire models themselves come to, record by record.

The models (`service.decoding.decode`) are the contract; `streams.intake` may only be faster.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.decoding import decode
from service.errors import DeadLetter, DeadLetterCode
from service.events import MAX_VALUE_BYTES, MODELS, InputKind
from streams.intake import decode_batch

NOW = datetime(2026, 3, 1, tzinfo=UTC)
MANY = 10_000


@dataclass
class Record:
    """What intake reads of a record."""

    offset: int
    value: bytes | None
    key: bytes | None = None
    timestamp: int = 0
    headers: Sequence[tuple[str, bytes]] = ()


TIMES = [
    "2026-02-28T12:00:00Z",
    "2026-02-28t12:00:00.5z",
    "2026-02-28T12:00:00.123456Z",
    "2026-02-28T12:00:00.1234567Z",
    "2026-02-28T12:00:00.999999999Z",
    "2026-02-28T12:00:00.000000000000000000000000Z",
    "2026-02-28 12:00:00Z",
    "2026-02-28T12:00:00",
    "2026-02-28T12:00:00+0000",
    "2026-02-28T12:00:00.25-0000",
    "2026-02-28T12:00:00.123456+0000",
    "2026-02-28T12:00:00+01:30",
    "2026-02-28T12:00:00-00:00",
    "2026-02-28T12:00:00+00:00",
    "2026-02-28T24:00:00Z",
    "2026-02-28T12:00:60Z",
    "2026-02-30T12:00:00Z",
    "0001-01-01T00:00:00+01:00",
    "9999-12-31T23:59:59.999999Z",
    "2026-03-01T00:00:00Z",
    "2026-03-01T00:00:00.000001Z",
    "2026-02-28",
    "12:00:00Z",
    "",
]
IDS = [
    "a", "m-1", "x@y|z._-", "event-0000", "event:11-0000", "v1.12345678", "a" * 128, "a" * 129,
    "", "-a", ".a", "_a", "@a", "|a", "a b", "a\nb", "a\n", "\n", "ä", "\ud800", "a:b", "a\0b",
    "2026-02-28 12:00:00",
]  # fmt: skip
TEXTS = ["Club", "", "é" * 200, "x" * 201, "a\0b", "12:00-0000", "\ud800", " 00.0000000 "]
OTHERS: list[Any] = [None, 1, 1.5, True, [], {}, "attended", "maybe", "admin", "left"]
PLAIN = {
    "id": "m-1", "org_id": "club", "user_id": "u-1", "event_id": "e-0000", "status": "attended",
    "occurred_at": "2026-02-28T12:00:00.123456Z", "recorded_at": "2026-02-28T12:00:00Z",
    "response": "going", "responded_at": "2026-02-28T12:00:00Z", "actor": "member",
    "updated_at": "2026-02-28T12:00:00Z", "role": "admin", "display_name": "Ada",
    "joined_at": "2026-02-28T12:00:00Z", "name": "Club",
}  # fmt: skip
STATUS = {InputKind.MEMBERSHIP: "active", InputKind.ORGANIZATION: "active"}


def plain_body(kind: InputKind) -> dict[str, Any]:
    """A body that is fine."""
    body = {name: PLAIN[name] for name in MODELS[kind].model_fields}
    if kind in STATUS:
        body["status"] = STATUS[kind]
    return body


def oddities(name: str) -> list[Any]:
    """Values for a field of this name that are odd, or only look so."""
    fitting = TIMES if name.endswith("_at") else TEXTS if "name" in name else IDS
    return [*fitting, *OTHERS]


@st.composite
def values(draw: st.DrawFn, kind: InputKind) -> bytes | None:
    """A record's value: fine, odd in a field or two, or hardly a record at all."""
    body = plain_body(kind)
    for name in draw(st.lists(st.sampled_from(sorted(body)), max_size=2)):
        body[name] = draw(st.sampled_from(oddities(name)))
    for name in draw(st.lists(st.sampled_from(sorted(body)), max_size=1)):
        del body[name]
    if draw(st.integers(0, 9)) == 0:
        body["more"] = draw(st.sampled_from([*OTHERS, *TIMES, *IDS]))
    separators = draw(st.sampled_from([(",", ":"), (", ", ": "), (" ,\n", "\t: ")]))
    text = json.dumps(body, separators=separators, ensure_ascii=draw(st.booleans()))
    value = text.encode("utf-8", "surrogatepass")
    wild = st.sampled_from([None, b"", b"{", b"null", b"[]", value + b" ", value + b"x", b"\xff",
                            value.replace(b"a", b"\xe9", 1), b" " * MAX_VALUE_BYTES + value,
                            b"[" * 20_000, value[:-1] + b',"id":"twice"}',
                            value[:-1] + b',"more":NaN}'])  # fmt: skip
    return draw(wild) if draw(st.integers(0, 9)) == 0 else value


def by_models(kind: InputKind, record: Record) -> tuple[Any, ...] | DeadLetterCode:
    """The values of the record, or the code that refuses it, by the models alone."""
    try:
        model = decode(kind, record.value, record.headers)
    except DeadLetter as error:
        return error.code
    row = tuple(getattr(model, name) for name in type(model).model_fields)
    if any(isinstance(value, datetime) and value > NOW for value in row):
        return DeadLetterCode.FUTURE_DATED
    return row


@pytest.mark.parametrize("kind", InputKind)
@given(data=st.data())
def test_decoding_a_batch_is_what_the_models_say_of_each_record(
    kind: InputKind, data: st.DataObject
) -> None:
    count = data.draw(st.integers(1, 4))
    records = [Record(number, data.draw(values(kind))) for number in range(count)]
    if kind is InputKind.MEMBERSHIP:  # its tombstones erase, and have tests of their own
        records = [record for record in records if record.value is not None]
    check_batch(kind, records)


@pytest.mark.parametrize("kind", InputKind)
def test_every_oddity_alone(kind: InputKind) -> None:
    for name in MODELS[kind].model_fields:
        for value in oddities(name):
            body = plain_body(kind) | {name: value}
            text = json.dumps(body, separators=(",", ":"), ensure_ascii=False)
            check_batch(kind, [Record(0, text.encode("utf-8", "surrogatepass"))])


def check_batch(kind: InputKind, records: list[Record]) -> None:
    """Compare with the models: the batch, and each record as a batch of its own."""
    expected = {record.offset: by_models(kind, record) for record in records}
    for batch in [records, *([record] for record in records)]:
        decoded = decode_batch(kind, batch, latest_allowed=NOW, max_consecutive_failures=MANY)
        refused = {refusal.record.offset: refusal.code for refusal in decoded.refusals}
        outcomes = {record.offset: expected[record.offset] for record in batch}
        assert refused == {
            offset: said for offset, said in outcomes.items() if isinstance(said, DeadLetterCode)
        }
        assert decoded.accepted == len(batch) - len(refused)
        if len(batch) == 1 and not refused:
            assert decoded.rows == list(outcomes.values())


@pytest.mark.parametrize("kind", InputKind)
def test_a_plain_record_does_not_need_the_models(
    kind: InputKind, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fast way is taken: without this the test above would hold of the slow one alone."""

    def refuse(*_: Any) -> Any:
        raise AssertionError("decoded by the model")

    monkeypatch.setattr("streams.intake.decode", refuse)
    for separators in [(",", ":"), (", ", ": ")]:
        value = json.dumps(plain_body(kind), separators=separators).encode()
        decoded = decode_batch(
            kind, [Record(0, value)], latest_allowed=NOW + timedelta(days=1),
            max_consecutive_failures=MANY,
        )  # fmt: skip
        assert decoded.accepted == 1


def test_what_is_wrong_with_a_time_is_said_plainly() -> None:
    body = plain_body(InputKind.RSVP) | {"responded_at": "yesterday"}
    with pytest.raises(DeadLetter) as caught:
        decode(InputKind.RSVP, json.dumps(body).encode(), ())
    assert caught.value.message == (
        "responded_at: must be an RFC 3339 date and time with an offset"
    )


@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 5), st.booleans()), max_size=8))
def test_who_is_back_within_a_batch_has_left_before(said: list[tuple[int, int, bool]]) -> None:
    """`said`: of whom, how recent, whether they are there; equal ones are repeats."""
    records = []
    for offset, (person, age, there) in enumerate(said):
        version = {"id": f"m{int(there)}", "recorded_at": (NOW - timedelta(days=age)).isoformat()}
        body = plain_body(InputKind.MEMBERSHIP) | version | {"user_id": f"user-{person}"}
        body["status"] = "active" if there else "left"
        records.append(Record(offset, json.dumps(body).encode()))
    decoded = decode_batch(
        InputKind.MEMBERSHIP, records, latest_allowed=NOW, max_consecutive_failures=MANY
    )
    departed = {}
    for person in {person for person, _, _ in said}:
        versions = sorted((-age, there) for who, age, there in said if who == person)
        left = [age for age, there in versions if not there]
        if versions[-1][1] and left:
            departed[f"user-{person}"] = NOW + timedelta(days=left[-1])
    assert {row[2]: row[7] for row in decoded.departures} == departed
    assert {row[3] for row in decoded.departures} <= {"left"}
    assert decoded.is_plain is not bool(departed)
