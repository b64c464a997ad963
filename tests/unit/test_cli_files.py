"""Rows of files as records: import and validate, as far as they need no server."""

from __future__ import annotations

import csv
import gzip
import io
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from service.cli import main
from service.decoding import decode
from service.errors import InvalidInput
from service.events import InputKind
from service.rows import check_columns, columns_of, kind_of_fields, record_of

DAVIS = Path(__file__).parents[2] / "service/demo/data/davis_southern_women.csv"
AT = "2026-01-02T03:04:05Z"
GOOD = {
    InputKind.ATTENDANCE: {
        "org_id": "club", "user_id": "ada", "event_id": "e1", "status": "attended",
        "occurred_at": AT,
    },
    InputKind.RSVP: {
        "org_id": "club", "user_id": "ada", "event_id": "e1", "response": "going",
        "responded_at": AT,
    },
    InputKind.PROFILE_UPDATE: {"user_id": "ada", "updated_at": AT},
    InputKind.MEMBERSHIP: {
        "org_id": "club", "user_id": "ada", "status": "active", "joined_at": AT,
        "recorded_at": AT,
    },
    InputKind.ORGANIZATION: {
        "org_id": "club", "name": "The Club", "status": "active", "recorded_at": AT,
    },
}  # fmt: skip
KEYS = {
    InputKind.ATTENDANCE: b"club:ada",
    InputKind.RSVP: b"club:ada",
    InputKind.PROFILE_UPDATE: b"ada",
    InputKind.MEMBERSHIP: b"club:ada",
    InputKind.ORGANIZATION: b"club",
}


def table(*rows: dict[str, str]) -> str:
    out = io.StringIO()
    writer = csv.DictWriter(out, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def write(folder: Path, text: str | bytes, name: str = "rows.csv") -> str:
    path = folder / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return str(path)


# rows


def test_columns_are_those_of_the_specification() -> None:
    assert {kind.value: columns_of(kind) for kind in InputKind} == {
        "attendance": (
            ("org_id", "user_id", "event_id", "status", "occurred_at"), ("recorded_at",)
        ),
        "rsvp": (("org_id", "user_id", "event_id", "response", "responded_at"), ("recorded_at",)),
        "profile-update": (("user_id", "updated_at"), ("actor", "recorded_at")),
        "membership": (
            ("org_id", "user_id", "status", "joined_at", "recorded_at"), ("role", "display_name")
        ),
        "organization": (("org_id", "name", "status", "recorded_at"), ()),
    }  # fmt: skip


@pytest.mark.parametrize("kind", InputKind)
def test_a_row_is_the_record_that_it_says(kind: InputKind) -> None:
    found = record_of(kind, GOOD[kind])
    body = json.loads(found.value)
    assert found.key == KEYS[kind]
    assert {name: body[name] for name in GOOD[kind]} == GOOD[kind]
    assert body["recorded_at"] == AT
    assert decode(kind, found.value) == found.record
    assert kind_of_fields(list(GOOD[kind])) is kind
    check_columns(kind, list(GOOD[kind]))


@pytest.mark.parametrize("kind", InputKind)
def test_the_id_follows_from_the_contents_alone(kind: InputKind) -> None:
    first = json.loads(record_of(kind, GOOD[kind]).value)["id"]
    spaced = {name: f" {text} " for name, text in reversed(GOOD[kind].items())}
    assert json.loads(record_of(kind, spaced).value)["id"] == first
    for name in GOOD[kind]:
        if name in ("status", "response"):
            continue
        text = GOOD[kind][name]
        other = text.replace("2026", "2025") if name.endswith("_at") else f"{text}x"
        changed = record_of(kind, GOOD[kind] | {name: other})
        assert json.loads(changed.value)["id"] != first


def test_optional_cells_may_be_empty() -> None:
    row = GOOD[InputKind.MEMBERSHIP] | {"role": "", "display_name": " "}
    body = json.loads(record_of(InputKind.MEMBERSHIP, row).value)
    assert "role" not in body
    assert "display_name" not in body


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["org_id", "user_id", "event_id", "status"], "without occurred_at"),
        ([*GOOD[InputKind.ATTENDANCE], "recored_at"], "with unknown recored_at"),
        ([*GOOD[InputKind.ATTENDANCE], "status"], "with a column twice"),
        (["org_id;user_id"], "attendance needs org_id,user_id,event_id,status,occurred_at"),
    ],
)
def test_wrong_columns_are_named(names: list[str], said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        check_columns(InputKind.ATTENDANCE, names)


# import --dry-run


@pytest.mark.parametrize("kind", InputKind)
def test_every_kind_can_be_imported(
    kind: InputKind, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path, table(GOOD[kind]))
    assert main.run(["import", kind.value, path, "--dry-run"]) == 0
    assert capsys.readouterr().out == "1 records would be sent, 0 rows refused\n"


def test_a_file_of_real_data_plain_and_compressed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # A byte order mark, as spreadsheets write it, and Windows line ends.
    marked = b"\xef\xbb\xbf" + DAVIS.read_bytes().replace(b"\n", b"\r\n")
    for path in (
        str(DAVIS),
        write(tmp_path, marked),
        write(tmp_path, gzip.compress(marked), "rows.csv.gz"),
        write(tmp_path, gzip.compress(DAVIS.read_bytes()), "misnamed.csv"),
    ):
        assert main.run(["import", "attendance", path, "--dry-run"]) == 0
        assert capsys.readouterr().out == "89 records would be sent, 0 rows refused\n"


def test_wrong_rows_are_numbered_as_spreadsheets_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = GOOD[InputKind.ATTENDANCE]
    far = (datetime.now(UTC) + timedelta(days=2)).isoformat()
    text = table(
        good,
        good | {"user_id": "first last"},
        good | {"status": "maybe"},
        good | {"occurred_at": "2026-01-02T03:04:05"},
        good | {"occurred_at": "yesterday"},
        good | {"occurred_at": far},
        good | {"org_id": ""},
        good | {"event_id": "two\nlines"},
    )
    text += "\nclub,ada\nclub,ada,e1,attended," + AT + ",more\n"
    path = write(tmp_path, text)
    assert main.run(["import", "attendance", path, "--dry-run"]) == 1
    captured = capsys.readouterr()
    assert captured.out == "1 records would be sent, 9 rows refused\n"
    found = [line.removeprefix(f"{path}: ").split(": ")[:2] for line in captured.err.splitlines()]
    assert found == [
        ["row 3", "bad_id"],
        ["row 4", "schema"],
        ["row 5", "naive_time"],
        ["row 6", "schema"],
        ["row 7", "future_dated"],
        ["row 8", "schema"],
        ["row 9", "bad_id"],
        # Row 10 is empty.
        ["row 11", "schema"],
        ["row 12", "schema"],
        ["refused", "5 schema, 2 bad_id, 1 naive_time, 1 future_dated"],
    ]


def test_many_wrong_rows_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bad = GOOD[InputKind.RSVP] | {"response": "perhaps"}
    assert main.run(["import", "rsvp", write(tmp_path, table(*[bad] * 500)), "--dry-run"]) == 1
    captured = capsys.readouterr()
    assert captured.out == "0 records would be sent, 500 rows refused\n"
    assert len(captured.err.splitlines()) == 22
    assert captured.err.splitlines()[-1] == "refused: 500 schema"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "the first row must name the columns"),
        (b"org_id;user_id\n", "unknown org_id;user_id"),
        (b"\x1f\x8b\x08\x00damaged", "the gzip data is damaged"),
        (gzip.compress(DAVIS.read_bytes())[:-40], "the gzip data is damaged"),
        (table(GOOD[InputKind.ATTENDANCE]).encode("utf-16"), "row 1: not UTF-8 text"),
        (table(GOOD[InputKind.ATTENDANCE]).encode("utf-16-le"), "row 1: not UTF-8 text"),
        (b"\x7fELF\x02\x01\x01\x00\x00\xff\n" * 1000, "row 1: not UTF-8 text"),
        (b'"never closed\n', "row 1:"),
    ],
)
def test_files_that_cannot_be_read(
    content: bytes, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.run(["import", "attendance", write(tmp_path, content), "--dry-run"]) == 1
    captured = capsys.readouterr()
    assert said in captured.err
    assert len(captured.err.splitlines()) == 1


def test_what_is_not_utf_8_is_a_wrong_row_like_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = GOOD[InputKind.MEMBERSHIP] | {"display_name": "Zoë"}
    rows = table(good, good, good | {"display_name": "two\nlines"}, good).encode().splitlines(True)
    rows[1] = rows[1].decode().encode("latin-1")
    rows[4] = rows[4].replace(b"lines", b"l\xffnes")
    path = write(tmp_path, b"".join(rows))
    for command, done in (
        (["import", "membership", path, "--dry-run"], "2 records would be sent, 2 rows refused"),
        (["validate", path], "4 records, 2 wrong: 2 schema"),
    ):
        assert main.run(command) == 1
        captured = capsys.readouterr()
        assert captured.out == f"{done}\n"
        assert captured.err.splitlines()[:2] == [
            f"{path}: row 2: schema: not UTF-8", f"{path}: row 4: schema: not UTF-8",
        ]  # fmt: skip


def test_of_a_file_full_of_other_bytes_a_few_rows_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = table(GOOD[InputKind.MEMBERSHIP]).encode() + b"\x80\xff\n" * 5_000
    for command, most in ((["import", "membership", "--dry-run"], 22), (["validate"], 101)):
        assert main.run([*command, write(tmp_path, text)]) == 1
        captured = capsys.readouterr()
        assert len(captured.err.splitlines()) == most
        assert "5000" in captured.out


def test_a_file_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["import", "attendance", "/nowhere/x.csv", "--dry-run"]) == 1
    assert capsys.readouterr().err == "engagement: /nowhere/x.csv: No such file or directory\n"


# validate


def test_validate_lines_of_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good = [GOOD[kind] | {"id": "m1", "recorded_at": AT} for kind in InputKind]
    bad = [
        json.dumps(good[0] | {"user_id": "a b"}),
        "{",
        "[]",
        json.dumps(good[1] | {"responded_at": AT[:-1]}),
        json.dumps(good[2] | {"recorded_at": "2999-01-01T00:00:00Z"}),
        json.dumps(good[3] | {"padding": "x" * 70_000}),
    ]
    text = "\n".join([*map(json.dumps, good), "", *bad]) + "\n"
    path = write(tmp_path, text, "rows.jsonl")
    assert main.run(["validate", path, "--json"]) == 1
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(one["row"], one["code"]) for one in found] == [
        (7, "bad_id"), (8, "not_json"), (9, "schema"), (10, "naive_time"), (11, "future_dated"),
        (12, "too_large"),
    ]  # fmt: skip
    assert main.run(["validate", path]) == 1
    captured = capsys.readouterr()
    assert captured.out.startswith("11 records, 6 wrong: ")
    assert f"{path}: row 7: bad_id: user_id is not a well-formed id" in captured.err
    # A value of one kind is wrong as another.
    assert main.run(["validate", write(tmp_path, json.dumps(good[0]), "x"), "--kind", "rsvp"]) == 1


def test_validate_says_nothing_of_what_is_in_a_record(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    row = GOOD[InputKind.MEMBERSHIP] | {"id": "m", "status": "in love", "user_id": "ada secret"}
    assert main.run(["validate", write(tmp_path, json.dumps(row), "x.json")]) == 1
    captured = capsys.readouterr()
    assert "secret" not in captured.out + captured.err
    assert "in love" not in captured.out + captured.err


def test_validate_tables(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["validate", str(DAVIS)]) == 0
    assert capsys.readouterr().out == "89 records, 0 wrong\n"
    bad = GOOD[InputKind.ORGANIZATION] | {"name": "x" * 201}
    assert main.run(["validate", write(tmp_path, table(bad))]) == 1
    captured = capsys.readouterr()
    assert captured.out == "1 records, 1 wrong: 1 schema\n"
    assert "row 2: schema: name" in captured.err
    assert main.run(["validate", write(tmp_path, "a,b\n1,2\n")]) == 1
    assert "name it by --kind" in capsys.readouterr().err
