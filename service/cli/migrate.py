"""`engagement migrate`."""

from __future__ import annotations

import click

from db.migrate import migrate_with
from service.cli.running import with_settings


@click.command()
def migrate() -> None:
    """Bring the database to this release's schema. Safe to repeat, and for several at once."""
    applied = with_settings(migrate_with)
    for version in applied:
        click.echo(f"applied {version}")
    if not applied:
        click.echo("the schema is up to date")
