"""`engagement recompute --status`: the latest daily runs and how far the present one is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import click
import msgspec

from db import migrate, run_pages, runs
from db.run_pages import MAX_ATTEMPTS, Failure
from db.runs import RunStatus
from service.cli.output import instant, shown
from service.cli.running import connected
from service.settings import Settings

RUNS = 10
SUMMARY = (
    "organizations", "members", "evaluated", "changed", "failed", "missed_by_clock", "seconds",
)  # fmt: skip
CLAUDE = (
    "claude_calls", "claude_input_tokens", "claude_output_tokens", "claude_cost_usd",
    "claude_hits", "claude_agreed", "claude_differed", "claude_fallbacks",
)  # fmt: skip


async def show_status(settings: Settings, *, as_json: bool) -> None:
    """Print them; nothing is changed."""
    async with connected(settings, "status") as connection:
        await migrate.require_current(connection)
        latest = [
            (run, list((await run_pages.failures(connection, run.slot)).values()))
            for run in await runs.latest(connection, RUNS)
        ]
    if as_json:
        for run, failures in latest:
            failed = [failure._asdict() for failure in failures]
            click.echo(msgspec.json.encode(run._asdict() | {"failures": failed}).decode())
        return
    if not latest:
        click.echo("no run yet: the first is at the next slot of ENGAGEMENT_RECOMPUTE_CRON")
        return
    for run, failures in latest:
        _show(run)
        for failure in failures:
            click.echo(_sentence(run, failure))


def _show(run: RunStatus) -> None:
    click.echo(f"{instant(run.slot)}  {run.status}")
    if run.status in ("running", "superseded"):
        click.echo(
            f"  pages: {run.pages}, surveyed {run.pages_surveyed}, done {run.pages_done}; "
            f"chunks: {run.chunks}, done {run.chunks_done}; "
            f"members {run.members}, evaluated {run.evaluated}, changed {run.changed}"
        )
    elif run.finished_at is not None and "members" in run.summary:
        click.echo(_figures(run, SUMMARY))
    if "claude_calls" in run.summary:
        click.echo(_figures(run, CLAUDE))


def _figures(run: RunStatus, names: Sequence[str]) -> str:
    return "  " + ", ".join(
        f"{name.replace('_', ' ')} {_plain(name, run.summary[name])}"
        for name in names
        if name in run.summary
    )


def _plain(name: str, figure: Any) -> str:
    if isinstance(figure, Mapping):
        return " ".join(f"{reason} {count}" for reason, count in figure.items()) or "0"
    return f"{figure:.4f}" if name == "claude_cost_usd" else str(figure)


def _sentence(run: RunStatus, failure: Failure) -> str:
    is_over = failure.attempts >= MAX_ATTEMPTS or run.status != "running"
    what = "given up" if is_over else f"tried again at {instant(failure.retry_at)}"
    times = "once" if failure.attempts == 1 else f"{failure.attempts} times"
    return f"  {failure.org_id} failed {times}, {what}: {shown(failure.error)}"
