"""The fenced blocks of the project's pages: what a reader copies, and what the tests run."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])

# Also in the item of a list, where all lines of the block are set in.
_FENCE = re.compile(r"^( *)```(\S*)\s*$")
_HEADING = re.compile(r"^(#+) (.+)$")


@dataclass(frozen=True)
class Block:
    """One block: where it is, under which heading, in which language, and its text."""

    page: str
    line: int
    heading: str
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def blocks_of(path: Path) -> Iterator[Block]:
    """The blocks of a page, in order. A fence that is never closed is an error."""
    heading, opened, language, margin = "", 0, "", ""
    lines: list[str] = []
    page = str(path.relative_to(ROOT))
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        fence = _FENCE.match(line)
        if opened and line == f"{margin}```":
            yield Block(page, opened, heading, language, "\n".join(lines) + "\n")
            opened, lines = 0, []
        elif opened:
            assert line.startswith(margin) or not line, f"{page}:{number}: leaves the block"
            lines.append(line.removeprefix(margin))
        elif fence:
            opened, margin, language = number, fence[1], fence[2]
        elif title := _HEADING.match(line):
            heading = title[2]
    assert not opened, f"{page}:{opened}: the block is never closed"


def blocks(page: str, language: str = "", heading: str = "") -> list[Block]:
    """The blocks of a page by its name, of one language, under one heading; never none."""
    found = [
        block
        for block in blocks_of(ROOT / page)
        if language in ("", block.language) and heading in ("", block.heading)
    ]
    assert found, f"{page} has no block of {language or 'any language'} under {heading or 'any'}"
    return found


def without_blocks(text: str) -> str:
    """A page's text with its blocks left out."""
    return re.sub(r"^( *)```.*?^\1```$", "", text, flags=re.DOTALL | re.MULTILINE)


def headings_of(path: Path) -> list[str]:
    """The headings of a page, those in blocks left out."""
    text = without_blocks(path.read_text(encoding="utf-8"))
    return [match[2] for match in re.finditer(r"^(#+) (.+)$", text, re.MULTILINE)]


def anchor_of(heading: str) -> str:
    """What a heading is linked to by."""
    kept = re.sub(r"[^\w\- ]", "", heading.lower())
    return kept.replace(" ", "-")
