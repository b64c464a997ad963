"""`engagement validate`: would the service take these records? Offline."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import PurePath
from typing import NamedTuple

import click

from service.cli.files import Opened, Table, lines, opened
from service.cli.problems import Problems, refuse_future
from service.decoding import decode
from service.errors import DeadLetter, InvalidInput
from service.events import InputKind, InputRecord
from service.rows import check_columns, kind_of_fields, record_of
from service.settings import load_settings


class Judged(NamedTuple):
    """One row: its number, and the code and message if it would be a dead letter."""

    row: int
    code: str | None = None
    message: str = ""


@click.command()
@click.argument("file", metavar="FILE")
@click.option(
    "--kind",
    type=click.Choice([kind.value for kind in InputKind]),
    help="What the records are; else it follows from the fields.",
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["auto", "csv", "json"]),
    default="auto",
    help="CSV as for import, or one JSON value a line as on the topic; by the name of the file.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object per wrong row.")
@click.pass_context
def validate(ctx: click.Context, file: str, kind: str | None, form: str, as_json: bool) -> None:
    """Check the records in FILE (gzip or not; - for standard input) without any server.

    Wrong rows are named with the code that their dead letter would have. Exit code 1 if any is
    wrong. What only the database can tell (the code `rejected`) is not looked at.
    """
    skew_s = load_settings().max_future_skew_s
    chosen = None if kind is None else InputKind(kind)
    rows = 0
    with opened(file) as source:
        problems = Problems(source.name, shown=0 if as_json else 100)
        read = _csv_rows if _is_csv(file, form) else _json_rows
        for judged in read(source, chosen, skew_s):
            rows += 1
            if judged.code is None:
                continue
            problems.add(judged.row, judged.code, judged.message)
            if as_json:
                click.echo(json.dumps(judged._asdict()))
    if not as_json:
        wrong = f": {problems.summary()}" if problems.count else ""
        click.echo(f"{rows} records, {problems.count} wrong{wrong}")
    if problems.count:
        ctx.exit(1)


def _is_csv(file: str, form: str) -> bool:
    if form != "auto":
        return form == "csv"
    return ".csv" in (suffix.lower() for suffix in PurePath(file).suffixes)


def _csv_rows(file: Opened, kind: InputKind | None, skew_s: int) -> Iterator[Judged]:
    table = Table(file)
    kind = kind or kind_of_fields(table.columns)
    if kind is None:
        raise InvalidInput(f"{file.name}: the columns fit no kind: name it by --kind")
    check_columns(kind, table.columns)
    for row in table:
        if row.problem is not None:
            yield Judged(row.number, "schema", row.problem)
            continue
        try:
            refuse_future(record_of(kind, row.cells).record, skew_s)
        except DeadLetter as error:
            yield Judged(row.number, error.code.value, error.message)
        else:
            yield Judged(row.number)


def _json_rows(file: Opened, kind: InputKind | None, skew_s: int) -> Iterator[Judged]:
    for number, line in lines(file):
        try:
            refuse_future(_decoded(line, kind), skew_s)
        except DeadLetter as error:
            yield Judged(number, error.code.value, error.message)
        else:
            yield Judged(number)


def _decoded(line: bytes, kind: InputKind | None) -> InputRecord:
    """The record of this kind, or of the kind that its fields tell. Raises DeadLetter."""
    if kind is None:
        try:
            body = json.loads(line)
        except (ValueError, RecursionError):
            body = None
        kind = kind_of_fields(list(body)) if isinstance(body, dict) else None
    # Whatever tells no kind fails in the same way as any of them.
    return decode(kind or InputKind.ATTENDANCE, line)
