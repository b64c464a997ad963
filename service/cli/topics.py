"""`engagement topics apply`."""

from __future__ import annotations

import click

from service.cli.running import with_settings
from streams.topics import apply_topics


@click.group()
def topics() -> None:
    """The eight topics that the service reads and writes."""


@topics.command()
def apply() -> None:
    """Create the topics that are missing; those that are there are left as they are."""
    made = with_settings(apply_topics)
    for name in made:
        click.echo(f"created {name}")
    if not made:
        click.echo("all topics are there")
