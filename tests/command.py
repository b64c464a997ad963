"""The command line as a process of its own, and settings that keep one test from another."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import click

ROOT = Path(__file__).parent.parent
TOPICS = (
    *("ATTENDANCE", "RSVP", "PROFILE_UPDATE", "MEMBERSHIP", "ORGANIZATION"),
    *("LEVEL", "CHANGE", "DEAD_LETTER"),
)
COMMAND = (sys.executable, "-P", "-m", "service.cli.main")


def settings_for(
    *, bootstrap: str | None = None, database: str | None = None, prefix: str = "test."
) -> dict[str, str]:
    """Environment of a test: its own topics and consumer group; no part that is not named."""
    return {
        "KAFKA_BOOTSTRAP_SERVERS": bootstrap or "127.0.0.1:1",
        "DATABASE_URL": database or "postgresql://nobody@127.0.0.1:1/nothing",
        "ENGAGEMENT_CONSUMER_GROUP": f"{prefix}group",
        "ENGAGEMENT_TOPIC_PARTITIONS": "2",
        **{f"ENGAGEMENT_TOPIC_{name}": topic(prefix, name) for name in TOPICS},
    }


def topic(prefix: str, name: str) -> str:
    """The topic of a test; `name` as in the settings."""
    return prefix + name.lower().replace("_", "-")


def process_environment(settings: Mapping[str, str]) -> dict[str, str]:
    """What a child process needs besides."""
    return {**os.environ, "PYTHONPATH": str(ROOT), **settings}


def engagement(
    *arguments: str,
    settings: Mapping[str, str],
    stdin: str | None = None,
    cwd: Path | None = None,
    timeout_s: float = 60,
) -> subprocess.CompletedProcess[str]:
    """Run one command to its end."""
    return subprocess.run(
        [*COMMAND, *arguments],
        env=process_environment(settings),
        input="" if stdin is None else stdin,
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )


def done(*arguments: str, settings: Mapping[str, str], stdin: str | None = None) -> str:
    """What a command printed that has to succeed."""
    found = engagement(*arguments, settings=settings, stdin=stdin)
    assert found.returncode == 0, found.stderr
    return found.stdout


def resolve(command: click.Command, arguments: Sequence[str]) -> None:
    """Parse a command line to its end without running it. Raises click.UsageError."""
    context = command.make_context("engagement", list(arguments))
    while isinstance(command, click.Group):
        _, found, rest = command.resolve_command(context, [*context._protected_args, *context.args])
        assert found is not None
        command, context = found, found.make_context(found.name, rest, parent=context)


def lines(text: str, containing: Sequence[str] = ()) -> list[str]:
    """The lines that hold all of these words."""
    return [line for line in text.splitlines() if all(word in line for word in containing)]
