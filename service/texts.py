"""The two explanations: stored with placeholders, rendered when read.

Templates are few and shared by everybody in the same situation; names and dates are put in here.
The member's own text never holds a hurtful word, whatever an organisation calls itself.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from datetime import date, datetime
from functools import lru_cache
from typing import Final, NamedTuple, cast

from service.evaluation import Evaluation
from service.levels import STATUS_LABELS, Level
from service.thresholds import DEFAULT_THRESHOLDS, Thresholds

YOUR_ORGANISATION: Final = "your organisation"
THIS_MEMBER: Final = "this member"

# What an administrator reads for a level; the member reads STATUS_LABELS.
LEVEL_NAMES: Final = {level: level.value.replace("_", " ") for level in Level}

_MONTHS: Final = (
    "January", "February", "March", "April", "May", "June",
    "July", "August", "September", "October", "November", "December",
)  # fmt: skip

_HURTFUL: Final = ("atrisk", "inactive")
_NOT_A_TO_Z: Final = re.compile(r"[^a-z]+")
# Letters of other alphabets that look like those of the hurtful words.
_LOOKALIKES: Final = str.maketrans("аαтτгіιıѕкκпсνе", "aattriiiskkncve")
_PLACEHOLDER: Final = re.compile(r"\{([^{}]*)\}")
_BRACES: Final = str.maketrans("{}", "()")
# Joiners are part of how some languages and emoji are written; other invisible characters are not.
_KEPT_INVISIBLE: Final = "\u200c\u200d"
# Stands in if a stored template is itself hurtful, which the guard does not let happen.
_PLAIN_USER_TEMPLATE: Final = "It is good to have you with {org}."


class Texts(NamedTuple):
    """Both explanations, with placeholders: for administrators, and for the member."""

    admin: str
    user: str


class TextValues(NamedTuple):
    """What placeholders stand for. Instants are aware UTC; None where there is none.

    `org_name` is the organisation's name, or its id where no record gives a name. `member_name`
    None gives "this member", as in topics.
    """

    org_name: str
    member_name: str | None = None
    thresholds: Thresholds = DEFAULT_THRESHOLDS
    events: int = 0
    last_attended_at: datetime | None = None
    last_rsvp_at: datetime | None = None
    profile_updated_at: datetime | None = None
    joined_at: datetime | None = None
    next_change_at: datetime | None = None
    next_level_change_at: datetime | None = None
    next_level: Level | None = None
    improvement_events: int | None = None
    improvement_before: datetime | None = None
    override_expires_at: datetime | None = None


def values_of(
    evaluation: Evaluation,
    thresholds: Thresholds,
    org_name: str,
    override_expires_at: datetime | None = None,
) -> TextValues:
    """The values of a fresh evaluation, without the member's name, as topics want them."""
    signals, improvement = evaluation.signals, evaluation.improvement
    return TextValues(
        org_name,
        None,
        thresholds,
        signals.events_attended_90d,
        signals.last_attended_at,
        signals.last_rsvp_at,
        signals.profile_updated_at,
        signals.joined_at,
        evaluation.next_change_at,
        evaluation.next_level_change_at,
        evaluation.next_level,
        None if improvement is None else improvement.events,
        None if improvement is None else improvement.before,
        override_expires_at,
    )


def is_clean(text: str) -> bool:
    """Whether the text is free of the hurtful words, in whatever spelling.

    Only the letters a to z are looked at, run together, so that no spacing, hyphen, underscore,
    accent or invisible character hides a word. Strict on purpose: "remain active" is refused too,
    since a reader's own search for the word may find it there.
    """
    if not text.isascii():
        decomposed = unicodedata.normalize("NFKD", text).casefold().translate(_LOOKALIKES)
    else:
        decomposed = text.lower()
    letters = _NOT_A_TO_Z.sub("", decomposed)
    return not any(word in letters for word in _HURTFUL)


@lru_cache(maxsize=16_384)
def plain_name(name: str) -> str:
    """A name as one line of plain text: no control, bidirectional or invisible characters."""
    kept = "".join(
        " " if (category := unicodedata.category(character)) in ("Zl", "Zp", "Cc")
        else "" if category in ("Cf", "Cs") and character not in _KEPT_INVISIBLE
        else character
        for character in name
    )  # fmt: skip
    return " ".join(kept.translate(_BRACES).split()).strip(_KEPT_INVISIBLE)


@lru_cache(maxsize=32_768)
def _day(ordinal: int) -> str:
    day = date.fromordinal(ordinal)
    return f"{day.day} {_MONTHS[day.month - 1]} {day.year}"


def in_words(at: datetime) -> str:
    """The day of an instant, written out: "4 March 2026"."""
    return _day(at.toordinal())


# ------------------------------------------------------------------------------- placeholders

_Getter = Callable[[TextValues, str], str]


def _date_or(field: str, otherwise: str) -> _Getter:
    position = TextValues._fields.index(field)

    def get(values: TextValues, _org: str) -> str:
        at = cast("datetime | None", values[position])
        return _day(at.toordinal()) if at is not None else otherwise

    return get


def _last_activity(values: TextValues, _org: str) -> str:
    dates = (
        values.last_attended_at,
        values.last_rsvp_at,
        values.profile_updated_at,
        values.joined_at,
    )
    known = [at for at in dates if at is not None]
    return in_words(max(known)) if known else "an earlier date"


_EARLIER: Final = "an earlier date"
_LATER: Final = "a later date"

_COMMON: Final[dict[str, _Getter]] = {
    "org": lambda _values, org: org,
    "events": lambda values, _org: str(values.events),
    "needed": lambda values, _org: str(values.improvement_events or 1),
    "window_days": lambda values, _org: str(values.thresholds.activity_window_days),
    "highly_min": lambda values, _org: str(values.thresholds.highly_engaged_min_events),
    "moderate_min": lambda values, _org: str(values.thresholds.moderate_min_events),
    "last_attended": _date_or("last_attended_at", _EARLIER),
    "last_rsvp": _date_or("last_rsvp_at", _EARLIER),
    "joined": _date_or("joined_at", _EARLIER),
    "last_activity": _last_activity,
    "next_change": _date_or("next_change_at", _LATER),
    "next_level_change": _date_or("next_level_change_at", _LATER),
    "before": _date_or("improvement_before", _LATER),
    "override_until": _date_or("override_expires_at", _LATER),
}


def _member(values: TextValues, _org: str) -> str:
    return (plain_name(values.member_name) if values.member_name else "") or THIS_MEMBER


_ADMIN: Final[dict[str, _Getter]] = {
    **_COMMON,
    "member": _member,
    "next_level": lambda values, _org: (
        LEVEL_NAMES[values.next_level] if values.next_level is not None else "another level"
    ),
}
_USER: Final[dict[str, _Getter]] = {
    **_COMMON,
    "member": lambda _values, _org: "you",
    "next_level": lambda values, _org: (
        STATUS_LABELS[values.next_level] if values.next_level is not None else "something new"
    ),
}

# Every name that a template may use.
PLACEHOLDERS: Final = frozenset(_ADMIN)


def placeholders_in(template: str) -> set[str]:
    """The names between braces, known or not."""
    return set(_PLACEHOLDER.findall(template))


def with_placeholders_as(word: str, template: str) -> str:
    """The words around the placeholders, with the same word for each of these."""
    return _PLACEHOLDER.sub(word, template)


# ---------------------------------------------------------------------------------- rendering


class _Program(NamedTuple):
    """A template ready to be filled: a format with one `%s` per getter."""

    form: str
    getters: tuple[_Getter, ...]


def _compile(template: str, known: dict[str, _Getter]) -> _Program:
    pieces: list[str] = []
    getters: list[_Getter] = []
    # split() with one group alternates: literal, name, literal, name, ... literal.
    for position, piece in enumerate(_PLACEHOLDER.split(template)):
        if position % 2 == 0:
            pieces.append(piece.replace("{", "").replace("}", "").replace("%", "%%"))
        elif piece in known:
            pieces.append("%s")
            getters.append(known[piece])
    return _Program("".join(pieces), tuple(getters))


@lru_cache(maxsize=16_384)
def _admin_program(template: str) -> _Program:
    return _compile(template, _ADMIN)


@lru_cache(maxsize=16_384)
def _user_program(template: str) -> _Program:
    return _compile(template if is_clean(template) else _PLAIN_USER_TEMPLATE, _USER)


@lru_cache(maxsize=65_536)
def _org_for_user(template: str, org_name: str) -> str:
    """The name as this text may show it: the words around it can complete a hurtful word."""
    name = plain_name(org_name)
    around = _PLACEHOLDER.sub(lambda found: name if found[1] == "org" else "", template)
    return name if name and is_clean(name) and is_clean(around) else YOUR_ORGANISATION


def render_admin(template: str, values: TextValues) -> str:
    """The administrator's text as plain text; escaping is the page's business. Never fails."""
    form, getters = _admin_program(template)
    org = plain_name(values.org_name) or YOUR_ORGANISATION
    return form % tuple([get(values, org) for get in getters])


def render_user(template: str, values: TextValues) -> str:
    """The member's own text as plain text, free of hurtful words. Never fails."""
    form, getters = _user_program(template)
    org = _org_for_user(template, values.org_name)
    return form % tuple([get(values, org) for get in getters])
