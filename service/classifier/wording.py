"""How each situation reads: both texts, put together from clauses.

Placeholders stand for every number and date, so that few pairs serve everybody. No text begins a
sentence with a name, since `{member}` may become "this member". The member's texts say "with
{org}", never "at" or "in": the name that follows could complete a hurtful word.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final, NamedTuple

from service.levels import Level, Reason
from service.texts import LEVEL_NAMES, Texts


class Count(IntEnum):
    """How a number reads: none, one, several."""

    NONE = 0
    ONE = 1
    SEVERAL = 2


class Trace(IntEnum):
    """What a silent member was last seen doing."""

    ATTENDED = 0
    ATTENDED_THEN_SIGN = 1
    SIGN = 2
    JOINED = 3


class Shape(NamedTuple):
    """What makes two situations of one reason read differently.

    `events`: attended in the window. `needed`: more events for the next level up. `inferred`: the
    joining date is the first activity. `sign`: accepted an invitation since last attending.
    `falls`: the next change of level is for the worse, or leads out of being new.
    """

    reason: Reason
    events: Count = Count.NONE
    needed: Count = Count.NONE
    inferred: bool = False
    sign: bool = False
    falls: bool = False
    trace: Trace = Trace.ATTENDED


# ------------------------------------------------------------------------------- common clauses


def _attended(events: Count) -> str:
    return "{events} events" if events is Count.SEVERAL else "one event"


def _more_for_admin(shape: Shape, level: str) -> str:
    """What would lift the member: "before" a date while earlier events still count for it."""
    when = "within {window_days} days" if shape.events is Count.NONE else "before {before}"
    more = "" if shape.events is Count.NONE else " more"
    if shape.needed is Count.ONE:
        return f" One{more or ' attended'} event {when} makes the level {level}."
    return f" {{needed}}{more} events {when} make the level {level}."


def _fall_for_admin(shape: Shape) -> str:
    if not shape.falls:
        return ""
    return " With nothing further the level becomes {next_level} on {next_level_change}."


def _joined(shape: Shape) -> str:
    return "was first seen on {joined}" if shape.inferred else "joined on {joined}"


# ---------------------------------------------------------------------------- a pair per reason


def _frequent(shape: Shape) -> Texts:
    admin = (
        "Highly engaged with {org}: {member} attended {events} events in the last {window_days} "
        "days, most recently on {last_attended}; {highly_min} are enough for this level."
    )
    user = (
        "You have been to {events} events with {org} in the last {window_days} days, most recently "
        "on {last_attended}. Thank you: people like you make it what it is."
    )
    if shape.falls:
        admin += (
            " Without another event the level becomes {next_level} on {next_level_change}, so an "
            "invitation before then keeps it."
        )
        user += " Coming along once more before {next_level_change} keeps you among our regulars."
    return Texts(admin, user)


def _recent(shape: Shape) -> Texts:
    admin = f"New to {{org}}: {{member}} {_joined(shape)} and has "
    user = (
        "We first saw you on {joined}: welcome to {org}."
        if shape.inferred
        else "You joined on {joined}: welcome to {org}."
    )
    if shape.events is Count.NONE:
        admin += "not attended an event in the last {window_days} days"
        admin += ", but accepted an invitation on {last_rsvp}." if shape.sign else "."
        user += (
            " You accepted an invitation on {last_rsvp}, and we look forward to meeting you."
            if shape.sign
            else " Pick any event that appeals to you: it is the best way to meet people."
        )
    else:
        admin += f"already attended {_attended(shape.events)}, most recently on {{last_attended}}."
        user += (
            f" You have already come to {_attended(shape.events)}, most recently on "
            "{last_attended}, which is a lovely start."
        )
        user += _more_for_user(shape)
    return Texts(admin + _more_for_admin(shape, "highly engaged") + _fall_for_admin(shape), user)


def _more_for_user(shape: Shape) -> str:
    if shape.needed is Count.ONE:
        return " One more event before {before} makes you one of our regulars."
    return " {needed} more events before {before} make you one of our regulars."


def _some(shape: Shape) -> Texts:
    attended = _attended(shape.events)
    admin = (
        f"Moderately engaged with {{org}}: {{member}} attended {attended} in the last "
        "{window_days} days, most recently on {last_attended}; {highly_min} are needed for highly "
        "engaged."
    )
    user = (
        f"You have been to {attended} with {{org}} in the last {{window_days}} days, most recently "
        "on {last_attended}. It is good to have you there."
    )
    admin += _more_for_admin(shape, "highly engaged")
    user += _more_for_user(shape)
    return Texts(admin + _fall_for_admin(shape), user)


def _lapsed(shape: Shape) -> Texts:
    if shape.events is Count.NONE:
        admin = (
            "At risk of drifting away from {org}: {member} last attended on {last_attended}, and "
            "nothing in the last {window_days} days."
        )
        user = (
            "We enjoyed seeing you on {last_attended}, and everyone with {org} would be glad to "
            "see you again."
        )
    else:
        admin = (
            f"At risk of drifting away from {{org}}: {{member}} attended {_attended(shape.events)} "
            "in the last {window_days} days, most recently on {last_attended}; {moderate_min} are "
            "needed for moderate."
        )
        user = (
            "We enjoyed seeing you on {last_attended}, and everyone with {org} hopes that you will "
            "come again soon."
        )
    if shape.sign:
        admin += " An invitation accepted on {last_rsvp} shows interest: a good moment to call."
        user += " You accepted an invitation on {last_rsvp}; we hope that it works out."
    elif shape.events is Count.NONE:
        admin += " A personal invitation to something like that event is worth a try."
        user += " Have a look at what is coming up: one event is all it takes to catch up."
    return Texts(admin + _more_for_admin(shape, "moderate") + _fall_for_admin(shape), user)


def _never(shape: Shape) -> Texts:
    admin = f"At risk of never arriving at {{org}}: {{member}} {_joined(shape)} and "
    user = (
        "We first heard from you on {joined}, and everyone with {org} would love to meet you."
        if shape.inferred
        else "You joined on {joined}, and everyone with {org} would love to meet you."
    )
    if shape.sign:
        admin += (
            "accepted an invitation on {last_rsvp}, but has not attended an event yet. Asking what "
            "got in the way may help."
        )
        user += (
            " You accepted an invitation on {last_rsvp}; if something came up, another event will "
            "be just as welcoming."
        )
    else:
        admin += "has not attended an event yet. A welcome from someone they may know helps most."
        user += (
            " A first event is the easiest way to get to know people: choose one that appeals to "
            "you, and somebody will show you round."
        )
    return Texts(admin + _more_for_admin(shape, "moderate") + _fall_for_admin(shape), user)


_SILENT_FOR_ADMIN: Final = {
    Trace.ATTENDED: "{member} attended an event on {last_attended}, with no activity since.",
    Trace.ATTENDED_THEN_SIGN: (
        "{member} last attended an event on {last_attended}, and the last sign of activity was on "
        "{last_activity}."
    ),
    Trace.SIGN: (
        "{member} has not attended an event, and the last sign of activity was on {last_activity}."
    ),
    Trace.JOINED: "{member} joined on {joined}, with no activity since.",
}
_SILENT_FOR_USER: Final = {
    Trace.ATTENDED: "We remember your visit on {last_attended}, and your place with {org} is kept.",
    Trace.ATTENDED_THEN_SIGN: (
        "We remember your visit on {last_attended}, and your place with {org} is kept."
    ),
    Trace.SIGN: "We last heard from you on {last_activity}, and your place with {org} is kept.",
    Trace.JOINED: "You have been with {org} since {joined}, and your place is kept.",
}


def _silent(shape: Shape) -> Texts:
    return Texts(
        f"Inactive at {{org}}: {_SILENT_FOR_ADMIN[shape.trace]}"
        " Asking whether their interests have changed is a friendly way to begin."
        + _more_for_admin(shape, "moderate"),
        f"{_SILENT_FOR_USER[shape.trace]}"
        " Whenever you feel like it, come to any event: no catching up needed.",
    )


_WRITERS: Final = {
    Reason.FREQUENT_ATTENDANCE: _frequent,
    Reason.RECENTLY_JOINED: _recent,
    Reason.SOME_ATTENDANCE: _some,
    Reason.LAPSED: _lapsed,
    Reason.NEVER_ATTENDED: _never,
    Reason.NO_ACTIVITY: _silent,
}


def write(shape: Shape) -> Texts:
    """The pair for one shape of situation."""
    return _WRITERS[shape.reason](shape)


# ------------------------------------------------------------------------------ under an override

_OVERRIDE_FOR_USER: Final = {
    Level.HIGHLY_ENGAGED: (
        "Thank you for all that you do with {org}: it is noticed, and it makes a difference."
    ),
    Level.MODERATE: "It is good to have you with {org}. There is always room at the next event.",
    Level.NEW: (
        "Welcome to {org}. Pick any event that appeals to you; a first visit is the best way to "
        "meet people."
    ),
    Level.AT_RISK: (
        "Everyone with {org} would love to see you again. Have a look at what is coming up and "
        "come along to whatever appeals to you."
    ),
    Level.INACTIVE: (
        "Your place with {org} is kept. Whenever you feel like it, come to any event: no catching "
        "up needed."
    ),
}


def write_override(level: Level, expires: bool) -> Texts:
    """The pair for a level that an administrator set."""
    listed = f'Set by an administrator of {{org}}: {{member}} is listed as "{LEVEL_NAMES[level]}"'
    until = (
        " until {override_until}; after that the computed level applies again."
        if expires
        else " until an administrator clears this decision."
    )
    return Texts(listed + until, _OVERRIDE_FOR_USER[level])
