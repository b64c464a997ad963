"""Small pieces of HTML that pages are full of; made here rather than in templates, for speed."""

from __future__ import annotations

from datetime import datetime
from functools import cache, lru_cache
from typing import Final

from markupsafe import Markup

from service.api.pages import words
from service.instants import wire_time
from service.levels import Level

# Everything that goes into these is ours: names of levels, and instants.
_BADGE: Final = Markup('<span class="badge {}">{}</span>')
_ARROW: Final = Markup(
    '<span class="arrow" aria-hidden="true">→</span><span class="hidden">to</span>'
)
_STAYS: Final = Markup('<span class="faint">stays</span>')


# The same days and names are shown again and again while lists refresh themselves.
REMEMBERED: Final = 16_384


@cache
def badge(level: Level | None) -> Markup:
    """A level by name and colour."""
    if level is None:
        return _BADGE.format("none", "No level")
    return _BADGE.format(words.LEVEL_CLASSES[level], words.LEVELS[level])


@cache
def move(before: Level | None, after: Level | None) -> Markup:
    """From one level to another, or that it stays."""
    if before is after:
        return Markup('<span class="move">{}{}</span>').format(badge(before), _STAYS)
    return Markup('<span class="move">{}{}{}</span>').format(badge(before), _ARROW, badge(after))


@lru_cache(maxsize=REMEMBERED)
def time(at: datetime | None, otherwise: str = words.NOTHING) -> Markup:
    """The day of an instant; the rest is there for who asks. Without one, `otherwise`."""
    if at is None:
        return Markup('<span class="faint">{}</span>').format(otherwise)
    return Markup(  # noqa: S704 - made of an instant
        f'<time datetime="{wire_time(at)}" title="{words.minute(at)}">{words.day(at)}</time>'
    )


@lru_cache(maxsize=REMEMBERED)
def soon(at: datetime) -> Markup:
    """The day of an instant within months, so that the year goes without saying."""
    return Markup(  # noqa: S704 - made of an instant
        f'<time datetime="{wire_time(at)}" title="{words.minute(at)}">{words.short_day(at)}</time>'
    )


@lru_cache(maxsize=REMEMBERED)
def moment(at: datetime | None) -> Markup:
    """An instant to the minute."""
    if at is None:
        return Markup(words.NOTHING)  # noqa: S704 - a dash
    return Markup(  # noqa: S704 - made of an instant
        f'<time datetime="{wire_time(at)}">{words.minute(at)}</time>'
    )
