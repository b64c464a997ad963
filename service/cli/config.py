"""`engagement config`: the settings in force, or all there are."""

from __future__ import annotations

import json
import os
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import click
from pydantic import SecretStr

from service.cli.output import print_table
from service.settings import Settings, environment_names, load_settings

MASK = "***"


class Entry(NamedTuple):
    """One setting."""

    name: str
    value: Any
    default: Any
    given: bool
    meaning: str


@click.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON object: name to value.")
@click.option("--markdown", is_flag=True, help="A table of all settings and their defaults.")
def config(as_json: bool, markdown: bool) -> None:
    """Print the settings in force. Secrets are masked.

    Every setting is an environment variable; an unknown ENGAGEMENT_* name stops the start.
    """
    if markdown:
        # Says what there is, so it must work whatever is set.
        click.echo(markdown_table(entries(load_settings({}), {})))
        return
    found = entries(load_settings(), os.environ)
    if as_json:
        click.echo(json.dumps({entry.name: entry.value for entry in found}, indent=2))
        return
    rows = [
        (entry.name, "-" if entry.value is None else entry.value, _origin(entry), entry.meaning)
        for entry in found
    ]
    print_table(("setting", "value", "from", "meaning"), rows)


def entries(settings: Settings, environment: Any) -> list[Entry]:
    """Every setting with its value, secrets masked, in the order of their definition."""
    return [
        Entry(
            name,
            masked(getattr(settings, field)),
            masked(Settings.model_fields[field].default),
            environment.get(name, "") != "",
            Settings.model_fields[field].description or "",
        )
        for name, field in environment_names().items()
    ]


def masked(value: Any) -> Any:
    """The value as JSON, fit to be seen: of a secret only the address in it, if it is a URL."""
    secret = isinstance(value, SecretStr)
    text = value.get_secret_value() if secret else value
    if not isinstance(text, str) or "://" not in text:
        return MASK if secret else value
    url = urlsplit(text)
    login = url.username or ""
    if url.password is not None:
        login += f":{MASK}"
    address = url.netloc.rpartition("@")[2]
    query = f"?{MASK}" if url.query else ""
    return f"{url.scheme}://{login}{'@' if login else ''}{address}{url.path}{query}"


def markdown_table(found: list[Entry]) -> str:
    """The table of the README."""
    lines = ["| setting | default | meaning |", "| --- | --- | --- |"]
    for entry in found:
        default = "" if entry.default is None else f"`{_text(entry.default)}`"
        lines.append(
            f"| `{entry.name}` | {default} | {entry.meaning.replace('|', chr(92) + '|')} |"
        )
    return "\n".join(lines)


def _origin(entry: Entry) -> str:
    return "environment" if entry.given else "default"


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
