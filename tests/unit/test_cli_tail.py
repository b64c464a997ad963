"""How records are printed: decoded, and harmless to a terminal."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime

import pytest

from service.cli.output import print_table, shown, shown_bytes
from service.cli.tail import json_line, plain_line
from streams.tailing import Record

AT = datetime(2026, 1, 2, 3, 4, 5, 678000, tzinfo=UTC)
HOSTILE = "ada\x1b]0;owned\x07\x9b31m\u202e"


def record(
    value: bytes | None, *headers: tuple[str, bytes | None], key: bytes | None = b"club:ada"
) -> Record:
    return Record("engagement.change.v1", 3, 42, AT, key, value, headers)


def body(**fields: object) -> bytes:
    return json.dumps(fields).encode()


def test_a_plain_line_begins_with_what_matters() -> None:
    line = plain_line(
        record(body(org_id="club", user_id="ada", revision=2, to_level="new", from_level=None))
    )
    assert line == "2026-01-02T03:04:05Z 3/42 club:ada  from_level=- to_level=new revision=2"


def test_texts_and_signals_stay_out_of_a_plain_line() -> None:
    line = plain_line(record(body(level="new", admin_explanation="long", signals={"a": 1})))
    assert line.endswith("club:ada  level=new")


def test_a_tombstone_and_a_null_key() -> None:
    assert plain_line(record(None)).endswith("club:ada  tombstone")
    assert plain_line(record(None, key=None)).endswith("null  tombstone")
    assert json.loads(json_line(record(None, key=None)))["value"] is None


def test_json_has_everything() -> None:
    found = json.loads(json_line(record(body(level="new", signals={"a": 1}), ("ce_id", b"x"))))
    assert found == {
        "topic": "engagement.change.v1",
        "partition": 3,
        "offset": 42,
        "timestamp": "2026-01-02T03:04:05.678000Z",
        "key": "club:ada",
        "headers": {"ce_id": "x"},
        "value": {"level": "new", "signals": {"a": 1}},
    }


@pytest.mark.parametrize("value", [b"", b"{", b"[1]", b"\xff\xfe", b"nonsense", b"[" * 100_000])
def test_what_is_no_json_object_can_still_be_seen(value: bytes) -> None:
    assert base64.b64decode(json.loads(json_line(record(value)))["value_base64"]) == value
    assert plain_line(record(value)).startswith("2026-01-02T03:04:05Z 3/42 club:ada")


def test_a_dead_letter_shows_its_code() -> None:
    line = plain_line(
        record(
            b"{",
            ("__streams.errors.exception", b"not_json"),
            ("__streams.errors.message", b"the value is not UTF-8 JSON"),
        )
    )
    assert line.endswith("{  [not_json: the value is not UTF-8 JSON]")


def test_a_dead_letter_of_null_is_no_tombstone() -> None:
    headers = (
        ("__streams.errors.exception", b"null_value"),
        ("__streams.errors.message", b"the value is null"),
    )
    line = plain_line(record(None, *headers))
    assert line.endswith("club:ada  null  [null_value: the value is null]")
    assert json.loads(json_line(record(None, *headers)))["headers"]["__streams.errors.exception"]


def test_nothing_from_a_topic_steers_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    hostile = HOSTILE.encode()
    found = record(
        body(status="active", display_name=HOSTILE, other=[HOSTILE], **{HOSTILE: 1}),
        (HOSTILE, hostile),
        key=hostile,
    )
    print_table(("a",), [(HOSTILE,)])
    said = plain_line(found) + json_line(found) + plain_line(record(hostile))
    said += shown(HOSTILE) + shown_bytes(hostile) + capsys.readouterr().out.replace("\n", "")
    assert said.isprintable()
    assert "\\x1b]0;owned\\x07" in said
