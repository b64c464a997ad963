"""`engagement thresholds`: the numbers of an organisation, and what others would do."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any, Final, TypeVar

import click
import msgspec

from db import evaluation, scope
from db import thresholds as versions
from db.pool import Connection
from db.preview import Previewing
from db.thresholds import Version
from service.api.values import ThresholdsPreview
from service.classifier.choice import uses_claude
from service.cli.ids import Id
from service.cli.output import instant, print_table, shown
from service.cli.running import connected, require_members, with_settings
from service.cli.times import Instant
from service.errors import InvalidThresholds
from service.instants import wire_time
from service.levels import Level
from service.settings import Settings
from service.standing import SYSTEM
from service.thresholds import Thresholds, check

NAMES: Final = Thresholds._fields[:5]

F = TypeVar("F", bound=Callable[..., Any])


@click.group()
def thresholds() -> None:
    """Thresholds of an organisation: show them, set them, preview others."""


def _numbers(command: F) -> F:
    for name in reversed(NAMES):
        option = click.option(
            f"--{name.replace('_', '-')}", name, type=int, help="Unchanged where not given."
        )
        command = option(command)
    return command


@thresholds.command("show")
@click.argument("org", metavar="ORG", type=Id())
@click.option("--limit", type=click.IntRange(1, 1_000), default=20, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line, newest first.")
def show(org: str, limit: int, *, as_json: bool) -> None:
    """The versions of ORG's thresholds, newest first: that one is in force."""

    async def work(settings: Settings) -> None:
        async with connected(settings, "thresholds") as connection:
            await require_members(connection)
            await _warn_if_unknown(connection, org)
            found = await versions.versions(connection, org, limit)
        if as_json:
            for version in found:
                click.echo(msgspec.json.encode(_plain(version)).decode())
            return
        print_table(
            ("version", *(name.replace("_", " ") for name in NAMES), "author", "time", "note"),
            [
                (v.thresholds.version, *v.thresholds.numbers, v.author or "-",
                 instant(v.created_at), v.note or "-")
                for v in found
            ],
        )  # fmt: skip

    with_settings(work)


@thresholds.command("set")
@click.argument("org", metavar="ORG", type=Id())
@_numbers
@click.option("--note", default="", help="Why; kept with the version.")
@click.option(
    "--author", type=Id(), default=SYSTEM, show_default=True, help="User id of whoever decided."
)
@click.option("--base-version", type=int, help="Refuse if another version is in force.")
@click.option(
    "--again", is_flag=True, help="Also with the same numbers: publishes all levels anew."
)
def set_(
    org: str,
    *,
    note: str,
    author: str,
    base_version: int | None,
    again: bool,
    **numbers: int | None,
) -> None:
    """Save a new version for ORG; its members are evaluated by the workers."""
    if not again and all(number is None for number in numbers.values()):
        raise click.UsageError("nothing to set: give a number, or --again")

    async def work(settings: Settings) -> Thresholds:
        async with connected(settings, "thresholds") as connection:
            await require_members(connection)
            await _warn_if_unknown(connection, org)
            async with connection.transaction():
                current = await versions.in_force(connection, org)
                return await versions.save(
                    connection, org, _changed(current, numbers),
                    base_version=base_version, author=author, note=note, again=again,
                )  # fmt: skip

    saved = with_settings(work)
    click.echo(f"version {saved.version} is in force for {shown(org)}")


@thresholds.command("preview")
@click.argument("org", metavar="ORG", type=Id())
@_numbers
@click.option("--as-of", type=Instant(), help="At this instant, without overrides.")
@click.option("--json", "as_json", is_flag=True)
def preview(org: str, *, as_of: datetime | None, as_json: bool, **numbers: int | None) -> None:
    """What other numbers would do to ORG's members; writes nothing."""

    async def work(settings: Settings) -> ThresholdsPreview:
        previewing = Previewing(
            implicit_membership=settings.implicit_membership,
            model=settings.model if uses_claude(settings) else None,
        )
        async with connected(settings, "thresholds") as connection:
            await require_members(connection)
            await _warn_if_unknown(connection, org)
            await evaluation.prepare_connection(connection)
            async with connection.transaction(isolation="repeatable_read", readonly=True):
                current = await versions.in_force(connection, org)
                return await previewing.preview(connection, org, _changed(current, numbers), as_of)

    found = with_settings(work)
    if as_json:
        click.echo(msgspec.json.encode(_plain_preview(found)).decode())
    else:
        _print(found)


async def _warn_if_unknown(connection: Connection, org: str) -> None:
    """A mistyped id is no error, since numbers may be set before the first record comes."""
    if not await scope.knows_organization(connection, org):
        click.echo(f"warning: no record has ever named organisation {org}", err=True)


def _changed(current: Thresholds, numbers: dict[str, int | None]) -> Thresholds:
    given = {name: n for name, n in numbers.items() if n is not None}
    try:
        return check(current._replace(**given))
    except InvalidThresholds as error:
        raise click.UsageError(str(error)) from None


def _plain(version: Version) -> dict[str, Any]:
    return version.thresholds._asdict() | {
        "author": version.author, "note": version.note, "created_at": version.created_at,
    }  # fmt: skip


def _plain_preview(found: ThresholdsPreview) -> dict[str, Any]:
    return {
        "base_version": found.base_version,
        "as_of": found.as_of,
        "members": found.members,
        "members_changed": found.members_changed,
        "matrix": {a: {b: found.matrix[a, b] for b in Level} for a in Level},
        "examples": [example._asdict() for example in found.examples],
        "level_records": found.level_records,
        "change_records": found.change_records,
        "claude_calls": found.claude_calls,
    }


def _print(found: ThresholdsPreview) -> None:
    click.echo(
        f"at {wire_time(found.as_of)}, against version {found.base_version}: "
        f"{found.members_changed} of {found.members} members change level; saving publishes "
        f"{found.level_records} level records and {found.change_records} changes, and asks Claude "
        f"{found.claude_calls} times"
    )
    print_table(
        ("from \\ to", *Level, "now"),
        [
            (level, *(found.matrix[level, to] for to in Level),
             sum(found.matrix[level, to] for to in Level))
            for level in Level
        ] + [("then", *(sum(found.matrix[a, to] for a in Level) for to in Level), found.members)],
    )  # fmt: skip
    for example in found.examples:
        name = f" ({shown(example.display_name)})" if example.display_name else ""
        click.echo(f"  {example.user_id}{name}: {example.from_level} -> {example.to_level}")
