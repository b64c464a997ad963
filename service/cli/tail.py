"""`engagement tail`: what arrives on one of our topics, decoded."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any, Final

import click

from service.cli.output import instant, shown, shown_bytes
from service.cli.running import with_settings
from service.cli.topics import named
from service.instants import wire_time
from service.settings import Settings
from streams.tailing import Record, reading

# In this order; other fields of a value follow as they come.
_FIRST: Final = (
    "from_level",
    "to_level",
    "level",
    "cause",
    "reason",
    "source",
    "status",
    "response",
)
# Said by the key, or too long for a line.
_LEFT_OUT: Final = ("org_id", "user_id", "signals", "admin_explanation", "user_explanation")


@click.command()
@click.argument("topic")
@click.option("--from-beginning", is_flag=True, help="Start with the oldest record there is.")
@click.option("--no-follow", is_flag=True, help="Stop at the present end of the topic.")
@click.option("--count", type=click.IntRange(min=1), help="Stop after so many records.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line, nothing left out.")
def tail(
    topic: str, from_beginning: bool, no_follow: bool, count: int | None, as_json: bool
) -> None:
    """Print the records of TOPIC as they arrive, until Ctrl-C.

    TOPIC is the name of one of the eight topics, or its short form: attendance, rsvp,
    profile-update, membership, organization, level, change, dead-letter.
    """

    async def show(settings: Settings) -> None:
        name = named(settings, topic)
        async with reading(settings, [name], from_beginning=from_beginning) as reader:
            if not (from_beginning or no_follow):
                click.echo(f"from now on, what arrives on {name}; Ctrl-C ends", err=True)
            records = reader.until_end() if no_follow else reader.follow()
            await _print(records, count, as_json=as_json)

    # The usual way to end it is no failure.
    with suppress(KeyboardInterrupt):
        with_settings(show, libraries="ERROR")


async def _print(records: AsyncIterator[Record], count: int | None, *, as_json: bool) -> None:
    printed = 0
    async for record in records:
        click.echo(json_line(record) if as_json else plain_line(record))
        printed += 1
        if printed == count:
            return


def json_line(record: Record) -> str:
    """Everything about a record; a value that is no JSON object is in `value_base64`."""
    line: dict[str, Any] = {
        "topic": record.topic,
        "partition": record.partition,
        "offset": record.offset,
        "timestamp": wire_time(record.timestamp),
        "key": None if record.key is None else record.key.decode("utf-8", "backslashreplace"),
        "headers": {
            name: None if value is None else value.decode("utf-8", "backslashreplace")
            for name, value in record.headers
        },
    }
    body = _body(record.value)
    if body is None and record.value is not None:
        line["value_base64"] = base64.b64encode(record.value).decode()
    else:
        line["value"] = body
    return json.dumps(line)


def plain_line(record: Record) -> str:
    """One line: when, where, whose, what."""
    start = (
        f"{instant(record.timestamp)} {record.partition}/{record.offset} {shown_bytes(record.key)}"
    )
    if record.value is None:
        # A dead letter of null is no tombstone, but a record in which something was missing.
        error = _error(record)
        return f"{start}  null{error}" if error else f"{start}  tombstone"
    body = _body(record.value)
    if body is None:
        return f"{start}  {_cut(shown_bytes(record.value))}{_error(record)}"
    names: list[str] = [name for name in _FIRST if name in body]
    names += [name for name in body if name not in (*_FIRST, *_LEFT_OUT)]
    parts = [f"{shown(name)}={_plain(body[name])}" for name in names]
    return f"{start}  {' '.join(parts)}{_error(record)}"


def _error(record: Record) -> str:
    """What was wrong with a dead letter."""
    found = {name: value for name, value in record.headers if value is not None}
    code = found.get("__streams.errors.exception")
    if code is None:
        return ""
    return f"  [{shown_bytes(code)}: {shown_bytes(found.get('__streams.errors.message'))}]"


def _body(value: bytes | None) -> dict[str, Any] | None:
    try:
        body = json.loads(value or b"")
    except (ValueError, RecursionError):
        return None
    return body if isinstance(body, dict) else None


def _plain(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, str):
        return _cut(shown(value))
    return _cut(shown(json.dumps(value, ensure_ascii=False)))


def _cut(text: str, longest: int = 200) -> str:
    return text if len(text) <= longest else f"{text[:longest]}..."
