"""`engagement erase`: forget a member of an organisation, and say what is gone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from datetime import timedelta

import click
import msgspec

from db import erasures
from service.cli.ids import Id
from service.cli.running import connected, require_members, with_settings
from service.erasing import Erased
from service.instants import wire_time
from service.settings import Settings


@click.command()
@click.argument("org", metavar="ORG", type=Id())
@click.argument("user", metavar="USER", type=Id())
@click.option("--json", "as_json", is_flag=True, help="The receipt as JSON.")
def erase(*, org: str, user: str, as_json: bool) -> None:
    """Forget USER in organisation ORG: all that is known, and what was recorded until now.

    Repeating it does no harm. What only time removes is in the receipt.
    """
    erased = with_settings(lambda settings: _erase(settings, org, user))
    receipt = erased.receipt
    if as_json:
        body = asdict(receipt) | {"remaining": [r._asdict() for r in receipt.remaining]}
        click.echo(msgspec.json.encode(body).decode())
        return
    if not erased.was_known:
        click.echo("nothing was known; what was recorded until now is kept out from here on")
    click.echo(f"erased at {wire_time(receipt.erased_at)}; removed:")
    _print_counts(receipt.removed)
    click.echo("kept, with a random token in place of the person:")
    _print_counts(receipt.pseudonymised)
    click.echo("what expires by itself:")
    for remaining in receipt.remaining:
        click.echo(f"  {remaining.where:<24}by {remaining.until}")


def _print_counts(counts: Mapping[str, int]) -> None:
    for kind, count in sorted(counts.items()):
        click.echo(f"  {kind:<24}{count:>8}")


async def _erase(settings: Settings, org: str, user: str) -> Erased:
    async with connected(settings, "erase") as connection:
        await require_members(connection)
        async with connection.transaction():
            memory = timedelta(days=settings.erasure_memory_days)
            return await erasures.erase(connection, org, user, memory)
