"""Small pieces of HTML that pages are full of; made here rather than in templates, for speed."""

from __future__ import annotations

from datetime import datetime
from functools import cache
from typing import Final

from markupsafe import Markup

from service.api.pages import words
from service.levels import Level

# Everything that goes into these is ours: names of levels, and instants.
_BADGE: Final = Markup('<span class="badge {}">{}</span>')
_ARROW: Final = Markup(
    '<span class="arrow" aria-hidden="true">→</span><span class="hidden">to</span>'
)


@cache
def badge(level: Level | None) -> Markup:
    """A level by name and colour."""
    if level is None:
        return _BADGE.format("none", "No level")
    return _BADGE.format(words.LEVEL_CLASSES[level], words.LEVELS[level])


@cache
def move(before: Level | None, after: Level | None) -> Markup:
    """From one level to another."""
    return Markup('<span class="move">{}{}{}</span>').format(badge(before), _ARROW, badge(after))


def time(at: datetime | None) -> Markup:
    """The day of an instant; the rest is there for who asks."""
    if at is None:
        return Markup(words.NOTHING)  # noqa: S704 - a dash
    return Markup(  # noqa: S704 - made of an instant
        f'<time datetime="{iso(at)}" title="{words.minute(at)}">{words.day(at)}</time>'
    )


def moment(at: datetime | None) -> Markup:
    """An instant to the minute."""
    if at is None:
        return Markup(words.NOTHING)  # noqa: S704 - a dash
    return Markup(  # noqa: S704 - made of an instant
        f'<time datetime="{iso(at)}">{words.minute(at)}</time>'
    )


def iso(at: datetime) -> str:
    """As machines read it."""
    return at.isoformat().replace("+00:00", "Z")
