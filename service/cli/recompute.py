"""`engagement recompute`: evaluate now, foresee, or look back at any instant."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import click
import msgspec

from db.evaluating import Evaluating
from db.evaluation import CaseReader
from db.explanations import ExplanationCache
from db.pool import acquired, open_pool
from db.recomputing import Line, Recomputing, Total
from db.scope import Scope
from service.cli.ids import Id
from service.cli.judges import judge_for
from service.cli.running import require_members, with_settings
from service.cli.times import Instant
from service.instants import wire_time
from service.levels import Level
from service.settings import Settings
from service.thresholds import MAX_DAYS

# The longest window that an organisation may have fits before it.
FIRST_AS_OF = datetime.min.replace(tzinfo=UTC) + timedelta(days=MAX_DAYS)
LIMITS = {"transaction_timeout": "120s", "statement_timeout": "110s"}

_encode = msgspec.json.Encoder().encode


@click.command()
@click.option("--org", metavar="ID", type=Id(), help="Only this organisation.")
@click.option("--member", metavar="ID", type=Id(), help="Only this user.")
@click.option(
    "--as-of", type=Instant(), help="At this instant, by the rules alone; writes nothing."
)
@click.option("--dry-run", is_flag=True, help="Say what would come of it; write nothing.")
@click.option("--force", is_flag=True, help="Everybody in scope, not only who is due.")
@click.option("--json", "as_json", is_flag=True, help="One line per known member in scope.")
@click.option(
    "--status",
    is_flag=True,
    help="Show the latest daily runs, and do nothing. Claude's figures of a run go on until the "
    "next one begins: answers come later.",
)
def recompute(
    *,
    org: str | None,
    member: str | None,
    as_of: datetime | None,
    dry_run: bool,
    force: bool,
    as_json: bool,
    status: bool,
) -> None:
    """Evaluate the members who are due, or with --force everybody in scope."""
    if status:
        if org or member or as_of or dry_run or force:
            raise click.UsageError("--status goes with --json only")
        from service.cli.recompute_status import show_status

        with_settings(lambda settings: show_status(settings, as_json=as_json))
        return
    within = Scope(org, member)
    if as_of is not None and as_of < FIRST_AS_OF:
        raise click.UsageError(f"--as-of goes back to {wire_time(FIRST_AS_OF)}")
    if as_of is not None:
        with_settings(lambda settings: _look_back(settings, within, as_of, as_json=as_json))
    else:
        with_settings(
            lambda settings: _now(settings, within, force=force, dry_run=dry_run, as_json=as_json)
        )


@asynccontextmanager
async def opened(settings: Settings) -> AsyncIterator[Recomputing]:
    """What the command needs of the database."""
    reader = CaseReader(ExplanationCache(), implicit_membership=settings.implicit_membership)
    pool = await open_pool(
        settings, purpose="recompute", size=2, limits=LIMITS, prepare=reader.prepare
    )
    try:
        async with acquired(pool) as connection:
            await require_members(connection)
        yield Recomputing(pool, Evaluating(reader, judge_for(settings)))
    finally:
        pool.terminate()


async def _look_back(settings: Settings, within: Scope, as_of: datetime, *, as_json: bool) -> None:
    async with opened(settings) as recomputing:
        counts = await _print(recomputing.look_back(within, as_of), as_json=as_json)
    _warn_of_nobody(within, counts)
    if not as_json:
        _summarise(
            f"at {wire_time(as_of)}, by the rules, without overrides; nothing written", counts
        )


async def _now(
    settings: Settings, within: Scope, *, force: bool, dry_run: bool, as_json: bool
) -> None:
    async with opened(settings) as recomputing:
        total = None if dry_run else await recomputing.evaluate(within, force=force)
        counts = await _print(recomputing.foresee(within), as_json=as_json)
        now = await recomputing.now()
    _warn_of_nobody(within, counts)
    if as_json:
        return
    if total is None:
        _summarise(f"at {wire_time(now)}; nothing written", counts)
    else:
        _summarise(f"at {wire_time(now)}: {_sentence(total)}", counts)


async def _print(pages: AsyncIterator[list[Line]], *, as_json: bool) -> Counter[Level | None]:
    counts: Counter[Level | None] = Counter()
    async for page in pages:
        for line in page:
            counts[line.level] += 1
            if as_json:
                body = line._asdict() | {"signals": line.signals._asdict()}
                click.echo(_encode(body).decode())
    return counts


def _warn_of_nobody(within: Scope, counts: Counter[Level | None]) -> None:
    """Nothing to do and nobody there look the same; an id may be mistyped."""
    if counts or within == Scope():
        return
    who = "nobody" if within.user_id is None else f"no member {within.user_id}"
    where = "any organisation" if within.org_id is None else f"organisation {within.org_id}"
    click.echo(f"warning: {who} is known in {where}", err=True)


def _summarise(title: str, counts: Counter[Level | None]) -> None:
    click.echo(title)
    for level in Level:
        click.echo(f"  {level.value:<16}{counts[level]:>10}")
    click.echo(f"  {'not scored':<16}{counts[None]:>10}")


def _sentence(total: Total) -> str:
    changes = sum(total.changes.values())
    held = f", {total.held} left to the workers that hold them" if total.held else ""
    return f"{total.evaluated} evaluated, {changes} changes of level{held}"
