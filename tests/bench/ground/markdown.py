"""Tables for the docs."""

from __future__ import annotations

from collections.abc import Sequence


def markdown_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown, with an empty line after it."""
    rules = [" --- ", *(" ---: " for _ in columns[1:])]
    lines = ["| " + " | ".join(columns) + " |", "|" + "|".join(rules) + "|"]
    lines += ["| " + " | ".join(str(cell).replace("|", "\\|") for cell in row) + " |"
              for row in rows]  # fmt: skip
    return "\n".join(lines) + "\n"
