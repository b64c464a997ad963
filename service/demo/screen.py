"""The picture as one live screen on a terminal, or as a line now and then elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Final, Protocol, Self

from rich import box
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from service.demo.picture import Picture
from service.events import InputKind
from service.levels import Level

REFRESH_PER_S: Final = 4
BAR_WIDTH: Final = 24
COLORS: Final = {
    Level.HIGHLY_ENGAGED: "green",
    Level.MODERATE: "cyan",
    Level.NEW: "blue",
    Level.AT_RISK: "yellow",
    Level.INACTIVE: "red",
}


class Display(Protocol):
    """Somewhere to show the picture."""

    def say(self, text: str) -> None:
        """Something worth a line of its own."""

    def tick(self) -> None:
        """Some seconds have passed."""


def display(picture: Picture, *, plain: bool) -> AbstractContextManager[Display]:
    """A live screen if standard output is a terminal and nobody wants plain lines."""
    console = Console()
    return (
        PlainDisplay(picture) if plain or not console.is_terminal else LiveDisplay(picture, console)
    )


class PlainDisplay(AbstractContextManager["PlainDisplay"]):
    """Lines with the seconds since the start."""

    def __init__(self, picture: Picture) -> None:
        self._picture = picture

    def say(self, text: str) -> None:
        """One line."""
        sys.stdout.write(f"[{self._picture.elapsed_s:5.0f} s] {text}\n")
        sys.stdout.flush()

    def tick(self) -> None:
        """One line that sums up."""
        self.say(summary(self._picture))

    def __exit__(self, *_: object) -> None:
        """Nothing to leave behind."""


class LiveDisplay(AbstractContextManager["LiveDisplay"]):
    """One screen that is drawn anew several times a second."""

    def __init__(self, picture: Picture, console: Console) -> None:
        self._picture = picture
        self._live = Live(
            console=console,
            refresh_per_second=REFRESH_PER_S,
            vertical_overflow="crop",
            get_renderable=lambda: screen(picture),
        )

    def say(self, text: str) -> None:
        """It becomes the title of the screen."""
        self._picture.stage = text

    def tick(self) -> None:
        """Nothing: the screen is drawn by itself."""

    def __enter__(self) -> Self:
        """Begin to draw."""
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Leave the last picture."""
        self._live.stop()


def summary(picture: Picture) -> str:
    """The picture in one line."""
    levels = ", ".join(f"{level} {count}" for level, count in picture.distribution.most_common())
    return (
        f"sent {picture.sent.total()}, applied {picture.applied.total()}, "
        f"level records {picture.level_records}, changes {picture.changes.total()}, "
        f"dead letters {picture.dead_letters.total()}; {levels or 'no levels yet'}"
    )


def screen(picture: Picture) -> RenderableType:
    """The whole screen."""
    title = Text.assemble(
        ("Engagement scoring", "bold"), f"  {picture.elapsed_s:.0f} s  ", (picture.stage, "italic"),
        ("  Ctrl-C ends everything", "dim"),
    )  # fmt: skip
    top = _side_by_side(_inputs(picture), _levels(picture))
    bottom = _side_by_side(_outputs(picture), _dead_letters(picture))
    links = [Text(link, "underline", overflow="fold") for link in picture.links]
    # What does not fit on a small terminal is cut off below.
    return Group(title, *links, top, _changes(picture), bottom)


def _side_by_side(*parts: RenderableType) -> Table:
    grid = Table.grid(expand=True)
    for _ in parts:
        grid.add_column(ratio=1)
    grid.add_row(*parts)
    return grid


def _inputs(picture: Picture) -> Panel:
    table = Table(box=None, expand=True)
    table.add_column("topic of")
    table.add_column("sent", justify="right")
    table.add_column("applied", justify="right")
    for kind in InputKind:
        sent, applied = picture.sent[kind.value], picture.applied[kind.value]
        table.add_row(kind.value, f"{sent:,}", f"{applied:,}")
    return _panel("What goes in", table)


def _levels(picture: Picture) -> Panel:
    counts = picture.distribution
    most = max(counts.values(), default=0) or 1
    table = Table.grid(padding=(0, 1))
    for level in Level:
        bar = Text("█" * round(BAR_WIDTH * counts[level.value] / most), COLORS[level])
        table.add_row(level.value, f"{counts[level.value]:>6,}", bar)
    table.add_row("with a level", f"{counts.total():>6,}", "")
    return _panel("Levels now", table)


def _changes(picture: Picture) -> Panel:
    table = Table.grid(padding=(0, 1))
    for change in reversed(picture.recent):
        # Only the rounded start of long ids: the levels are what one looks at.
        org_id, _, user_id = change.key.partition(":")
        table.add_row(
            Text(org_id), Text(user_id[:13]), _level(change.from_level), "→",
            _level(change.to_level), Text(change.cause, "dim"),
        )  # fmt: skip
    return _panel("Latest changes of level", table)


def _outputs(picture: Picture) -> Panel:
    rows = {
        "level records": picture.level_records,
        "of them tombstones": picture.tombstones,
        "change records": picture.changes.total(),
        **{f"  because of {cause}": count for cause, count in picture.changes.most_common()},
    }
    return _panel("What comes out", _counted(rows))


def _dead_letters(picture: Picture) -> Panel:
    return _panel("Dead letters by code", _counted(dict(picture.dead_letters.most_common())))


def _counted(rows: Mapping[str, int]) -> Table:
    table = Table.grid(padding=(0, 1))
    table.add_column()
    table.add_column(justify="right")
    for name, count in rows.items():
        table.add_row(Text(name), f"{count:,}")
    return table


def _level(level: str | None) -> Text:
    return Text("none", "dim") if level is None else Text(level, COLORS[Level(level)])


def _panel(title: str, content: RenderableType) -> Panel:
    return Panel(content, title=title, title_align="left", box=box.ROUNDED)
