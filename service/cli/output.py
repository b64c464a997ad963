"""What commands print: text from elsewhere made harmless, and plain tables."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

import click


def shown(text: str) -> str:
    """The text with control characters escaped: nothing from a topic may steer a terminal."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def shown_bytes(data: bytes | None) -> str:
    """Bytes as readable text; what is no UTF-8 is escaped. Null is said so."""
    return "null" if data is None else shown(data.decode("utf-8", "backslashreplace"))


def instant(at: datetime | None) -> str:
    """An instant to the second, UTC; a dash for none."""
    return "-" if at is None else at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def print_table(headings: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Columns as wide as they need to be, nothing cut off."""
    cells = [[shown(str(cell)) for cell in row] for row in rows]
    widths = [max(len(cell) for cell in column) for column in zip(headings, *cells, strict=True)]
    for line in (headings, *cells):
        padded = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        click.echo("  ".join(padded).rstrip())
