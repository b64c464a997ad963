"""`engagement topics apply`, and topics as arguments of other commands."""

from __future__ import annotations

import click

from service.cli.running import with_settings
from service.errors import InvalidInput
from service.settings import Settings
from streams.topics import apply_topics, input_topics, topic_named


def named(settings: Settings, name: str) -> str:
    """One of the eight topics; see `topic_named`. Raises UsageError."""
    try:
        return topic_named(settings, name)
    except InvalidInput as error:
        raise click.UsageError(str(error)) from None


def input_named(settings: Settings, name: str) -> str:
    """One of those that are read. Raises UsageError."""
    topic = named(settings, name)
    if topic not in (inputs := input_topics(settings)):
        raise click.UsageError(f"{name} is no input topic: {', '.join(inputs)}")
    return topic


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
