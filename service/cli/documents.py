"""Writes the documents that follow from the code, and says which have fallen behind.

    python -m service.cli.documents            write them
    python -m service.cli.documents --check    fail when one is not what the code says
    python -m service.cli.documents --release  keep today's schemas as those of a release

In pages that people write, a part between ``<!-- generated: NAME -->`` and ``<!-- end -->`` is
replaced; the rest is left alone.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import click

from service.cli.asyncapi import CONTRACT_VERSION, asyncapi
from service.cli.config import entries, markdown_table
from service.cli.parts import metric_table, topic_pages, topic_table
from service.errors import EngagementError
from service.examples import INPUT_EXAMPLES
from service.schemas import json_schema, message_schemas
from service.settings import load_settings

ROOT: Final = Path(__file__).parents[2]
DOCS: Final = ROOT / "docs"
SCHEMAS: Final = DOCS / "schemas"
RELEASED: Final = SCHEMAS / "released"

_PART: Final = re.compile(r"(<!-- generated: (\S+) -->\n).*?(<!-- end -->)", re.DOTALL)

PARTS: Final[dict[str, Callable[[], str]]] = {
    "settings": lambda: markdown_table(entries(load_settings({}), {})),
    "topics": topic_table,
    "inputs": topic_pages,
    "metrics": metric_table,
}
PAGES: Final = ("README.md", "docs/producers.md", "docs/consumers.md", "docs/metrics.md")


class DocumentError(EngagementError):
    """A page asks for a part that nobody makes, or a release is there already."""


def documents() -> dict[Path, str]:
    """Path -> text of everything that is generated, pages with parts of it included."""
    found = {
        SCHEMAS / f"{message.stream}.json": as_text(json_schema(message))
        for message in message_schemas()
    }
    for kind, examples in INPUT_EXAMPLES.items():
        lines = [json.dumps(example) + "\n" for example in examples]
        found[DOCS / "examples" / f"{kind}.ndjson"] = "".join(lines)
    found[DOCS / "asyncapi.json"] = as_text(asyncapi())
    for name in PAGES:
        path = ROOT / name
        found[path] = filled(path.read_text(encoding="utf-8"))
    return found


def as_text(body: Any) -> str:
    """JSON that reads and compares well."""
    return json.dumps(body, indent=2, ensure_ascii=False) + "\n"


def filled(page: str) -> str:
    """The page with its generated parts up to date. Raises DocumentError."""

    def fill(match: re.Match[str]) -> str:
        start, name, end = match.groups()
        if name not in PARTS:
            raise DocumentError(f"no part is called {name}: {', '.join(PARTS)}")
        return f"{start}\n{PARTS[name]().strip()}\n\n{end}"

    return _PART.sub(fill, page)


def outdated() -> Iterator[Path]:
    """Documents that are not what the code says."""
    for path, text in documents().items():
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            yield path.relative_to(ROOT)


def release() -> Path:
    """Keep the schemas under the present version of the contract. Raises DocumentError."""
    folder = RELEASED / CONTRACT_VERSION
    if folder.exists():
        raise DocumentError(f"{CONTRACT_VERSION} is released: raise CONTRACT_VERSION")
    folder.mkdir(parents=True)
    for message in message_schemas():
        path = folder / f"{message.stream}.json"
        path.write_text(as_text(json_schema(message)), encoding="utf-8")
    return folder


@click.command()
@click.option("--check", is_flag=True, help="Write nothing; fail when a document is outdated.")
@click.option("--release", "releasing", is_flag=True, help="Keep the schemas as released.")
def main(check: bool, releasing: bool) -> None:
    """Write the documents that follow from the code."""
    try:
        if releasing:
            click.echo(f"kept in {release().relative_to(ROOT)}")
            return
        if check:
            behind = list(outdated())
            for path in behind:
                click.echo(f"{path} is not what the code says", err=True)
            if behind:
                click.echo("run .venv/bin/python -m service.cli.documents", err=True)
                sys.exit(1)
            return
        for path in list(outdated()):
            (ROOT / path).parent.mkdir(parents=True, exist_ok=True)
            (ROOT / path).write_text(documents()[ROOT / path], encoding="utf-8")
            click.echo(f"wrote {path}")
    except DocumentError as error:
        click.echo(f"documents: {error}", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
