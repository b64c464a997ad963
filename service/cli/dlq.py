"""`engagement dlq`: the records that could not be applied."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import UTC, datetime
from typing import Any, Final, TypeVar

import click

from db import dead_letter_log, offsets
from db.dead_letter_log import Choice, StoredDeadLetter
from db.pool import Connection
from service.cli.output import instant, print_table, shown, shown_bytes
from service.cli.running import connected, with_settings
from service.cli.topics import input_named
from service.errors import DeadLetterCode, InvalidInput
from service.instants import parse_instant, wire_time
from service.settings import Settings
from streams.replaying import address, replay

F = TypeVar("F", bound=Callable[..., Any])

MAX_PARTITION: Final = 2**31 - 1
MAX_OFFSET: Final = 2**63 - 1

_ADDRESS: Final = re.compile(r"([^/]+)/([0-9]{1,10})/([0-9]{1,19})")


@click.group()
def dlq() -> None:
    """Dead letters: records that can never be applied, with the reason of each.

    A record has the address TOPIC/PARTITION/OFFSET.
    """


def _filters(command: F) -> F:
    codes = click.Choice([code.value for code in DeadLetterCode])
    for option in (
        click.option("--since", help="Failed since this time (RFC 3339, or a date, UTC)."),
        click.option("--code", type=codes, help="Only with this code."),
        click.option("--topic", help="Only from this input topic."),
    ):
        command = option(command)
    return command


@dlq.command("list")
@_filters
@click.option("--limit", type=click.IntRange(1, 10_000), default=50, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
def list_(
    topic: str | None, code: str | None, since: str | None, limit: int, as_json: bool
) -> None:
    """The newest dead letters; says nothing of what is in them."""

    async def show(settings: Settings) -> None:
        choice = _choice(settings, topic, code, since)
        async with connected(settings, "dlq") as connection:
            found = await dead_letter_log.newest(connection, choice, limit)
            counts = await dead_letter_log.count(connection, choice)
        if as_json:
            for one in found:
                click.echo(json.dumps(_without_content(one)))
            return
        rows = [
            (address(one), one.letter.code, instant(one.letter.failed_at),
             instant(one.replayed_at), one.letter.message)
            for one in found
        ]  # fmt: skip
        if rows:
            print_table(("address", "code", "failed", "replayed", "message"), rows)
        by_code = ", ".join(f"{number} {name}" for name, number in counts.items())
        click.echo(f"{sum(counts.values())} dead letters{': ' if by_code else ''}{by_code}")

    with_settings(show)


@dlq.command()
@click.argument("at", metavar="ADDRESS")
@click.option("--json", "as_json", is_flag=True, help="As one JSON object.")
def show(at: str, as_json: bool) -> None:
    """All of one dead letter, the record's content included."""

    async def show_one(settings: Settings) -> None:
        async with connected(settings, "dlq") as connection:
            found = await dead_letter_log.newest(connection, _at(settings, at), 1)
        if not found:
            raise InvalidInput(f"there is no dead letter {at}: see `engagement dlq list`")
        one, letter = found[0], found[0].letter
        if as_json:
            click.echo(json.dumps(_without_content(one) | _content(one)))
            return
        for name, value in _without_content(one).items():
            click.echo(f"{name}: {'-' if value is None else shown(str(value))}")
        click.echo(f"key: {shown_bytes(letter.key)}")
        for name, content in letter.headers:
            click.echo(f"header {shown(name)}: {shown_bytes(content)}")
        size = "" if letter.value is None else f" ({len(letter.value)} bytes)"
        click.echo(f"value{size}: {shown_bytes(letter.value)}")

    with_settings(show_one)


@dlq.command("replay")
@click.argument("at", metavar="[ADDRESS]...", nargs=-1)
@_filters
@click.option("--all", "everything", is_flag=True, help="All that were never replayed.")
@click.option("--again", is_flag=True, help="Also those that were replayed before.")
@click.option("--dry-run", is_flag=True, help="Only say how many.")
@click.pass_context
def replay_(
    ctx: click.Context,
    at: tuple[str, ...],
    topic: str | None,
    code: str | None,
    since: str | None,
    everything: bool,
    again: bool,
    dry_run: bool,
) -> None:
    """Send dead letters to their input topic again, once the cause is mended.

    Name them by address or by what they have in common. Each is sent once, unless --again; one
    that still can't be applied becomes a new dead letter. Exit code 1 if one that was named could
    not be sent.
    """
    by_filter = bool(topic or code or since)
    if (bool(at) + by_filter + everything) != 1:
        raise click.UsageError("say which: addresses, or --topic/--code/--since, or --all")

    async def send(settings: Settings) -> tuple[int, list[str]]:
        named = {one: _at(settings, one) for one in at}
        choices = [] if named else [_choice(settings, topic, code, since)]
        reasons = []
        async with connected(settings, "dlq") as connection:
            for one, choice in named.items():
                reason = await _why_not(connection, choice, again=again)
                if reason is None:
                    choices.append(choice)
                else:
                    reasons.append(f"{one} {reason}")
            choices = [choice._replace(waiting=not again) for choice in dict.fromkeys(choices)]
            if dry_run:
                counts = [await dead_letter_log.count(connection, choice) for choice in choices]
                return sum(sum(count.values()) for count in counts), reasons
        sent = 0
        async for letter in _replayed(settings, choices):
            click.echo(f"replayed {address(letter)} ({letter.letter.code})")
            sent += 1
        return sent, reasons

    sent, reasons = with_settings(send)
    click.echo(f"{sent} dead letters {'would be' if dry_run else 'were'} replayed")
    for reason in reasons:
        click.echo(f"not replayed: {reason}", err=True)
    if reasons:
        ctx.exit(1)


async def _why_not(connection: Connection, choice: Choice, *, again: bool) -> str | None:
    """What keeps the dead letter at an address from being sent; None when nothing does."""
    found = await dead_letter_log.newest(connection, choice, 1)
    if not found:
        return "is no dead letter: see `engagement dlq list`"
    if found[0].erased_at is not None:
        return f"was erased at {instant(found[0].erased_at)}: nothing is left to be sent"
    if found[0].replayed_at is not None and not again:
        return f"was replayed at {instant(found[0].replayed_at)}: --again sends it once more"
    return None


async def _replayed(
    settings: Settings, choices: Sequence[Choice]
) -> AsyncIterator[StoredDeadLetter]:
    """Replay; printing is left to the caller, whose reader's end is no failure of the database."""
    async with connected(settings, "dlq") as connection:
        for choice in choices:
            async for one in replay(settings, connection, choice):
                yield one


@dlq.command()
@click.option("--topic", help="Only partitions of this input topic.")
@click.option("--partition", type=click.IntRange(0, MAX_PARTITION), help="Only this partition.")
def resume(topic: str | None, partition: int | None) -> None:
    """Let partitions go on that stopped after too many dead letters in a row.

    They go on behind the record at which they stopped. Workers notice within seconds.
    """

    async def go_on(settings: Settings) -> None:
        name = None if topic is None else input_named(settings, topic)
        async with connected(settings, "dlq") as connection:
            resumed = await offsets.resume(connection, name, partition)
        for stopped, number, offset in resumed:
            click.echo(f"{stopped}/{number} goes on at offset {offset}")
        if not resumed:
            click.echo("no partition stands still")

    with_settings(go_on)


def _choice(settings: Settings, topic: str | None, code: str | None, since: str | None) -> Choice:
    return Choice(
        topic=None if topic is None else input_named(settings, topic),
        code=code,
        since=None if since is None else _instant(since),
    )


def _instant(text: str) -> datetime:
    try:
        found = parse_instant(text if len(text) > len("2026-01-01") else f"{text}T00:00:00Z")
    except ValueError:
        raise click.UsageError(f"{text} is no RFC 3339 time and no date") from None
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)


def _at(settings: Settings, text: str) -> Choice:
    if (match := _ADDRESS.fullmatch(text)) is not None:
        topic, partition, offset = match[1], int(match[2]), int(match[3])
        if partition <= MAX_PARTITION and offset <= MAX_OFFSET:
            return Choice(input_named(settings, topic), partition, offset)
    raise click.UsageError(f"{text} is no address: TOPIC/PARTITION/OFFSET")


def _without_content(stored: StoredDeadLetter) -> dict[str, Any]:
    letter = stored.letter
    return {
        "address": address(stored),
        "code": letter.code,
        "message": letter.message,
        "org_id": letter.org_id,
        "user_id": letter.user_id,
        "failed_at": _json(letter.failed_at),
        "published_at": _json(stored.published_at),
        "replayed_at": _json(stored.replayed_at),
        "erased_at": _json(stored.erased_at),
    }


def _content(stored: StoredDeadLetter) -> dict[str, Any]:
    letter = stored.letter
    return {
        "key_base64": _base64(letter.key),
        "value_base64": _base64(letter.value),
        "headers_base64": [[name, _base64(value)] for name, value in letter.headers],
    }


def _base64(data: bytes | None) -> str | None:
    return None if data is None else base64.b64encode(data).decode()


def _json(at: datetime | None) -> str | None:
    return None if at is None else wire_time(at.astimezone(UTC))
