"""`engagement doctor`: whether all parts are there and well."""

from __future__ import annotations

import json

import click

from service.cli import checks
from service.cli.checks import Finding, Findings
from service.cli.output import shown
from service.cli.progress import ProgressReport
from service.cli.running import connected, with_settings
from service.settings import Settings


@click.command()
@click.option("--rebuild", is_flag=True, help="Rebuild every member's signals from the facts.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object per finding.")
@click.pass_context
def doctor(ctx: click.Context, rebuild: bool, as_json: bool) -> None:
    """Check broker, topics, database, schema, offsets and backlogs. Writes nothing.

    With --rebuild also every member's signals against the facts that they follow from. Exit code 1
    if anything is not well.
    """

    async def look(settings: Settings) -> int:
        problems = 0
        async for finding in _findings(settings, rebuild=rebuild):
            problems += not finding.well
            _print(finding, as_json=as_json)
        return problems

    problems = with_settings(look)
    if not as_json:
        click.echo(f"{problems} problems" if problems else "all well")
    if problems:
        ctx.exit(1)


async def _findings(settings: Settings, *, rebuild: bool) -> Findings:
    broker_is_there = True
    async for finding in checks.guarded("broker", checks.check_topics(settings)):
        broker_is_there = broker_is_there and finding.area != "broker"
        yield finding
    inside = _database_findings(settings, rebuild=rebuild, with_broker=broker_is_there)
    async for finding in checks.guarded("database", inside):
        yield finding


async def _database_findings(settings: Settings, *, rebuild: bool, with_broker: bool) -> Findings:
    async with connected(settings, "doctor") as connection:
        schema_is_there = False
        async for finding in checks.guarded("schema", checks.check_database(connection)):
            schema_is_there = finding.area == "schema" and finding.well
            yield finding
        if not schema_is_there:
            return
        if with_broker:
            offsets = checks.check_offsets(settings, connection)
            async for finding in checks.guarded("offsets", offsets):
                yield finding
        async for finding in checks.check_waiting(connection):
            yield finding
        async for finding in checks.check_records(connection):
            yield finding
        if rebuild:
            with ProgressReport("rebuild", None) as progress:
                async for finding in checks.check_signals(
                    connection, lambda done: progress.advance(done, f"{done} members")
                ):
                    yield finding


def _print(finding: Finding, *, as_json: bool) -> None:
    advice = "" if finding.well else finding.advice
    if as_json:
        click.echo(json.dumps(finding._replace(advice=advice)._asdict()))
        return
    mark = click.style("ok     ", fg="green") if finding.well else click.style("PROBLEM", fg="red")
    more = f": {advice}" if advice else ""
    click.echo(f"{mark} {finding.area:<13} {shown(finding.text)}{more}")
