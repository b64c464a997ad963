"""Where the marks of a chart go. Templates draw them; a table beside says the same in numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime, timedelta
from typing import Final, NamedTuple

from service.api.pages import words
from service.api.values import TimelineFacts
from service.levels import Direction, Level

# ------------------------------------------------------------------------------- distribution


class Bar(NamedTuple):
    """A level with its members, share of all, and the bar's width (0 to 100)."""

    level: Level
    members: int
    share: str
    width: float


def distribution(levels: Mapping[Level, int]) -> list[Bar]:
    """One bar per level, the longest filling the width."""
    total = sum(levels.values())
    longest = max(levels.values(), default=0) or 1
    return [
        Bar(
            level,
            levels.get(level, 0),
            words.share(levels.get(level, 0), total),
            round(100 * levels.get(level, 0) / longest, 2),
        )
        for level in words.ORDER
    ]


# ---------------------------------------------------------------------------------- movements

MOVEMENT_WIDTH: Final = 480
MOVEMENT_HEIGHT: Final = 200
_PLOT_LEFT: Final = 44
_PLOT_TOP: Final = 8
_PLOT_BOTTOM: Final = 24


class Rect(NamedTuple):
    """A bar of the movements: direction of the move, position and size."""

    direction: Direction
    x: float
    y: float
    width: float
    height: float


class Tick(NamedTuple):
    """A label on an axis at a position."""

    at: float
    label: str


class DayRow(NamedTuple):
    """A day in numbers."""

    day: date
    counts: Mapping[Direction, int]


class MovementChart(NamedTuple):
    """Rises above the line, falls below it, by day."""

    rects: list[Rect]
    zero: float
    rows: list[DayRow]
    y_ticks: list[Tick]
    x_ticks: list[Tick]
    totals: Mapping[Direction, int]


def movement_chart(
    movements: Mapping[tuple[date, Direction], int], today: date, days: int = 30
) -> MovementChart:
    """The last `days` days up to today."""
    first = today - timedelta(days=days - 1)
    rows = [
        DayRow(day, {d: movements.get((day, d), 0) for d in Direction})
        for day in (first + timedelta(days=n) for n in range(days))
    ]
    up = max(1, *(row.counts[Direction.RISE] for row in rows))
    down = max(1, *(row.counts[Direction.FALL] for row in rows))
    height = MOVEMENT_HEIGHT - _PLOT_TOP - _PLOT_BOTTOM
    scale = height / (up + down)
    zero = _PLOT_TOP + up * scale
    slot = (MOVEMENT_WIDTH - _PLOT_LEFT) / days
    rects = []
    for number, row in enumerate(rows):
        x = round(_PLOT_LEFT + number * slot + slot * 0.15, 2)
        width = round(slot * 0.7, 2)
        rise, fall = row.counts[Direction.RISE], row.counts[Direction.FALL]
        if rise:
            top = round(zero - rise * scale, 2)
            rects.append(Rect(Direction.RISE, x, top, width, round(rise * scale, 2)))
        if fall:
            rects.append(Rect(Direction.FALL, x, round(zero, 2), width, round(fall * scale, 2)))
    y_ticks = [Tick(_PLOT_TOP, words.number(up)), Tick(zero, "0")]
    y_ticks.append(Tick(zero + down * scale, words.number(down)))
    x_ticks = [
        Tick(round(_PLOT_LEFT + (number + 0.5) * slot, 2), words.short_day(rows[number].day))
        for number in range(3, days, 7)
    ]
    totals = {d: sum(row.counts[d] for row in rows) for d in Direction}
    return MovementChart(rects, round(zero, 2), rows, y_ticks, x_ticks, totals)


# ----------------------------------------------------------------------------------- timeline

TIMELINE_WIDTH: Final = 960
TIMELINE_HEIGHT: Final = 168
TIMELINE_BACK: Final = timedelta(days=365)
_AHEAD: Final = timedelta(days=30)
_MAX_AHEAD: Final = timedelta(days=200)
# Room for the mark of the change.
_BEHIND: Final = timedelta(days=14)
_LETTER_WIDTH: Final = 8.5
_LABEL_MARGIN: Final = 16


class Band(NamedTuple):
    """A stretch of time at one level."""

    level: Level
    x: float
    width: float
    label: str


class Mark(NamedTuple):
    """Something that happened at a time."""

    x: float
    at: datetime
    what: str


class Timeline(NamedTuple):
    """Levels as bands, attendance and responses as marks, now and the next change as lines."""

    bands: list[Band]
    attended: list[Mark]
    responded: list[Mark]
    months: list[Tick]
    now: float
    window: float
    next_change: Mark | None


def timeline(
    facts: TimelineFacts,
    now: datetime,
    window_days: int,
    next_change: tuple[datetime, Level | None] | None,
) -> Timeline:
    """A year back, and as far ahead as the next change is, within limits."""
    start, end = now - TIMELINE_BACK, now + _AHEAD
    if next_change is not None:
        # The lesser first: behind the last day of the year 9999 there is none.
        end = max(end, min(next_change[0], now + _MAX_AHEAD - _BEHIND) + _BEHIND)

    def x(at: datetime) -> float:
        share = (at - start) / (end - start)
        return round(min(max(share, 0.0), 1.0) * TIMELINE_WIDTH, 2)

    def marks(facts_: Sequence[tuple[datetime, str]]) -> list[Mark]:
        return [Mark(x(at), at, what) for at, what in reversed(facts_) if at >= start]

    upcoming = None
    if next_change is not None and now <= next_change[0] <= end:
        level = next_change[1]
        label = "no level" if level is None else words.LEVELS[level]
        upcoming = Mark(x(next_change[0]), next_change[0], label)
    return Timeline(
        _bands(facts, start, now, x),
        marks(facts.attended),
        marks(facts.responded),
        [Tick(x(at), words.month(at)) for at in _months(start, end)],
        x(now),
        x(now - timedelta(days=window_days)),
        upcoming,
    )


def _bands(
    facts: TimelineFacts, start: datetime, now: datetime, x: Callable[[datetime], float]
) -> list[Band]:
    bands = []
    until = now
    for at, level in facts.levels:
        begin = max(at, start)
        if level is not None and begin < until:
            left, right = x(begin), x(until)
            label = words.LEVELS[level]
            if right - left < len(label) * _LETTER_WIDTH + _LABEL_MARGIN:
                label = ""
            bands.append(Band(level, left, round(right - left, 2), label))
        until = min(until, at)
        if at <= start:
            break
    return list(reversed(bands))


def _months(start: datetime, end: datetime) -> list[datetime]:
    found: list[datetime] = []
    year, month = start.year, start.month
    while True:
        year, month = (year + 1, 1) if month == 12 else (year, month + 1)  # noqa: PLR2004
        at = datetime(year, month, 1, tzinfo=start.tzinfo)
        if at >= end - timedelta(days=12):
            return found
        found.append(at)
