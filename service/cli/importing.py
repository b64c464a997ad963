"""`engagement import`: rows of a CSV file become records on an input topic."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import click

from service.cli.files import Opened, Row, Table, opened
from service.cli.problems import Problems, refuse_future
from service.cli.progress import ProgressReport
from service.cli.running import with_settings
from service.errors import DeadLetter
from service.events import InputKind
from service.rows import RowRecord, check_columns, columns_of, record_of
from service.settings import Settings, load_settings
from streams.producing import InputProducer
from streams.topics import input_topics


def _epilog() -> str:
    lines = []
    for kind in InputKind:
        required, optional = columns_of(kind)
        more = f" [{','.join(optional)}]" if optional else ""
        lines.append(f"{kind}: {','.join(required)}{more}")
    return "\b\nColumns [optional]:\n" + "\n".join(lines)


class Job(NamedTuple):
    """One file on its way."""

    kind: InputKind
    file: Opened
    table: Table
    problems: Problems
    max_future_skew_s: int


@click.command("import", epilog=_epilog())
@click.argument("kind", metavar="KIND", type=click.Choice([kind.value for kind in InputKind]))
@click.argument("file", metavar="FILE.csv[.gz]")
@click.option("--dry-run", is_flag=True, help="Check every row, send nothing.")
@click.pass_context
def import_(ctx: click.Context, kind: str, file: str, dry_run: bool) -> None:
    """Send the rows of a CSV file (gzip or not; - for standard input) as records of KIND.

    Rows that are wrong are named and left out; the others are sent. Safe to repeat, also after
    mending the file: a row's message id follows from its contents. Exit code 1 if any was wrong.
    """
    settings = load_settings()
    with opened(file) as source:
        table = Table(source)
        check_columns(InputKind(kind), table.columns)
        problems = Problems(source.name)
        job = Job(InputKind(kind), source, table, problems, settings.max_future_skew_s)
        if dry_run:
            good = sum(1 for _ in checked(job))
        else:
            good = with_settings(lambda settings: send_all(settings, job))
    done = "would be sent" if dry_run else "sent"
    click.echo(f"{good} records {done}, {problems.count} rows refused")
    if problems.count:
        click.echo(f"refused: {problems.summary()}", err=True)
        ctx.exit(1)


async def send_all(settings: Settings, job: Job) -> int:
    """Send every good row to the topic of its kind; how many. Raises Retryable, NotReady."""
    topic = next(name for name, kind in input_topics(settings).items() if kind is job.kind)
    async with InputProducer(settings, [topic]) as producer:
        for row in checked(job):
            await producer.send(topic, row.key, row.value)
    return producer.acknowledged[topic]


def checked(job: Job) -> Iterator[RowRecord]:
    """The good rows, with progress; the others go to the problems."""
    with ProgressReport(f"import {job.kind}", job.file.size) as progress:
        for row in job.table:
            record = _record(job, row)
            if record is not None:
                yield record
            progress.advance(job.file.position, f"row {row.number}")


def _record(job: Job, row: Row) -> RowRecord | None:
    if row.problem is not None:
        job.problems.add(row.number, "schema", row.problem)
        return None
    try:
        found = record_of(job.kind, row.cells)
        refuse_future(found.record, job.max_future_skew_s)
    except DeadLetter as error:
        job.problems.add(row.number, error.code.value, error.message)
        return None
    return found
