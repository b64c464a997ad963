"""The oracle's reading of single records: what is accepted, as what, and which code refuses."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.oracle import KINDS, Oracle

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
GOOD: dict[str, dict[str, Any]] = {
    "attendance": {
        "id": "m-1",
        "org_id": "club",
        "user_id": "ada@example",
        "event_id": "e|1",
        "status": "attended",
        "occurred_at": "2026-05-01T10:00:00Z",
        "recorded_at": "2026-05-01T11:00:00Z",
    },
    "rsvp": {
        "id": "m-1",
        "org_id": "club",
        "user_id": "ada",
        "event_id": "e1",
        "response": "going",
        "responded_at": "2026-05-01T10:00:00Z",
        "recorded_at": "2026-05-01T11:00:00Z",
    },
    "profile-update": {
        "id": "m-1",
        "user_id": "ada",
        "updated_at": "2026-05-01T10:00:00Z",
        "recorded_at": "2026-05-01T11:00:00Z",
    },
    "membership": {
        "id": "m-1",
        "org_id": "club",
        "user_id": "ada",
        "status": "active",
        "joined_at": "2026-05-01T10:00:00Z",
        "recorded_at": "2026-05-01T11:00:00Z",
    },
    "organization": {
        "id": "m-1",
        "org_id": "club",
        "name": "The Club",
        "status": "active",
        "recorded_at": "2026-05-01T11:00:00Z",
    },
}
DEFAULTED = {"profile-update": {"actor"}, "membership": {"role", "display_name"}}


def code_of(
    kind: str, value: bytes | None, *, oracle: Oracle | None = None, **more: Any
) -> str | None:
    return (oracle or Oracle()).apply(kind, b"club:ada", value, now=NOW, **more)


def utc(*parts: int) -> datetime:
    return datetime(*parts, tzinfo=UTC)  # type: ignore[arg-type, misc]


def changed(kind: str, **fields: Any) -> bytes:
    return json.dumps(GOOD[kind] | fields).encode()


def without(kind: str, name: str) -> bytes:
    return json.dumps({key: value for key, value in GOOD[kind].items() if key != name}).encode()


@pytest.mark.parametrize("kind", KINDS)
def test_a_good_record_is_kept_with_the_wires_fields(kind: str) -> None:
    oracle = Oracle()
    value = changed(kind, unknown={"deep": [1, 2.5, None, "\ud83d\ude00", "\ud800"]})
    value = value[:-1] + b', "long": ' + b"9" * 5000 + b"}"
    assert code_of(kind, value, oracle=oracle) is None
    (record,) = oracle.facts(kind)
    assert record.keys() == GOOD[kind].keys() | DEFAULTED.get(kind, set())
    assert record["recorded_at"] == datetime(2026, 5, 1, 11, tzinfo=UTC)
    assert all(record[name] == GOOD[kind][name] for name in GOOD[kind] if name[-3:] != "_at")


def test_defaults() -> None:
    oracle = Oracle()
    assert code_of("membership", changed("membership", display_name=None), oracle=oracle) is None
    assert code_of("profile-update", changed("profile-update"), oracle=oracle) is None
    (membership,), (update,) = oracle.facts("membership"), oracle.facts("profile-update")
    assert (membership["role"], membership["display_name"]) == ("member", None)
    assert update["actor"] == "member"


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind in GOOD for name in GOOD[kind]])
def test_every_other_field_is_required_and_is_text(kind: str, name: str) -> None:
    assert code_of(kind, without(kind, name)) == "schema"
    for wrong in [None, 1, 1.5, True, ["x"], {"x": "y"}]:
        assert code_of(kind, changed(kind, **{name: wrong})) == "schema"


@pytest.mark.parametrize(
    ("value", "code"),
    [
        (None, "null_value"),
        (b"", "not_json"),
        (b"  ", "not_json"),
        (b"{", "not_json"),
        (b"{} x", "not_json"),
        (b'{"a": NaN}', "not_json"),
        (b'{"a": -Infinity}', "not_json"),
        (b'{"a": "\xff"}', "not_json"),
        (b'{"a": "\\ud800"}', "schema"),
        (b'\xef\xbb\xbf{"a": 1}', "not_json"),
        (b"{'a': 1}", "not_json"),
        (b"{}", "schema"),
        (b"[]", "schema"),
        (b"null", "schema"),
        (b'"text"', "schema"),
        (b"1" * 6000, "schema"),
        (b" " * 65_536, "not_json"),
        (b" " * 65_537, "too_large"),
    ],
)
def test_values_that_are_no_record(value: bytes | None, code: str) -> None:
    assert code_of("attendance", value) == code


def test_size_is_counted_in_bytes_to_the_last_one() -> None:
    for length, code in [(65_536, None), (65_537, "too_large")]:
        value = changed("attendance")
        assert code_of("attendance", value + b" " * (length - len(value))) == code


def test_codes_in_their_order() -> None:
    oracle = Oracle()
    fields: dict[str, Any] = {"recorded_at": "2030-01-01T00:00:00Z"}
    assert code_of("attendance", changed("attendance", **fields), oracle=oracle) == "future_dated"
    fields["occurred_at"] = "2026-05-01T10:00:00"
    assert code_of("attendance", changed("attendance", **fields), oracle=oracle) == "naive_time"
    fields["event_id"] = "e 1"
    assert code_of("attendance", changed("attendance", **fields), oracle=oracle) == "bad_id"
    fields["status"] = "Attended"
    assert code_of("attendance", changed("attendance", **fields), oracle=oracle) == "schema"
    broken = changed("attendance", **fields)[:-1]
    assert code_of("attendance", broken, oracle=oracle) == "not_json"
    assert code_of("attendance", broken + b" " * 65_536, oracle=oracle) == "too_large"
    assert oracle.facts("attendance") == []


@pytest.mark.parametrize("name", ["id", "org_id", "user_id", "event_id"])
@pytest.mark.parametrize(
    "text", ["", "-a", ".a", "a b", "a:b", "é", "a\n", "a\0", "a\ud800", "a" * 129]
)
def test_bad_ids(name: str, text: str) -> None:
    assert code_of("attendance", changed("attendance", **{name: text})) == "bad_id"


@pytest.mark.parametrize("text", ["a", "0", "A.b_c@d|e-f", "a" * 128])
def test_good_ids(text: str) -> None:
    assert code_of("attendance", changed("attendance", user_id=text)) is None


@pytest.mark.parametrize(
    ("kind", "name"), [("membership", "display_name"), ("organization", "name")]
)
@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("", None),
        ("\U0001f600" * 200, None),
        ("x" * 201, "schema"),
        ("a\0b", "schema"),
        ("a\ud800", "schema"),
    ],
)
def test_free_text(kind: str, name: str, text: str, code: str | None) -> None:
    assert code_of(kind, changed(kind, **{name: text})) == code


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-05-01T10:00:00Z", utc(2026, 5, 1, 10)),
        ("2026-05-01t10:00:00z", utc(2026, 5, 1, 10)),
        ("2026-05-01T10:00:00+00:00", utc(2026, 5, 1, 10)),
        ("2026-05-01T10:00:00-00:00", utc(2026, 5, 1, 10)),
        ("2026-05-01T10:00:00+05:45", utc(2026, 5, 1, 4, 15)),
        ("2026-05-01T10:00:00-23:59", utc(2026, 5, 2, 9, 59)),
        ("2026-05-01T10:00:00.5Z", utc(2026, 5, 1, 10, 0, 0, 500_000)),
        ("2026-05-01T10:00:00.123456Z", utc(2026, 5, 1, 10, 0, 0, 123_456)),
        ("2026-05-01T10:00:00.1234569999Z", utc(2026, 5, 1, 10, 0, 0, 123_456)),
        ("1936-02-29T20:00:00Z", utc(1936, 2, 29, 20)),
        ("0001-01-01T00:00:00Z", utc(1, 1, 1)),
    ],
)
def test_times(text: str, expected: datetime) -> None:
    oracle = Oracle()
    assert code_of("attendance", changed("attendance", occurred_at=text), oracle=oracle) is None
    assert oracle.facts("attendance")[0]["occurred_at"] == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "yesterday",
        "1767225600",
        "2026-05-01",
        "2026-05-01Z",
        "2026-05-01 10:00:00Z",
        "2026-05-01_10:00:00Z",
        "2026-05-01T10:00Z",
        "2026-05-01T10Z",
        "20260501T100000Z",
        "2026-05-01T10:00:00.Z",
        "2026-05-01T10:00:00,5Z",
        "2026-05-01T10:00:00+0100",
        "2026-05-01T10:00:00+01",
        "2026-05-01T10:00:00+24:00",
        "2026-05-01T10:00:00+01:60",
        "2026-05-01T10:00:00 Z",
        "2026-05-01T10:00:00Z\n",
        "2026-05-01T24:00:00Z",
        "2026-05-01T24:00:00",
        "2016-12-31T23:59:60Z",
        "2026-02-29T10:00:00Z",
        "2026-13-01T10:00:00Z",
        "0000-01-01T10:00:00Z",
        "0001-01-01T00:00:00+00:01",
        "9999-12-31T23:59:59-00:01",
        "٢٠٢٦-05-01T10:00:00Z",
    ],
)
def test_texts_that_are_no_time(text: str) -> None:
    assert code_of("attendance", changed("attendance", occurred_at=text)) == "schema"


@pytest.mark.parametrize("kind", KINDS)
def test_any_time_may_be_naive_or_in_the_future(kind: str) -> None:
    last = NOW + timedelta(days=1)
    for name in KINDS[kind].times:
        assert code_of(kind, changed(kind, **{name: "2026-05-01T10:00:00"})) == "naive_time"
        assert code_of(kind, changed(kind, **{name: last.isoformat()})) is None
        after = (last + timedelta(microseconds=1)).isoformat()
        assert code_of(kind, changed(kind, **{name: after})) == "future_dated"
        strict = Oracle(max_future_skew_s=0)
        assert code_of(kind, changed(kind, **{name: last.isoformat()}), oracle=strict) is not None


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ([("ce_id", b"h-1")], "h-1"),
        ([("other", b"x"), ("ce_id", b"h-1"), ("ce_id", b"h-2")], "h-2"),
        ([("ce_id", b"h-1"), ("ce_id", None)], "h-1"),
        ([("ce_id", b"h 1")], "bad_id"),
        ([("ce_id", b"\xff")], "bad_id"),
        ([("ce_id", b"")], "bad_id"),
        ([("ce_id", None)], "schema"),
        ([], "schema"),
    ],
)
def test_a_header_fills_a_missing_id(
    headers: list[tuple[str, bytes | None]], expected: str
) -> None:
    oracle = Oracle()
    code = code_of("attendance", without("attendance", "id"), oracle=oracle, headers=headers)
    if code is None:
        assert oracle.facts("attendance")[0]["id"] == expected
    else:
        assert code == expected


def test_a_header_never_replaces_an_id() -> None:
    oracle = Oracle()
    header = [("ce_id", b"h-1")]
    assert code_of("rsvp", changed("rsvp"), oracle=oracle, headers=header) is None
    assert oracle.facts("rsvp")[0]["id"] == "m-1"
    assert code_of("rsvp", changed("rsvp", id=None), headers=header) == "schema"


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "membership"])
def test_only_members_are_erased_by_null(kind: str) -> None:
    assert code_of(kind, None) == "null_value"


def test_a_tombstone_from_the_future() -> None:
    late = NOW + timedelta(days=1)
    assert code_of("membership", None, timestamp=late) is None
    assert code_of("membership", None, timestamp=late + timedelta(seconds=1)) == "future_dated"
